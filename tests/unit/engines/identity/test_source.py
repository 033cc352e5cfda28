"""The code of a function, without what changes nothing."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speedy_utils._engines.identity.source import code_of

PLAIN = "def f(x, n=1):\n    y = x + n\n    def g(z):\n        return z\n    return g(y)\n"
Load = Callable[[str], Any]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Return a function that runs the text of a module and returns its ``f``."""
    file = tmp_path / "module.py"

    def run(text: str) -> Any:
        file.write_text(text)
        scope: dict[str, Any] = {}
        exec(compile(text, str(file), "exec", dont_inherit=True), scope)
        return scope["f"]

    yield run
    linecache.checkcache(str(file))


def same(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Return whether two functions have the same code."""
    return bool(set(first[0].split()) & set(second[0].split()))


@pytest.mark.parametrize(
    "text",
    [
        "# A comment.\n\n\n" + PLAIN,
        PLAIN.replace("y = x + n", "y = (x +  # sum\n        n)"),
        PLAIN.replace("    y = ", '    """Add."""\n    y = '),
        PLAIN.replace("(x, n=1)", "(x: int, n: 'str' = 1) -> float"),
        PLAIN.replace("y = ", "y: int = "),
        PLAIN.replace("g(z):", "g(z: int) -> str:\n        'Return it.'"),
        PLAIN.replace("n=1", "n=2"),
    ],
    ids=["lines", "layout", "docstring", "annotations", "variable", "inner", "default"],
)
def test_what_does_not_run_is_no_change(load: Load, text: str) -> None:
    """Comments, layout, docstrings and annotations are no part of the code; a default is another part."""
    before = code_of(load(PLAIN))
    assert same(before, code_of(load(text)))
    assert before[1].startswith("def f(x, n):\n    y = x + n\n")


@pytest.mark.parametrize(
    "text",
    [PLAIN.replace("x + n", "x - n"), PLAIN.replace("return z", "return -z"), PLAIN.replace("n=1", "m, n=1")],
    ids=["code", "inner", "parameter"],
)
def test_what_runs_is_a_change(load: Load, text: str) -> None:
    """Code counts, that of functions inside too."""
    assert not same(code_of(load(PLAIN)), code_of(load(text)))


def test_annotations_of_a_class_are_a_change(load: Load) -> None:
    """Programs read those of a class in the function, such as a dataclass or the schema of a tool."""
    text = "def f():\n    class Row:\n        n: int\n    return Row\n"
    assert not same(code_of(load(text)), code_of(load(text.replace("int", "str"))))


def test_a_file_that_was_edited_after_its_import_is_not_what_runs(load: Load, tmp_path: Path) -> None:
    """The fingerprint is that of the code that is loaded, whatever stands in the file by then."""
    f = load(PLAIN)
    before = code_of(f)
    (tmp_path / "module.py").write_text(PLAIN.replace("x + n", "x * 1000 + n"))
    after = code_of(f)
    assert same(before, after)
    assert after[1] == ""
    assert not same(after, code_of(load(PLAIN.replace("x + n", "x * 1000 + n"))))


def test_two_lambdas_in_a_line_have_code_of_their_own(load: Load) -> None:
    """Where the source does not say which function it is, the bytecode decides."""
    first, second = (code_of(each) for each in load("f = [lambda x: x + 1, lambda x: x + 2]\n"))
    assert not same(first, second)
