"""What a function reads by name: globals of its module, and attributes of modules."""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from .project_modules import is_project_module

_PLAIN_ITEMS = 1_000
"""The items that a plain value may have, with all that is inside it."""

_READ_ANY = frozenset({"globals", "eval", "exec"})
"""Built-in functions that read globals whose names are not in the code."""


class Names(NamedTuple):
    """The names in a code object and in those inside it.

    Attributes:
        read: Names of globals.
        attributes: All names, also those of attributes and of what is imported from a module.
        imported: Names of modules as they stand in import statements.
    """

    read: frozenset[str]
    attributes: frozenset[str]
    imported: frozenset[str]


@functools.lru_cache(maxsize=16_384)
def names_in(code: CodeType) -> Names:
    """Return the names that a code object uses."""
    read, imported, attributes = set(), set(), set(code.co_names)
    for each in dis.get_instructions(code):
        # LOAD_NAME: the body of a class. Python 3.12 has LOAD_FROM_DICT_OR_GLOBALS for it too.
        if each.opname.endswith(("_GLOBAL", "_GLOBALS")) or each.opname == "LOAD_NAME":
            read.add(str(each.argval))
        elif each.opname == "IMPORT_NAME":
            imported.add(str(each.argval))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = names_in(constant)
            read |= inner.read
            attributes |= inner.attributes
            imported |= inner.imported
    return Names(frozenset(read), frozenset(attributes), frozenset(imported))


def globals_read(function: FunctionType) -> dict[str, Any]:
    """Return the globals that a function reads, with their values.

    One that calls ``globals()`` or ``eval`` may read them all: functions, classes and plain values are added.
    """
    scope = function.__globals__
    names = names_in(function.__code__).read
    found = {name: scope[name] for name in sorted(names) if name in scope and not _is_dunder(name)}
    if not names.isdisjoint(_READ_ANY):
        found |= {
            name: value
            for name, value in scope.items()
            if not _is_dunder(name) and (isinstance(value, (FunctionType, type)) or is_plain(value))
        }
    return found


def modules_read(function: FunctionType, values: Iterable[Any]) -> list[tuple[ModuleType, dict[str, Any]]]:
    """Return the project's modules whose attributes a function reads, with these attributes.

    Args:
        function: The function.
        values: The values of its globals and of its closure.
    """
    names = names_in(function.__code__)
    waiting = [value for value in values if _is_project(value)]
    waiting += _imported(names.imported, str(function.__globals__.get("__package__") or ""))
    found: dict[int, tuple[ModuleType, dict[str, Any]]] = {}
    while waiting:
        module = waiting.pop()
        if id(module) in found:
            continue
        scope = vars(module)
        read = {
            name: scope[name] for name in sorted(names.attributes) if name in scope and not _is_dunder(name)
        }
        found[id(module)] = module, read
        waiting += [value for value in read.values() if _is_project(value)]
    return list(found.values())


def plain_values(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values of a module that are plain."""
    return {name: value for name, value in scope.items() if not _is_dunder(name) and is_plain(value)}


def is_plain(value: Any) -> bool:
    """Return whether a value is a number, a text or the like, or a small container of such values."""
    left, waiting = _PLAIN_ITEMS, [value]
    while waiting:
        each = waiting.pop()
        left -= 1
        if type(each) in (tuple, list, set, frozenset) and len(each) <= left:
            waiting += each
        elif type(each) is dict and 2 * len(each) <= left:
            waiting += [*each, *each.values()]
        elif type(each) in (str, bytes):
            left -= len(each) // 100
        elif type(each) not in (int, float, complex, bool, type(None)):
            return False
        if left < 0:
            return False
    return True


def code_text(code: CodeType) -> str:
    """Return a code object as text, without the files and lines that it comes from."""
    constants = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(code_text(constant))
        elif isinstance(constant, frozenset):
            constants.append(str(sorted(map(repr, constant))))  # a set has no order across processes
        else:
            constants.append(repr(constant))
    return repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants))


def digest(value: Any) -> str:
    """Return a fingerprint of the code of a function or of a class's methods, the same in every process."""
    functions = (
        [value] if type(value) is FunctionType else functions_in(value) if isinstance(value, type) else ()
    )
    text = "".join(code_text(each.__code__) for each in functions)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def functions_in(cls: type) -> Iterator[FunctionType]:
    """Yield the functions that stand in a class, also those in properties, class and static methods."""
    for value in vars(cls).values():
        for each in (value, getattr(value, "__func__", None), getattr(value, "fget", None)):
            if type(each) is FunctionType:
                yield each


def _is_project(value: Any) -> bool:
    return isinstance(value, ModuleType) and is_project_module(value.__name__)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _imported(names: Iterable[str], package: str) -> Iterator[ModuleType]:
    """Yield the project's modules that import statements name and the program has loaded."""
    packages = ["", *(package.rsplit(".", up)[0] for up in range(package.count(".") + 1) if package)]
    for name in names:
        for parent in packages:
            parts = f"{parent}.{name}".strip(".").split(".")
            for end in range(1, len(parts) + 1):
                module = sys.modules.get(".".join(parts[:end]))
                if module is not None and is_project_module(module.__name__):
                    yield module
