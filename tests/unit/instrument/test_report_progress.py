"""``report_progress`` adds items and counters, takes them back, refuses what is none, and loses nothing."""

from __future__ import annotations

import inspect
import math
import sys
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.threads import in_threads
from tqdm import tqdm

from speedy_utils import report_progress, track, tracked
from speedy_utils._state.ledger import RUN_ITEMS, Metric
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter
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


WHOLE_NUMBERS = [
    *(np.int64(3), np.uint8(200), np.int8(127), np.array(3), 2**63),
    *(True, False, np.True_, 2.0, np.float64(3), np.float32(2), np.array(2.0), Fraction(6, 2)),
]


@pytest.mark.parametrize("n", WHOLE_NUMBERS, ids=repr)
def test_report_takes_any_whole_number(n: Any) -> None:
    """Whole floats, truth values and NumPy's numbers count, as plain integers, which don't overflow."""
    with RecordingSink() as sink:
        report_progress(n)
        report_progress(n)
    assert sink.done == 2 * int(n)
    assert type(sink.done) is int


NO_NUMBERS = ["3", b"3", None, [1], np.array([1]), np.array([1, 2]), np.array(1.5), 1j]
NOT_WHOLE = [1.5, math.nan, math.inf, -math.inf, np.float32("nan"), np.float64(0.5), Fraction(1, 2)]


@pytest.mark.parametrize(
    ("n", "error"),
    [*((n, TypeError) for n in NO_NUMBERS), *((n, ValueError) for n in NOT_WHOLE)],
    ids=repr,
)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_report_refuses_what_is_no_count(n: Any, error: type[Exception], inside: bool) -> None:
    """What is no whole number is an error that shows it, in a test's sink or in none, and counts nothing."""
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


@given(st.lists(st.tuples(st.sampled_from([None, "Read"]), st.integers(-9, 9)), max_size=20))
def test_a_negative_number_takes_back_what_was_counted(counted: list[tuple[str | None, int]]) -> None:
    """Each stage its own, to zero at the least."""
    expected: dict[str | None, int] = {None: 0}
    with RecordingSink() as sink:
        for stage, n in counted:
            report_progress(n, desc=stage)
            expected[stage] = max(0, expected.get(stage, 0) + n)
    assert {None: sink.done, **sink.stages} == expected


def test_what_a_loop_and_a_bar_have_counted_can_be_taken_back(sink: RecordingSink) -> None:
    """Items count as taken back also while their loop runs, and those of a bar that alone has counted."""
    for n in track(range(10)):
        if n == 6:
            report_progress(-4)
            assert sink.done == 2
    assert sink.done == 6
    bar = tqdm(total=9, desc="Fetch")
    bar.update(5)
    report_progress(-2, desc="Fetch")
    bar.update(1)
    assert sink.stages == {"Fetch": 4}


def test_counters_beyond_all_floats_end_no_work() -> None:
    """A sum of integers may be larger than any float; a fraction on top of it changes nothing."""
    with RecordingSink() as sink:
        for amount in (10**308, 10**308, 0.5):
            report_progress(tokens=amount)
    assert (sink.done, sink.counters) == (3, {None: {"tokens": sys.float_info.max}})


def test_a_call_takes_back_what_it_has_counted_itself() -> None:
    """A tracked call that begins again does not take what other calls of its task have counted."""

    @tracked(total=5)
    def fetch() -> int:
        report_progress(3)
        report_progress(-9)
        return sink.done

    with RecordingSink() as sink:
        assert [fetch(), fetch(), sink.done] == [0, 5, 10]


def test_what_can_not_be_counted_in_a_run_is_left_out_and_told_with_the_line() -> None:
    """The rest of such a report counts. The first line of the task travels with its counts."""
    reporter = Reporter(0)
    with counting(reporter.own):
        line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
        report_progress(2, loss=math.nan, tokens=5)
        report_progress(1.5, loss=-0.5)  # type: ignore[arg-type]
        report_progress("3", **{"two words": 1}, tokens=2)  # type: ignore[arg-type]
        list(track("abc", total=math.nan, size={"a": 1, "b": 0.5, "c": -1}.get))  # type: ignore[arg-type]
        tracked(total=lambda x: 0.5)(abs)(-1)
    counts = dict(reporter.report().counts)
    (key,) = [key for key in counts if key.metric is Metric.LEFT_OUT]
    assert key.label == f"loss must be a finite number, not nan ({__file__}:{line})"
    assert counts[key] == 1
    assert counts[RUN_ITEMS] == 4
    assert {key.label: n for key, n in counts.items() if key.metric is Metric.COUNTER} == {
        "tokens": 7,
        "loss": -0.5,
    }


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "Read"]), st.integers(-(10**20), 10**20) | st.floats(-1e100, 1e100))
    )
)
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
        ({"good": 1, "tokens": float("nan")}, ValueError, "tokens must be a finite number, not nan"),
        ({"tokens": "5"}, TypeError, r"tokens must be a finite number, not '5' \(str\)"),
        ({"two words": 1}, ValueError, "a counter needs a name like a variable's, not 'two words'"),
    ],
)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_bad_counters_are_refused_whole(
    counters: dict[str, Any], error: type[Exception], says: str, inside: bool
) -> None:
    """A counter that can't be added up is an error in a test's sink and in none, and nothing is counted."""
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
