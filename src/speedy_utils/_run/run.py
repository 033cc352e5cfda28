"""A run: it owns the ledger, the clock and the poller, and decides what the bar shows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from types import TracebackType

from .._display.base import Display
from .._state.estimate.last_tasks import LastTasks
from .._state.estimate.time_left import TimeLeft
from .._state.finishing import FinishingTasks
from .._state.ledger import FINISHED, Count, Key, Ledger, Metric, Report, Task, added
from .._state.running import RunningTasks, has_counted
from .._state.snapshot import Snapshot
from .._state.stage_limit import StageLimit
from .._state.stages import UNKNOWN, Stages
from .._state.stalls import Stalls
from .._state.timings import StageClock, StageTimings
from .._worker.channel.writer import FINAL
from .advice import CountingAdvice, warn_of_left_out
from .ends import PlainEnds, TaskEnd
from .feed import PREPARING, WAITING, Feed, LocalFeed
from .poller import Poller, last_read_timeout

logger = logging.getLogger("speedy_utils")

MAX_STAGES = 50
"""Named stages of a run that have a line each, about as many as a terminal has rows."""

MIN_READINGS = 4
"""In how many readings at least a task must not have moved before it is said to stand."""

FIRST_DRAW_TIMEOUT_S = 1.0
"""Seconds for which the start of the work waits for a slow display to show the bar."""


class Run:
    """One run and its bar. A context manager: the bar is there inside the block.

    A block that ends without an exception completes the run: all results are in and saved by then.

    Args:
        desc: What the bar is called.
        total: Items in all; None if that is not known. Then tasks are counted, until one counts items.
        tasks: How many tasks it has; 0 for none, None if that is not known.
        tasks_done: How many of them were done before.
        kept: What tasks that were done before had counted, and how many items they have, if that is known.
        kept_from: When they were done, as text.
        task_unit: What a task is called beside the bar.
        task_numbers: What tasks are called by, if not by their own numbers.
        after_counting: What a task does that has counted all its items, and has not returned.
        workers: How many of them run at once.
        unit: What is counted.
        initial: Items that were done before.
        initial_tasks: Tasks that other runs had done, for a run that counts tasks.
        display: Shows it.
        feed: Live counts, and what the work waits for; None for those of this process.
        open_ended: Whether it has no tasks of its own: its feed reports on others' processes and calls. Then
            only what they have counted counts, and nothing is credited at the end.
        poll_interval: Seconds between two readings.
        stall_after: Seconds without a count after which a task is said to stand; None for never.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        desc: str,
        total: int | None,
        *,
        tasks: int | None = 0,
        tasks_done: int = 0,
        kept: Sequence[tuple[Mapping[Key, Count], int | None]] = (),
        kept_from: str = "",
        task_unit: str = "tasks",
        task_numbers: Sequence[int] = (),
        after_counting: str = "finishing",
        workers: int = 0,
        unit: str = "items",
        initial: int = 0,
        initial_tasks: int = 0,
        display: Display,
        feed: Feed | None = None,
        open_ended: bool = False,
        poll_interval: float = 0.3,
        stall_after: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feed: Feed = LocalFeed() if feed is None else feed
        self._phase = ""
        self._open_ended, self._succeeded = open_ended, False
        self._stages = Stages(
            *(desc, total),
            unit=unit,
            task_unit=task_unit,
            initial=initial,
            tasks=None if tasks is None else tasks - tasks_done,
            open_ended=open_ended,
            initial_tasks=tasks_done + initial_tasks,
        )
        self._total = None if total is None else total - initial
        self._endless, tasks = tasks is None, tasks or 0
        self._tasks, self._workers, self._kept_from = tasks, workers, kept_from
        self._clock = clock
        self._ledger = Ledger()
        self._stage_clock = StageClock(clock)
        self._stage_limit = StageLimit(MAX_STAGES)
        self._running = RunningTasks(task_numbers)
        self._longest_step = inf if stall_after is None else stall_after / MIN_READINGS
        self._seen = self._seen_at = clock()
        self._stalls = Stalls(stall_after, task_unit, unit)
        self._last_tasks = LastTasks(tasks - tasks_done, workers)
        self._time_left = TimeLeft(tasks - tasks_done, task_unit)
        self._finishing = FinishingTasks(after_counting, task_unit, tasks=tasks)
        self._lock = threading.Lock()  # the driver commits while the poller reads
        self._reading = threading.Lock()  # the program reads while the poller does
        self._ended: float | None = None
        self._done, self._before, self._task_unit = tasks_done, tasks_done, task_unit
        self._failed = self._retries = 0
        self._final = self._complete = self._has_warned_of_excess = False
        self._warned_of_left_out = threading.Lock()  # taken once, by the thread that warns
        self._advice = CountingAdvice(unit)
        for number, (counts, items) in enumerate(kept):
            final = self._stages.task_kept(self._stage_limit.counts(counts), items)
            self._ledger.commit(f"kept {number}", final)
        self._poller = Poller(self, display, poll_interval)

    def attempt(self, task: Task, attempt: int, *, total: int | None = None, item: object = None) -> None:
        """Note that a task starts; a second attempt takes back what the first had counted.

        Args:
            task: The task.
            attempt: The number of the attempt, from 1.
            total: Its items; None if that is not known.
            item: What it works on.
        """
        with self._lock:
            self._retries += attempt > 1
            self._ledger.merge([Report(task, attempt, {})])
            self._running.start(task, attempt, total, item, self._seen_time(self._clock()))

    def attempt_chunk(
        self, first: int, attempt: int, items: Sequence[object], totals: Sequence[int | None] | None
    ) -> None:
        """Note that attempts at tasks side by side start, which a worker runs one after another.

        Args:
            first: The first of the tasks.
            attempt: The number of the attempts, from 1.
            items: What each works on.
            totals: The items of each; None if that is not known.
        """
        with self._lock:
            if attempt > 1:  # else it is known once it reports
                self._ledger.merge([Report(first, attempt, {})])
            now = self._seen_time(self._clock())
            self._running.start_chunk(first, attempt, totals, items, now)

    def commit(
        self, task: Task, counts: Mapping[Key, Count], *, total: int | None, timings: StageTimings
    ) -> None:
        """Close a task that succeeded. It counts for exactly its total, if that is known.

        Args:
            task: The task.
            counts: What it reported, without limits: ``raw_counts`` of its reporter.
            total: Its items; None if that is not known.
            timings: How long ago its stages started, and last moved.
        """
        self.end_attempts(task, [TaskEnd(task, counts, total, timings)])

    def fail(
        self, task: Task, counts: Mapping[Key, Count] | None, *, timings: StageTimings | None = None
    ) -> None:
        """Close a task that failed for good. It keeps what it had reported.

        Args:
            task: The task.
            counts: What it reported, within its limits; None if it died, and its last live counts are kept.
            timings: How long ago its stages started, and last moved.
        """
        self.end_attempts(task, [TaskEnd(task, counts, None, timings or {}, failed=True)])

    def end_attempts(
        self,
        first: Task,
        ends: Sequence[TaskEnd],
        plain: PlainEnds | None = None,
        *,
        next_attempt: int = 0,
        retries: int = 0,
        interrupted: bool = False,
    ) -> None:
        """Close the tasks of a chunk that have ended, all in one step.

        Args:
            first: The first task of the chunk.
            ends: Those that have failed for good, or have counted something else than ``plain`` ones.
            plain: Those that succeeded and counted nothing but items of no stage.
            next_attempt: The number of the next attempt at ``first``, if there will be one; else 0.
            retries: How many tasks of the chunk will start again.
            interrupted: Whether the task after those is stopped: it counts for what it has last reported.
        """
        for each in ends:
            self._warn_of_left_out(each.counts or {})
        messages: list[str] = []
        with self._lock:
            last, sums = (self._ledger.last(first), self._ledger.sums) if ends else ({}, {})
            self._retries += retries
            dropped = self._ledger.drop(first, next_attempt)
            known, count = self._running.end(first), 0
            counted = plain is not None and bool(plain.items)
            for each in ends:
                if each.failed:
                    kept = last if each.counts is None else self._stage_limit.counts(each.counts)
                    final = self._stages.task_failed(each.task, kept, sums)
                    self._failed += 1
                else:
                    given = self._stage_limit.counts(each.counts or {})
                    final = self._stages.task_succeeded(each.task, given, each.total)
                    counted, count = counted or has_counted(given), count + 1
                self._ledger.commit(each.task, final)
                self._stage_clock.merge(self._stage_limit.timings(each.final_timings()))
            if plain is not None and plain.tasks:
                final = self._stages.tasks_succeeded(plain.tasks, plain.items, plain.total)
                for task, length in plain.ranges:
                    self._ledger.commit_all(task, length, final)
                    final = {}
                self._stage_clock.merge({None: (plain.seconds, 0.0)})
                count += plain.tasks
            ended = len(ends) + (0 if plain is None else plain.tasks)
            dropped = dropped or Report(first, 1, {})
            if interrupted and dropped.position == ended and isinstance(first, int):
                stopped = dropped._replace(task=first + ended, position=0, before=None)
                self._ledger.merge([stopped._replace(attempt=max(stopped.attempt, next_attempt))])
            if known is not None and count:
                messages = self._stalls.succeeded(
                    known, self._seen_time(self._clock()), tasks=count, counted=counted
                )
            self._done += count
            if not next_attempt:
                self._feed.forget(first)
        _warn(messages)
        for each in ends:
            if not each.failed:
                self._advice.task_succeeded(each.task, each.counts or {}, each.total)

    def complete(self) -> None:
        """Note that all is done and saved: the clock stops and, if no task failed, the count is the total."""
        with self._lock:
            self._succeeded = True
            if not (self._failed or self._open_ended):  # else the last reading tells
                self._stages.all_succeeded()
                self._complete = True
            self._ended = self._clock()
            sums = self._ledger.sums
        if self._complete and self._total is not None:
            self._advice.task_succeeded(None, sums, self._total)

    def enter(self, phase: str) -> None:
        """Show what the run does after its tasks, such as "merging", until the next phase or the end."""
        self._phase = phase

    def snapshot(self) -> Snapshot:
        """Return the state now. The poller calls it."""
        with self._reading:
            return self._snapshot()

    def _snapshot(self) -> Snapshot:
        reports, timings = self._feed.collect()
        reports = list(reports)
        for report in reports:
            self._warn_of_left_out(report.counts)
            self._advice.look_at(report.task, report.counts)
        with self._lock:
            limited = self._stage_limit.counts
            reports = [
                each._replace(counts=limited(each.counts), before=each.before and limited(each.before))
                for each in reports
            ]
            for report in reports:
                self._stages.observe(report.task, report.reported_counts())
            self._ledger.merge(reports)
            if self._open_ended:
                self._close_final(reports)
            self._stage_clock.merge(self._stage_limit.timings(timings))
            now = self._clock() if self._ended is None else self._ended
            if self._final:
                self._complete_if_full(now)
                self._stop_tasks()
            sums = self._ledger.sums
            done = self._done + int(sums.get(FINISHED, 0))
            tasks_left = UNKNOWN if self._endless else self._tasks - done - self._failed
            if self._feed.answered:
                self._seen = self._seen_time(now)
            self._seen_at, seen = now, self._seen
            self._running.read(self._ledger.running(), seen)
            running = [*self._running]
            messages = self._stalls.read(running, seen)
            self._finishing.read(running, tasks_left=tasks_left, now=now)
            reading = self._stages.read(sums, self._stage_clock, now, all_counted=self._finishing.all_counted)
            shared = [line for line in reading.lines if line not in reading.stages]
            run_line, lines = self._time_left.read(
                reading.run_line,
                (*reading.stages, *shared),
                self._stages.on_shared_lines(running) if shared else running,
                ended=done - self._before + self._failed,
                now=now,
                for_run=self._stages.for_run,
                final=self._final,
            )
            by_name = {line.name: line.with_plain_name() for line in lines}
            slowest = self._running.slowest(seen)
            phase = self._current_phase(sums, now, seen)
            waiting_for = self._last_tasks.waits_for(slowest, tasks_left=tasks_left, now=now)
            snapshot = Snapshot(
                run_line.with_plain_name(),
                tuple(by_name[stage.name] for stage in reading.stages),
                show_run_line=reading.show_run_line,
                tasks_total=self._tasks,
                task_unit=self._task_unit,
                tasks_done=done,
                tasks_failed=self._failed,
                tasks_kept=self._before,
                kept_from=self._kept_from,
                workers=self._workers,
                workers_at_work=self._running.workers_at_work(self._workers, now),
                retries=self._retries,
                phase=phase,
                final=self._final,
                complete=self._complete,
                stage_lines=tuple(by_name[line.name] for line in reading.lines),
                slowest=slowest,
                waiting_for=None if phase or self._final else waiting_for,
                stalled=self._running.snapshots(self._stalls.tasks, seen),
            )
        _warn(messages)
        return snapshot

    def _close_final(self, reports: Iterable[Report]) -> None:
        """Close the tasks of another engine that have returned: no outcome comes from there."""
        for report in reports:
            if report.reading >= FINAL:
                self._ledger.commit(report.task, report.counts)
                self._running.end(report.task)
                self._feed.forget(report.task)

    def _complete_if_full(self, now: float) -> None:
        """Complete a run that only its counts can tell of, if its block has ended without an exception."""
        if not self._open_ended or not self._succeeded or self._complete:
            return
        if self._stages.is_full(self._stages.read(self._ledger.sums, self._stage_clock, now)):
            self._stages.all_succeeded()
            self._complete = True

    def _stop_tasks(self) -> None:
        """Let the tasks that are still running at the end count for what they have done."""
        self._ledger.merge(Report(each.task, each.attempt, {}) for each in self._running)
        sums = self._ledger.sums
        for report in list(self._ledger.running()):
            final = self._stages.task_failed(report.task, report.counts, sums)
            self._ledger.commit(report.task, added(final, report.before or {}))
            self._running.end(report.task)

    def _seen_time(self, now: float) -> float:
        """Return the time by a clock that stands while the driver can't see whether tasks move.

        What happens between two readings is not known: a driver that was stopped for an hour itself, or whose
        channel did not answer meanwhile, has seen no task stand for an hour.
        """
        return self._seen + min(now - self._seen_at, self._longest_step)

    def _current_phase(self, sums: Mapping[Key, Count], now: float, seen: float) -> str:
        if self._final:
            return ""
        if self._phase:
            return self._phase
        at_work = int(sums.get(Key(None, Metric.TASKS_STARTED), 0))
        phase = self._feed.phase
        if phase not in ("", WAITING, PREPARING) and not (at_work or self._feed.trouble):
            return phase  # no task has begun, so none hangs
        finishing, standing = self._finishing.phase(now), self._stalls.phase(seen)
        if self._stalls.tasks and not finishing:
            return standing
        if found := self._feed.trouble or finishing or standing:
            return found
        if None in self._stage_clock:  # items are worked on; the remark says how many workers do
            return ""
        if phase not in (WAITING, PREPARING) or not self._workers:
            return phase
        started = at_work + self._done - self._before + self._failed
        return f"{phase} {started:,}/{self._workers:,}" if started < self._workers else ""

    def _warn_of_left_out(self, counts: Mapping[Key, Count]) -> None:
        """Warn of what a task reported and can't be counted, once in a run."""
        text = next((key.label for key in counts if key.metric is Metric.LEFT_OUT), None)
        if text is not None and self._warned_of_left_out.acquire(blocking=False):
            warn_of_left_out(text)

    def __enter__(self) -> Run:
        # What the work prints goes above the lines, so they are there before the work begins.
        self._poller.start(FIRST_DRAW_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.complete()
            self.end(last_read_timeout(kind))
        finally:  # once more, see _interrupts
            self._poller.stop(0)

    def end(self, timeout: float | None = None) -> None:
        """Show the last state and release the terminal. Idempotent.

        Args:
            timeout: Seconds to wait for that; None for as long as it takes.
        """
        if self._final:
            return
        with self._lock:  # a snapshot that is being made is either the last one, or not final
            if self._ended is None:
                self._ended = self._clock()
            self._final = True
            self._stages.read(self._ledger.sums, self._stage_clock, self._ended)  # it notes what is too much
        # While the lines are there: after them, the warning could continue a line that the program has begun.
        self._warn_of_excess()
        self._poller.stop(timeout)
        self._warn_of_excess()

    def _warn_of_excess(self) -> None:
        """Warn once if more was reported than there is."""
        excess, warned = (
            self._stages.excess,
            self._has_warned_of_excess or self._advice.has_warned_of_another_loop,
        )
        if excess is not None and not warned:
            self._has_warned_of_excess = True
            from .._display.format import format_excess  # needs tqdm

            logger.warning(
                "%s: counted as no more than that. If items pass through several steps, name them: "
                'track(rows, desc="Tokenize") or report_progress(n, desc="Tokenize").',
                format_excess(excess),
            )


def _warn(messages: Iterable[str]) -> None:
    for message in messages:
        logger.warning("%s", message)
