"""A run: owns the ledger, the clock and the poller, and says what the bar shows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Protocol

from .context import owns_terminal
from .display import Display, NullDisplay, choose_display
from .ledger import Declared, Key, Ledger, Report, Task
from .link import in_ray_worker
from .poller import ProgressPoller
from .reporter import Reporter
from .snapshot import Snapshot, StageSnapshot

logger = logging.getLogger(__name__)


class Feed(Protocol):
    """Where a run reads live counts."""

    def forget(self, task: Task) -> None:
        """Note that a task was committed."""
        ...

    def collect(self) -> tuple[Iterable[Report], float | None]:
        """What has changed, and the seconds since work on the first item started."""
        ...


class LocalFeed:
    """Reads the reporters of this process."""

    def __init__(self) -> None:
        self._reporters: dict[Reporter, None] = {}

    def add(self, reporter: Reporter) -> None:
        """Read a reporter from now on."""
        self._reporters[reporter] = None

    def remove(self, reporter: Reporter) -> None:
        """Read a reporter no more."""
        self._reporters.pop(reporter, None)

    def forget(self, task: Task) -> None:
        """Do nothing: a committed task's reporter is gone."""

    def collect(self) -> tuple[Iterable[Report], float | None]:
        """The state of every reporter, and the seconds since the first of them started to count."""
        reporters = list(self._reporters)
        reports = [reporter.report() for reporter in reporters]
        ages = [age for reporter in reporters if (age := reporter.age()) is not None]
        return reports, max(ages, default=None)


class Run:
    """One run and its bar. A context manager: the bar is there inside the block.

    Args:
        desc: What the bar is called.
        total: Items in all; None where that is not known.
        tasks: How many tasks it has; 0 for none.
        tasks_done: How many of them were done before.
        task_unit: What a task is called beside the bar.
        unit: What is counted, ``"items"`` or ``"tasks"``.
        initial: Items that were done before.
        display: What shows it.
        feed: Where it reads live counts; it may be set later.
        poll_interval: Seconds between two readings.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        desc: str,
        total: int | None,
        *,
        tasks: int = 0,
        tasks_done: int = 0,
        task_unit: str = "tasks",
        unit: str = "items",
        initial: int = 0,
        display: Display,
        feed: Feed | None = None,
        poll_interval: float = 0.3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.feed: Feed = LocalFeed() if feed is None else feed
        self.phase = ""
        self._desc, self._total, self._tasks, self._unit, self._initial = desc, total, tasks, unit, initial
        self._clock = clock
        self._ledger = Ledger()
        self._lock = threading.Lock()  # the driver commits while the poller reads
        self._began: float | None = None
        self._ended: float | None = None
        self._done, self._task_unit = tasks_done, task_unit
        self._failed = self._retries = 0
        self._excess = ""
        self._complete = self._final = False
        self._poller = ProgressPoller(self, display, poll_interval)

    def attempt(self, task: Task, attempt: int) -> None:
        """Note that a task starts; a second attempt takes back what the first had counted."""
        with self._lock:
            self._retries += attempt > 1
            self._ledger.merge([Report(task, attempt, {})])

    def commit(self, task: Task, counts: Mapping[Key, int], *, total: int | None, age: float | None) -> None:
        """Close a task that succeeded. It counts for exactly its total, where that is known.

        Args:
            task: The task.
            counts: What it reported, by stage, without limits.
            total: Its items, where that is known.
            age: Seconds since it started to work on items.
        """
        final = dict(counts)
        known = self._limit(total)
        for stage, done in counts.items():
            if isinstance(stage, Declared):
                continue
            # An unnamed loop declares a part of the task; a named one all that its stage has.
            limit = known if stage is None and known is not None else counts.get(Declared(stage), known)
            if limit is not None and done > limit:
                final[stage] = limit
                self._excess = self._excess or f"task {task} reported {done:,} of {limit:,} items"
        if total is not None:
            final[None] = total
        with self._lock:
            self._close(task, final, age)
            self._done += 1

    def fail(self, task: Task, counts: Mapping[Key, int] | None, *, age: float | None = None) -> None:
        """Close a task that failed for good. It keeps what it had reported.

        Args:
            task: The task.
            counts: What it reported, within its limits; None where it died and could not say.
            age: Seconds since it started to work on items.
        """
        with self._lock:
            self._close(task, self._ledger.last(task) if counts is None else counts, age)
            self._failed += 1

    def complete(self) -> None:
        """Note that all tasks have ended: the clock stops and, where none failed, the count is the total."""
        self._complete = True
        self._ended = self._clock()

    def snapshot(self) -> Snapshot:
        """The state now; called by the poller."""
        reports, age = self.feed.collect()
        with self._lock:
            self._ledger.merge(reports)
            self._begin(age)
            sums = self._ledger.sums
            done, total = self._own(sums.pop(None, 0), sums.pop(Declared(None), None))
            lines = [StageSnapshot(self._desc, done, total)]
            lines += [
                StageSnapshot(stage, count, sums.get(Declared(stage), self._limit(total)))
                for stage, count in sums.items()
                if isinstance(stage, str)
            ]
            now = self._clock() if self._ended is None else self._ended
            return Snapshot(
                tuple(lines),
                unit=self._unit,
                elapsed=0.0 if self._began is None else now - self._began,
                initial=self._initial,
                tasks_total=self._tasks,
                task_unit=self._task_unit,
                tasks_done=self._done,
                tasks_failed=self._failed,
                retries=self._retries,
                phase=self.phase,
                final=self._final,
            )

    def _own(self, done: int, declared: int | None) -> tuple[int, int | None]:
        """What the run's own line shows: never more than the total, and exactly it at a clean end."""
        done += self._initial
        total = declared if self._total is None else self._total
        if self._total is None:
            return done, total
        if done > self._total:
            self._excess = self._excess or f"the tasks reported {done:,} of {self._total:,} items"
        whole = self._complete and not self._failed
        return (self._total if whole else min(done, self._total)), total

    def _limit(self, total: int | None) -> int | None:
        """What a total of the run's own says of its stages: nothing, where it is a number of tasks."""
        return total if self._unit == "items" else None

    def _close(self, task: Task, counts: Mapping[Key, int], age: float | None) -> None:
        self._ledger.commit(task, counts)
        self._begin(age)
        self.feed.forget(task)

    def _begin(self, age: float | None) -> None:
        if age is not None:
            began = self._clock() - age
            if self._began is None:
                self._began, self.phase = began, ""
            self._began = min(self._began, began)

    def __enter__(self) -> Run:
        self._poller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Show the last state and let go of the terminal. Only the first call does anything."""
        if self._final:
            return
        if self._ended is None:
            self._ended = self._clock()
        self._final, self.phase = True, ""
        self._poller.stop()
        if self._excess:
            logger.warning(
                "%s: counted as no more than that. Where items pass through several steps, name them: "
                'track(rows, desc="Tokenize") or report_progress(n, desc="Tokenize").',
                self._excess,
            )


def draws_here() -> bool:
    """Whether a run that starts here may draw: not in a task, a child process or a Ray worker."""
    return owns_terminal() and not in_ray_worker()


def display_here(progress: bool) -> Display:
    """The display of a run that starts here."""
    return choose_display(progress) if draws_here() else NullDisplay()
