"""The parts that a function is made of: code, values and versions, each with a name to show.

``{"the code of clean.strip": ("9f86d081 60303ae2", "def strip(text): ..."), "the global 'SEP' of clean":
("1b4f0e98", "', '"), "the package numpy": ("2.1.0", "2.1.0")}``

What a function reaches in the project's modules is a part: functions with their defaults and closures,
classes, and the values of globals. Of installed packages their versions are.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.metadata
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from inspect import unwrap
from itertools import pairwise
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from ..payload.pickling import REBUILT, content
from ..payload.project_modules import is_project_module
from ..payload.reads import globals_read, modules_read, names_in, plain_values
from .imports import SECRET, modules_imported
from .source import code_of

Parts = dict[str, tuple[str | None, str]]
"""The fingerprint of each part, or None if it is unknown, and a short text that shows it."""

HashValue = Callable[[Any], tuple[str | None, list[Any]]]
"""Returns the fingerprint of a value, and the functions, classes and modules that were found in it."""

_PACKAGE = __name__.partition(".")[0]

_OF_EVERY_CLASS = frozenset(
    {
        *("__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__", "__hash__"),
        *("__static_attributes__", "__slotnames__", "__abstractmethods__", "_abc_impl", "__parameters__"),
        *("__orig_bases__", "__dataclass_params__", "__dataclass_fields__", "__match_args__"),
    }
)
"""Attributes of a class that follow from the others."""

_SHOWN_ONLY = frozenset({"__annotations__", "__pydantic_fields__", "model_fields"})
"""Attributes of a class that are compared by their ``repr``."""

_READ_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")
"""Up to Python 3.11 there is another instruction for what is called."""


def parts_of(
    function: Any, arguments: Mapping[str, Any], hash_value: HashValue, name: str = "process_func"
) -> Parts:
    """Return the parts of a function and of its arguments.

    Args:
        function: Any callable.
        arguments: Its keyword arguments.
        hash_value: Takes the fingerprint of a value.
        name: What the function is called.
    """
    walk = _Walk(hash_value, name)
    walk.found["Python"] = walk.version(".".join(map(str, sys.version_info[:2])))
    walk.start(function)
    for key, value in arguments.items():
        walk.add(f"the argument {key!r}", value)
    walk.finish()
    return walk.found


class _Walk:
    def __init__(self, hash_value: HashValue, name: str) -> None:
        self.found: Parts = {}
        self._name = name
        self._hash_value = hash_value
        self._waiting: list[Any] = []
        self._seen: dict[int, Any] = {}  # values by their id, which is theirs as long as they are kept
        self._root: Any = None

    def start(self, function: Any) -> None:
        """Begin with a function, whose code counts wherever it is from."""
        inner = function
        while isinstance(inner, (MethodType, functools.partial)) or unwrap(inner) is not inner:
            inner = unwrap(getattr(inner, "__func__", getattr(inner, "func", inner)))
        self._root = inner
        if _is_definition(function) or isinstance(function, (MethodType, functools.partial)):
            self._reach(function)
            return
        self._reach(type(function))
        if inner is function:
            self.add(f"the object that {self._name} is", function)
            return
        self._reach(inner)
        digest, definitions = self._hash_value(function)
        if digest is not None:  # a wrapper may be a proxy that refuses to be pickled
            self.found[f"the object around {self._name}"] = digest, show(function)
            for each in definitions:
                self._reach(each)

    def finish(self) -> None:
        """Add what waits, and what that leads to."""
        while self._waiting:
            value = self._waiting.pop(0)
            if isinstance(value, ModuleType):
                self._add_package(value.__name__)
            elif isinstance(value, MethodType):
                self._reach(value.__func__)
                self.add(f"the object of the method {_name(value.__func__)}", value.__self__)
            elif isinstance(value, functools.partial):
                self._reach(value.func)
                for place, each in [*enumerate(value.args), *value.keywords.items()]:
                    self.add(f"the argument {place!r} of the partial of {_name(value.func)}", each)
            elif type(value) in REBUILT:
                self._reach(getattr(value, "__wrapped__", getattr(value, "func", None)))
            elif isinstance(value, type):
                self._add_class(value)
            elif type(value) is FunctionType:
                self._add_function(value)
            else:
                self._reach(getattr(value, "__wrapped__", None))
                self._add_package(str(getattr(value, "__module__", None)))

    def version(self, text: str) -> tuple[str, str]:
        """Return a part that is compared by its text."""
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16], text

    def add(self, name: str, value: Any) -> None:
        """Add a value under a name; what is defined somewhere is a part of its own."""
        if name in self.found:
            return
        if _is_definition(value) or isinstance(value, (MethodType, functools.partial)):
            self._reach(value)
            if isinstance(value, ModuleType) or f"{_name(value).rpartition('.')[2]!r}" in name:
                return
            self.found[name] = self.version(_name(value))
            return
        digest, definitions = self._hash_value(value)
        self.found[name] = digest, "…" if SECRET.search(name) else show(value)
        for each in definitions:
            self._reach(each)

    def _reach(self, value: Any) -> None:
        if value is not None and id(value) not in self._seen:
            self._seen[id(value)] = value
            self._waiting.append(value)

    def _add_package(self, module: str) -> None:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top == _PACKAGE or is_project_module(module):
            return
        if version := _version(top):
            self.found.setdefault(f"the package {top}", self.version(version))

    def _add_class(self, cls: type) -> None:
        if cls is not self._root and not _is_own(cls.__module__):
            self._add_package(cls.__module__)
            return
        for base in cls.__bases__:
            self._reach(base)
        for key, value in vars(cls).items():
            name = f"the attribute {key!r} of the class {_name(cls)}"
            if key in _SHOWN_ONLY:
                self.found[name] = self.version(show(value, 2_000))
            elif _follows(cls, key, value):
                continue
            elif isinstance(value, (staticmethod, classmethod)):
                self._reach(value.__func__)
            elif isinstance(value, property):
                for each in (value.fget, value.fset, value.fdel):
                    self._reach(each)
            else:
                self.add(name, value)

    def _add_function(self, function: FunctionType) -> None:
        home = str(function.__globals__.get("__name__"))
        name = _name(function)
        closure = {
            key: each
            for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            for each in content(cell)
        }
        self._reach(vars(function).get("__wrapped__"))
        if function is not self._root and not _is_own(home):
            self._add_package(home)
            for value in closure.values():
                # A function made by functools.singledispatch keeps the others in a dict.
                for each in value.values() if type(value) is dict else [value]:
                    if _is_definition(each):
                        self._reach(each)
            return
        code, number = f"the code of {name}", 2
        while code in self.found:
            code, number = f"the code of {name} ({number})", number + 1
        self.found[code] = code_of(function)
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = function.__defaults__ or ()
        given = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        for key, value in {**given, **(function.__kwdefaults__ or {})}.items():
            self.add(f"the default of {key!r} of {name}", value)
        for key, value in closure.items():
            if value is not function:
                self.add(f"the variable {key!r} of {name}", value)
        values = globals_read(function)
        attributes = attributes_read(function.__code__)
        for key, value in values.items():
            read = attributes.get(key)
            if isinstance(value, ModuleType) and is_project_module(value.__name__):
                if read is None:  # it goes elsewhere: who knows what is read there
                    self._add_globals(value, _own_values(value))
            elif read is not None and _are_plain_attributes(value, read):
                for attribute in sorted(read):
                    self.add(f"{key}.{attribute} of {home}", vars(value)[attribute])
            else:
                self.add(f"the global {key!r} of {home}", value)
        for module, scope in modules_read(function, [*values.values(), *closure.values()]):
            self._add_globals(module, scope)
        names_used = names_in(function.__code__)
        if names_used.imported:
            package = str(function.__globals__.get("__package__") or "")
            modules, others = modules_imported(names_used, package)
            for module_name, part in modules.items():
                self.found[f"the code of the module {module_name}"] = part
            for each in sorted(others):
                self._add_package(each)

    def _add_globals(self, module: ModuleType, scope: Mapping[str, Any]) -> None:
        for key, value in scope.items():
            if not (isinstance(value, ModuleType) and is_project_module(value.__name__)):
                self.add(f"the global {key!r} of {module.__name__}", value)


def _follows(cls: type, key: str, value: Any) -> bool:
    """Return whether an attribute of a class follows from the others."""
    made = key in _OF_EVERY_CLASS or key.startswith("__pydantic") or (key[:1] == key[-1:] == "_" != key[1:2])
    if key == "__doc__":
        # A dataclass makes one of its fields.
        made = value is None or (
            hasattr(cls, "__dataclass_fields__") and str(value).startswith(f"{cls.__name__}(")
        )
    return made or isinstance(value, (GetSetDescriptorType, MemberDescriptorType))


@functools.lru_cache(maxsize=4_096)
def attributes_read(code: CodeType) -> dict[str, frozenset[str] | None]:
    """Return the attributes that code reads of each global; None for one that is used in another way too."""
    reads: list[tuple[str, frozenset[str] | None]] = []
    instructions = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    for each, after in pairwise(instructions):  # no code ends by reading a global
        if each.opname.endswith(("_GLOBAL", "_GLOBALS")) or each.opname == "LOAD_NAME":
            attribute = frozenset({str(after.argval)}) if after.opname in _READ_ATTRIBUTE else None
            reads.append((str(each.argval), attribute))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            reads += attributes_read(constant).items()
    found: dict[str, frozenset[str] | None] = {}
    for key, read in reads:
        before = found.get(key, frozenset())
        found[key] = None if before is None or read is None else before | read
    return found


def show(value: Any, width: int = 100) -> str:
    """Return a value in short, on one line, the same in each process."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = width
    try:
        text = short.repr(value) if width <= 100 else repr(value)
    except Exception as error:  # any class may raise anything from its repr
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    text = re.sub(" at 0x[0-9a-fA-F]+", "", " ".join(text.split()))
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _are_plain_attributes(value: Any, names: Iterable[str]) -> bool:
    """Return whether reading attributes of an object runs no code, and reads nothing but these."""
    kind: Any = type(value)
    return (
        kind.__getattribute__ is object.__getattribute__
        and type(getattr(value, "__dict__", None)) is dict
        and all(name in vars(value) and not hasattr(getattr(kind, name, None), "__set__") for name in names)
    )


def _own_values(module: ModuleType) -> dict[str, Any]:
    """Return what a module defines itself."""
    defined = {
        key: value
        for key, value in vars(module).items()
        if (type(value) is FunctionType or isinstance(value, type)) and value.__module__ == module.__name__
    }
    return plain_values(vars(module)) | defined


def _is_own(module: object) -> bool:
    """Return whether a module is the project's, or one that is not loaded."""
    return is_project_module(module) or sys.modules.get(str(module)) is None


def _is_definition(value: Any) -> bool:
    return (
        isinstance(value, (FunctionType, ModuleType, type))
        or type(value) in REBUILT
        or (isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType | None))
    )


def _name(value: Any) -> str:
    """Return the full name of a function or class."""
    if isinstance(value, (MethodType, functools.partial)):
        value = getattr(value, "__func__", getattr(value, "func", value))
    qualname = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', None)}.{qualname}".replace(".<locals>", "")


@functools.lru_cache(maxsize=256)
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return str(getattr(sys.modules.get(package), "__version__", ""))
