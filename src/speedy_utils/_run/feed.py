"""Where a run reads live counts: the protocol, and the feed of this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Protocol

from .._state.ledger import Location, Report, Task
from .._state.timings import StageClock, StageTimings
from .._worker.chunk_reporter import AnyReporter, ChunkReporter

WAITING = "waiting for workers"
"""The phase of a feed in which a run also shows how many workers have started: "waiting for workers 3/8"."""


PREPARING = "preparing workers"
"""The same for workers that make something first: "preparing workers 3/8"."""


class Feed(Protocol):
    """Where a run reads live counts. An engine is one."""

    @property
    def phase(self) -> str:
        """What the tasks wait for; empty if they don't wait. :data:`WAITING` until items are worked on."""
        ...

    @property
    def trouble(self) -> str:
        """What keeps tasks from ending, such as a node that is silent; empty if nothing is known to."""
        ...

    @property
    def answered(self) -> bool:
        """Whether the last :meth:`collect` has got all that workers had sent."""
        ...

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return what has changed, and how long ago work on items started and last moved, by stage."""
        ...

    def forget(self, task: Task) -> None:
        """Report no more on a task that has ended for good."""
        ...


class LocalFeed:
    """Reads the reporters of this process."""

    phase = trouble = ""
    answered = True

    def __init__(self) -> None:
        self._reporters: dict[AnyReporter, None] = {}
        self._location = Location(socket.gethostname(), os.getpid())

    def add(self, reporter: AnyReporter) -> None:
        """Read a reporter from now on."""
        self._reporters[reporter] = None

    def remove(self, reporter: AnyReporter) -> None:
        """Stop reading a reporter. Idempotent."""
        self._reporters.pop(reporter, None)

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return the state of every reporter, and when their stages started and last moved."""
        reporters = list(self._reporters)
        reports = [reporter.report()._replace(location=self._location) for reporter in reporters]
        stage_clock = StageClock(lambda: 0.0)
        for reporter in reporters:
            stage_clock.merge(reporter.timings())
        return reports, stage_clock.timings()

    def handed_back(self) -> Mapping[tuple[Task, int], int]:
        """Return how many tasks each chunk keeps that is late, and has handed back the others."""
        chunks = [each for each in list(self._reporters) if isinstance(each, ChunkReporter)]
        return {(each.task, each.current.attempt): kept for each in chunks if (kept := each.kept_if_late())}

    def forget(self, task: Task) -> None:
        """Do nothing: the reporter of a task that has ended was removed."""
