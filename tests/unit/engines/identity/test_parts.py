"""The parts that a function is made of."""

from __future__ import annotations

import argparse
import functools
import importlib
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import forgetting_modules

from speedy_utils._engines.identity.parts import Parts, attributes_read, parts_of, show

PROCESS = """
import argparse
import math
import numpy
import sizes
from cleaning import Cleaner, clean

args = argparse.Namespace(len=2, workers=4)
cleaner = Cleaner()
whole = argparse.Namespace(a=1)

def helper(x):
    return x + args.len

def process(shard, size=3, *, flag=True):
    whole_object = whole
    return [helper(clean(x) * sizes.n + cleaner.go()) + numpy.abs(math.pi) for x in shard]

def passes_on(shard):
    return vars(sizes)
"""
CLEANING = """
SEP, unread = ",", 1

class Cleaner:
    "Cleans."
    limit: int = 5
    def go(self):
        return self.limit

def clean(x):
    return x or SEP
"""


def hash_value(value: Any) -> tuple[str | None, list[Any]]:
    """Return the fingerprint of a value, and the classes of what is no plain value."""
    try:
        pickle.dumps(value)
    except (TypeError, AttributeError):
        return None, []
    return show(value), [] if type(value).__module__ == "builtins" else [type(value)]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Parts]]:
    """Return a function that writes the project's modules, changed, and returns the parts of a function."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def take(old: str = "", new: str = "", name: str = "process") -> Parts:
        texts = {"processing": PROCESS, "cleaning": CLEANING, "sizes": "n = 80\nother = 1\n"}
        for module, text in texts.items():
            (tmp_path / f"{module}.py").write_text(text.replace(old, new) if old else text)
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        return parts_of(getattr(importlib.import_module("processing"), name), {"k": 1}, hash_value)

    with forgetting_modules(tmp_path):
        yield take


def changed(was: Parts, now: Parts) -> set[str]:
    """Return the names of the parts that differ."""
    names = {*was, *now}
    return {
        name
        for name in names
        if name not in was
        or name not in now
        or set((was[name][0] or "").split()).isdisjoint((now[name][0] or "").split())
    }


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("size=3", "size=4", "the default of 'size' of processing.process"),
        ("flag=True", "flag=False", "the default of 'flag' of processing.process"),
        ("len=2", "len=7", "args.len of processing"),
        ("a=1", "a=2", "the global 'whole' of processing"),
        ("x + args.len", "x - args.len", "the code of processing.helper"),
        ("x or SEP", "x and SEP", "the code of cleaning.clean"),
        ('SEP, unread = ","', 'SEP, unread = ";"', "the global 'SEP' of cleaning"),
        ("n = 80", "n = 90", "the global 'n' of sizes"),
        ("return self.limit", "return -self.limit", "the code of cleaning.Cleaner.go"),
        ("limit: int = 5", "limit: int = 6", "the attribute 'limit' of the class cleaning.Cleaner"),
        ("limit: int", "limit: float", "the attribute '__annotations__' of the class cleaning.Cleaner"),
        ('"Cleans."', '"Wipes."', "the attribute '__doc__' of the class cleaning.Cleaner"),
    ],
)
def test_each_change_is_that_of_one_part(parts: Callable[..., Parts], old: str, new: str, name: str) -> None:
    """Defaults, globals, helpers and classes are parts, each with its name, and what is read of modules."""
    assert changed(parts(), parts(old, new)) == {name}


@pytest.mark.parametrize(
    ("old", "new"),
    [("workers=4", "workers=8"), ('unread = ",", 1', 'unread = ",", 2'), ("other = 1", "other = 2")],
)
def test_what_is_not_read_is_no_part(parts: Callable[..., Parts], old: str, new: str) -> None:
    """Of an object of which only attributes are read these count, and of a module what is read by name."""
    assert changed(parts(), parts(old, new)) == set()


def test_a_module_that_is_passed_on_counts_as_a_whole(parts: Callable[..., Parts]) -> None:
    """Where it can't be known what is read of a module, all its plain values are parts."""
    was, now = parts(name="passes_on"), parts("other = 1", "other = 2", name="passes_on")
    assert changed(was, now) == {"the global 'other' of sizes"}


def test_an_installed_package_is_known_by_its_version(parts: Callable[..., Parts]) -> None:
    """Its code is not looked at, and the standard library goes by the version of Python."""
    found = parts()
    assert found["the package numpy"][1] == __import__("numpy").__version__
    assert found["Python"][1] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert [name for name in found if "math" in name or "argparse" in name] == []


def test_the_text_of_a_part_shows_it_in_short(parts: Callable[..., Parts]) -> None:
    """A value is shown as its ``repr``, code as its source, and what may be a secret not at all."""
    found = parts()
    assert found["the argument 'k'"] == ("1", "1")
    assert found["the code of cleaning.clean"][1] == "def clean(x):\n    return x or SEP"
    secret = parts("SEP", "api_key")
    assert secret["the global 'api_key' of cleaning"][1] == "…"
    assert len(show("x" * 1000)) == 100
    assert show(object()) == "<object object>"


def test_wrappers_lead_to_what_they_call() -> None:
    """Partials, methods, cached functions and callable objects are known by their parts."""

    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, shard: Any) -> Any:
            return shard + self.n

    @functools.lru_cache
    def cached(shard: Any) -> Any:
        return shard

    place = f"{__name__}.test_wrappers_lead_to_what_they_call"
    adder = Adder(1)
    for function in (adder, adder.__call__, functools.partial(adder, 1)):
        assert f"the code of {place}.Adder.__call__" in parts_of(function, {}, lambda _: ("", [Adder]))
    assert f"the code of {place}.cached" in parts_of(cached, {}, hash_value)
    found = parts_of(functools.partial(max, 5), {}, hash_value)
    assert found["the argument 0 of the partial of builtins.max"] == ("5", "5")


def test_functions_of_one_name_are_parts_of_their_own() -> None:
    """Two lambdas of a function have the same name, and parts of their own."""
    pair = [lambda: 1, lambda: 2]
    first, second = pair
    found = parts_of(lambda shard: first() or second(), {}, hash_value)
    assert len([name for name in found if name.startswith("the code of")]) == 3


def test_attributes_are_known_only_where_nothing_else_is_read() -> None:
    """A call, an assignment or a use of the whole object in any inner function makes them unknown."""
    args = argparse.Namespace()
    code = compile(
        "def f():\n    a.x; a.y\n    b.x; b\n    c.x = 1\n    return [d.z for _ in e], lambda: (a.z, g(b))",
        "",
        "exec",
    )
    assert vars(args) == {}
    found = attributes_read(code.co_consts[0])
    assert found["a"] == {"x", "y", "z"}
    assert (found["b"], found["c"], found["e"], found["g"]) == (None, None, None, None)
    assert found["d"] == {"z"}


def test_the_functions_for_each_type_are_parts() -> None:
    """Functions that are registered for ``functools.singledispatch`` count with the one that calls them."""

    @functools.singledispatch
    def go(x: Any) -> Any:
        return x

    @go.register
    def go_int(x: int) -> int:
        return x + 1

    place = f"{__name__}.test_the_functions_for_each_type_are_parts"
    assert f"the code of {place}.go_int" in parts_of(lambda shard: go(shard), {}, hash_value)
