"""What a run sends to its workers: the function with what it needs of the program, and the items."""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Iterator
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import Any, NamedTuple

from ..._validation import shorten
from .pickling import REBUILT, Named, ProjectPickler, content, home_of
from .project_modules import is_project_module, resolve
from .reads import globals_read, modules_read
from .rebuild import load

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
        return len(self.data) + sum(buffer.raw().nbytes for buffer in self.buffers)


class UnsentValueError(TypeError):
    """A value can't be pickled. The text names it, and what reads it."""


class _Blame(NamedTuple):
    """The value that something can't be sent for.

    Attributes:
        module: The module that would have to go by reference.
        reason: The value and why, as the rest of a sentence.
    """

    module: str
    reason: str


def pack_result(pickler: type[ProjectPickler], value: Any) -> Packed:
    """Pack what a worker sends back: the project's functions and classes by name.

    Raises:
        Exception: What pickling raises.
    """
    return _pack(pickler("result"), value)


def pack_item(pickler: type[ProjectPickler], value: Any) -> Packed:
    """Pack an item for a worker that has all functions and classes of the program.

    Raises:
        Exception: What pickling raises.
    """
    return _pack(pickler("item"), value)


class Shipment:
    """What a run sends, and has sent already.

    Args:
        pickler: Pickles for the run's workers.
        max_value_bytes: Up to which size a value of a module is sent.

    Attributes:
        by_reference: Modules that go by reference, and why.
    """

    def __init__(self, pickler: type[ProjectPickler], *, max_value_bytes: int = MAX_VALUE_BYTES) -> None:
        self.by_reference: dict[str, str] = {}
        self._pickler, self._max_bytes = pickler, max_value_bytes
        self._shipped: set[Named] = set()

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
            if packed.size() <= self._max_bytes or not self._refer_too_big(used.pickled):
                self._shipped |= used.reached.keys()
                return packed

    def name(self, value: Any) -> tuple[Packed, Packed | None]:
        """Pack an item, and what its classes are if the workers do not have them yet.

        Raises:
            Exception: What pickling raises.
        """
        used = self._pickler("item", by_reference=self.by_reference)
        packed = _pack(used, value)
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
        for blame in blamed:
            if self._importable(blame.module):
                self.by_reference[blame.module] = blame.reason
                return True
        if blamed:
            raise UnsentValueError(blamed[0].reason) from error
        return False

    def _refer_too_big(self, pickled: list[Any]) -> bool:
        for blame in self._blamed(pickled):
            if self._importable(blame.module):
                self.by_reference[blame.module] = blame.reason
                return True
        return False

    def _importable(self, module: str) -> bool:
        """Return whether a module that does not go by reference yet can."""
        spec = getattr(sys.modules.get(module), "__spec__", None)
        return module != "__main__" and spec is not None and module not in self.by_reference

    def _blamed(self, pickled: list[Any]) -> Iterator[_Blame]:
        """Yield values that can't be pickled, or are too big, the last one first."""
        for owner in reversed(pickled):
            for module, where, value in _parts(owner) if is_project_module(owner.__module__) else ():
                if fault := self._fault(value):
                    yield _Blame(module, f"{where} {fault}")

    def _fault(self, value: Any) -> str:
        try:
            size = _pack(self._pickler("item"), value).size()
        except Exception as error:  # as above
            text = str(error).partition("\n")[0]
            return f"can't be pickled ({type(error).__name__}: {text})"
        return f"has {size / 1e6:,.0f} MB" if size > self._max_bytes else ""


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
        found = [each for _, _, each in _parts(value)]
    else:
        found = [type(value)]
    for each in found:
        if (
            (type(each) is FunctionType or isinstance(each, type)) and is_project_module(each.__module__)
        ) or type(each) in REBUILT:
            yield each


def _parts(owner: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the values in a function or a class: the module that can go by reference, a name, the value."""
    name, module = owner.__qualname__, str(owner.__module__)
    if isinstance(owner, type):
        for key, value in vars(owner).items():
            if key != "_abc_impl" and type(value) not in (GetSetDescriptorType, MemberDescriptorType):
                yield module, f"{key!r} of the class {module}.{name}", value
        return
    home = home_of(owner)
    values = globals_read(owner) if home is not None and is_project_module(home.__name__) else {}
    for key, value in values.items():
        yield str(owner.__globals__["__name__"]), f"the global {key!r} that {name} reads", value
    closure = {
        key: each
        for key, cell in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=True)
        for each in content(cell)
    }
    for key, value in closure.items():
        yield module, f"the variable {key!r} that {name} takes from the function around it", value
    for value in (*(owner.__defaults__ or ()), *(owner.__kwdefaults__ or {}).values()):
        yield module, f"the default {shorten(value, 40)} of {name}", value
    for key, value in vars(owner).items():
        yield module, f"the attribute {key!r} of {name}", value
    for read, attributes in modules_read(owner, [*values.values(), *closure.values()]):
        for key, value in attributes.items():
            yield read.__name__, f"{read.__name__}.{key}, which {name} reads,", value
