"""Submit, wait, retry: the loop that runs the tasks of a run on any engine, many small ones in a chunk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from .._display.format import format_quantity
from .._interrupts import delaying_ctrl_c, interruptible
from .._run.ends import PlainEnds, TaskEnd
from .._run.run import Run
from .._state.ledger import Count, Key, Task
from .._validation import shorten
from ..errors import TaskError
from .base import Engine
from .chunk_sizes import ChunkSizes
from .limits.failure import Failure
from .payload.unsent import UnsentItemError
from .task import Arguments, Chunk, ChunkOutcome, Outcome
from .task_queue import Tasks

logger = logging.getLogger("speedy_utils")

HANDED_BACK_INTERVAL_S = 0.1
"""Seconds between two looks at what late chunks have handed back, if a worker has nothing to do."""

MAX_PAUSE_S = 0.5
"""Seconds after which a wait for tasks that are to start again is over, so that it can be interrupted."""


class Ended(NamedTuple):
    """Tasks that have ended for good: one that failed, or some side by side that succeeded.

    Attributes:
        first: The first of them.
        values: What the function returned for each; empty if it failed.
        counts: What the task reported, if it is one that succeeded and reported more than a number of items.
        item: The item of a task that failed.
        attempts: How often it was started.
        failure: How it failed; None for success.
    """

    first: int
    values: Sequence[Any] = ()
    counts: Mapping[Key, Count] | None = None
    item: Any = None
    attempts: int = 1
    failure: Failure | None = None

    def error(self, index: int | None = None, item: Any = None) -> TaskError:
        """Return the error for a task that failed.

        Args:
            index: What the error calls the task by, if not by its own number.
            item: What it calls its item, if not by the item itself.
        """
        failure = self.failure or Failure("")
        known = self.item.item if isinstance(self.item, Arguments) else self.item
        error = TaskError(
            *(self.first if index is None else index, known if item is None else item, self.attempts),
            *(failure.reason, failure.traceback),
        )
        error.__cause__ = failure.error
        return error


def drive(
    engine: Engine,
    run: Run,
    items: Iterable[Any],
    finish: Callable[[Ended], bool | None],
    *,
    max_retries: int,
    totals: Sequence[int] | None = None,
    sizes: ChunkSizes | None = None,
) -> None:
    """Run a task for each item, as many chunks at once as the engine has workers, and again if one is lost.

    Args:
        engine: Runs them. It is started and, whatever happens, closed.
        run: Counts them.
        items: Their items; each is looked up when its task starts.
        finish: Gets the tasks that have ended for good, as they do, and returns True to start no more tasks;
            those that run are waited for. An exception that it raises cancels the rest.
        max_retries: How often a task is started again, after its worker was lost or for its exceptions.
        totals: The items of each task; None if these are not known.
        sizes: How many tasks travel together; None for one.
    """
    driver = Driver(engine, run, Tasks(items, totals, sizes or ChunkSizes(1)), finish, max_retries)
    try:
        engine.start()
        driver.run_to_end()
    except BaseException:  # Ctrl-C too: no task may go on without its run
        driver.cancel()
        raise
    finally:
        engine.close()


class Driver:
    """What :func:`drive` does in turns; the arguments are its own."""

    def __init__(
        self,
        engine: Engine,
        run: Run,
        tasks: Tasks,
        finish: Callable[[Ended], bool | None],
        max_retries: int,
    ) -> None:
        self._engine, self._run, self._tasks, self._finish = engine, run, tasks, finish
        self._max_retries = max_retries
        self._running: dict[tuple[Task, int], Chunk] = {}
        self._stopped = False
        self._warned: set[str] = set()
        self._retried: set[str] = set()  # types of exceptions

    def run_to_end(self) -> None:
        """Run all tasks; once stopped, those that have been started."""
        while self.start_chunks():
            self.wait()
            self.end_chunks()

    def cancel(self) -> None:
        """Cancel the tasks that run, and keep what has ended."""
        self._run.enter("stopping")
        self._keep(self._engine.cancel())

    def start_chunks(self) -> bool:
        """Start as many chunks as there are free workers; return whether there is anything to wait for."""
        most = self._engine.workers + self._engine.ahead
        while len(self._running) < most and not self._stopped:
            if (found := self._tasks.next(self._engine.workers)) is None:
                break
            chunk, failure = found
            if failure is not None and not failure.unsuited_node:
                _warn_of_retry(chunk, self._max_retries, failure)
            self._run.attempt_chunk(chunk.task, chunk.attempt, chunk.items, chunk.totals)
            try:
                self._engine.submit(chunk)
            except UnsentItemError as error:
                self._refuse(chunk, error)
                continue
            self._running[chunk.task, chunk.attempt] = chunk
        return bool(self._running) or (self._tasks.waiting() > 0 and not self._stopped)

    def _refuse(self, chunk: Chunk, unsent: UnsentItemError) -> None:
        """Let the task fail whose item can't be sent, and start those around it without it."""
        place, failure = unsent.place, Failure(str(unsent))
        for start, stop in ((place + 1, len(chunk.items)), (0, place)):
            if start < stop:
                self._tasks.hand_back(self._tasks.part(chunk, start, stop), 0)
        self._run.end_attempts(chunk.task, [_failed_end(chunk, place, Outcome(failure, {}))])
        self._stopped = bool(self._finish(_failed(chunk, place, failure))) or self._stopped

    @property
    def running(self) -> bool:
        """Whether chunks are under way."""
        return bool(self._running)

    def stop(self) -> None:
        """Start no more tasks."""
        self._stopped = True

    def wait(self, timeout: float | None = None) -> None:
        """Wait for chunks to end, for a task that is to start again to be due, or for late chunks.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.
        """
        due_in = self._tasks.due_in()
        if self._running:
            free = len(self._running) < self._engine.workers and not self._stopped
            late = free and any(len(chunk.items) > 1 for chunk in self._running.values())
            limits = (due_in if free else None, timeout, HANDED_BACK_INTERVAL_S if late else None)
            self._engine.wait(min((each for each in limits if each is not None), default=None))
            if late:
                self._take_back()
            return
        self._run.enter(f"waiting to try {format_quantity(self._tasks.waiting(), 'tasks')} again")
        _pause(due_in or 0.0)
        self._run.enter("")

    def _take_back(self) -> None:
        """Let the tasks be started that late chunks have handed back: one of theirs may hang."""
        for key, kept in self._engine.handed_back().items():
            chunk = self._running.get(key)
            if chunk is not None and kept < len(chunk.items):
                self._tasks.hand_back(chunk, kept)
                self._running[key] = self._tasks.part(chunk, 0, kept)

    def end_chunks(self) -> None:
        """Count what has ended, hand it on, and let start again what is to."""
        with delaying_ctrl_c(once=True):  # what is taken from the engine counts, and is handed on
            self._end_chunks(self._engine.take_ended() if self._running else ())

    def _end_chunks(self, chunks: Iterable[tuple[Chunk, ChunkOutcome]]) -> None:
        ended: list[Ended] = []
        for sent, outcome in chunks:
            chunk = self._running.pop((sent.task, sent.attempt))
            for warning in outcome.warnings:
                if warning not in self._warned:
                    self._warned.add(warning)
                    logger.warning(warning)
            if outcome.failure is not None:
                refuse_unprepared(outcome.failure)
            ended += self._end(chunk, outcome)
        for each in sorted(ended, key=lambda each: each.failure is not None):  # a failure may raise
            self._stopped = bool(self._finish(each)) or self._stopped

    def _keep(self, chunks: Iterable[tuple[Chunk, ChunkOutcome]]) -> None:
        """Count and hand on the tasks of cancelled chunks that have ended."""
        for sent, outcome in chunks:
            chunk = self._running.pop((sent.task, sent.attempt), sent)
            ends = _Ends(chunk, outcome)
            counted, finished = ends.counted, ends.succeeded
            for place, other in ends.failed:
                failure = other.failure or Failure("")
                if not self._starts_again(chunk, failure):
                    counted.append(_failed_end(chunk, place, other))
                    finished.append(_failed(chunk, place, failure))
            self._run.end_attempts(chunk.task, counted, ends.plain(), interrupted=True)
            for each in finished:
                with suppress(TaskError):  # the run ends by something else
                    self._finish(each)
        for chunk in self._running.values():
            if len(chunk.items) > 1:  # tasks that have ended, and whose results are lost, don't count as done
                # As if it ran again: a late report of this attempt changes nothing.
                self._run.end_attempts(chunk.task, [], next_attempt=chunk.attempt + 1, interrupted=True)

    def _end(self, chunk: Chunk, outcome: ChunkOutcome) -> list[Ended]:
        tasks, done, failure = self._tasks, len(outcome.values), outcome.failure
        if done and chunk.attempt == 1:  # those that run again are alone: what a chunk costs would be theirs
            tasks.sizes.observe(done, outcome.seconds, outcome.size)
        ends = _Ends(chunk, outcome)
        finished, counted, retries, first_again = ends.succeeded, ends.counted, 0, not done
        failures = [*ends.failed]
        stuck = 0 if failure is not None and len(chunk.items) == 1 else outcome.stuck
        if failure is not None and stuck is not None:  # what it had counted is not known apart from others
            failures = [(stuck, Outcome(failure, None if len(chunk.items) == 1 else {}))]
            first_again = stuck > 0
        for place, other in failures:
            failed = other.failure or Failure("")
            if self._starts_again(chunk, failed):
                self._note_retry(chunk, place, failed)
                tasks.start_again(chunk, place, failed)
                retries += 1
                first_again = first_again or not place
                continue
            counted.append(_failed_end(chunk, place, other))
            finished.append(_failed(chunk, place, failed))
        if done < len(chunk.items) > 1:
            if failure is None:
                tasks.hand_back(chunk, done)
            else:
                stands, retries = "", retries + len(chunk.items) - done
                if stuck is None:
                    tasks.split(chunk, done)
                else:
                    stands, retries = f", but for task {chunk.task + stuck}", retries - 1
                    tasks.split(tasks.part(chunk, stuck + 1, len(chunk.items)))
                    tasks.split(tasks.part(chunk, done, stuck))
                text = "tasks %d to %d run again, in smaller parts%s: %s"
                logger.warning(text, *ends.unfinished, stands, failure.reason)
        again = chunk.attempt + 1 if first_again else 0
        self._run.end_attempts(chunk.task, counted, ends.plain(), next_attempt=again, retries=retries)
        return finished

    def _starts_again(self, chunk: Chunk, failure: Failure) -> bool:
        retries = chunk.attempt - 1 - chunk.uncounted
        worth_it = failure.worker_lost or failure.retry_in is not None
        return bool(failure.unsuited_node) or (worth_it and retries < self._max_retries)

    def _note_retry(self, chunk: Chunk, place: int, failure: Failure) -> None:
        """Log the first retry for each type of exception; the others are counted beside the line."""
        kind = type(failure.error).__name__
        if failure.retry_in is not None and kind not in self._retried:
            self._retried.add(kind)
            logger.warning(
                "task %d (item %s) runs again in %.1f s, attempt %d of %d: %s; further retries for %s are "
                "only counted",
                *(chunk.task + place, shorten(chunk.items[place], 80), failure.retry_in, chunk.attempt + 1),
                *(self._max_retries + 1 + chunk.uncounted, failure.reason, kind),
            )


def _failed_end(chunk: Chunk, place: int, outcome: Outcome) -> TaskEnd:
    return TaskEnd(chunk.task + place, outcome.counts, None, outcome.timings, failed=True)


def _failed(chunk: Chunk, place: int, failure: Failure) -> Ended:
    return Ended(chunk.task + place, item=chunk.items[place], attempts=chunk.attempt, failure=failure)


class _Ends:
    """The tasks of a chunk that have ended.

    Attributes:
        succeeded: Those that succeeded, for who finishes them.
        counted: Those of them that have counted something else than items of no stage, for the run.
        failed: The places of those that failed, with what is known of each.
        unfinished: The first and the last task of the others.
    """

    def __init__(self, chunk: Chunk, outcome: ChunkOutcome) -> None:
        self.succeeded: list[Ended] = []
        self.counted: list[TaskEnd] = []
        self.failed: list[tuple[int, Outcome]] = []
        first, values, totals, start = chunk.task, outcome.values, chunk.totals, 0
        self.unfinished = first + len(values), first + len(chunk.items) - 1
        self._ranges: list[tuple[int, int]] = []
        self._outcome, self._total = outcome, None if totals is None else sum(totals[: len(values)])
        for place, other in [*outcome.others.items(), (len(values), None)]:
            if place > start:
                self._ranges.append((first + start, place - start))
                self.succeeded.append(Ended(first + start, values[start:place]))
            start = place + 1
            if other is None:
                break
            total = None if totals is None else totals[place]
            if self._total is not None and total is not None:
                self._total -= total
            if other.failure is not None:
                self.failed.append((place, other))
                continue
            self.counted.append(TaskEnd(first + place, other.counts, total, other.timings))
            self.succeeded.append(Ended(first + place, values[place:start], other.counts))

    def plain(self) -> PlainEnds:
        """Return those that succeeded and counted at most items of no stage."""
        count = sum([length for _, length in self._ranges])
        return PlainEnds(self._ranges, count, self._outcome.items, self._total, self._outcome.seconds)


@interruptible  # a run in a thread of another run
def _pause(seconds: float) -> None:
    """Wait for a moment in which no task runs."""
    time.sleep(min(seconds, MAX_PAUSE_S))


def _warn_of_retry(chunk: Chunk, max_retries: int, failure: Failure) -> None:
    logger.warning(
        "task %d (item %s) runs again, attempt %d of %d: %s",
        chunk.task,
        shorten(chunk.items[0], 80),
        chunk.attempt,
        max_retries + 1 + chunk.uncounted,
        failure.reason,
    )


def refuse_unprepared(failure: Failure) -> None:
    """Raise a RuntimeError if a worker can't be prepared."""
    if not failure.ends_run:
        return
    cause = failure.error
    shown = cause is not None and cause.__traceback__ is not None  # by Python, as that of the cause
    text = "" if shown else f"\n\nTraceback in the worker:\n{failure.traceback.rstrip()}"
    raise RuntimeError(failure.reason + text) from cause
