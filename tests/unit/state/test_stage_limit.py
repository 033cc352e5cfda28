"""The first stages have lines of their own, and all others share one, with exact sums."""

from __future__ import annotations

import pytest
from support.counts import items, own_total, without_total
from support.work import Work

from speedy_utils._instrument.loops import report_progress, track
from speedy_utils._state.ledger import Key, Metric
from speedy_utils._state.stage_limit import OVERFLOW_STAGE, StageLimit
from speedy_utils._worker.context import counting


def test_the_first_names_are_stages() -> None:
    """The run's stage and the shared one take no place, a stage stays one; counts within are passed on."""
    limit, counts = StageLimit(2), items(9, a=1, b=2)
    names = [None, "a", "others", "b", "c", "a", None, "c"]
    assert [limit.stage(name) for name in names] == [None, "a", "others", "b", "others", "a", None, "others"]
    assert limit.counts(counts) is counts


def test_counts_beyond_the_limit_are_added_up() -> None:
    """Amounts add up, what counts tasks does not, and the shared stage has a total of its own."""
    counts = items(9, a=1, b=2, c=4) | own_total("b", 20) | own_total("c", 30) | without_total("c")
    counts |= {Key(name, Metric.COUNTER, "tokens"): 5 for name in "bc"}
    counts |= {Key(name, Metric.UNIT, "B"): 1 for name in "bc"}
    assert StageLimit(1).counts(counts) == {
        **items(9, a=1, others=6),
        **own_total(OVERFLOW_STAGE, 50),
        **without_total(OVERFLOW_STAGE),
        Key(OVERFLOW_STAGE, Metric.COUNTER, "tokens"): 10,
        Key(OVERFLOW_STAGE, Metric.UNIT, "B"): 1,
    }


def test_timings_beyond_the_limit_are_joined() -> None:
    """The shared stage started with the first of its names, and moved with the last."""
    limit = StageLimit(1)
    timings = limit.timings({None: (9.0, 1.0), "a": (5.0, 4.0), "b": (8.0, 7.0), "c": (6.0, 2.0)})
    assert timings == {None: (9.0, 1.0), "a": (5.0, 4.0), OVERFLOW_STAGE: (8.0, 2.0)}


def spelled(n: int) -> str:
    """Return a name without digits."""
    return str(n).translate({48 + digit: 97 + digit for digit in range(10)})


@pytest.mark.parametrize("total", [None, 7], ids=["tasks", "items"])
def test_a_stage_for_each_task_makes_no_line_for_each(total: int | None) -> None:
    """Of a stage for each task the first are stages, and the others share one, live and at the end."""
    work = Work(None if total is None else 560, tasks=80)
    reporters = [work.start(n, total) for n in range(80)]
    for n, reporter in enumerate(reporters):
        with counting(reporter.own):
            for name in (f"file {spelled(n)}", f"more {spelled(n)}"):
                for _ in track("abcdefg", desc=name):
                    work.clock.advance(1)
            report_progress(0, desc=f"more {spelled(n)}", tokens=5)
    shared = 2 * 80 - 50
    live = work.read()
    for reporter in reporters:
        work.finish(reporter)
    for snapshot in (live, work.read()):
        *first, last = snapshot.stages
        assert [line.done for line in first] == [7] * 50
        assert (last.name, last.done, last.total) == (OVERFLOW_STAGE, 7 * shared, 7 * shared)
        assert last.growing == (snapshot is live)  # tasks that have lines of their own could come to it
        assert (last.counters, last.elapsed) == ({"tokens": 5 * (80 - 25)}, 7.0 * shared)
    assert [line.total for line in first] == [7] * 50
