"""What leads to a progress actor and back: calls of it that may never be answered, and are not waited for."""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from .actor import Gathered, ProgressActor
from .ledger import Report, Task

logger = logging.getLogger(__name__)

_GIVE_UP_AFTER = 2.0
"""Seconds after which a call of an actor that may be restarting is left alone and made again."""

_CALLS_PER_SECOND = 150
"""What all workers together ask of the actor: a tenth of what one actor can take."""


def here() -> tuple[str, int]:
    """A name for what runs in this thread, and a number that grows with each attempt at it."""
    ray = sys.modules.get("ray")
    task = ray.get_runtime_context().get_task_id() if ray is not None and ray.is_initialized() else None
    return task or uuid.uuid4().hex, time.time_ns()


def in_ray_worker() -> bool:
    """Whether this process is a Ray worker; answers without importing Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


class ActorName(str):
    """The name of a progress actor that need not have been started yet."""

    __slots__ = ()


class ActorSink:
    """Sends states to a progress actor, one call in flight.

    Args:
        actor: A handle, a :class:`ProgressActor` of this process, or an :class:`ActorName`.
        workers: How many workers share the actor: with many, each sends less often.
    """

    def __init__(self, actor: Any, workers: int = 1) -> None:
        known = isinstance(actor, (ProgressActor, ActorName))
        if not known and not hasattr(getattr(actor, "report", None), "remote"):
            raise TypeError(
                f"the actor must come from create_progress_tracker(), or be a ProgressActor, not {actor!r}"
            )
        self._actor = actor
        self.interval = min(max(0.05, workers / _CALLS_PER_SECOND), 2.0)
        self._call: _Call | None = None

    def send(self, reports: Sequence[Report], age: float | None, *, last: bool = False) -> bool:
        """Hand over the state of some tasks; see :class:`~speedy_utils.progress.reporter.Sink`."""
        if isinstance(self._actor, ProgressActor):
            self._actor.report(reports, age)
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
        self._call = _Call(self._actor.report.remote([tuple(report) for report in reports], age))
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return _sink, (self._actor, self.interval)


def _sink(actor: Any, interval: float) -> ActorSink:
    sink = ActorSink(actor)
    sink.interval = interval
    return sink


class ActorFeed:
    """Reads what an actor has gathered, for the driver, without ever waiting long for it.

    Args:
        actor: The actor's handle.
        patience: Seconds to wait for an answer before going on without; it is looked at again next time.
    """

    def __init__(self, actor: Any, patience: float = 0.25) -> None:
        self._actor = actor
        self._patience = patience
        self._epoch = ""
        self._version = 0
        self._committed: list[Task] = []
        self._call: _Call | None = None
        self._warned = False
        self._closed = False

    def close(self) -> None:
        """Ask the actor nothing more: it is about to end."""
        self._closed = True

    def forget(self, task: Task) -> None:
        """Let the actor forget a task that was committed."""
        self._committed.append(task)

    def collect(self) -> tuple[Iterable[Report], float | None]:
        """What has changed since the last call, and the seconds since the first count.

        Returns:
            Nothing new where the actor does not answer: it may be restarting.
        """
        import ray

        if self._closed:
            return (), None
        if self._call is None:
            committed, self._committed = self._committed, []
            self._call = _Call(self._actor.gather.remote(self._epoch, self._version, committed))
        if not self._call.answered(self._patience):
            if self._call.overdue():
                self._call = None
                if self._epoch:  # before the first answer it is starting
                    self._warn("no answer in time")
            return (), None
        call, self._call = self._call, None
        try:
            gathered = Gathered(*ray.get(call.ref))
        except ray.exceptions.RayActorError as error:
            self._warn(type(error).__name__)
            return (), None
        self._epoch, self._version = gathered.epoch, gathered.version
        return (Report(*report) for report in gathered.reports), gathered.age

    def _warn(self, cause: str) -> None:
        if not self._warned and not self._closed:
            self._warned = True
            logger.warning(
                "the progress actor does not answer (%s): the bar may lag while it restarts; "
                "the work goes on and the final count stays exact",
                cause,
            )


class _Call:
    """A call of an actor that may never be answered."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref
        self._until = time.monotonic() + _GIVE_UP_AFTER

    def answered(self, timeout: float = 0.0) -> bool:
        """Whether an answer, or an error, has come."""
        import ray

        return bool(ray.wait([self.ref], timeout=timeout)[0])

    def overdue(self) -> bool:
        """Whether to make another call instead."""
        return time.monotonic() >= self._until
