"""``report_progress`` adds items and counters, refuses what is none, and loses nothing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.threads import in_threads

from speedy_utils import report_progress, track
from speedy_utils.testing import RecordingSink


def test_reports_add_up_by_stage() -> None:
    """A report is of one item by default; a named stage's items are apart from the run's own, as "" is."""
    with RecordingSink() as sink:
        report_progress()
        report_progress(5)
        report_progress(0)
        report_progress(2, desc="Read")
        report_progress(desc="Write")
        report_progress(3, desc="Read")
        report_progress(4, desc=None)
        report_progress(1, desc="")
        list(track("ab", desc=""))
    assert (sink.done, sink.stages) == (13, {"Read": 5, "Write": 1})


@pytest.mark.parametrize("n", [np.int64(3), np.uint8(200), np.int8(127), np.array(3), 2**63])
def test_report_takes_any_integer(n: Any) -> None:
    """NumPy's integers are integers, what is counted is a plain int, and it does not overflow."""
    with RecordingSink() as sink:
        report_progress(n)
        report_progress(n)
    assert sink.done == 2 * int(n)
    assert type(sink.done) is int


NOT_INTEGERS = [True, False, np.True_, 1.0, np.float64(1), "3", None, [1], np.array([1, 2]), np.array(1.5)]


@pytest.mark.parametrize(
    ("n", "error"),
    [*((n, TypeError) for n in NOT_INTEGERS), (-1, ValueError), (np.int64(-7), ValueError)],
    ids=repr,
)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_report_refuses_what_is_no_count(n: Any, error: type[Exception], inside: bool) -> None:
    """What is not an integer of 0 or more is an error that shows it, in a run or not, and counts nothing."""
    sink = RecordingSink()
    with sink if inside else nullcontext():
        with pytest.raises(error) as caught:
            report_progress(n)
        with pytest.raises(error):
            report_progress(n, desc="Read", tokens=5)
        with pytest.raises(TypeError, match="desc must be a string, not 3"):
            report_progress(1, desc=3)
    assert repr(n) in str(caught.value)
    assert (sink.done, sum(sink.stages.values()), sink.counters) == (0, 0, {})


@given(st.lists(st.tuples(st.sampled_from([None, "Read"]), st.integers(0, 10**20) | st.floats(0, 1e100))))
def test_counters_add_up_by_stage(counted: list[tuple[str | None, float]]) -> None:
    """Counters are summed, each stage its own, and leave the count of items alone."""
    expected: dict[str | None, float] = {}
    with RecordingSink() as sink:
        for stage, amount in counted:
            report_progress(2, desc=stage, tokens=amount)
            expected[stage] = expected.get(stage, 0) + amount
    assert sink.counters == {stage: {"tokens": amount} for stage, amount in expected.items()}
    assert sink.done + sum(sink.stages.values()) == 2 * len(counted)


def test_counters_have_names_and_need_no_items() -> None:
    """Any number of counters goes with a report, also with one of no items; the default is one item."""
    with RecordingSink() as sink:
        report_progress(0, tokens=5, loss=0.5)
        report_progress(tokens=2)
    assert sink.done == 1
    assert sink.counters == {None: {"tokens": 7, "loss": 0.5}}


@pytest.mark.parametrize("amount", [np.uint8(3), np.float16(3)])
def test_counters_take_numpy_numbers(amount: Any) -> None:
    """NumPy's numbers are added up as Python's, and don't overflow."""
    with RecordingSink() as sink:
        for _ in range(100):
            report_progress(tokens=amount)
    counted = sink.counters[None]["tokens"]
    assert (counted, type(counted) in (int, float)) == (300, True)


@pytest.mark.parametrize(
    ("counters", "error", "says"),
    [
        ({"good": 1, "tokens": float("nan")}, ValueError, "tokens must be at least 0, and finite, not nan"),
        ({"tokens": True}, TypeError, r"tokens must be a number, not True \(bool\)"),
        ({"two words": 1}, ValueError, "a counter needs a name like a variable's, not 'two words'"),
    ],
)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_bad_counters_are_refused_whole(
    counters: dict[str, Any], error: type[Exception], says: str, inside: bool
) -> None:
    """A counter that can't be added up is an error in a run and outside alike, and nothing is counted."""
    sink = RecordingSink()
    with sink if inside else nullcontext():
        for stage in (None, "Read"):
            with pytest.raises(error, match=says):
                report_progress(5, desc=stage, **counters)
    assert (sink.done, sum(sink.stages.values()), sink.counters) == (0, 0, {})


def test_counters_from_threads_lose_nothing() -> None:
    """Eight threads that add to the same counters, and to new ones, are counted to the last one."""

    def add() -> None:
        for turn in range(1_000):
            report_progress(1, desc="Read", tokens=3, loss=0.5, **{f"step_{turn % 50}": 1})
            if turn % 100 == 0:
                report_progress(0, tokens=1)

    seen = [0.0]
    with RecordingSink() as sink:
        in_threads(add, lambda: seen.append(sink.counters.get("Read", {}).get("tokens", 0)))
    steps = {f"step_{step}": 160 for step in range(50)}
    assert sink.counters == {None: {"tokens": 80}, "Read": {"tokens": 24_000, "loss": 4_000} | steps}
    assert sink.stages == {"Read": 8_000}
    assert max(seen) <= 24_000
