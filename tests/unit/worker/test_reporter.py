"""Tallies add up exactly, and a reporter says what its task has counted, in which stages, and since when."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counts import Fixed, by_stage
from support.threads import in_threads

from speedy_utils._state.ledger import Key, Metric, Stage
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.reporter import Reporter
from speedy_utils._worker.tally import Tally
from speedy_utils.testing import FakeClock


def test_tally_adds_its_parts_up_to_its_limit() -> None:
    """A tally reads what was added and what its open parts have counted; its limit caps that."""
    tally, loop = Tally(Reporter(0), None, 10), Fixed(3)
    tally.n += 4
    tally.open(loop)
    assert tally.capped_count() == 7
    loop.done = 5
    assert tally.capped_count() == 9
    tally.close(loop, 8)
    loop.done = 99
    assert (tally.capped_count(), tally.raw_count()) == (10, 12)


def test_part_that_closes_while_it_is_read_counts_once() -> None:
    """A reader looks at the whole before its parts, so a part that ends meanwhile is not counted twice."""
    tally = Reporter(0).own

    class Closing(Fixed):
        def read(self) -> int:
            tally.close(self, self.done)
            return self.done

    tally.open(Closing(5))
    assert [tally.capped_count(), tally.capped_count()] == [5, 5]


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
    tally.close(part, 5)
    assert len(seen) > 1
    assert max(seen) <= 5


def test_a_report_is_never_behind_an_earlier_one_unless_something_was_taken_back() -> None:
    """A loop that is just ending is not missing from a report; what a task takes back is gone in the next."""
    reporter = Reporter(0)
    reporter.own.n = reporter.stage("Read").n = 9
    first = reporter.report()
    reporter.own.n = reporter.stage("Read").n = 5  # what a reader sees while a loop of four items ends
    assert (reporter.report().counts, reporter.report().reading) == (first.counts, 3)
    reporter.take_backs += 1
    assert by_stage(reporter.report().counts, Metric.ITEMS) == {None: 5, "Read": 5}
    assert by_stage(reporter.report().counts, Metric.ITEMS) == {None: 5, "Read": 5}


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
    """Each stage has one tally, which is that of each other tally within it; None is the task's own."""
    reporter = Reporter(3, 2)
    reporter.stage("Read").n += 2
    reporter.stage("Read").n += 1
    reporter.stage(None).n += 4
    assert reporter.stage(None) is reporter.own
    task, attempt, counted, reading, *_ = reporter.report()
    assert (task, attempt, reading) == (3, 2, 1)
    assert by_stage(counted, Metric.ITEMS) == {None: 4, "Read": 3}
    call = Tally(reporter, "Pack", 10)
    assert call.within(None) is call.within("Pack") is call
    assert call.within("Read") is reporter.stage("Read")


@pytest.mark.parametrize(
    ("options", "bars", "own", "read", "capped", "raw"),
    [
        ({"total": 10}, 0, 12, 11, {None: 10, "Read": 10}, {None: 12, "Read": 11}),
        ({"total": 10}, 12, 0, 1, {None: 10, "Read": 1}, {None: 12, "Read": 1}),
        ({"total": 10}, 12, 3, 1, {None: 3, "Read": 1}, {None: 3, "Read": 1}),
        ({}, 7, 0, 3, {None: 7, "Read": 3}, {None: 7, "Read": 3}),
    ],
)
def test_items_of_a_task(
    options: dict[str, Any], bars: int, own: int, read: int, capped: dict[Stage, int], raw: dict[Stage, int]
) -> None:
    """Capped counts stop at the total, and bars count only alone."""
    reporter = Reporter(0, **options)
    reporter.own.bars.n += bars
    reporter.own.n += own
    reporter.stage("Read").n += read
    counted = reporter.capped_counts(), reporter.raw_counts()
    assert [by_stage(counts, Metric.ITEMS) for counts in counted] == [capped, raw]


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


@pytest.mark.parametrize(
    ("total", "totals", "own", "without"),
    [
        (None, {"Same": 9, "Less": 4}, {"Same", "Less"}, {"Loose", "Mixed", "Counted"}),
        (9, {"Same": 9, "Less": 4, "Loose": 9, "Mixed": 9, "Counted": 9}, {"Less"}, set()),
    ],
)
def test_a_report_has_the_totals_of_its_stages(
    total: int | None, totals: dict[str, int], own: set[str], without: set[str]
) -> None:
    """A stage has the task's total or one of its own, or none if neither is known."""
    reporter = Reporter(0, total=total)
    for stage, declared in [("Same", 9), ("Less", 4), ("Loose", None), ("Mixed", 4), ("Mixed", None)]:
        reporter.declare(stage, declared)
    reporter.stage("Counted").n += 1
    counted = reporter.capped_counts()
    assert by_stage(counted, Metric.TOTAL) == totals
    assert by_stage(counted, Metric.TASKS_WITH_OWN_TOTAL).keys() == own
    assert by_stage(counted, Metric.TASKS_WITHOUT_TOTAL).keys() == without


def test_a_report_has_units_and_counters_of_its_stages() -> None:
    """Units are reported as labels, counters as sums; a float stays within what a float can hold."""
    reporter = Reporter(0)
    reporter.set_unit("Download", "B")
    reporter.own.add_to_counters({"tokens": 3, "loss": 0.5})
    reporter.own.add_to_counters({"tokens": 4})
    for _ in range(2):
        reporter.stage("Read").add_to_counters({"tokens": sys.float_info.max})
    assert {key: amount for key, amount in reporter.capped_counts().items() if key.label} == {
        Key("Download", Metric.UNIT, "B"): 1,
        Key(None, Metric.COUNTER, "tokens"): 7,
        Key(None, Metric.COUNTER, "loss"): 0.5,
        Key("Read", Metric.COUNTER, "tokens"): sys.float_info.max,
    }


@pytest.mark.parametrize(
    ("actions", "timings"),
    [
        ("10, read, 1, count run", {}),  # unknown before a reading
        ("10, read, 1, count run, read", {None: (11, 0)}),  # since the start of the attempt
        ("read, 1, count run, read, 2, read", {None: (3, 2)}),  # moved with its last item
        ("1, start run, 1, start run", {None: (1, 1)}),  # since the first marked start
        # An item does not move a start that was marked.
        ("read, 60, start Read, 1, count Read, read", {None: (1, 0), "Read": (1, 0)}),
        # What is reported moves when it is reported, and began with what was counted before.
        ("3, report Read, 1, read, 1", {None: (5, 2), "Read": (5, 2)}),
        (
            "3, report Read, 1, report Pack, 1, report Pack, 1, read",
            {None: (6, 1), "Read": (6, 3), "Pack": (3, 1)},
        ),
        ("count run, 2, read, 1, report Read, 1, read", {None: (4, 1), "Read": (2, 1)}),
        ("start run, 2, report Read, read", {None: (2, 0), "Read": (2, 0)}),
        # So does what was begun before it is seen; it may have moved since.
        ("5, begun 3 Read, 1, count Read, 1, read", {None: (5, 0), "Read": (5, 0)}),
        ("report Read, read, 2, count Read, 1, read", {None: (3, 0), "Read": (3, 0)}),
        # Each stage has its own, and the run covers them all.
        (
            "start Read, 1, count Read, read, 4, read, start Write, 2, tokens Write, read",
            {None: (7, 0), "Read": (7, 6), "Write": (2, 0)},
        ),
    ],
)
def test_timings_of_stages(actions: str, timings: StageTimings) -> None:
    """A stage starts when that was marked or, if it was not, with what its task had counted before."""
    clock = FakeClock()
    reporter = Reporter(0, clock=clock)
    for action in actions.split(", "):
        match action.replace("run", "").split(" "):
            case ["read"]:
                reporter.report()
            case ["start", stage]:
                reporter.mark_started(stage or None)
            case ["begun", ago, stage]:
                reporter.mark_started(stage, clock() - int(ago))
            case ["report", stage]:
                reporter.stage(stage).n += 1
                reporter.mark_moved(stage)
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


@pytest.mark.parametrize("stage", [None, "Pack"])
@pytest.mark.parametrize(("is_read", "seconds"), [(False, 6), (True, 2)])
def test_what_is_counted_at_the_last_moment_took_all_the_time(
    stage: str | None, is_read: bool, seconds: float
) -> None:
    """A task that counts nothing before its end has no rate of millions; one that was read has its loop's."""
    clock = FakeClock()
    reporter = Reporter(0, total=1_000_000, clock=clock)
    clock.advance(4)
    reporter.mark_started(stage)
    reporter.stage(stage).n += 1
    clock.advance(1)
    if is_read:
        reporter.report()
    clock.advance(1)
    reporter.stage(stage).n += 999_999
    reporter.raw_counts()
    assert reporter.final_timings() == dict.fromkeys((None, stage), (seconds, 0))


@given(
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=4), max_size=6),
    st.sets(st.integers(0, 60)),
)
def test_stages_one_after_another_last_as_long_as_their_work(work: list[list[int]], read: set[int]) -> None:
    """However it is read, a stage that is reported lasts from the one before to its last report."""
    clock = FakeClock()
    reporter = Reporter(0, clock=clock)
    for number, seconds in enumerate(work):
        for each in seconds:
            for _ in range(each):
                clock.advance(1)
                if clock() in read:
                    reporter.report()
            reporter.stage(f"stage {number}").n += 1
            reporter.mark_moved(f"stage {number}")
    reporter.report()
    timings = reporter.timings()
    lasted = {stage: timings[stage][0] - timings[stage][1] for stage in timings if stage is not None}
    assert lasted == {f"stage {number}": sum(seconds) for number, seconds in enumerate(work)}
