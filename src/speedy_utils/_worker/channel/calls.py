"""What a process counts for a run that is not its own: calls of functions, summed up as they finish."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..._state.ledger import ENDED, OF_RUNNING_TASKS, Count, Key, Metric, Report, Task
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
        self._finished: Mapping[Key, Count] = {}
        self._running: dict[Reporter, None] = {}
        self._stage_limit = StageLimit(MAX_STAGES)
        self._stage_clock = StageClock(clock)
        self._readings = itertools.count(1)

    @property
    def is_idle(self) -> bool:
        """Whether no call runs."""
        return not self._running

    def add(self, reporter: Reporter) -> None:
        """Count a call from now on, with what it has counted already."""
        with self._lock:
            self._running[reporter] = None

    def finish(self, reporter: Reporter, counts: Mapping[Key, Count]) -> None:
        """End a call with its final counts, which are written before this returns.

        Args:
            reporter: Its reporter.
            counts: What it counts for; those of a call that runs, such as ``TASKS_STARTED``, are left out.

        Raises:
            OSError: They can't be written; they are counted with what is written next.
        """
        timings = self._stage_limit.timings(reporter.final_timings())
        with self._lock:
            self._stage_clock.merge(timings)
            total = self._plus(self._finished, counts, finished=True)
            self._finished = total
            self._running.pop(reporter, None)
            if self._sink is None:
                return
            report, timings = self.report(), self.timings()
        self._sink.send([report], timings, last=True)

    def flush(self) -> None:
        """Send the state in this thread, if it can be sent."""
        with suppress(OSError):  # said by the thread that sends
            if self._sink is not None:
                self._sink.send([self.report()], self.timings(), last=True)

    def close(self, sink: Sink) -> None:
        """Send the last state of a task that has ended."""
        report = self.report()
        if isinstance(sink, FolderSink):
            with suppress(OSError):
                sink.keep(report._replace(reading=FINAL))
        else:
            sink.send([report._replace(reading=FINAL)], self.timings(), last=True)

    def report(self) -> Report:
        """Return the state now. Any thread may call it."""
        with self._lock:
            counts, stack, at_work = self._finished, "", False
            for reporter in self._running:
                report = reporter.report()
                idle = reporter.of_process and not reporter.is_at_work()
                counts = self._plus(counts, report.counts, idle=idle)
                if not idle:
                    at_work, stack = True, stack or report.stack
            if not at_work:
                counts = {**counts, ENDED: 1}
            return Report(self.task, self._attempt, counts, next(self._readings), stack=stack)

    def timings(self) -> StageTimings:
        """Return how long ago work on the items of each stage started, and last moved."""
        with self._lock:
            for reporter in self._running:
                self._stage_clock.merge(self._stage_limit.timings(reporter.timings()))
            return self._stage_clock.timings()

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
