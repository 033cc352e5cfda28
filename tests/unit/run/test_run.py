"""A run says what the bar shows: exact at a clean end, and honest at any other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counts import items, own_total

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.base import NullDisplay
from speedy_utils._run.run import WAITING, LocalFeed, Run, display_here, draws_here
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric, Report
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock, RecordingDisplay

LONG = 3_600.0


class Feed:
    """Live counts that the test gives."""

    def __init__(self) -> None:
        self.phase = ""
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


def stages(run: Run) -> list[tuple[str, int, int | None]]:
    """The named lines."""
    return [(stage.name, stage.done, stage.total) for stage in run.snapshot().stages]


def test_new_run_shows_zero() -> None:
    """Before anything happens there is one line at zero, whose clock stands."""
    run = a_run(10, tasks=3)
    snapshot = run.snapshot()
    assert snapshot.lines == (StageSnapshot("Run", 0, 10),)
    assert (snapshot.elapsed, snapshot.rate, snapshot.tasks_total, snapshot.final) == (0.0, 0.0, 3, False)


def test_live_counts_are_shown(feed: Feed) -> None:
    """What tasks report is added up while they run."""
    run = a_run(100, feed=feed)
    feed.reports = [Report(0, 1, items(5)), Report(1, 1, items(7))]
    assert own(run) == (12, 100)
    feed.reports = [Report(1, 1, items(9))]
    assert own(run) == (14, 100)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), min_size=1, max_size=8))
def test_tasks_with_totals_end_exactly_at_their_sum(tasks: list[tuple[int, int]]) -> None:
    """Tasks that succeed count for exactly their totals, whatever each reported."""
    run = a_run(sum(total for total, _ in tasks))
    for task, (total, reported) in enumerate(tasks):
        run.attempt(task, 1)
        run.commit(task, items(reported), total=total, timings={})
    assert own(run) == (sum(total for total, _ in tasks),) * 2


def test_without_totals_what_was_reported_counts() -> None:
    """Where no total is known, what was reported is the count, and the total stays unknown."""
    run = a_run(None)
    run.commit(0, items(5), total=None, timings={})
    run.commit(1, items(7), total=None, timings={})
    run.complete()
    assert own(run) == (12, None)


def test_total_of_the_run_is_credited_at_a_clean_end() -> None:
    """Where only the run's total is known, a clean end counts for exactly that, and not before."""
    run = a_run(100)
    run.commit(0, items(60), total=None, timings={})
    assert own(run) == (60, 100)
    run.complete()
    assert own(run) == (100, 100)


def test_a_failed_task_leaves_the_bar_short() -> None:
    """Where a task failed nothing is credited: the bar ends short of its total."""
    run = a_run(100, tasks=2)
    run.commit(0, items(60), total=None, timings={})
    run.fail(1, items(5))
    run.complete()
    assert own(run) == (65, 100)
    assert (run.snapshot().tasks_done, run.snapshot().tasks_failed) == (1, 1)


def test_a_task_that_died_keeps_what_was_seen_of_it(feed: Feed) -> None:
    """A task that could not say what it had done keeps its last live count."""
    run = a_run(100, feed=feed)
    run.attempt(0, 1)
    feed.reports = [Report(0, 1, items(30))]
    run.snapshot()
    run.fail(0, None)
    assert own(run) == (30, 100)
    assert feed.forgotten == [0]


def test_a_retry_takes_back_the_dead_attempts_count(feed: Feed) -> None:
    """A second attempt starts at zero at once, whatever the first one reports late, and is told."""
    run = a_run(100, feed=feed)
    run.attempt(0, 1)
    feed.reports = [Report(0, 1, items(30))]
    assert own(run) == (30, 100)
    run.attempt(0, 2)
    assert own(run) == (0, 100)
    assert run.snapshot().retries == 1
    run.commit(0, items(100), total=100, timings={})
    assert own(run) == (100, 100)


def test_commit_is_final_and_forgotten_by_the_feed(feed: Feed) -> None:
    """Late reports of a committed task change nothing, and the feed need not remember it."""
    run = a_run(None, feed=feed)
    run.commit(3, items(5), total=None, timings={})
    feed.reports = [Report(3, 1, items(99))]
    assert own(run) == (5, None)
    assert feed.forgotten == [3]


def end(run: Run, caplog: pytest.LogCaptureFixture) -> list[str]:
    """End a run, and say what it warned of."""
    run.end()
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return caplog.messages


def test_over_report_is_clamped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Tasks that report too much count for their totals; one warning names the first and the cure."""
    run = a_run(20, tasks=2)
    run.commit(7, items(1_012), total=10, timings={})
    run.commit(8, items(11), total=10, timings={})
    run.complete()
    assert own(run) == (20, 20)
    (warning,) = end(run, caplog)
    assert warning.startswith("task 7 reported 1,012 of 10 items")
    assert 'desc="Tokenize"' in warning
    run.end()
    assert len(caplog.messages) == 1


def test_over_report_of_a_run_is_clamped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Where only the run's total is known, more than that is clamped and told."""
    run = a_run(20)
    run.commit(0, items(15), total=None, timings={})
    run.commit(1, items(10), total=None, timings={})
    assert own(run) == (20, 20)
    (warning,) = end(run, caplog)
    assert warning.startswith("the tasks reported 25 of 20 items")


def test_exact_reports_are_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A run whose tasks report what they should ends silently."""
    run = a_run(20)
    for task in range(2):
        run.commit(task, items(10, Read=10) | own_total("Read", 10), total=10, timings={})
    run.complete()
    assert own(run) == (20, 20)
    assert end(run, caplog) == []


def test_run_over_tasks_counts_tasks() -> None:
    """Where tasks are counted, each that succeeds is one, whatever it reported."""
    run = a_run(3, tasks=3, unit="tasks", counts_items=False)
    run.commit(0, {}, total=1, timings={})
    run.commit(1, items(Read=500), total=1, timings={})
    assert own(run) == (2, 3)
    run.fail(2, items(Read=5))
    run.complete()
    assert own(run) == (2, 3)


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
    """A task that is told of late, but began earlier, moves the start back."""
    run = a_run(100, clock=clock)
    clock.advance(60)
    run.commit(0, items(1), total=1, timings={None: (1.0, 0.0)})
    run.fail(1, items(1), timings={None: (4.0, 0.0)})
    run.commit(2, items(1), total=1, timings={None: (2.0, 0.0)})
    assert run.snapshot().elapsed == pytest.approx(4)


def test_clock_stops_at_the_end(clock: FakeClock) -> None:
    """The last reading is final, and its clock stands."""
    run = a_run(1, clock=clock)
    run.commit(0, items(1), total=1, timings={None: (0.0, 0.0)})
    clock.advance(5)
    run.end()
    clock.advance(100)
    assert run.snapshot().final
    assert run.snapshot().elapsed == pytest.approx(5)


def test_phase_ends_with_the_first_count(feed: Feed) -> None:
    """What the tasks wait for is shown until items are worked on, and a phase of the run until the next."""
    run = a_run(10, feed=feed)
    feed.phase = "starting Ray"
    assert run.snapshot().phase == "starting Ray"
    feed.timings = {None: (0.1, 0.1)}
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


def test_a_run_without_a_feed_reads_this_process() -> None:
    """A run reads the reporters of its own process where nothing else is said."""
    run = Run("Run", None, display=NullDisplay(), poll_interval=LONG)
    assert own(run) == (0, None)


def test_only_the_outermost_run_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that starts inside a task shows nothing."""
    display = RecordingDisplay()
    monkeypatch.setattr(
        "speedy_utils._run.run.choose_display",
        lambda progress, leave: display if progress else NullDisplay(),
    )
    assert display_here(True) is display
    with counting(Reporter(0).own):
        assert not draws_here()
        assert isinstance(display_here(True), NullDisplay)


def test_a_function_is_told_also_in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run inside a task draws nothing, but a function that asked for its snapshots gets them."""
    asked: list[tuple[Any, bool]] = []

    def choose(progress: Any, leave: bool) -> RecordingDisplay:
        asked.append((progress, leave))
        return RecordingDisplay()

    monkeypatch.setattr("speedy_utils._run.run.choose_display", choose)
    seen: list[Any] = []
    with counting(Reporter(0).own):
        display_here(seen.append, leave=False)
        display_here(True)
    display_here(False)
    assert asked == [(seen.append, False), (False, True), (False, True)]
