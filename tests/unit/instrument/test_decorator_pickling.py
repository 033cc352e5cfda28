"""What ``@tracked`` makes is pickled as what it wraps is, and counts on the other side."""

from __future__ import annotations

import pickle
import sys
import types
from typing import Any

import dill
import pytest

from speedy_utils import track, tracked
from speedy_utils._instrument.decorator import declared_total
from speedy_utils.testing import RecordingSink


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with tracked things, which pickle finds by name."""
    module: Any = types.ModuleType("tracked_things")
    monkeypatch.setitem(sys.modules, "tracked_things", module)
    code = """
import functools
from speedy_utils import report_progress, tracked

@tracked
def function(x): return x * 3

@tracked(total=4)
@functools.lru_cache
def cached(x): return x * 3

class Methods:
    @tracked
    def instance(self, x): return x * 3
    @tracked
    @classmethod
    def class_inside(cls, x): return x * 3
    @classmethod
    @tracked
    def class_outside(cls, x): return x * 3
    @tracked
    @staticmethod
    def static_inside(x): return x * 3
    @tracked
    @functools.lru_cache
    def cached(self, x): return x * 3
    def plain(self, x): return x * 3
    def __call__(self, x): return x * 3

bound = tracked(Methods().plain)
thing = tracked(Methods())
partial = tracked(functools.partial(function))
"""
    exec(code, module.__dict__)
    return module


PICKLED = [
    *("function", "cached", "bound", "thing", "partial"),
    *("Methods().instance", "Methods().cached"),
    *("Methods.class_inside", "Methods.class_outside", "Methods.static_inside"),
]


@pytest.mark.parametrize("what", PICKLED)
def test_pickled_by_reference(importable: Any, what: str) -> None:
    """Tracked callables of every kind go through pickle and count on the other side as they did here."""
    original = eval(what, importable.__dict__)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(original, protocol))
        with RecordingSink() as here:
            assert original(2) == 6
        with RecordingSink() as there:
            assert copy(2) == 6
        assert there.done == here.done > 0
        assert declared_total(copy, (2,), {}) == declared_total(original, (2,), {})


@pytest.mark.parametrize("what", [what for what in PICKLED if "cached" not in what])
def test_pickled_by_value(importable: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no worker can import, as in ``__main__``, travels with its code and counts there."""
    original = eval(what, importable.__dict__)
    monkeypatch.delitem(sys.modules, "tracked_things")
    copy = dill.loads(dill.dumps(original, byref=False, recurse=True))
    with RecordingSink() as sink:
        assert copy(2) == 6
    assert sink.done == 1


def test_closure_pickles_by_value() -> None:
    """A tracked closure with a total travels with what it closes over."""
    factor = 3

    @tracked(total=lambda rows: len(rows) * factor)
    def scaled(rows: list[int]) -> list[int]:
        return [row * factor for row in track(rows)]

    copy = dill.loads(dill.dumps(scaled, byref=False, recurse=True))
    with RecordingSink() as sink:
        assert copy([1, 2]) == [3, 6]
    assert sink.done == 6
    assert declared_total(copy, ([1, 2],), {}) == 6
