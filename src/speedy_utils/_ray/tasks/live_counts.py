"""What the tasks of a run have counted so far, merged by actors and read from there."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..._state.ledger import Report, Task
from ..._state.timings import StageTimings
from ..actor import start_actor
from ..client import ActorName, ActorReader, locate_attempts
from ..relay import plan_relays, start_relays

ACTOR_START_TIMEOUT_S = 10.0
"""Seconds that the end of a run waits for actors that are still starting."""


class LiveCounts:
    """The actors of one run.

    Args:
        workers: How many workers it has.
        hear: Called with what each answer of the first actor has brought.

    Attributes:
        sinks: Where workers send what they count, each to any of them.
        started: Whether the actors were started.
    """

    def __init__(self, workers: int, hear: Callable[[Sequence[Report]], None]) -> None:
        self._name = ActorName(f"speedy_utils-{uuid.uuid4().hex}")
        self._relays, self.sinks = plan_relays(self._name, workers)
        self._hear = hear
        self._actors: list[Any] = []
        self._ready: list[Any] = []
        self._reader: ActorReader | None = None
        self._lock = threading.Lock()
        self._unread: dict[Task, Report] = {}
        self._handed_back: dict[tuple[Task, int], int] = {}
        self._answers = 0
        self.started = False

    def start(self) -> None:
        """Start the actors."""
        actor = start_actor(None, "", self._name)
        self._actors = [actor, *start_relays(self._name, self._relays)]
        self._ready = [each.__ray_ready__.remote() for each in self._actors]
        self._reader = ActorReader(actor)
        self.started = True

    def read(self) -> StageTimings:
        """Read what has changed, for the bar and for what is known of silent workers."""
        with self._lock:
            if self._reader is None:
                return {}
            answers = self._reader.answers
            found, timings = self._reader.collect()
            if self._reader.answers > answers:
                reports = list(found)
                self._hear(reports)
                self._unread.update((each.task, each) for each in reports)
                self._handed_back.update(
                    ((each.task, each.attempt), each.kept) for each in reports if each.kept
                )
        return timings

    def take_unread(self) -> tuple[Iterable[Report], bool]:
        """Return the reports that were read since the last call, and whether the actor has answered since."""
        with self._lock:
            unread, self._unread = self._unread, {}
            answers = 0 if self._reader is None else self._reader.answers
            answered, self._answers = answers > self._answers, answers
        return unread.values(), answered

    def take_handed_back(self) -> Mapping[tuple[Task, int], int]:
        """Return how many tasks each chunk keeps that has now handed back others since the last call."""
        with self._lock:
            handed_back, self._handed_back = self._handed_back, {}
        return handed_back

    def locate(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Return the addresses of the processes that some attempts ran in, as far as they are known."""
        return locate_attempts(self._actors, attempts)

    def forget(self, task: Task) -> None:
        """Let the actor forget a task that has ended for good."""
        if self._reader is not None:
            self._reader.forget(task)

    def stop_reading(self) -> None:
        """Read no more."""
        if self._reader is not None:
            self._reader.close()

    def end(self) -> None:
        """End the actors."""
        if not self._actors:
            return
        import ray

        try:
            if ready := self._ready:  # Ray prints an error about an actor that ends while it starts
                ray.wait(ready, num_returns=len(ready), timeout=ACTOR_START_TIMEOUT_S)
        finally:
            for actor in self._actors:
                ray.kill(actor)

    def release(self) -> None:
        """Drop the handles of the actors."""
        self._actors, self._ready = [], []
