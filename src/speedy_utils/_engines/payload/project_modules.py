"""Which modules are the project's own, and which were installed.

The project's own are those that a user edits, and whose values a program sets: the main program, and what it
imports from folders of its own. A package that is installed in editable mode is one of them, as its files lie
outside ``site-packages``.
"""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig
from types import ModuleType
from typing import Any

_PACKAGE = __name__.partition(".")[0]

_INSTALL_FOLDERS = ("site-packages", "dist-packages")


def is_project_module(name: object) -> bool:
    """Return whether a module that this process has loaded is the project's own.

    Modules without a Python source are not: built-in ones, frozen ones and extensions.

    Args:
        name: The module's name, as in ``sys.modules``.
    """
    if name == "__main__":
        return True
    module = sys.modules.get(name) if isinstance(name, str) else None
    if type(module) is not ModuleType and not isinstance(module, ModuleType):
        return False
    if name == _PACKAGE or str(name).startswith(f"{_PACKAGE}."):
        return False
    if isinstance(file := getattr(module, "__file__", None), str):
        return file.endswith((".py", ".pyc", ".ipynb")) and not is_installed(file)
    # A namespace package has folders and no file.
    folders = list(getattr(module, "__path__", ()))
    return bool(folders) and not any(is_installed(os.path.join(each, "")) for each in folders)


def found_by_name(value: Any) -> tuple[str, str] | None:
    """Return the project module and the qualified name under which a function or class is found.

    None if it is not found there, such as a lambda or what a decorator has replaced, or is not the project's.
    """
    name, module = getattr(value, "__qualname__", None), getattr(value, "__module__", None)
    if not isinstance(name, str) or not is_project_module(module):
        return None
    return (str(module), name) if resolve(sys.modules.get(str(module)), name) is value else None


def resolve(module: ModuleType | None, qualname: str) -> Any:
    """Return what a module has under a qualified name such as ``Class.method``, or None."""
    value: Any = module
    for part in qualname.split("."):
        value = getattr(value, part, None)
    return value


@functools.lru_cache(maxsize=4096)
def is_installed(file: str) -> bool:
    """Return whether a file belongs to the standard library or to an installed package."""
    return any(
        path.startswith(_installed_folders())
        or any(f"{os.sep}{name}{os.sep}" in path for name in _INSTALL_FOLDERS)
        for path in {os.path.abspath(file), os.path.realpath(file)}
    ) or _has_metadata(file)


@functools.lru_cache(maxsize=1)
def _installed_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names}
    folders |= {*getattr(site, "getsitepackages", list)(), site.getusersitepackages()}
    folders |= {os.path.realpath(folder) for folder in folders if folder}
    return tuple(os.path.join(folder, "") for folder in folders if folder)


def _has_metadata(file: str) -> bool:
    """Return whether a file lies in a folder that ``pip install --target`` has filled."""
    folder = os.path.dirname(os.path.abspath(file))
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder = os.path.dirname(folder)
    return _holds_metadata(folder)


@functools.lru_cache(maxsize=1024)
def _holds_metadata(folder: str) -> bool:
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(folder))
    except OSError:
        return False
