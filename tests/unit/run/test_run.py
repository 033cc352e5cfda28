"""A run says what the bar shows: exact at a clean end, and honest at any other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counts import items, own_total

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.base import NullDisplay
from speedy_utils._run.feed import WAITING, LocalFeed
from speedy_utils._run.forwarding import display_here, in_main_program
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import RUN_ITEMS, Count, Key, Metric, Report
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock, RecordingDisplay

LONG = 3_600.0


class Feed:
    """Live counts that the test gives."""

    def __init__(self) -> None:
        self.phase, self.trouble, self.answered = "", "", True
        self.reports: list[Report] = []
        self.timings: StageTimings = {}
        self.forgotten: list[Any] = []

    def forget(self, task: Any) -> None:
        """Note it."""
        self.forgotten.append(task)

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """What there is."""
        return self.reports, self.timings


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def feed() -> Feed:
    """Live counts that the test gives."""
    return Feed()


def a_run(total: int | None, *, feed: Feed | None = None, **options: Any) -> Run:
    """A run that the test reads by hand."""
    return Run("Run", total, display=NullDisplay(), feed=feed or Feed(), poll_interval=LONG, **options)


def own(run: Run) -> tuple[int, int | None]:
    """Count and total of the run's own line."""
    snapshot = run.snapshot()
    return snapshot.done, snapshot.total


def test_new_run_shows_zero() -> None:
    """Before anything happens there is one line at zero, whose clock stands."""
    snapshot = a_run(10, tasks=3).snapshot()
    assert snapshot.lines == (StageSnapshot("Run", 0, 10),)
    assert (snapshot.elapsed, snapshot.rate, snapshot.tasks_total, snapshot.final) == (0.0, 0.0, 3, False)


Event = Callable[[Run], None]
COMPLETE: Event = Run.complete


def succeeds(task: int, counts: Mapping[Key, Count], total: int | None = None) -> Event:
    """The end of a task that succeeded."""
    return lambda run: run.commit(task, counts, total=total, timings={})


def fails(task: int, counts: Mapping[Key, Count]) -> Event:
    """The end of a task that failed."""
    return lambda run: run.fail(task, counts)


class Case(NamedTuple):
    """What happens in a run, and what it then shows.

    Attributes:
        total: The run's total.
        events: What happens.
        shown: Count and total of the run's line.
        warning: How the one warning begins; empty if there is none.
        options: More of the run.
    """

    total: int | None
    events: Sequence[Event]
    shown: tuple[int, int | None]
    warning: str = ""
    options: Mapping[str, Any] = {}


CASES = {
    "without totals what was reported counts, and at a clean end it is the total": Case(
        None, [succeeds(0, items(5)), succeeds(1, items(7)), COMPLETE], (12, 12)
    ),
    "the total stays unknown if a task has failed": Case(
        None, [succeeds(0, items(5)), fails(1, items(7)), COMPLETE], (12, None)
    ),
    "a total of the run alone is not credited before its end": Case(100, [succeeds(0, items(60))], (60, 100)),
    "it is credited at a clean end": Case(100, [succeeds(0, items(60)), COMPLETE], (100, 100)),
    "it is not if a task has failed": Case(
        100, [succeeds(0, items(60)), fails(1, items(5)), COMPLETE], (65, 100)
    ),
    "over-reports of tasks are clamped, and the first is named": Case(
        20,
        [succeeds(7, items(1_012), 10), succeeds(8, items(11), 10), COMPLETE],
        (20, 20),
        warning="task 7 reported 1,012 of 10 items",
    ),
    "so is an over-report of the run": Case(
        20,
        [succeeds(0, items(15)), succeeds(1, items(10))],
        (20, 20),
        warning="the tasks reported 25 of 20 items",
    ),
    "exact reports are not warned of": Case(
        20,
        [*(succeeds(task, items(10, Read=10) | own_total("Read", 10), 10) for task in (0, 1)), COMPLETE],
        (20, 20),
    ),
    "so is an over-report of bytes": Case(
        500_000,
        [succeeds(0, items(696_000), 500_000)],
        (500_000, 500_000),
        warning="task 0 reported 696 kB of 500 kB:",
        options={"unit": "B"},
    ),
    "where no items are counted each task that succeeds is one": Case(
        None,
        [succeeds(0, {}), succeeds(1, items(Read=500)), fails(2, items(Read=5)), COMPLETE],
        (2, 3),
        options={"tasks": 3},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_run_shows_after(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks count for what is known of them, and one warning tells of the first that reported too much."""
    run = a_run(case.total, **case.options)
    for event in case.events:
        event(run)
    assert own(run) == case.shown
    run.end()
    run.end()
    assert [message[: len(case.warning)] for message in caplog.messages] == [case.warning][
        : bool(case.warning)
    ]
    assert all('desc="Tokenize"' in message for message in caplog.messages)  # the cure


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), min_size=1, max_size=8))
def test_tasks_with_totals_end_exactly_at_their_sum(tasks: list[tuple[int, int]]) -> None:
    """Tasks that succeed count for exactly their totals, whatever each reported."""
    run = a_run(sum(total for total, _ in tasks))
    for task, (total, reported) in enumerate(tasks):
        run.attempt(task, 1)
        run.commit(task, items(reported), total=total, timings={})
    assert own(run) == (sum(total for total, _ in tasks),) * 2


def test_live_counts_are_shown(feed: Feed) -> None:
    """What tasks report is added up while they run."""
    run = a_run(100, feed=feed)
    feed.reports = [Report(0, 1, items(5)), Report(1, 1, items(7))]
    assert own(run) == (12, 100)
    feed.reports = [Report(1, 1, items(9), 1)]
    assert own(run) == (14, 100)


def test_an_attempt_that_was_lost_counts_until_the_next_one_starts(feed: Feed) -> None:
    """A second attempt starts at zero, whatever the first reports late; one that is lost keeps its count."""
    run = a_run(100, feed=feed)
    run.attempt(0, 1)
    feed.reports = [Report(0, 1, items(30), 1)]
    assert own(run) == (30, 100)
    run.attempt(0, 2)
    assert own(run) == (0, 100)
    feed.reports = [Report(0, 2, items(20), 1)]
    assert own(run) == (20, 100)
    run.fail(0, None)
    assert own(run) == (20, 100)
    snapshot = run.snapshot()
    assert (snapshot.retries, snapshot.tasks_done, snapshot.tasks_failed) == (1, 0, 1)
    assert feed.forgotten == [0]


def test_a_task_that_has_ended_is_forgotten_by_the_feed(feed: Feed) -> None:
    """Late reports of a task that has ended change nothing, and the feed need not remember it."""
    run = a_run(None, feed=feed)
    run.commit(3, items(5), total=None, timings={})
    feed.reports = [Report(3, 1, items(99))]
    assert own(run) == (5, None)
    assert (feed.forgotten, run.snapshot().tasks_done) == ([3], 1)


def test_items_done_before_count_but_not_for_the_rate(clock: FakeClock) -> None:
    """A run that goes on with an earlier one starts at what that had done."""
    run = a_run(100, initial=40, clock=clock)
    assert own(run) == (40, 100)
    clock.advance(10)
    run.commit(0, items(20), total=20, timings={None: (10.0, 0.0)})
    assert own(run) == (60, 100)
    assert run.snapshot().rate == pytest.approx(2)


def test_clock_leaves_out_the_start(clock: FakeClock, feed: Feed) -> None:
    """Elapsed time runs from the first work on items, however long the start took."""
    run = a_run(100, feed=feed, clock=clock)
    clock.advance(60)
    assert run.snapshot().elapsed == 0
    feed.timings = {None: (0.5, 0.5)}
    assert run.snapshot().elapsed == pytest.approx(0.5)
    clock.advance(2)
    feed.timings = {None: (2.0, 0.0)}
    assert run.snapshot().elapsed == pytest.approx(2.5)


def test_clock_is_that_of_the_eldest_task(clock: FakeClock) -> None:
    """A task that is reported late, but began earlier, moves the start back."""
    run = a_run(100, clock=clock)
    clock.advance(60)
    run.commit(0, items(1), total=1, timings={None: (1.0, 0.0)})
    run.fail(1, items(1), timings={None: (4.0, 0.0)})
    run.commit(2, items(1), total=1, timings={None: (2.0, 0.0)})
    assert run.snapshot().elapsed == pytest.approx(4)


def test_clock_stops_at_the_end(clock: FakeClock) -> None:
    """The last snapshot is final, and its clock stands."""
    run = a_run(1, clock=clock)
    run.commit(0, items(1), total=1, timings={None: (0.0, 0.0)})
    clock.advance(5)
    run.end()
    clock.advance(100)
    assert run.snapshot().final
    assert run.snapshot().elapsed == pytest.approx(5)


def test_phase_ends_with_the_first_count(feed: Feed) -> None:
    """Workers are waited for until items are worked on, for whatever reason; a phase of the run stays."""
    run = a_run(10, feed=feed)
    feed.phase = "starting Ray"
    assert run.snapshot().phase == "starting Ray"
    feed.phase = WAITING
    assert run.snapshot().phase == WAITING
    feed.phase = "all of 4 CPUs taken"
    assert run.snapshot().phase == "all of 4 CPUs taken"
    feed.timings = {None: (0.1, 0.1)}
    feed.reports = [at_work(0)]
    assert run.snapshot().phase == ""
    run.enter("merging")
    assert run.snapshot().phase == "merging"
    run.end()
    assert run.snapshot().phase == ""


def at_work(task: int) -> Report:
    """A task that has started on a worker, and counted nothing."""
    return Report(task, 1, items(0) | {Key(None, Metric.TASKS_STARTED): 1})


@pytest.mark.parametrize(
    ("options", "started", "shown"),
    [
        ({"workers": 8}, 0, "waiting for workers 0/8"),
        ({"workers": 8}, 3, "waiting for workers 3/8"),
        ({"workers": 8}, 8, ""),
        ({"workers": 8, "tasks_done": 12}, 0, "waiting for workers 0/8"),  # resumed: those have no worker
        ({}, 0, "waiting for workers"),
    ],
)
def test_a_run_shows_how_many_workers_have_started(
    feed: Feed, options: dict[str, int], started: int, shown: str
) -> None:
    """While a feed waits for workers the run counts those that have started, until all have."""
    feed.phase = WAITING
    feed.reports = [at_work(task) for task in range(started)]
    assert a_run(100, feed=feed, tasks=20, **options).snapshot().phase == shown


def test_workers_are_waited_for_only_until_something_counts(feed: Feed) -> None:
    """Once items are worked on, missing workers are not mentioned."""
    feed.phase, feed.reports, feed.timings = WAITING, [at_work(0)], {None: (0.1, 0.1)}
    assert a_run(100, feed=feed, tasks=20, workers=8).snapshot().phase == ""


def test_a_worker_that_is_lost_has_not_started(feed: Feed) -> None:
    """A task that is started again has to start anew; one that failed had started."""
    run = a_run(100, feed=feed, tasks=20, workers=3)
    feed.phase = WAITING
    feed.reports = [at_work(0), at_work(1)]
    assert run.snapshot().phase == "waiting for workers 2/3"
    run.attempt(0, 2)
    assert run.snapshot().phase == "waiting for workers 1/3"
    run.fail(1, {})
    assert run.snapshot().phase == "waiting for workers 1/3"


def counted_all(task: int, attempt: int = 1, **stages: int) -> Report:
    """A task of ten items that has counted all of them."""
    counts = {Key(name, Metric.TOTAL): 10 for name in stages}
    return Report(task, attempt, at_work(task).counts | counts | items(0 if stages else 10, **stages), 1)


@pytest.mark.parametrize("stages", [{}, {"Tokenize": 10}])
def test_a_run_is_not_finished_before_its_tasks_have_returned(
    feed: Feed, clock: FakeClock, stages: dict[str, int]
) -> None:
    """Once all is counted the phase names what is left, the clock goes on, and the rate stays as it was."""
    run = a_run(20, feed=feed, clock=clock, tasks=2, task_unit="shards", after_counting="saving")
    feed.phase = WAITING
    for task in range(2):
        run.attempt(task, 1, total=10)
    clock.advance(4)
    feed.reports = [counted_all(0, **stages), counted_all(1, **stages)]
    feed.timings = dict.fromkeys([None, *stages], (4.0, 0.0))
    saving = "saving 2 of 2 shards"
    phases = {0: "" if stages else saving, 1: saving, 59: saving, 60: "saving shards 0 and 1, 1 min"}
    for seconds, phase in phases.items():
        clock.advance(4 + seconds - clock())
        snapshot = run.snapshot()
        feed.timings = {}
        (line,) = snapshot.lines
        assert (line.done, line.total, snapshot.phase) == (20, 20, phase)
        assert (line.finished, snapshot.complete) == (False, False)
        assert (line.elapsed, line.rate) == (4 + seconds, 5.0)
    for task in range(2):
        run.commit(task, counted_all(task, **stages).counts, total=10, timings={})
        (line,) = run.snapshot().lines
        assert not line.finished
    run.complete()
    (line,) = run.snapshot().lines
    assert (line.finished, line.elapsed, line.rate) == (True, 64.0, 5.0)
    assert run.snapshot().complete


@pytest.mark.parametrize(
    ("total", "reported", "rate"),
    [
        pytest.param(10, items(10), 5.0, id="all at once"),
        pytest.param(10, items(4), 0.5, id="a part, and the rest when it returned"),
        pytest.param(None, items(Read=4), 0.05, id="one task"),
    ],
)
def test_the_rate_is_measured_until_the_last_item_counted(
    clock: FakeClock, total: int | None, reported: Mapping[Key, Count], rate: float
) -> None:
    """Items that a task reported count when it did so; those that it did not, and tasks, when it returned."""
    run = a_run(total, clock=clock, tasks=1)
    clock.advance(20)
    known = {**at_work(0).counts, **reported}
    run.commit(0, known, total=total, timings=dict.fromkeys([None, "Read"], (20.0, 18.0)))
    run.complete()
    assert run.snapshot().rate == rate


def test_a_lost_task_has_its_items_to_count_again(feed: Feed) -> None:
    """A task that had counted all and is started again is no longer finishing."""
    run = a_run(20, feed=feed, tasks=2)
    for task in range(2):
        run.attempt(task, 1, total=10)
    feed.reports = [counted_all(0), counted_all(1)]
    assert run.snapshot().phase == "finishing 2 tasks"
    run.attempt(1, 2, total=10)
    assert run.snapshot().phase == ""
    assert own(run) == (10, 20)
    feed.reports = [counted_all(1, 2)]
    assert run.snapshot().phase == "finishing 2 tasks"
    run.fail(0, None)
    assert run.snapshot().phase == "finishing 1 task"


def ends_well(run: Run) -> None:
    """Let a task succeed."""
    run.commit(0, items(10), total=10, timings={})


def one_fails(run: Run) -> None:
    """Let a task fail that has counted all its items."""
    run.fail(0, items(10))


def is_interrupted(run: Run) -> None:
    """Raise when all is counted and committed, as a failing merge does."""
    ends_well(run)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("work", "complete"), [(ends_well, True), (one_fails, False), (is_interrupted, False)]
)
def test_a_run_is_complete_once_its_block_has_ended_well(work: Event, complete: bool) -> None:
    """The last reading is finished if no task failed and nothing was raised, and at no other end."""
    display = RecordingDisplay()
    with suppress(KeyboardInterrupt), Run("Run", 10, tasks=1, display=display, poll_interval=LONG) as run:
        work(run)
        assert not run.snapshot().run_line.finished
    last = display.last
    assert (last.done, last.total, last.final) == (10, 10, True)
    assert (last.complete, last.run_line.finished) == (complete, complete)


def test_a_stopped_run_counts_what_its_tasks_had_brought_through_all_stages(feed: Feed) -> None:
    """The closing reading adds what running tasks did, by the stage in which each is furthest behind."""
    run = a_run(30, feed=feed, tasks=3)
    for task in range(3):
        run.attempt(task, 1, total=10)
    run.commit(0, counted_all(0, Read=10, Write=10).counts, total=10, timings={})
    feed.reports = [counted_all(1, Read=7, Write=4), counted_all(2, Read=9)]
    assert own(run) == (10, 30)
    run.end()
    assert own(run) == (14, 30)
    assert own(run) == (14, 30)


def test_bar_is_there_in_the_block_and_closed_after(feed: Feed) -> None:
    """A run shows its first state at once and its last one at the end, also where its block fails."""
    display = RecordingDisplay()

    def failing() -> None:
        with Run("Run", 10, display=display, feed=feed, poll_interval=LONG) as run:
            run.commit(0, items(4), total=4, timings={})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (display.last.done, display.last.final, display.closed) == (4, True, True)
    assert len(display.snapshots) == 2


class SlowDisplay(RecordingDisplay):
    """Takes its time to show something, and notes whether the work had begun by then."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.begun = threading.Event()
        self._seconds = seconds

    def show(self, snapshot: Snapshot) -> None:
        """Note it."""
        if self.begun.wait(self._seconds):
            super().show(snapshot)


def test_the_bar_is_there_before_the_work_begins() -> None:
    """What the work prints first finds the lines in their place."""
    display = SlowDisplay(0.05)
    with Run("Run", 10, display=display, poll_interval=LONG):
        display.begun.set()
    assert len(display.snapshots) == 1  # the last: the first one was over


def test_local_feed_reads_its_reporters(clock: FakeClock) -> None:
    """A feed of this process reads live reporters, the eldest's age, and none that was removed."""
    feed = LocalFeed()
    assert feed.collect() == ([], {})
    first, second = Reporter(0, clock=clock), Reporter(1, clock=clock)
    feed.add(first)
    feed.add(second)
    first.mark_started(None)
    clock.advance(3)
    second.mark_started(None)
    second.own.n += 2
    clock.advance(1)
    reports, timings = feed.collect()
    assert [(report.task, report.counts[RUN_ITEMS]) for report in reports] == [(0, 0), (1, 2)]
    assert timings == {None: (4, 0)}
    feed.remove(first)
    feed.remove(first)
    reports, timings = feed.collect()
    assert [report.task for report in reports] == [1]
    assert timings == {None: (1, 0)}


def test_only_the_outermost_run_draws() -> None:
    """A run that starts inside a task draws nothing, but calls a function that asked for its snapshots."""
    assert not isinstance(display_here(True), NullDisplay)
    assert isinstance(display_here(False), NullDisplay)
    seen: list[Snapshot] = []
    snapshot = Snapshot(StageSnapshot("Run", 0, 10))
    with counting(Reporter(0).own):
        assert not in_main_program()
        assert isinstance(display_here(True), NullDisplay)
        display_here(seen.append).show(snapshot)
    assert seen == [snapshot]


@pytest.mark.parametrize(
    ("answered", "gap", "named"), [(True, 2.5, True), (False, 2.5, False), (True, 60.0, False)]
)
def test_a_driver_that_could_not_look_calls_no_task_stalled(
    clock: FakeClock, feed: Feed, *, answered: bool, gap: float, named: bool
) -> None:
    """If it was stopped itself, or its channel did not answer, nothing is known of the time between."""
    run = a_run(100, feed=feed, tasks=1, clock=clock, stall_after=10.0)
    run.attempt(0, 1, total=100)
    feed.reports = [Report(0, 1, items(5), 1)]
    feed.answered = answered
    run.snapshot()
    for _ in range(4 if gap < 10.0 else 2):
        clock.advance(gap)
        snapshot = run.snapshot()
    assert bool(snapshot.stalled) is named
    assert ("waiting for task 0" in snapshot.phase) is named


def test_what_stalls_is_logged(clock: FakeClock, feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and once more as it ends."""
    run = a_run(100, feed=feed, tasks=1, clock=clock, stall_after=10.0, task_numbers=[4], task_unit="shards")
    run.attempt(0, 1, total=100, item="rows")
    for reading in range(1, 10):
        feed.reports = [Report(0, 1, items(5), reading, stack="File 'a.py'")]
        snapshot = run.snapshot()
        clock.advance(2.5)
    assert [task.index for task in snapshot.stalled] == [4]
    (said,) = caplog.messages
    assert said.startswith("shard 4 has counted nothing for 10 s: item 'rows', attempt 1, 5 of 100 items")
    run.commit(0, items(100), total=100, timings={})
    assert caplog.messages[1:] == ["shard 4 has ended, after it stood for 22 s"]
    assert run.snapshot().stalled == ()
