"""Which modules are the project's own."""

from __future__ import annotations

import collections
import importlib
import itertools
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pyarrow.lib
import pytest
import tqdm
from support.modules import forgetting_modules

import speedy_utils
from speedy_utils._engines.payload.project_modules import found_by_name, is_project_module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path`` whose modules are forgotten at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))
    with forgetting_modules(tmp_path):
        yield tmp_path


@pytest.mark.parametrize(
    "module",
    [sys, itertools, collections, json, types, tqdm, pytest, pyarrow.lib, speedy_utils],
    ids=lambda module: module.__name__,
)
def test_what_is_installed_is_not_the_projects(module: types.ModuleType) -> None:
    """The standard library, installed packages, extensions and this package are not the project's."""
    assert not is_project_module(module.__name__)


def test_modules_in_a_folder_of_the_users_are_the_projects(folder: Path) -> None:
    """A module, a package, a namespace package and the main program are the project's."""
    (folder / "own_module.py").write_text("")
    for package in ("own_package", "own_space"):
        (folder / package).mkdir()
        (folder / package / "inner.py").write_text("")
    (folder / "own_package" / "__init__.py").write_text("")
    names = ["own_module", "own_package", "own_package.inner", "own_space", "own_space.inner"]
    for name in names:
        importlib.import_module(name)
    assert [name for name in [*names, "__main__"] if not is_project_module(name)] == []


def test_a_folder_that_pip_has_filled_is_not_the_projects(folder: Path) -> None:
    """What lies beside the metadata of packages was installed there, as by ``pip install --target``."""
    (folder / "some_tool-1.0.dist-info").mkdir()
    (folder / "some_tool").mkdir()
    (folder / "some_tool" / "__init__.py").write_text("")
    importlib.import_module("some_tool")
    assert not is_project_module("some_tool")


def test_modules_without_a_source_are_not_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not loaded, no name at all, and a module made at run time are not the project's."""
    monkeypatch.setitem(sys.modules, "made", types.ModuleType("made"))
    assert not any(is_project_module(name) for name in ("made", "never_loaded", None))


def test_a_function_is_found_by_its_name_only_if_the_name_leads_to_it(folder: Path) -> None:
    """Functions, classes and methods are found; a lambda, a copy, and what is installed are not."""
    (folder / "own_things.py").write_text("class A:\n    def m(self): pass\ndef f():\n    return lambda: 0\n")
    things = importlib.import_module("own_things")
    assert found_by_name(things.A) == ("own_things", "A")
    assert found_by_name(things.A.m) == ("own_things", "A.m")
    assert found_by_name(things.f) == ("own_things", "f")
    copy = types.FunctionType(things.f.__code__, vars(things))
    assert [found_by_name(each) for each in (things.f(), copy, json.dumps, 5)] == [None] * 4
