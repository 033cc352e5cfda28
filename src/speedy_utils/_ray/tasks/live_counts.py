"""What the tasks of a run have counted so far, read from a folder and from the actors that merge it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..._state.ledger import Report, Task, order_of
from ..._state.timings import StageClock, StageTimings
from ..._worker.channel.flusher import Sink
from ..actor import start_actor
from ..client import ActorName, ActorReader, locate_attempts
from ..cluster.nodes import only_node
from ..relay import plan_relays, start_relays
from .nearby import NearbyFolder, NearbySink

ACTOR_DELAY_S = 0.2
"""Seconds that a run lasts before its actors are started.

They would take worker processes that Ray has ready, and tasks would wait for others. And a run that is over
before its bar can be read needs none.
"""

FOLDER_TIMEOUT_S = 1.0
"""Seconds in which workers that are up write into the folder of a run if they can."""

NODES_INTERVAL_S = 1.0
"""Seconds between two looks whether there is a node whose workers need them."""

ACTOR_START_TIMEOUT_S = 10.0
"""Seconds that the end of a run waits for actors that are still starting."""


class LiveCounts:
    """The folder and the actors of one run.

    Args:
        workers: How many workers it has.
        hear: Called with what each reading has brought, and whether all workers could be heard by it.

    Attributes:
        sinks: Where workers send what they count, each to any of them.
        started: Whether the actors were started.
    """

    def __init__(self, workers: int, hear: Callable[[Sequence[Report], bool], None]) -> None:
        self._name = ActorName(f"speedy_utils-{uuid.uuid4().hex}")
        self.sinks: Sequence[Sink]
        self._relays, self.sinks = plan_relays(self._name, workers)
        self._nearby: NearbyFolder | None = None
        self._hear = hear
        self._actors: list[Any] = []
        self._ready: list[Any] = []
        self._reader: ActorReader | None = None
        self._lock = threading.Lock()
        self._unread: dict[Task, Report] = {}
        self._handed_back: dict[tuple[Task, int], int] = {}
        self._in_folder = self._by_actor = self._heard_all = False
        self.started = False
        self._home, self._opened = "", time.monotonic()
        self._next_look = self._opened + ACTOR_DELAY_S

    def open_folder(self, home: str) -> None:
        """Make the folder for workers of the driver's node; without one they use the actors too.

        Args:
            home: Ray's id of that node.
        """
        self._home, self._opened = home, time.monotonic()
        self._next_look = self._opened + ACTOR_DELAY_S
        with suppress(OSError):
            self._nearby = NearbyFolder(home)
            self.sinks = [self._nearby.sink(each) for each in self.sinks]

    def start_if_needed(self) -> None:
        """Start the actors if it is time to, and there are workers that do not use the folder.

        The process of an actor takes as long to start as a thousand small tasks.
        """
        now = time.monotonic()
        if self.started or now < self._next_look:
            return
        self._next_look = now + NODES_INTERVAL_S
        self.read()
        in_time = now - self._opened < FOLDER_TIMEOUT_S
        written = self._in_folder or (in_time and isinstance(self.sinks[0], NearbySink))
        if not (written and only_node() == self._home):
            self._start()

    def _start(self) -> None:
        actor = start_actor(None, "", self._name)
        self._actors = [actor, *start_relays(self._name, self._relays)]
        self._ready = [each.__ray_ready__.remote() for each in self._actors]
        self._reader = ActorReader(actor)
        self.started = True

    def read(self) -> StageTimings:
        """Read what has changed, for the bar and for what is known of silent workers."""
        with self._lock:
            clock = StageClock(lambda: 0.0)
            reports: list[Report] = []
            heard_all = False
            if self._reader is not None:
                answers = self._reader.answers
                found, timings = self._reader.collect()
                reports += found
                clock.merge(timings)
                heard_all = self._reader.answers > answers
                self._by_actor = self._by_actor or bool(reports)
            if self._nearby is not None:  # last, as the actor may take a moment
                found, timings = self._nearby.collect()
                reports += found
                clock.merge(timings)
                self._in_folder = self._in_folder or bool(found)
                # On a Ray of one node the actor, which may not be there yet, has nothing to tell.
                heard_all = heard_all or (self._in_folder and not self._by_actor)
            elif self._reader is None:
                return {}
            self._heard_all = self._heard_all or heard_all
            self._hear(reports, heard_all)
            for each in reports:
                unread = self._unread.get(each.task)
                if unread is None or order_of(each) > order_of(unread):
                    self._unread[each.task] = each
                if each.kept:
                    self._handed_back[each.task, each.attempt] = each.kept
        return clock.timings()

    def take_unread(self) -> tuple[Iterable[Report], bool]:
        """Return what was read since the last call, and whether all workers could be heard meanwhile."""
        with self._lock:
            unread, self._unread = self._unread, {}
            heard_all, self._heard_all = self._heard_all, False
        return unread.values(), heard_all

    def take_handed_back(self) -> Mapping[tuple[Task, int], int]:
        """Return how many tasks each chunk keeps that has now handed back others since the last call."""
        with self._lock:
            handed_back, self._handed_back = self._handed_back, {}
        return handed_back

    def locate(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Return the addresses of the processes that some attempts ran in, as far as they are known."""
        known = {} if self._nearby is None else self._nearby.locate(attempts)
        if unknown := {task: attempt for task, attempt in attempts.items() if task not in known}:
            known |= locate_attempts(self._actors, unknown)
        return known

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
        """Drop the handles of the actors, and remove the folder."""
        self._actors, self._ready = [], []
        if self._nearby is not None:
            self._nearby.close()
