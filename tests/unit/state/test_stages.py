"""What the lines of a run show: live never ahead, and at a clean end exactly full."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.base import NullDisplay
from speedy_utils._instrument.loops import report_progress, track
from speedy_utils._run.run import LocalFeed, Run
from speedy_utils._state.ledger import Key, Metric
from speedy_utils._state.stages import Stages
from speedy_utils._state.timings import StageClock
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock


class Work:
    """A run of real reporters that the test drives by hand."""

    def __init__(
        self, total: int | None, *, tasks: int = 0, counts_items: bool = True, **options: Any
    ) -> None:
        self.clock = FakeClock()
        self.feed = LocalFeed()
        self.counts_items = counts_items
        self.run = Run(
            "Run",
            total,
            tasks=tasks,
            counts_items=counts_items,
            unit="items" if counts_items else "tasks",
            display=NullDisplay(),
            feed=self.feed,
            poll_interval=3_600.0,
            clock=self.clock,
            **options,
        )

    def start(self, task: int, total: int | None = None, attempt: int = 1) -> Reporter:
        """A task starts."""
        reporter = Reporter(task, attempt, total=total, counts_items=self.counts_items, clock=self.clock)
        self.run.attempt(task, attempt)
        self.feed.add(reporter)
        return reporter

    def finish(self, reporter: Reporter) -> None:
        """A task returns."""
        self.feed.remove(reporter)
        total = reporter.total if self.counts_items else 1
        self.run.commit(reporter.task, reporter.raw_counts(), total=total, timings=reporter.final_timings())

    def fail(self, reporter: Reporter) -> None:
        """A task fails for good."""
        self.feed.remove(reporter)
        self.run.fail(reporter.task, reporter.capped_counts(), timings=reporter.timings())

    def lose(self, reporter: Reporter) -> None:
        """A worker dies and tells nothing more."""
        self.feed.remove(reporter)

    def read(self) -> Snapshot:
        """The state now."""
        return self.run.snapshot()

    def stage(self, name: str) -> StageSnapshot:
        """A named line."""
        (found,) = [stage for stage in self.read().stages if stage.name == name]
        return found

    def far(self, name: str) -> tuple[int, int | None]:
        """Count and total of a named line."""
        stage = self.stage(name)
        return stage.done, stage.total


def count(reporter: Reporter, stage: str | None, n: int, *, declared: int | None = None) -> None:
    """A task counts in a stage, where it may have declared a total."""
    if declared is not None:
        reporter.declare(stage, declared)
    reporter.mark_started(stage)
    reporter.stage(stage).n += n


STAGES = st.sampled_from([None, "Read", "Write"])
STEP = st.tuples(STAGES, st.integers(0, 12), st.none() | st.integers(0, 12))
PLAN = st.lists(st.tuples(st.integers(0, 10), st.lists(STEP, max_size=4)), min_size=1, max_size=5)
KIND = st.sampled_from(["items", "run total only", "unknown", "tasks"])


def work_of(kind: str, totals: list[int]) -> tuple[Work, list[int | None]]:
    """A run of some kind, and the totals that its tasks know."""
    tasks = len(totals)
    if kind == "tasks":
        return Work(tasks, tasks=tasks, counts_items=False), [None] * tasks
    if kind == "items":
        return Work(sum(totals), tasks=tasks), list(totals)
    return Work(None if kind == "unknown" else sum(totals), tasks=tasks), [None] * tasks


@given(KIND, PLAN)
def test_no_line_is_ever_ahead_and_all_are_full_at_a_clean_end(kind: str, plan: list[Any]) -> None:
    """Whatever tasks declare and count, no line passes its total, and a clean end leaves none short of it."""
    work, totals = work_of(kind, [total for total, _ in plan])

    def never_ahead() -> None:
        for line in (work.read().run_line, *work.read().stages):
            assert line.total is None or line.done <= line.total

    running = [work.start(task, total) for task, total in enumerate(totals)]
    for reporter, (_, steps) in zip(running, plan, strict=True):
        for stage, n, declared in steps:
            count(reporter, stage, n, declared=declared)
            never_ahead()
    for reporter in running:
        work.finish(reporter)
        never_ahead()
    work.run.complete()
    last = work.read()
    for line in (last.run_line, *last.stages):
        assert line.total in (None, line.done)
        assert not line.growing
    if kind != "unknown":
        assert last.run_line.done == last.run_line.total


@given(PLAN, st.data())
def test_a_stage_of_the_runs_total_loses_what_returned_tasks_left_out(
    plan: list[Any], data: st.DataObject
) -> None:
    """A stage's total is the run's, less what each returned task has and did not count there."""
    totals = [total for total, _ in plan]
    work = Work(sum(totals), tasks=len(totals))
    running = [work.start(task, total) for task, total in enumerate(totals)]
    done = [data.draw(st.integers(0, total)) for total in totals]
    for reporter, n in zip(running, done, strict=True):
        count(reporter, "Read", n)
    expected = sum(totals)
    for reporter, n, total in zip(running, done, totals, strict=True):
        assert work.far("Read") == (sum(done), expected)
        work.finish(reporter)
        expected -= total - n
    assert work.far("Read") == (sum(done), sum(done))


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["finish", "fail", "skip"])), min_size=1))
def test_declared_totals_add_up_and_grow_until_every_task_has_come(tasks: list[tuple[int, str]]) -> None:
    """A stage with declared totals has their sum, and grows until each task has come to it or ended."""
    work = Work(None, tasks=len(tasks))
    expected = 0
    count(first := work.start(0), "Read", 0, declared=tasks[0][0])
    expected += tasks[0][0]
    for task, (declared, end) in enumerate(tasks[1:], start=1):
        assert work.stage("Read").growing
        reporter = work.start(task)
        if end != "skip":
            count(reporter, "Read", declared, declared=declared)
            expected += declared
            assert work.far("Read")[1] == expected
        (work.fail if end == "fail" else work.finish)(reporter)
        assert work.far("Read")[1] == expected
    assert not work.stage("Read").growing
    count(first, "Read", tasks[0][0])
    assert work.far("Read") == (expected, expected)


def test_a_live_task_in_a_stage_has_come_to_it() -> None:
    """A task need not have ended for a stage to stop growing: that it has come is enough."""
    work = Work(None, tasks=2)
    count(work.start(0), "Read", 1, declared=5)
    assert work.stage("Read").growing
    assert not work.stage("Read").finished
    count(work.start(1), "Read", 0, declared=4)
    assert not work.stage("Read").growing
    assert work.far("Read") == (1, 9)


def test_a_full_stage_that_grows_is_not_finished() -> None:
    """A stage whose tasks so far are through is not finished, nor its clock, while others are to come."""
    work = Work(None, tasks=2)
    count(work.start(0), "Read", 5, declared=5)
    assert (work.far("Read"), work.stage("Read").finished) == ((5, 5), False)
    work.clock.advance(3)
    assert work.stage("Read").elapsed == 3
    count(work.start(1), "Read", 0, declared=0)
    work.clock.advance(4)
    assert (work.stage("Read").finished, work.stage("Read").elapsed) == (True, 3)


def test_a_retry_takes_back_what_the_dead_attempt_declared() -> None:
    """The total that a dead attempt declared goes with its counts, and the task has to come again."""
    work = Work(None, tasks=2)
    count(work.start(0), "Read", 1, declared=5)
    dead = work.start(1)
    count(dead, "Read", 3, declared=7)
    assert work.far("Read") == (4, 12)
    work.lose(dead)
    again = work.start(1, attempt=2)
    assert (work.far("Read"), work.stage("Read").growing) == ((1, 5), True)
    count(again, "Read", 7, declared=7)
    assert (work.far("Read"), work.stage("Read").growing) == ((8, 12), False)


def test_a_task_that_returned_counts_for_no_more_than_it_did() -> None:
    """What a loop declared and did not do, as it broke off, leaves the total when its task returns."""
    work = Work(None, tasks=2)
    early, other = work.start(0), work.start(1)
    count(early, "Read", 2, declared=10)
    count(other, "Read", 1, declared=10)
    assert work.far("Read") == (3, 20)
    work.finish(early)
    assert work.far("Read") == (3, 12)


def test_a_task_that_failed_leaves_its_stage_short() -> None:
    """What a failed task declared and did not do stays open in the total."""
    work = Work(20, tasks=2)
    bad, good = work.start(0, 10), work.start(1, 10)
    count(bad, "Read", 2)
    count(bad, "Pack", 1, declared=4)
    count(good, "Read", 10)
    work.fail(bad)
    work.finish(good)
    work.run.complete()
    assert work.far("Read") == (12, 20)
    assert work.far("Pack") == (1, 4)


def test_an_over_report_of_a_stage_is_clamped_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A task that counts more in a stage than it has is clamped there, and only the first is told of."""
    work = Work(20, tasks=2)
    for task in range(2):
        reporter = work.start(task, 10)
        count(reporter, "Read", 15 + task)
        work.finish(reporter)
    work.run.complete()
    assert work.far("Read") == (20, 20)
    with caplog.at_level(logging.WARNING):
        work.run.end()
    (record,) = caplog.records
    assert record.getMessage().startswith("task 0 reported 15 of 10 items")


def test_an_unsized_loop_beside_a_sized_one_makes_a_stage_unknown() -> None:
    """Where one loop of a stage can't tell its length, the stage's total is not the other's."""
    work = Work(None, tasks=1)
    reporter = work.start(0)
    with counting(reporter.own):
        list(track([1, 2], desc="Read"))
        assert work.far("Read") == (2, 2)
        loop = track(iter([3, 4, 5]), desc="Read")
        assert list(loop) == [3, 4, 5]
    assert work.far("Read") == (5, None)


def test_an_unsized_loop_beside_a_sized_one_has_the_runs_total() -> None:
    """Where the task has a total, that is the stage's too, once a loop can't tell its own."""
    work = Work(10, tasks=1)
    with counting(work.start(0, 10).own):
        list(track([1, 2], desc="Read"))
        assert work.far("Read") == (2, 2)
        list(track(iter([3, 4, 5]), desc="Read"))
    assert work.far("Read") == (5, 10)


def test_one_task_that_cannot_tell_makes_the_stage_unknown() -> None:
    """A stage's total is unknown while one of its tasks doesn't know its part."""
    work = Work(None, tasks=2)
    count(work.start(0), "Read", 1, declared=5)
    assert work.far("Read") == (1, 5)
    count(work.start(1), "Read", 3)
    assert work.far("Read") == (4, None)


def test_the_runs_declared_total_is_never_below_its_count() -> None:
    """Where a run only knows what some loops declare, others may count on: its total is then unknown."""
    work = Work(None, tasks=2)
    with counting(work.start(0).own):
        list(track("abcd", total=4))
    assert (work.read().done, work.read().total) == (4, 4)
    with counting(work.start(1).own):
        report_progress(50)
    assert (work.read().done, work.read().total) == (54, None)


def test_the_runs_declared_total_comes_on_top_of_what_was_done_before() -> None:
    """A resumed run without a total adds what its loops declare to what it had."""
    work = Work(None, tasks=1, initial=100)
    with counting(work.start(0).own):
        list(track("abcd", total=9))
    assert (work.read().done, work.read().total) == (104, 109)


def test_the_runs_declared_total_loses_what_a_returned_task_left_out() -> None:
    """An unnamed loop that broke off leaves no rest in the total when its task has returned."""
    work = Work(None, tasks=1)
    reporter = work.start(0)
    count(reporter, None, 4, declared=9)
    assert (work.read().done, work.read().total) == (4, 9)
    work.finish(reporter)
    assert (work.read().done, work.read().total) == (4, 4)


def test_the_own_line_hides_where_a_named_stage_tells_the_whole() -> None:
    """The run's own line is there until a stage with the same total is, and nothing was counted unnamed."""
    work = Work(10, tasks=1)
    reporter = work.start(0, 10)
    assert [line.name for line in work.read().lines] == ["Run"]
    count(reporter, "Read", 3)
    assert [line.name for line in work.read().lines] == ["Read"]
    count(reporter, None, 1)
    assert [line.name for line in work.read().lines] == ["Run", "Read"]
    work.finish(reporter)
    assert [line.name for line in work.read().lines] == ["Run", "Read"]


def test_the_own_line_stays_hidden_when_a_task_that_only_named_has_returned() -> None:
    """That a task which returned is credited to the run doesn't bring a hidden line back."""
    work = Work(10, tasks=1)
    reporter = work.start(0, 10)
    count(reporter, "Read", 10)
    work.finish(reporter)
    work.run.complete()
    last = work.read()
    assert [(line.name, line.done) for line in last.lines] == [("Read", 10)]
    assert last.done == 10


def test_a_counter_of_the_run_shows_its_line() -> None:
    """What is counted beside no named stage has a place only on the run's own line."""
    work = Work(10, tasks=1)
    with counting(work.start(0, 10).own):
        report_progress(3, desc="Read", tokens=7)
        assert [line.name for line in work.read().lines] == ["Read"]
        report_progress(0, tokens=1)
    assert [(line.name, dict(line.counters)) for line in work.read().lines] == [
        ("Run", {"tokens": 1}),
        ("Read", {"tokens": 7}),
    ]


def test_the_own_line_shows_where_tasks_are_counted() -> None:
    """A stage of items can't tell how many tasks are done, whether it has a total or not."""
    work = Work(2, tasks=2, counts_items=False)
    reporter = work.start(0)
    count(reporter, "Read", 3)
    assert [line.name for line in work.read().lines] == ["Run", "Read"]
    count(reporter, "Read", 0, declared=5)
    assert [(line.name, line.unit) for line in work.read().lines] == [("Run", "tasks"), ("Read", "items")]


def test_the_own_line_shows_where_stages_only_have_parts() -> None:
    """A stage whose tasks declare another number than their own does not tell the whole; a second may."""
    work = Work(10, tasks=1)
    reporter = work.start(0, 10)
    count(reporter, "Pack", 1, declared=2)
    assert [line.name for line in work.read().lines] == ["Run", "Pack"]
    count(reporter, "Read", 3)
    assert [line.name for line in work.read().lines] == ["Pack", "Read"]


def test_a_resumed_run_leaves_its_stages_the_rest() -> None:
    """What was done before belongs to the run's own line; its stages have what is left to do."""
    work = Work(100, tasks=4, initial=40, tasks_done=2)
    reporter = work.start(2, 30)
    count(reporter, "Read", 5)
    assert work.far("Read") == (5, 60)
    assert (work.read().run_line.done, work.read().run_line.initial) == (40, 40)
    count(reporter, "Read", 25)
    work.finish(reporter)
    assert work.far("Read") == (30, 60)
    count(last := work.start(3, 30), "Read", 30)
    work.finish(last)
    work.run.complete()
    assert work.far("Read") == (60, 60)
    assert (work.read().done, work.read().total) == (100, 100)


def test_a_resumed_run_waits_only_for_the_tasks_that_are_left() -> None:
    """Tasks that were done before don't keep a stage growing."""
    work = Work(None, tasks=4, initial=40, tasks_done=3)
    count(work.start(3), "Read", 1, declared=5)
    assert (work.far("Read"), work.stage("Read").growing) == ((1, 5), False)


def test_a_stage_may_count_in_a_unit_of_its_own() -> None:
    """A stage has the run's unit unless a task says another, also after that task has ended."""
    work = Work(10, tasks=1)
    reporter = work.start(0, 10)
    count(reporter, "Download", 1_024, declared=4_096)
    reporter.unit("Download", "B")
    count(reporter, "Read", 1)
    assert [(stage.name, stage.unit) for stage in work.read().stages] == [
        ("Download", "B"),
        ("Read", "items"),
    ]
    work.finish(reporter)
    assert work.stage("Download").unit == "B"


def test_the_clock_of_a_finished_stage_stands() -> None:
    """A stage's clock runs from its first item to its last: later stages don't slow its rate."""
    work = Work(10, tasks=1)
    reporter = work.start(0, 10)
    work.clock.advance(60)
    reporter.mark_started("Read")
    work.clock.advance(2)
    count(reporter, "Read", 4)
    assert work.stage("Read").elapsed == 2
    work.clock.advance(3)
    count(reporter, "Read", 6)
    assert work.stage("Read").elapsed == 5
    work.clock.advance(100)
    reporter.mark_started("Write")
    work.clock.advance(4)
    count(reporter, "Write", 1)
    assert (work.stage("Read").elapsed, work.stage("Read").rate) == (5, 2)
    assert work.stage("Write").elapsed == 4
    assert work.read().elapsed == 109


def test_the_clock_of_an_unfinished_stage_stands_at_a_clean_end() -> None:
    """A stage without a total is over with the run, and its clock ends with its last item."""
    work = Work(None, tasks=1)
    reporter = work.start(0)
    reporter.mark_started("Read")
    work.clock.advance(5)
    count(reporter, "Read", 10)
    work.read()
    work.clock.advance(20)
    assert work.stage("Read").elapsed == 25
    work.finish(reporter)
    work.run.complete()
    assert (work.stage("Read").elapsed, work.stage("Read").rate) == (5, 2)


def test_a_stage_that_nobody_began_has_no_time() -> None:
    """A stage that was told of, but has no item, has neither time nor rate."""
    work = Work(10, tasks=1)
    work.start(0, 10).declare("Read", 5)
    assert (work.stage("Read").elapsed, work.stage("Read").rate) == (0, 0)


AMOUNTS = st.floats(0, 1e300) | st.integers(0, 10**20)


@given(st.lists(st.tuples(AMOUNTS, st.booleans()), min_size=1, max_size=6))
def test_counters_add_up_and_a_retry_leaves_no_trace(tasks: list[tuple[float, bool]]) -> None:
    """What a dead attempt added to a counter is gone to the last bit; all others add up."""
    kept, hit = Work(None, tasks=len(tasks)), Work(None, tasks=len(tasks))
    for task, (amount, dies) in enumerate(tasks):
        if dies:
            dead = hit.start(task)
            with counting(dead.own):
                report_progress(1, desc="Read", tokens=amount / 3)
            hit.read()
            hit.lose(dead)
        for work in (kept, hit):
            reporter = work.start(task, attempt=1 + (dies and work is hit))
            with counting(reporter.own):
                report_progress(1, desc="Read", tokens=amount)
            work.read()
            work.finish(reporter)
    found, expected = (float(work.stage("Read").counters["tokens"]) for work in (hit, kept))
    assert found == expected == pytest.approx(sum(amount for amount, _ in tasks))


class Looked(dict[Any, Any]):
    """Counts how often all of it is gone through."""

    looks = 0

    def items(self) -> Any:
        """Note a look."""
        self.looks += 1
        return super().items()

    def __iter__(self) -> Any:
        self.looks += 1
        return super().__iter__()


def test_many_stages_are_read_in_one_go() -> None:
    """A stage a task, as bars named after files make them, costs a reading no look at all others."""
    sums = Looked({Key(f"file {n}", Metric.ITEMS): 1 for n in range(300)})
    sums |= {Key(f"file {n}", Metric.TOTAL): 1 for n in range(300)}
    sums |= {Key(f"file {n}", Metric.TASKS_WITH_OWN_TOTAL): 1 for n in range(300)}
    stages = Stages("Run", 300, unit="tasks", counts_items=False, initial=0, tasks=300)
    sums.looks = 0
    _, named, _ = stages.read(sums, StageClock(FakeClock()), 0.0)
    assert {(stage.done, stage.total) for stage in named} == {(1, 1)}
    assert len(named) == 300
    assert sums.looks <= 3


@pytest.mark.parametrize("total", [None, 7], ids=["tasks", "items"])
def test_a_stage_a_task_makes_no_line_a_task(total: int | None) -> None:
    """Of a stage a task the first have lines; others share one with the exact sums, live and at the end."""
    work = Work(None if total is None else 560, tasks=80, counts_items=total is not None)
    reporters = [work.start(n, total) for n in range(80)]
    for n, reporter in enumerate(reporters):
        with counting(reporter.own):
            for name in (f"file {n}", f"more {n}"):
                for _ in track("abcdefg", desc=name):
                    work.clock.advance(1)
            report_progress(0, desc=f"more {n}", tokens=5)
    shared = 2 * 80 - 50
    live = work.read()
    for reporter in reporters:
        work.finish(reporter)
    for snapshot in (live, work.read()):
        *first, last = snapshot.stages
        assert len(first) == 50
        assert {line.done for line in first} == {7}
        assert (last.name, last.done, last.total) == ("others", 7 * shared, 7 * shared)
        assert last.growing == (snapshot is live)  # tasks that have lines of their own could come to it
        assert (last.counters, last.elapsed) == ({"tokens": 5 * (80 - 25)}, 7.0 * shared)
    assert {line.total for line in first} == {7}
