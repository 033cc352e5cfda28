"""The project's modules that a function imports in its body, which may not be loaded yet.

Their source is read, and that of the project's modules which they import; none of it runs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..payload.project_modules import is_installed
from ..payload.reads import Names
from .source import Plain

LOADED = "loaded"
"""Beside the fingerprint of a loaded module: what is read of it is known, and is a part of its own."""

SECRET = re.compile("key|token|secret|passw|credential", re.IGNORECASE)
"""Names whose values are not noted."""

_PACKAGE = __name__.partition(".")[0]
_MAX_TEXT = 20_000


class _Source(NamedTuple):
    """The source of a module.

    Attributes:
        digest: Its fingerprint, which comments and docstrings and annotations of functions do not change.
        text: The source without these, and without lines that look like secrets.
        imported: The names that its import statements may stand for: ``pkg``, ``pkg.text``.
    """

    digest: str
    text: str
    imported: tuple[str, ...]


def modules_imported(names: Names, package: str) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """Return what import statements in a function lead to.

    Args:
        names: The names in the function's code.
        package: The package that relative imports begin in; may be empty.

    Returns:
        The project's modules with their fingerprints, separated by spaces, and their source; and the
        names of what else the function and those of them that are not loaded import.
    """
    parents = ["", *(package.rsplit(".", up)[0] for up in range(package.count(".") + 1) if package)]
    bases = [f"{parent}.{name}".strip(".") for name in names.imported for parent in parents]
    waiting = [(name, True) for name in _with_members(bases, sorted(names.attributes))]
    found: dict[str, tuple[str, str]] = {}
    others: set[str] = set()
    seen: set[str] = set()
    while waiting:
        name, is_needed = waiting.pop()
        file = _file(name) if name else None
        if file is None and is_needed:
            others.add(name)
        if file is None or name in seen:
            continue
        seen.add(name)
        is_loaded = name in sys.modules
        if os.path.isfile(file) and (source := _read(name, file, os.stat(file).st_mtime_ns)):
            found[name] = f"{source.digest} {LOADED}" if is_loaded else source.digest, source.text
            waiting += [(each, not is_loaded) for each in source.imported]
        waiting.append((name.rpartition(".")[0], False))
    return found, others


def _with_members(bases: Iterable[str], members: Iterable[str]) -> list[str]:
    """Return names of modules and of what may be modules in them, where they are the project's."""
    mine = [base for base in bases if base and _file(base) is not None]
    others = [base for base in bases if base and _file(base) is None]
    inner = [f"{base}.{member}" for base in mine for member in members]
    return [*mine, *others, *(name for name in inner if _file(name) is not None)]


def _file(name: str) -> str | None:
    """Return the source file of a module of the project, or the folder of a package that has none."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names or top in (_PACKAGE, "__main__"):
        return None
    file, folders = _top_level(top)
    for part in rest:
        file, folders = _member(folders, part)
    if file is None:
        return next((os.path.join(folder, "") for folder in folders if not is_installed(folder)), None)
    return file if file.endswith(".py") and not is_installed(file) else None


def _top_level(name: str) -> tuple[str | None, list[str]]:
    """Return the file and the folders of a module that is in no package."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, None)
        except Exception:  # any package may put in finders of its own
            spec = None
        if spec is not None:
            folders = list(spec.submodule_search_locations or ())
            return (spec.origin if spec.has_location else None), folders
    return None, []


def _member(folders: Iterable[str], name: str) -> tuple[str | None, list[str]]:
    """Return the file and the folders of a module in a package."""
    for folder in folders:
        inner = os.path.join(folder, name)
        for file, found in ((os.path.join(inner, "__init__.py"), [inner]), (f"{inner}.py", [])):
            if os.path.isfile(file):
                return file, found
    return None, [inner for folder in folders if os.path.isdir(inner := os.path.join(folder, name))]


@functools.lru_cache(maxsize=1_024)
def _read(name: str, file: str, _changed_ns: int) -> _Source | None:
    try:
        with tokenize.open(file) as stream:
            module = ast.parse(stream.read())
        imported = tuple(_imports(module, name if file.endswith("__init__.py") else name.rpartition(".")[0]))
        if ast.get_docstring(module, clean=False) is not None:
            del module.body[0]
        text = ast.unparse(ast.fix_missing_locations(Plain().visit(module)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    shown = "\n".join(line for line in text.splitlines() if not SECRET.search(line))
    return _Source(digest, shown[:_MAX_TEXT], imported)


def _imports(module: ast.Module, package: str) -> Iterator[str]:
    """Yield the names that the import statements of a module may stand for."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            parent = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = f"{parent}.{node.module or ''}".strip(".")
            yield from _with_members([base], [alias.name for alias in node.names])
