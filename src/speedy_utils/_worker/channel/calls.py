"""What a process counts for a run that is not its own: calls of functions, summed up as they finish."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..._state.ledger import ENDED, OF_RUNNING_TASKS, RUN_ITEMS, Count, Key, Metric, Report, Task
from ..._state.stage_limit import StageLimit
from ..._state.timings import StageClock, StageTimings
from ..reporter import Reporter
from .flusher import Sink
from .writer import FINAL, FolderSink

MAX_STAGES = 50
"""Named stages that the calls of a process may have, as those of a run."""

_NOTES = (Metric.LEFT_OUT, Metric.ANOTHER_LOOP)
"""What has a text of its own in each call; the first one is enough."""


_AT_WORK = Key(None, Metric.TASKS_STARTED)


class ProcessCounts:
    """What this process counts for a run: one report, however many calls it has made.

    A :class:`~speedy_utils._worker.channel.flusher.Flusher` sends it like a reporter. For the run it is one
    task. Its counts are those of the calls that have finished, summed up, and of those that run.

    Args:
        task: The name of this process, or of a task of another engine that it runs.
        sink: Where they go; None if a feed of this process reads them.
        attempt: The number of the attempt at the task.
        clock: Monotonic clock, in seconds.

    Attributes:
        task: The name.
        failed: Whether a call has not returned: a task may then be run again.
    """

    def __init__(
        self,
        task: Task,
        sink: Sink | None,
        attempt: int = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self.failed = False
        self._sink, self._attempt = sink, attempt
        # A handler of SIGTERM may finish a call while this thread finishes another.
        self._lock = threading.RLock()
        self._items = 0  # of calls that have counted nothing else
        self._finished: Mapping[Key, Count] = {}  # what all others count for that have finished
        self._running: dict[Reporter, None] = {}
        self._stage_limit = StageLimit(MAX_STAGES)
        self._clock, self._stage_clock = clock, StageClock(clock)
        self._readings = itertools.count(1)

    @property
    def is_idle(self) -> bool:
        """Whether no call runs."""
        return not self._running

    def add(self, reporter: Reporter) -> None:
        """Count a call from now on, with what it has counted already."""
        with self._lock:
            self._running[reporter] = None

    def finish(self, reporter: Reporter, counts: Mapping[Key, Count] | int) -> None:
        """End a call with its final counts, which are written before this returns.

        Args:
            reporter: Its reporter.
            counts: What it counts for; those of a call that runs, such as ``TASKS_STARTED``, are left out.
                Or a number of items of no stage, if that is all.

        Raises:
            OSError: They can't be written; they are counted with what is written next.
        """
        with self._lock:
            if isinstance(counts, int):
                self._items += counts
            else:
                self._finished = self._plus(self._finished, counts, finished=True)
            own = reporter.own
            if isinstance(counts, int) and not (own.n or own.used):  # it has reported nothing
                self._stage_clock.observe(None, reporter.started, self._clock())
            else:
                self._stage_clock.merge(self._stage_limit.timings(reporter.final_timings()))
            self._running.pop(reporter, None)
            if self._sink is None:
                return
            report, timings = self._state()
        self._sink.send([report], timings, last=True)

    def flush(self) -> None:
        """Send the state in this thread, if it can be sent."""
        with suppress(OSError):  # said by the thread that sends
            if self._sink is not None:
                report, timings = self._state()
                self._sink.send([report], timings, last=True)

    def close(self) -> None:
        """Send the last state of a task that has ended."""
        report, timings = self._state()
        if isinstance(self._sink, FolderSink):
            with suppress(OSError):
                self._sink.keep(report._replace(reading=FINAL))
        elif self._sink is not None:
            self._sink.send([report._replace(reading=FINAL)], timings, last=True)

    def report(self) -> Report:
        """Return the state now. Any thread may call it."""
        return self._state()[0]

    def timings(self) -> StageTimings:
        """Return how long ago work on the items of each stage started, and last moved."""
        with self._lock:
            for reporter in self._running:
                self._stage_clock.merge(self._stage_limit.timings(reporter.timings()))
            return self._stage_clock.timings()

    def _state(self) -> tuple[Report, StageTimings]:
        with self._lock:
            counts, stack, at_work = {**self._finished}, "", False
            if self._items:
                counts[RUN_ITEMS] = counts.get(RUN_ITEMS, 0) + self._items
            for reporter in self._running:
                report = reporter.report()
                idle = reporter.of_process and not reporter.is_at_work()
                counts = self._plus(counts, report.counts, idle=idle)
                if not idle:
                    at_work, stack = True, stack or report.stack
            if not at_work:
                counts[ENDED] = 1
            report = Report(self.task, self._attempt, counts, next(self._readings), None, stack)
            return report, self.timings()

    def _plus(
        self,
        sums: Mapping[Key, Count],
        counts: Mapping[Key, Count],
        *,
        finished: bool = False,
        idle: bool = False,
    ) -> dict[Key, Count]:
        total = dict(sums)
        noted = {key.metric for key in sums if key.metric in _NOTES}
        for key, count in self._stage_limit.counts(counts).items():
            if key.metric in noted or (finished and key.metric in OF_RUNNING_TASKS):
                continue
            if idle and key == _AT_WORK:
                continue
            total[key] = total.get(key, 0) + count
        return total
