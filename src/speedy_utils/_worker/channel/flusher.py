"""Sends what reporters have counted, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..._state.ledger import ENDED, Report, Task
from ..._state.timings import StageTimings
from ..chunk_reporter import AnyReporter

logger = logging.getLogger("speedy_utils")


RESEND_AFTER_S = 2.0
"""Seconds after which unchanged counts are sent again, as a later reading.

A restarted sink has forgotten them, and the driver learns that this process is there.
"""


END_DELAY_S = 1.0
"""Seconds that the outcome of a task has to arrive before its worker says that the task has ended."""


END_TIMEOUT_S = 120.0
"""Seconds for which it says so, until that has arrived; a network may be cut."""


MAX_PACKING_S = 3600.0
"""Seconds after which an outcome counts as packed although that was not noted: Ctrl-C interrupted it."""


class Sink(Protocol):
    """Where a reporter's counts go."""

    @property
    def interval(self) -> float:
        """Seconds between two calls of ``send``."""
        ...

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
        """Send the state of some tasks, without waiting for an answer.

        Args:
            reports: What each task has counted so far.
            timings: How long ago their work on items started, and last moved, by stage.
            last: Whether it is the final state, which has to go even if an earlier one is on its way.

        Returns:
            False if an earlier state is still on its way: a newer one will be offered later.
        """
        ...

    def lost(self) -> bool:
        """Return whether the last state is known to be lost: it is then sent again, changed or not."""
        ...

    def settled(self) -> bool:
        """Return whether the last state is known to have arrived, or to be of no use any more."""
        ...


class Counted(Protocol):
    """What the flusher sends: a reporter, or a contributor."""

    @property
    def task(self) -> Task:
        """What it counts for."""
        ...

    def report(self) -> Report:
        """Return the state now."""
        ...

    def timings(self) -> StageTimings:
        """Return how long ago work on the items of each stage started, and last moved."""
        ...


class Flusher:
    """The one thread of a process that sends what its reporters have counted.

    Args:
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._routes: dict[Counted, _Route] = {}
        self._ended: EndedTask | None = None
        # Not taken through the condition, which does so in Python: an exception that cancels a task could be
        # raised between acquiring the lock and the block that releases it.
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def add(self, reporter: Counted, sink: Sink) -> None:
        """Send a reporter's counts to a sink from now on."""
        with self._lock:
            self._routes[reporter] = _Route(sink)
            self._ended = None  # a worker gets its next task once its last outcome has arrived
            if self._thread is None:
                self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="speedy_utils-flusher", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system's limit of threads; the work matters more
            logger.warning("progress is not sent before tasks have ended: %s", error)
        else:
            self._thread = thread

    def remove(self, reporter: Counted, *, last: bool = False) -> None:
        """Stop sending a reporter's counts.

        Args:
            reporter: The reporter.
            last: Whether to send its final state; needless if that travels with the task's outcome.
        """
        with self._lock:
            route = self._routes.pop(reporter, None)
        if route is not None and last:
            route.flush(reporter, self._clock(), final=True)

    def sending_outcome(self, reporter: AnyReporter, sink: Sink) -> EndedTask:
        """Send word that this process is there while it packs an outcome, and later that its task has ended.

        Most outcomes arrive at once, and the process gets its next task: then nothing is sent.

        Args:
            reporter: The reporter of the task.
            sink: Where its counts went.

        Returns:
            A context manager in whose block the outcome is packed: where to note how long that may be under
            way.
        """
        ended = EndedTask(reporter, sink, self._clock)
        with self._lock:
            self._ended = ended
            if self._thread is None:
                self._start_thread()
        return ended

    def flush(self) -> None:
        """Send what has changed. Called by the thread; a test may call it too."""
        now = self._clock()
        for reporter, route in list(self._routes.items()):
            route.flush(reporter, now)
        ended = self._ended
        if ended is not None and ended.flush(now):
            with self._lock:
                if self._ended is ended:
                    self._ended = None

    def _run(self) -> None:
        while True:
            self.flush()
            with self._lock:
                interval = min((route.sink.interval for route in self._routes.values()), default=0.05)
                self._wake.wait(interval)
                if not self._routes and self._ended is None:
                    self._thread = None  # the next reporter starts another
                    return


class _Route:
    """What one reporter sends to its sink."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._sent: Report | None = None
        self._sent_at = 0.0
        self._failed = False

    def has_no_channel(self) -> bool:
        """Return whether nothing could be sent, and nothing is under way: the run was a short one."""
        return self._sent is None and self.sink.settled()

    def end_settled(self) -> bool:
        """Return whether the end of the task is known to have arrived, or to be of no use any more."""
        return self._sent is not None and ENDED in self._sent.counts and self.sink.settled()

    def flush(self, reporter: Counted, now: float, *, final: bool = False, ended: bool = False) -> None:
        try:
            report = reporter.report()
            if ended:
                report = report._replace(counts={**report.counts, ENDED: 1})
            sent = self._sent
            unchanged = sent is not None and (report.counts, report.kept) == (sent.counts, sent.kept)
            if unchanged and not final and now - self._sent_at < RESEND_AFTER_S and not self.sink.lost():
                return
            if self.sink.send([report], reporter.timings(), last=final):
                self._sent, self._sent_at = report, now
        except Exception as error:  # a sink or a tqdm bar may raise anything; the user's work goes on
            if not self._failed:
                self._failed = True
                logger.warning(
                    "the progress of task %s can't be sent (%s: %s); its work goes on, and its exact "
                    "counts come with its result",
                    reporter.task,
                    type(error).__name__,
                    error,
                )


class EndedTask:
    """The last task of a process that has no other one yet.

    Attributes:
        sending_s: Seconds that its outcome may take to arrive besides :data:`END_DELAY_S`, as it is large.
        due: When to say that it has ended.
    """

    def __init__(self, reporter: AnyReporter, sink: Sink, clock: Callable[[], float]) -> None:
        self._reporter, self._route, self._clock = reporter, _Route(sink), clock
        self.sending_s = 0.0
        self.due = clock() + MAX_PACKING_S

    def __enter__(self) -> EndedTask:
        return self

    def __exit__(self, *exception: object) -> None:
        self.due = self._clock() + END_DELAY_S + self.sending_s

    def flush(self, now: float) -> bool:
        """Send that this process is there, or that the task has ended; return whether to send no more."""
        if now - self.due >= END_TIMEOUT_S or self._route.end_settled():
            return True
        self._route.flush(self._reporter, now, ended=now >= self.due)
        return now >= self.due and self._route.has_no_channel()
