"""A pickler that takes the project's code and values along.

Ray pickles a function of a module as the module's name, and the worker imports it: it gets what is in the
file, and not what the program has made of it. Here the code of such a function travels, with the values that
it reads, as ``cloudpickle`` does it for functions of ``__main__``. With one difference: a function that was
sent stays in its module. The worker imports the module, if it can, and what the program has sent is laid
over it. So two functions of a module share its globals, ``pickle`` in a task finds a class under its name,
and what was not sent is there too.

What is reached is sent by value once a run. Items and results only name functions, classes and modules of the
project, as the other side has them: an item costs no more than with plain pickle, and a result of a project's
class is an instance of the program's own class.

A module goes by reference, as its name alone, if one of the values that are read from it can't be pickled (a
lock) or is too big. The worker then uses its file's, and says where a plain value or code is another.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import (
    CellType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
)
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import WeakKeyDictionary

from ..._instrument.decorator import TrackedObject
from .project_modules import found_by_name, is_project_module, resolve
from .reads import digest, functions_in, globals_read, modules_read, plain_values
from .rebuild import (
    Home,
    Reads,
    bind,
    class_shape,
    description,
    find,
    find_same,
    make_cached,
    make_cached_property,
    make_class,
    make_exception,
    make_function,
    module_at,
    sent_class,
    set_class,
    set_exception,
    set_function,
    set_reads,
    take_carried,
)

if TYPE_CHECKING:
    _Base = pickle.Pickler
else:
    _Base = object

_FUNCTION_ATTRIBUTES = (
    *(
        "__name__",
        "__qualname__",
        "__module__",
        "__doc__",
        "__defaults__",
        "__kwdefaults__",
        "__annotations__",
    ),
    "__type_params__",
)

_METACLASSES = ("builtins", "abc", "enum", "typing", "typing_extensions")
"""Where the metaclasses are whose classes can be made again. Those of other packages (pydantic, SQLAlchemy)
keep records of their classes: they go by reference."""

_registry_lock = threading.Lock()

Named = tuple[str, str]
"""A module, and a name in it."""

Mode = Literal["define", "item", "result"]
"""Whether the project's functions and classes are defined or named, and if they are named: by the program,
which also sends what lambdas read, or by a worker, which need not."""


class ProjectPickler(_Base):
    """To be mixed in before the ``Pickler`` of a cloudpickle: Ray has one of its own.

    Args:
        mode: Whether to define what is reached, or to name it.
        shipped: What the other side has already.
        by_reference: Modules that go by reference, and why.

    Attributes:
        cloudpickle: The module that the other base class is from.
        file: What was pickled.
        buffers: The memory of arrays, which is not in it.
        carried: What travels beside it.
        reached: The project's functions and classes that were found by name.
        pickled: The functions and classes whose insides were pickled.
        modules: Where the functions, classes and types are from that were come across.
    """

    cloudpickle: Any

    def __init__(
        self,
        mode: Mode,
        *,
        shipped: Iterable[Named] = (),
        by_reference: Mapping[str, str] | None = None,
    ) -> None:
        self.file = io.BytesIO()
        self.buffers: list[pickle.PickleBuffer] = []
        super().__init__(self.file, protocol=5, buffer_callback=self.buffers.append)
        self.reached: dict[Named, None] = {}
        self.pickled: list[Any] = []
        self.modules: set[str] = set()
        self.carried: list[Any] = []
        self._mode, self._shipped, self._by_reference = mode, frozenset(shipped), by_reference or {}
        self._homes: dict[str, Home] = {}
        self._seen: set[str] = set()
        self._cells: set[int] = set()

    def carries(self, kind: type) -> bool:  # noqa: ARG002 - for subclasses
        """Return whether objects of a type can't be pickled alone, such as Ray's references."""
        return False

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled; called for all but plain values and containers."""
        kind = type(obj)
        named = obj if kind in (ModuleType, FunctionType) or issubclass(kind, type) else kind
        self.modules.add(str(named.__name__ if kind is ModuleType else named.__module__))
        if self.carries(kind):
            self.carried.append(obj)
            return take_carried, (len(self.carried) - 1,)
        if kind is ModuleType:
            name: str = obj.__name__
            if is_project_module(name) and sys.modules.get(name) is obj:
                return module_at, (self._home(name),)
        elif kind is FunctionType or issubclass(kind, type) or kind in REBUILT:
            if found := found_by_name(obj):
                return self._reduce_found(obj, found)
            if kind in REBUILT:
                return REBUILT[kind](obj)
            if kind is FunctionType and home_of(obj) is not None and not _is_found(obj):
                return self._reduce_function(obj, None)
            if kind is not FunctionType and is_project_module(obj.__module__):
                return self._reduce_class(obj, None)
        elif kind is TypeVar and self._mode == "define" and is_project_module(obj.__module__):
            with self._by_value(obj.__module__):
                return self.dispatch_table[kind](obj)
        elif kind is CellType and id(obj) in self._cells:
            return CellType, ()  # the functions that share it fill it
        elif issubclass(kind, BaseException) and kind not in self.dispatch_table:
            return _reduce_exception(obj)
        elif kind is io.TextIOWrapper and (name := _standard_stream(obj)):
            return getattr, (sys, name)
        elif kind is WeakKeyDictionary:  # functools.singledispatch has one
            return kind, (dict(obj),)
        elif obj is dataclasses.MISSING:
            return "MISSING"  # by name: it is compared by identity
        return super().reducer_override(obj)

    def _reduce_found(self, obj: Any, found: Named) -> Any:
        module, name = found
        top = (module, name.partition(".")[0])
        self.reached[top] = None
        if self._mode != "define" or top in self._shipped:
            return find, found
        if module in self._by_reference or (module != "__main__" and _has_foreign_metaclass(obj)):
            self.pickled.append(obj)
            functions = functions_in(obj) if isinstance(obj, type) else [obj]
            reads = tuple(
                each
                for function in functions
                if type(function) is FunctionType
                for each in self._reads(function)
            )
            reason = self._by_reference.get(module, f"{type(obj).__module__} has made its class {name}")
            return find_same, (*found, digest(obj), reason), reads, None, None, set_reads
        if type(obj) is FunctionType:
            return self._reduce_function(obj, name)
        if type(obj) in REBUILT:
            return bind, (self._home(module), name, *REBUILT[type(obj)](obj))
        return self._reduce_class(obj, (self._home(module), name))

    def _reduce_function(self, function: FunctionType, name: str | None) -> Any:
        module = home_of(function)
        if module is None:  # its globals are no module's: as cloudpickle does it
            with self._by_value(function.__module__):
                return super().reducer_override(function)
        self.pickled.append(function)
        # With its module it goes on sharing globals. It is called by its name there, unless a decorator's is.
        cells, bound = function.__closure__ or (), name if name and "." not in name else None
        self._cells.update(map(id, cells))
        home = self._home(function.__module__) if bound else None
        attributes = {key: getattr(function, key) for key in _FUNCTION_ATTRIBUTES if hasattr(function, key)}
        state = attributes, vars(function), [content(cell) for cell in cells], self._reads(function)
        made = make_function, (function.__code__, module, cells, home, bound)
        return *made, state, None, None, set_function

    def _reduce_class(self, cls: type, home: tuple[Home, str] | None) -> Any:
        self.pickled.append(cls)
        with self._by_value(cls.__module__):
            reduced: Any = super().reducer_override(cls)
        make, arguments, state, _, _, setter = reduced
        if vars(cls).get("__slots__"):
            arguments, state = _with_slots(cls, arguments, state)
        members = {}
        if issubclass(cls, Enum):
            arguments, state = _with_aliases(cls, arguments, state)
            members = {
                each.name: {key: value for key, value in vars(each).items() if not key.startswith("_")}
                for each in cls
            }
        sent_class(cls)
        made = make_class, (home, class_shape(cls), make, arguments)
        return *made, (setter, state, members), None, None, set_class

    def _reads(self, function: FunctionType) -> tuple[Reads, ...]:
        """Return what a function reads from modules of the project."""
        if self._mode == "result" or (module := home_of(function)) is None:
            return ()
        values = globals_read(function) if is_project_module(module.__name__) else {}
        closure = [each for cell in function.__closure__ or () for each in content(cell)]
        found = [(module, values)] if values else []
        for each, read in modules_read(function, [*values.values(), *closure]):
            # It may read others by getattr: once with a module go all its plain values.
            more = {} if each.__name__ in self._seen else plain_values(vars(each))
            self._seen.add(each.__name__)
            found.append((each, more | read))
        return tuple(self._read(*each) for each in found)

    def _read(self, module: ModuleType, values: dict[str, Any]) -> Reads:
        if module.__name__ not in self._by_reference:
            return Reads(module, values, {}, {}, "", ())
        plain = plain_values(values)
        others = {name: value for name, value in values.items() if name not in plain}
        reached = tuple(value for value in others.values() if is_definition(value))
        described = {name: description(value) for name, value in others.items() if not is_definition(value)}
        return Reads(module, {}, plain, described, self._by_reference[module.__name__], reached)

    def _home(self, name: str) -> Home:
        if name not in self._homes:
            module: Any = sys.modules.get(name)
            path = getattr(module, "__path__", None)
            self._homes[name] = Home(
                name,
                getattr(module, "__file__", None),
                getattr(module, "__package__", None),
                None if path is None else tuple(path),
            )
        return self._homes[name]

    @contextmanager
    def _by_value(self, name: str) -> Iterator[None]:
        """Let cloudpickle reduce what is in a module by value, for a moment: that is its global state."""
        with _registry_lock:
            module = sys.modules.get(name)
            known = (
                name == "__main__"
                or module is None
                or name in self.cloudpickle.list_registry_pickle_by_value()
            )
            if known:
                yield
                return
            self.cloudpickle.register_pickle_by_value(module)
            try:
                yield
            finally:
                self.cloudpickle.unregister_pickle_by_value(module)


def home_of(function: FunctionType) -> ModuleType | None:
    """Return the module whose globals a function reads; None if they are no loaded module's."""
    module = sys.modules.get(str(function.__globals__.get("__name__")))
    return module if module is not None and vars(module) is function.__globals__ else None


def is_definition(value: Any) -> bool:
    """Return whether a value is a module, or a function or class of the project that is found by name."""
    return isinstance(value, ModuleType) or (
        (type(value) is FunctionType or isinstance(value, type) or type(value) in REBUILT)
        and found_by_name(value) is not None
    )


def content(cell: CellType) -> tuple[Any, ...]:
    """Return what a variable of a closure holds, in a tuple: it may be empty."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _is_found(function: FunctionType) -> bool:
    """Return whether pickle finds a function, which is not the project's, by its name."""
    module = sys.modules.get(function.__module__ or "")
    return module is not None and resolve(module, function.__qualname__) is function


def _has_foreign_metaclass(value: Any) -> bool:
    maker = type(value).__module__
    return isinstance(value, type) and maker not in _METACLASSES and not is_project_module(maker)


def _with_slots(cls: type, arguments: tuple[Any, ...], state: Any) -> tuple[tuple[Any, ...], Any]:
    """Return how a class is made with its slots: cloudpickle gives it a ``__dict__`` instead."""
    slots = {"__slots__": vars(cls)["__slots__"]}
    arguments = tuple(
        each | slots if isinstance(each, dict) and "__module__" in each else each for each in arguments
    )
    namespace, rest = state
    made_by_slots = MemberDescriptorType, GetSetDescriptorType
    return arguments, ({k: v for k, v in namespace.items() if type(v) not in made_by_slots}, rest)


def _with_aliases(cls: type[Enum], arguments: tuple[Any, ...], state: Any) -> tuple[tuple[Any, ...], Any]:
    """Return how an Enum is made with all its names: cloudpickle takes those of aliases for attributes."""
    values = {name: member.value for name, member in cls.__members__.items()}
    namespace, rest = state
    arguments = (*arguments[:3], values, *arguments[4:])
    return arguments, ({name: value for name, value in namespace.items() if name not in values}, rest)


def _standard_stream(file: Any) -> str:
    """Return which of the program's streams a file is, ``stderr``; empty if none.

    Loguru's sink holds one. While a bar is drawn, a proxy stands in for it, and pickling fails for terminals.
    """
    standard = (
        name for name in ("stdout", "stderr") if getattr(getattr(sys, name), "__wrapped__", None) is file
    )
    return next(standard, "")


def _reduce_exception(error: BaseException) -> tuple[Any, ...]:
    """Return how an exception is pickled, with those that have led to it.

    Usually ``pickle`` calls ``__init__`` with what the exception has given to its base, which need not be
    what it takes.
    """
    reduced: Any = error.__reduce_ex__(5)
    make, arguments, *rest = reduced
    kind = type(error)
    if type(kind.__reduce__) is MethodDescriptorType and kind.__reduce_ex__ is object.__reduce_ex__:
        make, arguments = make_exception, (kind, arguments)
    chain = error.__cause__, error.__context__, error.__suppress_context__
    return make, arguments, (rest[0] if rest else None, *chain), None, None, set_exception


def _rebuild_cached(value: Any) -> tuple[Any, ...]:
    parameters = value.cache_parameters()
    return make_cached, (value.__wrapped__, parameters["maxsize"], parameters["typed"])


def _rebuild_property(value: Any) -> tuple[Any, ...]:
    return make_cached_property, (value.func, value.attrname)


def _rebuild_tracked(value: Any) -> tuple[Any, ...]:
    return value.by_value()  # type: ignore[no-any-return]  # it is a proxy


REBUILT: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    type(functools.lru_cache(len)): _rebuild_cached,
    functools.cached_property: _rebuild_property,
    TrackedObject: _rebuild_tracked,
}
"""Callables that pickle takes by name only, or not at all, and how each is made again."""
