"""How fast a line is said to be."""

from __future__ import annotations

from typing import Any

import pytest

from speedy_utils import StageSnapshot
from speedy_utils._display.format import SmoothedRate


def stage(done: int, elapsed: float, **more: Any) -> StageSnapshot:
    """A stage of a thousand items."""
    return StageSnapshot("Read", done, 1_000, elapsed=elapsed, **more)


def test_speed_is_that_of_late() -> None:
    """After a slow start the speed shown is near the new one, and not the mean."""
    pace = SmoothedRate()
    rates = [pace.rate(stage(10, 10.0), final=False)]
    rates += [pace.rate(stage(10 + 50 * n, 10.0 + n), final=False) for n in range(1, 10)]
    assert rates[0] == pytest.approx(1.0)
    assert rates == sorted(rates)
    mean = 460 / 19
    assert rates[-1] > 1.5 * mean
    assert rates[-1] <= 50


def test_speed_is_even_where_the_work_is() -> None:
    """Readings at odd times of work at an even speed all give that speed."""
    pace = SmoothedRate()
    times = (1.0, 1.25, 1.5, 4.0, 4.5, 9.0)
    rates = [pace.rate(stage(int(100 * at), at), final=False) for at in times]
    assert rates == pytest.approx([100.0] * len(times))


def test_speed_sinks_while_nothing_moves() -> None:
    """A stage that stands still gets slower with each reading, and so does the time left grow."""
    pace = SmoothedRate()
    for second in range(1, 6):
        rate = pace.rate(stage(10 * second, float(second)), final=False)
    assert rate == pytest.approx(10.0)
    stalled = [pace.rate(stage(50, 5.0 + wait), final=False) for wait in (0.5, 1.0, 2.0, 10.0, 100.0)]
    assert stalled == pytest.approx([10.0, 10.0, 5.0, 1.0, 0.1])


def test_speed_outlives_a_lost_attempt() -> None:
    """A count that shrinks gives no negative speed, and what is counted again is measured from there."""
    pace = SmoothedRate()
    for second in range(1, 6):
        pace.rate(stage(100 * second, float(second)), final=False)
    shrunk = pace.rate(stage(100, 6.0), final=False)
    again = [pace.rate(stage(100 + 100 * n, 6.0 + n), final=False) for n in range(1, 4)]
    assert [shrunk, *again] == pytest.approx([100.0] * 4)


@pytest.mark.parametrize("final", [True, False])
def test_speed_of_what_has_ended_is_the_mean(final: bool) -> None:
    """The last reading, and every reading of a stage that is complete, show the mean over all its time."""
    pace = SmoothedRate()
    pace.rate(stage(10, 9.0), final=False)
    pace.rate(stage(900, 9.5), final=False)
    assert pace.rate(stage(600 if final else 1_000, 10.0), final=final) == (60.0 if final else 100.0)


def test_speed_leaves_out_what_was_done_before() -> None:
    """Items of an earlier run count, and are not part of the speed."""
    pace = SmoothedRate()
    assert pace.rate(stage(500, 0.0, initial=500), final=False) == 0.0
    assert pace.rate(stage(600, 10.0, initial=500), final=False) == pytest.approx(10.0)
    assert pace.rate(stage(700, 20.0, initial=500), final=True) == 10.0
