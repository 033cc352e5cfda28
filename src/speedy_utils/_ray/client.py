"""What leads to a progress actor and back: calls of it that may never be answered, and are not waited for."""

from __future__ import annotations

import functools
import logging
import math
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .._state.ledger import Report, Task
from .._state.timings import StageTimings
from .._validation import shorten
from .._worker.process import in_ray_worker
from .actor import Gathered, ProgressActor

logger = logging.getLogger("speedy_utils")


_GIVE_UP_AFTER = 2.0
"""Seconds after which a call of an actor that may be restarting is left alone and made again."""


_PATIENCE = 0.25
"""Seconds to wait for an answer before a reading goes on without it; it is looked at again the next time."""


_SEARCH = 3.0
"""Seconds to wait for those who may know where a lost task was at work."""


_CALLS_PER_SECOND = 150
"""What all workers together ask of the actor: a tenth of what one actor can take."""


_LIVELY, _CALM = 0.2, 1.0
"""Seconds between two calls of the actor by one process, at first and after ten seconds, however few
processes there are. A call takes some 2 ms of CPU at both ends."""


def current_attempt_id() -> tuple[str, int]:
    """A name for what runs in this thread, and a number that grows with each attempt at it."""
    ray = sys.modules.get("ray")
    task = ray.get_runtime_context().get_task_id() if ray is not None and ray.is_initialized() else None
    return task or uuid.uuid4().hex, time.time_ns()


@functools.lru_cache(maxsize=1)
def worker_address() -> str:
    """Where this process runs, as somebody would look for it who wants to know why it died."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return f"{socket.gethostname()} (node {node[:8]}, process {os.getpid()})"


def _calm(seconds: float) -> float:
    """How long to wait between two calls, for somebody who has made them for so long."""
    return min(max(seconds / 10, _LIVELY), _CALM)


class ActorName(str):
    """The name of a progress actor that need not have been started yet."""

    __slots__ = ()


class ActorSink:
    """Sends states to a progress actor, one call in flight.

    Args:
        actor: A handle, a :class:`ProgressActor` of this process, or an :class:`ActorName`.
        workers: How many workers share the actor: with many, each sends less often.
        placed: Whether what it sends is about tasks of the process that sends it.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        actor: Any,
        workers: int = 1,
        *,
        placed: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        known = isinstance(actor, (ProgressActor, ActorName))
        if not known and not hasattr(getattr(actor, "report", None), "remote"):
            raise TypeError(
                "the actor must come from create_progress_tracker(), or be a ProgressActor, "
                f"not {shorten(actor)}"
            )
        self._actor = actor
        self._workers = workers
        self._placed = placed
        self._clock, self._begun = clock, clock()
        self._call: PendingCall | None = None

    @property
    def interval(self) -> float:
        """Seconds between two calls of ``send``: who has reported for a while is in less of a hurry."""
        hurry = max(_LIVELY, min(self._workers / _CALLS_PER_SECOND, 2.0))
        if not self._placed:  # what is handed on here has waited once before
            return hurry
        return max(hurry, _calm(self._clock() - self._begun))

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
        """Hand over the state of some tasks; see :class:`~speedy_utils._worker.flusher.Sink`."""
        if isinstance(self._actor, ProgressActor):
            self._actor.report(reports, timings)
            return True
        if isinstance(self._actor, ActorName):
            import ray

            try:
                self._actor = ray.get_actor(self._actor)
            except ValueError:  # it has not been started
                return False
        busy = self._call is not None and not self._call.answered() and not self._call.overdue()
        if busy and not last:
            return False
        if self.lost():  # the actor has restarted, or is about to: what it knew comes back without delay
            self._begun = self._clock()
        location = worker_address() if self._placed and in_ray_worker() else ""
        self._call = PendingCall(
            self._actor.report.remote([tuple(report) for report in reports], timings, location)
        )
        return True

    def lost(self) -> bool:
        """Whether the last call has failed: its actor was gone."""
        return self._call is not None and self._call.failed()

    def __reduce__(self) -> tuple[Any, ...]:
        # With the clock of the process that it comes to.
        return functools.partial(ActorSink, placed=self._placed), (self._actor, self._workers)


class ActorReader:
    """Reads what an actor has gathered, for the driver, without ever waiting long for it.

    Args:
        actor: The actor's handle.
        calm: Whether to ask less often after a while. Not where reports reach the actor late as it is.
        clock: Seconds that only grow.
    """

    def __init__(self, actor: Any, *, calm: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._actor = actor
        self._calm = calm
        self._clock, self._begun, self._answered = clock, clock(), -math.inf
        self._epoch = ""
        self._version = 0
        self._committed: list[Task] = []
        self._call: PendingCall | None = None
        self._warned = False

    def close(self) -> None:
        """Ask the actor nothing more, and let go of it: it is about to end."""
        self._actor = None

    def forget(self, task: Task) -> None:
        """Let the actor forget a task that was committed."""
        self._committed.append(task)

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """What has changed since the last call, and when the stages began and last moved.

        Returns:
            Nothing new where the actor does not answer: it may be restarting.
        """
        import ray

        actor = self._actor
        if actor is None:
            self._call = None
            return (), {}
        if self._call is None:
            now = self._clock()
            if self._calm and now - self._answered < _calm(now - self._begun):
                return (), {}
            committed, self._committed = self._committed, []
            self._call = PendingCall(actor.gather.remote(self._epoch, self._version, committed))
        if not self._call.answered(_PATIENCE):
            if self._call.overdue():
                self._call = None
                if self._epoch:  # before the first answer it is starting
                    self._warn("no answer in time")
            return (), {}
        call, self._call = self._call, None
        try:
            gathered = Gathered(*ray.get(call.ref))
        except (ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError) as error:
            self._begun = self._clock()  # once it is there again there is much to hear
            self._warn(type(error).__name__)
            return (), {}
        self._epoch, self._version = gathered.epoch, gathered.version
        self._answered = self._clock()
        return (Report(*report) for report in gathered.reports), gathered.timings

    def _warn(self, cause: str) -> None:
        if not self._warned and self._actor is not None:
            self._warned = True
            logger.warning(
                "the progress actor does not answer (%s): the bar may lag while it restarts; "
                "the work goes on and the final count stays exact",
                cause,
            )


def locate_attempts(actors: Sequence[Any], attempts: Mapping[Task, int]) -> dict[Task, str]:
    """Where some attempts were at work, as far as those know who gather counts, and answer.

    Args:
        actors: Handles of progress actors and relays.
        attempts: The number of the attempt by task.
    """
    import ray

    calls = [actor.locate.remote(attempts) for actor in actors]
    answered, _ = ray.wait(calls, num_returns=len(calls), timeout=_SEARCH)
    known: dict[Task, str] = {}
    for call in answered:
        with suppress(ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError):  # it is lost too
            known.update(ray.get(call))
    return known


class PendingCall:
    """A call of an actor that may never be answered."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref
        self._arrived = False
        self._until = time.monotonic() + _GIVE_UP_AFTER

    def answered(self, timeout: float = 0.0) -> bool:
        """Whether an answer, or an error, has come."""
        import ray

        return bool(ray.wait([self.ref], timeout=timeout)[0])

    def failed(self) -> bool:
        """Whether an error has come in place of an answer."""
        import ray

        if self._arrived or not self.answered():
            return False
        try:
            ray.get(self.ref)
        except ray.exceptions.RayError:
            return True
        self._arrived = True
        return False

    def overdue(self) -> bool:
        """Whether to make another call instead."""
        return time.monotonic() >= self._until
