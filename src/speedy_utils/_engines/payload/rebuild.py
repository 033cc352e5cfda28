"""What pickles of the project's functions, classes and modules call when they are loaded.

In a worker they lay what the program has over the modules that the worker has imported. In the program
itself, where results come back, they find what is there already and change nothing.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from ..._validation import shorten
from .project_modules import resolve
from .reads import digest


class Home(NamedTuple):
    """A module of the project as it is called and where its source is."""

    name: str
    file: str | None
    package: str | None
    path: tuple[str, ...] | None


class Reads(NamedTuple):
    """What a function reads from a module.

    Attributes:
        module: The module.
        values: Values by name that the worker's module gets.
        compared: Plain values by name that the worker's module, which goes by reference, should have too.
        described: Other values by name, described: see :func:`description`.
        reason: Why it does.
        reached: What else is read from it: it travels by itself.
    """

    module: ModuleType
    values: Mapping[str, Any]
    compared: Mapping[str, Any]
    described: Mapping[str, str]
    reason: str
    reached: tuple[Any, ...]


_in_worker = False
_main = ModuleType("__main__")
_differences: dict[str, str] = {}
"""What this worker has otherwise than the program: a sentence for each name."""
_reloaded: set[str] = set()

_laid_over: set[str] = set()
"""Modules that have got something of the program in this run."""

_stale: set[str] = set()
"""Modules that an earlier run has laid something over: by reference they are what their file makes."""

_not_imported: dict[str, str] = {}
"""Modules that a worker could not import, and why."""

_own_classes: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes of this process that pickles define anew: what comes back must not change them."""

_made_classes: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes of another process that this one has made from a pickle."""


def begin_run() -> None:
    """Forget what the tasks of an earlier run had of the program; called in workers only."""
    global _in_worker, _main
    _in_worker, _main = True, ModuleType("__main__")
    _differences.clear()
    _reloaded.clear()
    _stale.update(_laid_over)
    _laid_over.clear()
    _not_imported.clear()


class program_main:  # noqa: N801 - used like a function; as a generator it takes three times as long
    """Let a copy of the program's ``__main__`` be found under its name, and not the worker's own program."""

    __slots__ = ("_own",)

    def __enter__(self) -> None:
        self._own = sys.modules["__main__"]
        sys.modules["__main__"] = _main

    def __exit__(self, *exception: object) -> None:
        sys.modules["__main__"] = self._own


def take_differences() -> tuple[tuple[str, str], ...]:
    """Return what this worker has otherwise than the program: names with sentences, once."""
    found = tuple(_differences.items())
    _differences.clear()
    return found


def module_at(home: Home) -> ModuleType:
    """Return a module, imported if it can be, and otherwise an empty one.

    Imported, it also has what the program has not sent: what the function does not read by name.
    """
    module = sys.modules.get(home.name)
    if module is None or not _in_worker:
        try:
            return module or importlib.import_module(home.name)
        except (
            Exception,
            SystemExit,
        ) as error:  # a module runs code of the user's; what is read is sent
            if not _in_worker:
                raise
            _not_imported[home.name] = f"{type(error).__name__}: {error}"
            module = _empty_module(home)
    if home.name == "__main__":
        _fill(module, home)
    return module


def find(module: str, qualname: str) -> Any:
    """Return a function or a class by its name."""
    found = resolve(sys.modules.get(module) or importlib.import_module(module), qualname)
    if found is None:
        raise AttributeError(f"module {module!r} has no {qualname!r}")
    return found


def _lay_over(module: ModuleType, values: Mapping[str, Any]) -> None:
    _laid_over.add(module.__name__)
    vars(module).update(values)


def _as_in_file(module: str) -> None:
    """Import a module anew if an earlier run has laid something over it."""
    if module in _stale and getattr(sys.modules[module], "__spec__", None) is not None:
        _stale.discard(module)
        importlib.reload(sys.modules[module])


def find_same(module: str, qualname: str, expected: str, reason: str) -> Any:
    """Return a function or a class by its name, and note if its code is not the program's."""
    try:
        _as_in_file(module)
        found = find(module, qualname)
    except (ImportError, AttributeError) as error:
        why = _not_imported.get(module, error)
        text = f"{module}.{qualname} goes by reference, as {reason}, and a worker can't import it ({why})"
        raise ImportError(text) from error
    if digest(found) != expected and module not in _reloaded:
        # Perhaps its file was edited, and the program has loaded it anew.
        _reloaded.add(module)
        importlib.reload(sys.modules[module])
        found = find(module, qualname)
    if digest(found) != expected:
        _note(module, qualname, "has other code in a worker than in the program", reason)
    return found


def make_function(
    code: CodeType, module: ModuleType, cells: tuple[CellType, ...], home: Home | None, name: str | None
) -> FunctionType:
    """Make a function, without what is in its closure, and without its attributes.

    Args:
        code: Its code.
        module: Whose globals it reads.
        cells: The variables of its closure, which it may share with other functions; they are empty yet.
        home: Where it is found by name; None if it is not.
        name: Its name there.
    """
    function = FunctionType(code, vars(module), code.co_name, None, cells or None)
    if home is not None and name is not None and _in_worker:
        _lay_over(module_at(home), {name: function})
    return function


def set_function(function: Any, state: tuple[Mapping[str, Any], Mapping[str, Any], Any, Any]) -> None:
    """Give a function its attributes, its closure, and its module what it reads there."""
    attributes, namespace, contents, reads = state
    for name, value in attributes.items():
        setattr(function, name, value)
    function.__dict__.update(namespace)
    for cell, content in zip(function.__closure__ or (), contents, strict=True):
        if content:
            cell.cell_contents = content[0]
    set_reads(function, reads)


def set_reads(_function: Any, reads: tuple[Reads, ...]) -> None:
    """Give modules what the program's have, and compare what they have by themselves."""
    if not _in_worker:
        return
    for each in reads:
        if each.reason:
            _as_in_file(each.module.__name__)
        elif each.values:
            _lay_over(each.module, each.values)
        scope = vars(each.module)
        for name, value in each.compared.items():
            if name not in scope or not _same(scope[name], value):
                worker = shorten(scope[name], 60) if name in scope else "missing"
                text = f"is {shorten(value, 60)} in the program, and {worker} in a worker"
                _note(each.module.__name__, name, text, each.reason)
        for name, text in each.described.items():
            worker = description(scope[name]) if name in scope else "missing"
            if worker != text:
                text = f"is {text} in the program, and {worker} in a worker"
                _note(each.module.__name__, name, text, each.reason)


def make_cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Return what ``functools.lru_cache`` makes of a function; its cache is empty."""
    return functools.lru_cache(maxsize, typed)(function)


def make_cached_property(function: Any, name: str | None) -> Any:
    """Return what ``functools.cached_property`` makes of a method, under a name in its class."""
    made = functools.cached_property(function)
    if name is not None:
        made.__set_name__(object, name)
    return made


def make_exception(kind: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    """Make an exception from its ``args``, without calling an ``__init__`` that is written in Python."""
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    made: BaseException = base.__new__(kind, *arguments)
    base.__init__(made, *arguments)
    return made


def set_exception(error: Any, state: tuple[Any, Any, Any, bool]) -> None:
    """Give an exception its attributes, and those that have led to it."""
    attributes, error.__cause__, error.__context__, error.__suppress_context__ = state
    if attributes is not None:
        error.__setstate__(attributes)


def bind(home: Home, name: str, make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Make a value, and give it its name in its module."""
    value = make(*arguments)
    if "." not in name and _in_worker:
        _lay_over(module_at(home), {name: value})
    return value


_carried = threading.local()


def load(data: Any, buffers: Iterable[Any], carried: Sequence[Any]) -> Any:
    """Load a pickle.

    Args:
        data: The pickle.
        buffers: Its buffers.
        carried: What has travelled beside it.
    """
    before = getattr(_carried, "values", ())
    _carried.values = carried
    try:
        return pickle.loads(data, buffers=buffers)  # noqa: S301 - the run's own, from the program or a worker
    finally:
        _carried.values = before


def take_carried(index: int) -> Any:
    """Return what has travelled beside the pickle that is being loaded."""
    return _carried.values[index]


def make_class(
    home: tuple[Home, str] | None, shape: str, make: Callable[..., type], arguments: tuple[Any, ...]
) -> type:
    """Make a class, or return the one that a worker's module has under its name if that has the same shape.

    So an instance that was made while the module was imported, and modules that have imported the class from
    it, go on with the class that tasks have.
    """
    if home is None:
        return make(*arguments)
    module, name = module_at(home[0]), home[1]
    found = resolve(module, name)
    if not isinstance(found, type) or class_shape(found) != shape:
        found = make(*arguments)
    if "." not in name:
        _lay_over(module, {name: found})
    return found


def set_class(cls: Any, state: tuple[Callable[[type, Any], None], Any, Mapping[str, Any]]) -> None:
    """Give a class what the program's has; leave one that this process has sent itself as it is.

    What ``__init__`` of an Enum has given its members is part of the state.
    """
    if cls in _own_classes:
        return
    setter, namespace, members = state
    _made_classes.add(cls)
    setter(cls, namespace)
    for name, attributes in members.items():
        vars(cls[name]).update(attributes)


def sent_class(cls: type) -> None:
    """Note that a class is pickled by value."""
    if cls not in _made_classes:
        _own_classes.add(cls)


def class_shape(cls: type) -> str:
    """Return what of a class can't be changed once it is made, as text."""
    bases, slots = [repr(base) for base in cls.__bases__], vars(cls).get("__slots__")
    members = {name: repr(each.value) for name, each in getattr(cls, "__members__", {}).items()}
    return repr((repr(type(cls)), bases, slots, members))


def description(value: Any) -> str:
    """Return the type of a value and its length if it has one.

    Example:
        >>> description([1, 2]), description(object())
        ('list of length 2', 'object')
    """
    try:
        return f"{type(value).__qualname__} of length {len(value):,}"
    except Exception:  # it has none, or that is code of the user's
        return type(value).__qualname__


def _note(module: str, name: str, text: str, reason: str) -> None:
    where = f"{module}.{name}"
    _differences[where] = f"{where} {text}: the module {module} goes by reference, as {reason}"


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or (one != one and other != other))


def _empty_module(home: Home) -> ModuleType:
    parent, _, child = home.name.rpartition(".")
    module = ModuleType(home.name)
    _fill(module, home)
    if parent:
        if parent not in sys.modules:
            module_at(Home(parent, None, parent, ()))
        setattr(sys.modules[parent], child, module)
    sys.modules[home.name] = module
    return module


def _fill(module: ModuleType, home: Home) -> None:
    if home.name == "__main__":
        # Processes that a task spawns run what is found at `__file__`, unless the module is called so.
        module.__spec__ = ModuleSpec(f"{home.package or ''}.__main__".strip("."), None)
    vars(module)["__builtins__"] = builtins  # C code looks for it there, such as that of pickle
    module.__package__ = home.package
    if home.file is not None:
        module.__file__ = home.file
    if home.path is not None:
        module.__path__ = list(home.path)
