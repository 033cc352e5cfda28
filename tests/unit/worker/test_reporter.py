"""Tallies add up exactly, and a reporter says what its task has counted, in which stages, and since when."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest
from support.counts import Fixed, by_stage

from speedy_utils._state.ledger import Count, Key, Metric, Stage
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.reporter import Reporter, Tally
from speedy_utils.testing import FakeClock


def items(reporter: Reporter) -> tuple[dict[Stage, Count], dict[Stage, Count]]:
    """Return the capped and the raw counts of items by stage."""
    return by_stage(reporter.capped_counts(), Metric.ITEMS), by_stage(reporter.raw_counts(), Metric.ITEMS)


def in_threads(work: Callable[[], None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Call a function in eight threads at once, which take turns as often as Python allows."""
    start = threading.Barrier(9)
    threads = [threading.Thread(target=lambda: (start.wait(), work())) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        start.wait()
        while any(thread.is_alive() for thread in threads):
            meanwhile()
    finally:
        sys.setswitchinterval(interval)


def test_tally_adds_its_parts() -> None:
    """A tally reads what was added to it and what its open parts have counted."""
    tally = Reporter(0).own
    loop = Fixed(3)
    tally.n += 4
    tally.open(loop)
    assert tally.capped_count() == 7
    loop.done = 5
    assert tally.capped_count() == 9
    tally.close(loop, 6)
    loop.done = 99
    assert tally.capped_count() == 10


def test_limit_stops_the_count_but_not_what_was_reported() -> None:
    """A tally counts no further than its limit, and still knows what was reported."""
    tally = Tally(Reporter(0), None, 10)
    tally.n += 8
    tally.open(Fixed(5))
    assert (tally.capped_count(), tally.raw_count()) == (10, 13)


def test_part_that_closes_while_it_is_read_counts_once() -> None:
    """A reader looks at the whole before its parts, so a part that ends meanwhile is not counted twice."""
    tally = Reporter(0).own

    class Closing(Fixed):
        def read(self) -> int:
            tally.close(self, self.done)
            return self.done

    tally.open(Closing(5))
    assert tally.capped_count() == 5
    assert tally.capped_count() == 5


def test_reading_during_a_close_is_never_ahead() -> None:
    """A part is taken out before its count is added, so a reading in between is behind, not ahead."""
    tally = Reporter(0).own
    seen: list[int] = []

    class Watched(Fixed):
        def __hash__(self) -> int:
            seen.append(tally.raw_count())
            return id(self)

    part = Watched(5)
    tally.open(part)
    seen.clear()
    tally.close(part, 5)
    assert seen
    assert max(seen) <= 5


def test_threads_that_add_to_one_tally_lose_nothing() -> None:
    """Threads that add and open parts at once are counted to the item, and never ahead."""
    tally, seen = Reporter(0).own, [0]

    def add() -> None:
        for turn in range(3_000):
            tally.n += 1
            if turn % 10 == 0:
                part = Fixed(2)
                tally.open(part)
                tally.close(part, 2)

    in_threads(add, lambda: seen.append(tally.capped_count()))
    assert tally.capped_count() == 8 * (3_000 + 600)
    assert max(seen) <= tally.capped_count()


def test_threads_that_declare_at_once_lose_nothing() -> None:
    """A stage's total is the sum of what all threads of a task declare for it, and caps no item."""
    reporter = Reporter(0)

    def add() -> None:
        for _ in range(4_000):
            reporter.declare("Read", 1)
            reporter.stage("Read").n += 1

    in_threads(add)
    counts = reporter.capped_counts()
    assert (counts[Key("Read", Metric.ITEMS)], counts[Key("Read", Metric.TOTAL)]) == (32_000, 32_000)


def test_stages_are_apart() -> None:
    """Each stage has one tally, and None is the task's own."""
    reporter = Reporter(3, 2)
    reporter.stage("Read").n += 2
    reporter.stage("Read").n += 1
    reporter.stage(None).n += 4
    assert reporter.stage(None) is reporter.own
    task, attempt, counted = reporter.report()
    assert (task, attempt, by_stage(counted, Metric.ITEMS)) == (3, 2, {None: 4, "Read": 3})


def test_counts_are_capped_or_raw() -> None:
    """Capped counts stop at the task's total, in every stage; raw counts don't."""
    reporter = Reporter(0, total=10)
    reporter.own.n += 12
    reporter.stage("Read").n += 11
    assert items(reporter) == ({None: 10, "Read": 10}, {None: 12, "Read": 11})


def test_declared_totals_add_up_and_limit_their_stage() -> None:
    """Two loops in one stage declare the sum of their totals, which is also the most it can count."""
    reporter = Reporter(0, total=100)
    reporter.declare("Read", 5)
    reporter.declare("Read", 2)
    reporter.declare(None, 50)
    reporter.stage("Read").n += 9
    reporter.own.n += 60
    counted = reporter.capped_counts()
    assert by_stage(counted, Metric.ITEMS) == {None: 60, "Read": 7}
    assert by_stage(counted, Metric.TOTAL) == {None: 50, "Read": 7}


def test_a_report_names_the_stages_its_task_has_come_to() -> None:
    """A report names the stages that its task has come to, with items there or without."""
    reporter = Reporter(0)
    assert by_stage(reporter.capped_counts(), Metric.TASKS_STARTED) == {None: 1}
    reporter.stage("Read")
    reporter.declare("Write", 5)
    assert by_stage(reporter.capped_counts(), Metric.TASKS_STARTED) == {None: 1, "Read": 1, "Write": 1}


@pytest.mark.parametrize("total", [None, 9])
def test_a_report_has_the_totals_of_its_stages(total: int | None) -> None:
    """A stage has the task's total or one of its own, or none if neither is known."""
    reporter = Reporter(0, total=total)
    for stage, declared in {"Same": 9, "Less": 4, "Loose": None}.items():
        reporter.declare(stage, declared)
    reporter.declare("Mixed", 4)
    reporter.declare("Mixed", None)
    reporter.stage("Counted").n += 1
    counted = reporter.capped_counts()
    own = {} if total is None else dict.fromkeys(("Same", "Loose", "Mixed", "Counted"), 9)
    assert by_stage(counted, Metric.TOTAL) == {"Same": 9, "Less": 4} | own
    assert by_stage(counted, Metric.TASKS_WITH_OWN_TOTAL).keys() == (
        {"Same", "Less"} if total is None else {"Less"}
    )
    assert by_stage(counted, Metric.TASKS_WITHOUT_TOTAL).keys() == (
        {"Loose", "Mixed", "Counted"} if total is None else set()
    )


def test_a_report_has_units_and_counters_of_its_stages() -> None:
    """Units are reported as labels, counters as sums; a float stays within what a float can hold."""
    reporter = Reporter(0)
    reporter.set_unit("Download", "B")
    reporter.own.add_to_counters({"tokens": 3, "loss": 0.5})
    reporter.own.add_to_counters({"tokens": 4})
    for _ in range(2):
        reporter.stage("Read").add_to_counters({"tokens": sys.float_info.max})
    counted = reporter.capped_counts()
    assert counted[Key("Download", Metric.UNIT, "B")] == 1
    assert counted[Key(None, Metric.COUNTER, "tokens")] == 7
    assert counted[Key(None, Metric.COUNTER, "loss")] == 0.5
    assert counted[Key("Read", Metric.COUNTER, "tokens")] == sys.float_info.max


def test_a_tally_counts_for_its_own_stage_only() -> None:
    """A tally counts for its own stage, also by name, and returns the tally of any other stage."""
    reporter = Reporter(0)
    call = Tally(reporter, "Pack", 10)
    assert call.within(None) is call.within("Pack") is call
    assert call.within("Read") is reporter.stage("Read")


def test_unnamed_bars_count_only_where_nothing_else_does() -> None:
    """What captured bars without a name have counted is the task's count until something else counts."""
    reporter = Reporter(0, total=10)
    reporter.own.bars.n += 12
    assert items(reporter) == ({None: 10}, {None: 12})
    reporter.own.n += 3
    assert items(reporter) == ({None: 3}, {None: 3})


def test_a_run_over_tasks_leaves_out_unnamed_items() -> None:
    """If the run counts tasks, unnamed items are not reported and named ones are."""
    reporter = Reporter(0, counts_items=False)
    reporter.own.n += 5
    reporter.stage("Read").n += 3
    assert items(reporter) == ({"Read": 3}, {"Read": 3})


@pytest.mark.parametrize(
    ("actions", "timings"),
    [
        pytest.param("10, read, 1, count run", {}, id="unknown before a reading"),
        pytest.param("10, read, 1, count run, read", {None: (1, 0)}, id="since the last reading"),
        pytest.param("read, 1, count run, read, 2, read", {None: (3, 2)}, id="moved with its last item"),
        pytest.param("3, count run, read", {None: (3, 0)}, id="since the start of the attempt"),
        pytest.param("1, start run, 1, start run", {None: (1, 1)}, id="since the first marked start"),
        pytest.param(
            "read, 60, start Read, 1, count Read, read",
            {None: (1, 0), "Read": (1, 0)},
            id="an item does not move a start that was marked",
        ),
        pytest.param(
            "start Read, 1, count Read, read, 4, read, start Write, 2, tokens Write, read",
            {None: (7, 0), "Read": (7, 6), "Write": (2, 0)},
            id="each stage has its own, and the run covers them all",
        ),
    ],
)
def test_timings_of_stages(actions: str, timings: StageTimings) -> None:
    """A stage starts when that was marked or, if it was not, after the last reading that had none of it."""
    clock = FakeClock()
    reporter = Reporter(0, clock=clock)
    for action in actions.split(", "):
        match action.replace("run", "").split(" "):
            case ["read"]:
                reporter.report()
            case ["start", stage]:
                reporter.mark_started(stage or None)
            case ["count", stage]:
                reporter.stage(stage or None).n += 1
            case ["tokens", stage]:
                reporter.stage(stage).add_to_counters({"tokens": 3})
            case _:
                clock.advance(float(action))
    assert reporter.timings() == timings


def test_a_task_that_reports_nothing_has_final_timings() -> None:
    """At its end an attempt has worked since its first item, or since its start if it reported none."""
    clock = FakeClock()
    silent, busy = Reporter(0, clock=clock), Reporter(1, clock=clock)
    clock.advance(4)
    busy.mark_started(None)
    clock.advance(1)
    assert (silent.final_timings(), busy.final_timings()) == ({None: (5, 0)}, {None: (1, 1)})
