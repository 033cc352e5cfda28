"""What makes two dataset runs the same run."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from speedy_utils._engines.identity.parts import parts_of
from speedy_utils._sharding.fingerprint import Fingerprint, Part, differences, fingerprint_run, hash_value

DATASET = Dataset.from_dict({"id": list(range(10))})

SCRIPT = """
import sys
from datasets import Dataset
from speedy_utils._engines.identity.parts import parts_of
from speedy_utils._sharding.fingerprint import fingerprint_run, hash_value

factor = 2
def helper(x):
    return x in {"a", "b", "c"} and factor
def make(n):
    return lambda shard, path: (helper(shard), n, {"k", "l"})
def direct(shard, path):
    return shard in {"a", "b", "c"}
class Worker:
    def __init__(self):
        self.names = {"x", "y", "z"}
    def __call__(self, shard, path):
        return helper(shard)
dataset = Dataset.from_dict({"id": [1, 2]}).shuffle(seed=1)
for func in (make, make(3), direct, Worker(), Worker().__call__):
    arguments = {"b": {"t", "u"}, "c": frozenset("xyz"), "a": [1.5, ()]}
    print(fingerprint_run(dataset, func, parts_of(func, arguments, hash_value)))
"""


def test_an_fingerprint_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Functions of a script, closures, lambdas, callables and sets have one fingerprint in every process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    runs = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    first, second = [run.communicate(timeout=60)[0] for run in runs]
    assert first == second
    assert first.count("Fingerprint(") == 5
    assert "None" not in first


def of(func: Callable[..., Any], **kwargs: Any) -> Fingerprint:
    """Return the fingerprint of a run over the dataset."""
    return fingerprint_run(DATASET, func, parts_of(func, kwargs, hash_value))


def test_an_fingerprint_tells_code_closure_and_arguments_apart() -> None:
    """A changed constant, closure, bound or keyword argument is a difference; a new lambda is not."""

    def closure(number: int) -> Callable[[], int]:
        return lambda: number

    assert differences(of(closure(1)), of(closure(1))) == []
    assert "'number' of " in differences(of(closure(1)), of(closure(2)))[0]
    assert differences(of(closure(1)), of(closure(2)))[0].endswith(" is 2; it was 1")
    assert "the code of " in differences(of(lambda: 1), of(lambda: 2))[0]
    assert differences(of(len, size=1), of(len, size=1)) == []
    assert differences(of(len, size=1), of(len, size=2)) == ["the argument 'size' is 2; it was 1"]
    add = functools.partial(max, 1)
    assert differences(of(add), of(functools.partial(max, 2))) == [
        "the argument 0 of the partial of builtins.max is 2; it was 1"
    ]


def test_an_imported_function_that_was_edited_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of an imported module is known by its code too, though pickle knows it by its name."""
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    for text in ("return 1", "return 1  # the same", "return 2"):
        (tmp_path / "edited_module.py").write_text(f"def func():\n    {text}\n")
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        sys.modules.pop("edited_module", None)
        seen.append(of(__import__("edited_module").func))
    del sys.modules["edited_module"]
    assert differences(seen[0], seen[1]) == []
    assert differences(seen[1], seen[2]) == [
        "the code of edited_module.func has `return 2`; it was `return 1`"
    ]


def test_what_can_not_be_pickled_is_unknown_not_changed() -> None:
    """A function or an argument without a fingerprint is said to be unknown, and never counts as the same."""
    endless = (row for row in "rows")
    fingerprint = of(lambda: endless, rows=endless)
    found = differences(fingerprint, fingerprint)
    assert len(found) == 2
    assert all("can't be pickled, so it is unknown whether" in sentence for sentence in found)


def test_a_wrapped_function_is_known_by_what_it_wraps() -> None:
    """A decorator whose wrapper can't be pickled doesn't hide the function."""

    def func(number: int) -> int:
        return number

    class Proxy:
        __wrapped__ = staticmethod(func)

        def __call__(self, *args: int) -> int:
            return func(*args)

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise NotImplementedError

    fingerprint = of(Proxy())
    assert differences(fingerprint, fingerprint) == []
    assert (
        f"the code of {__name__}.test_a_wrapped_function_is_known_by_what_it_wraps.func" in fingerprint.parts
    )
    assert fingerprint.function.endswith("func")


@pytest.mark.parametrize(("number", "count"), [("1", 0), ("2", 1)])
def test_a_module_that_one_run_has_loaded_is_compared_by_its_source(number: str, count: int) -> None:
    """What is known only of a loaded module is no change if its source is the same."""
    was = {"the code of the module lib": Part("1", "x = 1")}
    now = {
        "the code of the module lib": Part(f"{number} loaded", f"x = {number}"),
        "the code of lib.go": Part("5", "def go(): pass"),
        "the global 'N' of lib": Part("6", "6"),
        "the package numpy": Part("7", "2.0"),
    }
    for pair in ((was, now), (now, was)):
        found = differences(*(Fingerprint("d", 1, "f", parts) for parts in pair))
        assert len(found) == count
        assert all(sentence.startswith("the code of the module lib has `x = ") for sentence in found)


def test_a_changed_line_is_shown_beside_the_one_that_it_was() -> None:
    """Of several lines that went, the one that is most like the first new line is shown."""
    was = "def f(row):\n    if row == 3:\n        raise ValueError\n    return {'n': row}"
    now = "def f(row):\n    return {'n': row + 1}"
    runs = [
        Fingerprint("d", 1, "f", {"the code of f": Part(digest, text)})
        for digest, text in (("1", was), ("2", now))
    ]
    found = differences(*runs)
    assert found == ["the code of f has `return {'n': row + 1}`; it was `return {'n': row}`"]
