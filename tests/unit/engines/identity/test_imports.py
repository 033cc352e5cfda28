"""The project's modules that a function imports in its body."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.modules import forgetting_modules

from speedy_utils._engines.identity.imports import modules_imported
from speedy_utils._engines.payload.reads import names_in

FILES = {
    "lazy_top.py": (
        "import numpy\nfrom lazy_space.inner import text\nAPI_KEY = 'sk-1'\ndef go(): return text.strip()\n"
    ),
    "lazy_space/inner/text.py": "from . import deep\ndef strip(): return deep.N\n",
    "lazy_space/inner/deep.py": "N = 1\n",
    "lazy_pkg/__init__.py": "LIMIT = 1\n",
    "lazy_pkg/a.py": "def go(): return 1\n",
    "lazy_pkg/b.py": "def go(): return 1\n",
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write the project's files, and return a function that writes one of them anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_one(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    for name, text in FILES.items():
        write_one(name, text)
    importlib.invalidate_caches()
    with forgetting_modules(tmp_path):
        yield write_one


def imported(statement: str, package: str = "") -> tuple[dict[str, str], set[str]]:
    """Return the fingerprints of the modules that a statement leads to, and what else is imported."""
    modules, others = modules_imported(names_in(compile(statement, "", "exec")), package)
    return {name: digest for name, (digest, _) in modules.items()}, others


def test_modules_are_followed_and_not_loaded(write: Callable[[str, str], None]) -> None:
    """What an imported module imports counts too, also in packages without a file, and nothing is loaded."""
    found, others = imported("from lazy_top import go")
    assert set(found) == {"lazy_top", "lazy_space.inner.text", "lazy_space.inner.deep"}
    assert others == {"numpy"}
    assert not found.keys() & sys.modules.keys()
    assert (
        "sk-1" not in modules_imported(names_in(compile("import lazy_top", "", "exec")), "")[0]["lazy_top"][1]
    )


@pytest.mark.parametrize(
    ("statement", "package"),
    [("from lazy_pkg import a", ""), ("import lazy_pkg.a", ""), ("from .a import go", "lazy_pkg")],
)
def test_only_the_modules_of_a_package_that_are_named_count(
    write: Callable[[str, str], None], statement: str, package: str
) -> None:
    """A package's own file counts beside the module that is imported from it, and no other module."""
    assert set(imported(statement, package)[0]) == {"lazy_pkg", "lazy_pkg.a"}


def test_comments_change_nothing_and_code_does(write: Callable[[str, str], None]) -> None:
    """Comments, docstrings and annotations leave a module's fingerprint as it is, and code does not."""
    before = imported("import lazy_top")[0]
    write("lazy_space/inner/deep.py", '"""Deep."""\nN: int = 1  # one\n')
    assert imported("import lazy_top")[0] == before
    write("lazy_space/inner/deep.py", "N = 20\n")
    after = imported("import lazy_top")[0]
    assert [name for name in after if after[name] != before[name]] == ["lazy_space.inner.deep"]


def test_a_loaded_module_says_so(write: Callable[[str, str], None]) -> None:
    """A loaded module has the fingerprint of its source, and one that all loaded modules share."""
    before = imported("import lazy_pkg.a")[0]["lazy_pkg.a"]
    importlib.import_module("lazy_pkg.a")
    assert imported("import lazy_pkg.a")[0]["lazy_pkg.a"] == f"{before} loaded"


def test_what_is_no_module_of_the_project_is_left_alone(write: Callable[[str, str], None]) -> None:
    """Installed, built-in and missing modules are named, and a file that is no Python is passed over."""
    write("lazy_broken.py", "def (")
    found, others = imported("import os, sys, numpy.linalg, no_such_module, lazy_broken")
    assert not found
    assert others == {"os", "sys", "numpy.linalg", "no_such_module"}
