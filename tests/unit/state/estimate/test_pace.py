"""The pace of a count is that of late, steady in batches, and falls while nothing moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils._state.estimate.pace import RECENT_S, STILL_S, Pace


def test_the_pace_is_that_of_late() -> None:
    """A minute after the pace has changed what was before has no weight left."""
    pace = Pace(0.0, memory=RECENT_S)
    for second in range(1, 301):
        pace.note(second, second)
    for second in range(301, 361):
        pace.note(second, 300 + 20 * (second - 300))
    assert pace.rate(360) == pytest.approx(20, rel=0.02)


def test_a_long_count_is_judged_by_minutes() -> None:
    """A count of an hour takes a pause of seconds for what it is, and follows a change within minutes."""
    pace = Pace(0.0)
    for second in range(1, 3_601):
        pace.note(second, 10 * second)
    pace.note(3_610, 36_001)
    assert pace.rate(3_610) == pytest.approx(10, rel=0.05)
    for second in range(3_611, 4_511):
        pace.note(second, 36_001 + 5 * (second - 3_610))
    assert pace.rate(4_510) == pytest.approx(5, rel=0.1)


def test_a_count_in_batches_has_a_steady_pace() -> None:
    """A batch of 600 each minute is ten a second, right after a batch and right before the next."""
    pace = Pace(0.0)
    for minute in range(1, 10):
        pace.note(60 * minute, 600 * minute)
        assert pace.rate(60 * minute) == pace.rate(60 * minute + 59) == pytest.approx(10)
        assert not pace.stands(60 * minute + 59)


@pytest.mark.parametrize(("every", "longest"), [(0.1, STILL_S), (1.0, STILL_S), (60.0, 120.0)])
def test_a_count_stands_that_takes_twice_as_long_as_ever(every: float, longest: float) -> None:
    """It stands after twice the longest pause that it made before, and some seconds at the least."""
    pace = Pace(0.0)
    for step in range(1, 101):
        pace.note(step * every, step)
    last = 100 * every
    assert not pace.stands(last + longest - 0.01)
    assert pace.stands(last + longest + 0.01)
    assert pace.rate(last + 1_000 * every) < pace.rate(last) / 3
    pace.note(last + 1_000 * every, 101)
    assert not pace.stands(last + 1_000 * every)


def test_what_is_taken_back_counts_again() -> None:
    """The items of a lost attempt are taken back, and those of the next one make the same pace."""
    pace = Pace(0.0)
    for second, done in enumerate((100, 200, 300, 100, 200, 300), 1):
        pace.note(second, done)
        assert pace.rate(second) == pytest.approx(100)


def test_work_may_be_that_of_many_workers() -> None:
    """Where eight workers need a second for 16 items, each item takes one half a second."""
    pace = Pace(10.0, work=0.0)
    assert (pace.seconds_each, pace.rate(10.0)) == (None, 0.0)
    for second in range(1, 11):
        pace.note(10.0 + second, 16 * second, 8.0 * second)
    assert pace.seconds_each == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(-100, 1_000)), max_size=50))
def test_a_pace_lies_between_the_slowest_and_the_fastest(steps: list[tuple[float, int]]) -> None:
    """Whatever comes, the pace is never negative, and no faster than the fastest step."""
    pace, now, done, fastest = Pace(0.0), 0.0, 0, 0.0
    waited = 0.0
    for seconds, items in steps:
        now, done, waited = now + seconds, done + items, waited + seconds
        pace.note(now, done)
        if items > 0 and waited > 0:
            fastest, waited = max(fastest, items / waited), 0.0
        elif items < 0:
            waited = 0.0
        assert 0 <= pace.rate(now) <= fastest * 1.000_001 or not waited
