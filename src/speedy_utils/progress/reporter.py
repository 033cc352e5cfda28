"""The worker's side: adds up what a task reports, and sends it on.

Nothing here takes a lock on the user's path. A tally is read by another thread while it grows, so its
parts keep an order: a part is taken out *before* its count is added to the whole, and a reader looks at
the whole *before* it looks at the parts. A reading may therefore be a moment behind, never ahead, and
the ledger keeps the largest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from .ledger import Declared, Key, Report, Stage, Task

logger = logging.getLogger(__name__)

RESEND_AFTER = 2.0
"""Seconds after which unchanged counts are sent again: a restarted sink has forgotten them."""


class Part(Protocol):
    """Something that counts for a tally until it ends: a loop, or a call of a tracked function."""

    def read(self) -> int:
        """Items finished so far."""
        ...


class Tally:
    """Items of one stage of a task, or of one tracked call in it.

    ``n`` may be added to from any thread: ``tally.n += n`` with plain integers runs between two points at
    which CPython (3.10 and later, with its global lock) may switch threads.

    Args:
        reporter: The reporter it belongs to.
        limit: The most it may count for; None for no limit.
    """

    __slots__ = ("_parts", "limit", "n", "reporter")

    def __init__(self, reporter: Reporter, limit: int | None = None) -> None:
        self.reporter = reporter
        self.limit = limit
        self.n = 0
        self._parts: dict[Part, None] = {}

    def read(self) -> int:
        """Items finished so far, at most ``limit``."""
        done = self.reported()
        return done if self.limit is None else min(done, self.limit)

    def reported(self) -> int:
        """Items reported so far, whatever the limit."""
        done = self.n
        return done + sum(part.read() for part in list(self._parts))

    def open(self, part: Part) -> None:
        """Count a part from now on, as far as it has got."""
        self._parts[part] = None

    def close(self, part: Part, done: int) -> None:
        """End a part with its final count."""
        del self._parts[part]
        self.n += done


class Reporter:
    """What one attempt at a task has counted, by stage.

    Args:
        task: The task.
        attempt: Which attempt at it, from 1; the driver numbers them.
        total: Items of the task, where that is known: its counts stop there.
        items: False where the run counts tasks and not items: unnamed counts are then left out.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        task: Task,
        attempt: int = 1,
        *,
        total: int | None = None,
        items: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.total = total
        self.own = Tally(self, total if items else 0)
        self._items = items
        self._stages: dict[str, Tally] = {}
        self._declared: dict[Stage, int] = {}
        self._clock = clock
        self._created = self._quiet_until = clock()
        self._began: float | None = None

    def stage(self, name: Stage) -> Tally:
        """The tally of a stage; None names the task's own."""
        if name is None:
            return self.own
        tally = self._stages.get(name)
        return tally or self._stages.setdefault(name, Tally(self, self.total))

    def declare(self, name: Stage, total: int) -> None:
        """Add to the total that this task declares for a stage."""
        declared = self._declared[name] = self._declared.get(name, 0) + total
        if name is not None:
            self.stage(name).limit = declared

    def begin(self) -> None:
        """Note that work on items starts now, if none had before."""
        if self._began is None:
            self._began = self._clock()

    def report(self) -> Report:
        """The state now, for a ledger."""
        counts: dict[Key, int] = {None: self.own.read()} if self._items else {}
        counts.update((name, tally.read()) for name, tally in list(self._stages.items()))
        counts.update((Declared(name), total) for name, total in list(self._declared.items()))
        if self._began is None:
            if any(counts.values()):
                self._began = self._quiet_until
            else:
                self._quiet_until = self._clock()
        return Report(self.task, self.attempt, counts)

    def reported(self) -> dict[Key, int]:
        """The counts without their limits, for the driver to judge."""
        counts = dict(self.report().counts)
        if self._items:
            counts[None] = self.own.reported()
        counts.update((name, tally.reported()) for name, tally in self._stages.items())
        return counts

    def age(self) -> float | None:
        """Seconds since work on items started, as far as is known; None before."""
        return None if self._began is None else self._clock() - self._began

    def lifetime(self) -> float:
        """Seconds since work on items started, or since the attempt did where it reported nothing."""
        return self._clock() - (self._created if self._began is None else self._began)


class Sink(Protocol):
    """Where a reporter's counts go."""

    @property
    def interval(self) -> float:
        """Seconds between two calls of ``send``."""
        ...

    def send(self, reports: Sequence[Report], age: float | None, *, last: bool = False) -> bool:
        """Hand over the state of some tasks. It must not wait for whoever receives it.

        Args:
            reports: What each task has counted so far.
            age: Seconds since the first of them started to work on items; None before that.
            last: Whether it is the final state, which has to go also where an earlier one is on its way.

        Returns:
            False where an earlier state is still on its way: a newer one will be offered later.
        """
        ...


class Flusher:
    """The one thread of a process that sends what its reporters have counted.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._routes: dict[Reporter, _Route] = {}
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, reporter: Reporter, sink: Sink) -> None:
        """Send a reporter's counts to a sink from now on."""
        with self._wake:
            self._routes[reporter] = _Route(sink)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="speedy_utils-flusher", daemon=True)
                self._thread.start()

    def remove(self, reporter: Reporter, *, last: bool = False) -> None:
        """Stop sending a reporter's counts.

        Args:
            reporter: The reporter.
            last: Whether to send its final state; needless where it travels with the task's outcome.
        """
        with self._wake:
            route = self._routes.pop(reporter, None)
        if route is not None and last:
            route.flush(reporter, self._clock(), final=True)

    def flush(self) -> None:
        """Send what has changed. The thread calls it; a test may."""
        now = self._clock()
        for reporter, route in list(self._routes.items()):
            route.flush(reporter, now)

    def _run(self) -> None:
        while True:
            self.flush()
            with self._wake:
                interval = min((route.sink.interval for route in self._routes.values()), default=0.05)
                self._wake.wait(interval)
                if not self._routes:
                    self._thread = None  # the next reporter starts another
                    return


class _Route:
    """The way from one reporter to its sink."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._sent: Report | None = None
        self._at = 0.0
        self._failed = False

    def flush(self, reporter: Reporter, now: float, *, final: bool = False) -> None:
        report = reporter.report()
        if not final and report == self._sent and now - self._at < RESEND_AFTER:
            return
        try:
            if self.sink.send([report], reporter.age(), last=final):
                self._sent, self._at = report, now
        except Exception as error:  # whatever a sink raises must not end the user's work
            if not self._failed:
                self._failed = True
                logger.warning(
                    "the progress of task %s can't be sent (%s: %s); its work goes on, and its exact "
                    "counts come with its result",
                    reporter.task,
                    type(error).__name__,
                    error,
                )
