"""What a run sends to its workers: the function with what it needs of the program, and the items."""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import Any, NamedTuple

from .pickling import REBUILT, Mode, Named, ProjectPickler, content, home_of
from .project_modules import is_project_module, resolve
from .reads import globals_read, modules_read
from .rebuild import load
from .unsent import Culprit, UnsentValueError, cure, find_culprit, import_of, type_name

MAX_VALUE_BYTES = 100_000_000
"""Bytes of a module's value that are sent. A larger one goes by reference if its module can be imported."""


PLAIN_TYPES = frozenset({int, float, bool, str, bytes, type(None)})
"""Types of items and results that need no packing."""


class Packed(NamedTuple):
    """A pickle in its parts.

    Attributes:
        data: The pickle.
        buffers: The memory of its arrays, which need not be copied.
        carried: What can't be pickled alone and travels beside it.
    """

    data: bytes
    buffers: list[pickle.PickleBuffer]
    carried: list[Any]

    def load(self) -> Any:
        """Return what was packed; of what was defined, the value."""
        value = load(self.data, self.buffers, self.carried)
        return value.value if type(value) is _Defined else value

    def size(self) -> int:
        """Return its bytes."""
        return len(self.data) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


class _Read(NamedTuple):
    """A value in a function or a class.

    Attributes:
        module: The module that can go by reference.
        where: What it is, as text: ``the global 'model' that embed reads``.
        name: Its name there.
        value: The value.
    """

    module: str
    where: str
    name: str
    value: Any


class _Blame(NamedTuple):
    """The value that something can't be sent for.

    Attributes:
        owner: The function or the class that has it.
        read: The value.
        fault: What is wrong with it, as the rest of a sentence.
        error: What pickling it raises; None if it is too big.
    """

    owner: Any
    read: _Read
    fault: str
    error: Exception | None


def pack_result(pickler: type[ProjectPickler], value: Any) -> Packed:
    """Pack what a worker sends back: the project's functions and classes by name.

    Raises:
        Exception: What pickling raises.
    """
    return _pack(pickler("result"), value)


def pack_item(pickler: Callable[[Mode], ProjectPickler], value: Any) -> Packed:
    """Pack an item for a worker that has all functions and classes of the program.

    Raises:
        Exception: What pickling raises.
    """
    return _pack(pickler("item"), value)


def is_plain(values: Iterable[Any]) -> bool:
    """Return whether values need no packing."""
    return PLAIN_TYPES.issuperset(map(type, values))


class Shipment:
    """What a run sends, and has sent already.

    Args:
        pickler: Pickles for the run's workers.
        max_value_bytes: Up to which size a value of a module is sent.

    Attributes:
        by_reference: Modules that go by reference, and why.
        modules: Where the functions, classes and types of what was packed are from.
    """

    def __init__(self, pickler: type[ProjectPickler], *, max_value_bytes: int = MAX_VALUE_BYTES) -> None:
        self.by_reference: dict[str, str] = {}
        self._pickler, self._max_bytes = pickler, max_value_bytes
        self._shipped: set[Named] = set()
        self.modules: set[str] = set()

    def define(self, value: Any) -> Packed:
        """Pack a value with the code and the values that it reaches in the project's modules.

        Raises:
            UnsentValueError: A value that a function reads can't be pickled.
            Exception: What pickling raises for another value.
        """
        while True:
            used = self._pickler("define", shipped=self._shipped, by_reference=self.by_reference)
            try:
                # What is called first: functions that call others, which call others, would go too deep.
                packed = _pack(used, _Defined([*_callees_first(value)], value))
            except Exception as error:  # pickling is code of the user's classes, and may raise anything
                if not self._refer_instead(used, error):
                    raise
                continue
            if packed.size() <= self._max_bytes or not self._refer(self._blamed(used.pickled)):
                self._shipped |= used.reached.keys()
                self.modules |= used.modules
                return packed

    def name(self, value: Any) -> tuple[Packed, Packed | None]:
        """Pack an item, and what its classes are if the workers do not have them yet.

        Raises:
            Exception: What pickling raises.
        """
        used = self._pickler("item", by_reference=self.by_reference)
        packed = _pack(used, value)
        self.modules |= used.modules
        new = used.reached.keys() - self._shipped
        if not new:
            return packed, None
        return packed, self.define([resolve(sys.modules.get(module), name) for module, name in sorted(new)])

    def _refer_instead(self, used: ProjectPickler, error: Exception) -> bool:
        """Let a module go by reference for which pickling has failed; return whether there is a new one."""
        if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
            modules = {
                module for module, _ in used.reached if module != "__main__"
            } - self.by_reference.keys()
            self.by_reference |= dict.fromkeys(modules, "the functions call each other too deeply")
            return bool(modules)
        blamed = list(self._blamed(used.pickled))
        if self._refer(blamed):
            return True
        for owner, read, _, cause in blamed:
            if cause is not None:
                found = find_culprit(read.name, read.value, cause, self._pickler)
                kind = "" if found.value is read.value else f", {type_name(read.value)},"
                text = f"{read.where}{kind} can't be pickled: {found}.\n{_cure(owner, read, found)}"
                raise UnsentValueError(text) from error
        return False

    def _refer(self, blamed: Iterable[_Blame]) -> bool:
        """Let the first module go by reference that can; return whether there is one."""
        for _, read, fault, _ in blamed:
            if self._importable(read.module):
                self.by_reference[read.module] = f"{read.where} {fault}"
                return True
        return False

    def _importable(self, module: str) -> bool:
        """Return whether a module that does not go by reference yet can."""
        spec = getattr(sys.modules.get(module), "__spec__", None)
        return module != "__main__" and spec is not None and module not in self.by_reference

    def _blamed(self, pickled: list[Any]) -> Iterator[_Blame]:
        """Yield values that can't be pickled, or are too big, the last one first."""
        for owner in reversed(pickled):
            for read in _parts(owner) if is_project_module(owner.__module__) else ():
                fault, error = self._fault(read.value)
                if fault:
                    yield _Blame(owner, read, fault, error)

    def _fault(self, value: Any) -> tuple[str, Exception | None]:
        try:
            size = _pack(self._pickler("item"), value).size()
        except Exception as error:  # as above
            text = str(error).partition("\n")[0]
            return f"can't be pickled ({type(error).__name__}: {text})", error
        return f"has {size / 1e6:,.0f} MB" if size > self._max_bytes else "", None


def _cure(owner: Any, read: _Read, culprit: Culprit) -> str:
    """Return what to do about a value that a function or a class has."""
    reader = owner.__name__ if isinstance(owner, type) else f"{owner.__name__}()"
    if owner.__name__ == "<lambda>":
        reader = "the lambda"
    if imported := import_of(read.value):
        return f"Import it inside {reader}: {imported}"
    return cure(culprit, reader, in_main=read.module == "__main__" and "<" not in owner.__qualname__)


class _Defined(NamedTuple):
    first: list[Any]
    value: Any


def _pack(pickler: ProjectPickler, value: Any) -> Packed:
    pickler.dump(value)
    return Packed(pickler.file.getvalue(), pickler.buffers, pickler.carried)


def _callees_first(value: Any) -> Iterator[Any]:
    """Yield the project's functions and classes that a value reaches, each after those that it uses."""
    seen: set[int] = set()
    path = [(value, _used_by(value))]
    while path:
        each, waiting = path[-1]
        for used in waiting:
            if id(used) not in seen:
                seen.add(id(used))
                path.append((used, _used_by(used)))
                break
        else:
            path.pop()
            if path:
                yield each


def _used_by(value: Any) -> Iterator[Any]:
    """Yield the functions and classes of the project that a value uses itself."""
    if type(value) is MethodType:
        found = [value.__func__, type(value.__self__)]
    elif isinstance(value, functools.partial):
        found = [value.func]
    elif type(value) in REBUILT:
        found = [getattr(value, "__wrapped__", None)]
    elif isinstance(value, type):
        found = [*value.__bases__, *(getattr(each, "__func__", each) for each in vars(value).values())]
    elif type(value) is FunctionType:
        found = [each.value for each in _parts(value)]
    else:
        found = [type(value)]
    for each in found:
        if (
            (type(each) is FunctionType or isinstance(each, type)) and is_project_module(each.__module__)
        ) or type(each) in REBUILT:
            yield each


def _parts(owner: Any) -> Iterator[_Read]:
    """Yield the values in a function or a class."""
    name, module = owner.__qualname__, str(owner.__module__)
    if isinstance(owner, type):
        for key, value in vars(owner).items():
            if key != "_abc_impl" and type(value) not in (GetSetDescriptorType, MemberDescriptorType):
                yield _Read(module, f"{key!r} of the class {module}.{name}", f"{owner.__name__}.{key}", value)
        return
    home = home_of(owner)
    values = globals_read(owner) if home is not None and is_project_module(home.__name__) else {}
    for key, value in values.items():
        where = f"the global {key!r} that {name} reads"
        yield _Read(str(owner.__globals__["__name__"]), where, key, value)
    closure = {
        key: each
        for key, cell in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=True)
        for each in content(cell)
    }
    for key, value in closure.items():
        where = f"the variable {key!r} that {name} takes from the function around it"
        yield _Read(module, where, key, value)
    code, defaults = owner.__code__, owner.__defaults__ or ()
    # The last of the positional parameters have them; a wrapper may have been given more.
    names = code.co_varnames[: code.co_argcount][-len(defaults) :] if defaults else ()
    for key, value in (*zip(names, defaults, strict=False), *(owner.__kwdefaults__ or {}).items()):
        yield _Read(module, f"the default of {key!r} in {name}", key, value)
    for key, value in vars(owner).items():
        yield _Read(module, f"the attribute {key!r} of {name}", f"{owner.__name__}.{key}", value)
    for read, attributes in modules_read(owner, [*values.values(), *closure.values()]):
        for key, value in attributes.items():
            where = f"{read.__name__}.{key}, which {name} reads,"
            yield _Read(read.__name__, where, f"{read.__name__}.{key}", value)
