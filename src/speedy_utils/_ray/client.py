"""Client of the progress actor: calls that are not waited for, as they may never be answered."""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .._state.ledger import Location, Report, Task
from .._state.timings import StageTimings
from .._validation import shorten
from .._worker.process import in_ray_worker
from .actor import Changes, ProgressActor

logger = logging.getLogger("speedy_utils")


# How far a bar is behind, at most, while the actor answers:
#
#     flush   0.2 s    between two sends of a worker: ``send_interval``, more with more than 50 workers
#     relay   0.2 s    between two sends of a relay; only with more than 200 workers, see relay.py
#     read    0.25 s   ANSWER_TIMEOUT_S; an actor that is not busy answers within some milliseconds
#     poll    0.3 s    between two readings: ``poll_interval``
#
# That is 0.75 s with 8 workers. In the median it is half of flush and of poll, and the milliseconds that
# the two calls take: about 0.3 s. Workers on the driver's node write a file each 0.1 s in place of the call,
# see tasks/nearby.py.

SEND_INTERVAL_S = 0.2
"""Seconds between two calls of the actor by one worker. A call takes some 2 ms of CPU at both ends."""


MAX_CALLS_PER_SECOND = 250
"""Calls that all workers together make: a tenth of what one actor can take. 50 workers make as many."""


ANSWER_TIMEOUT_S = 0.25
"""Seconds that a reading waits for an answer; one that comes later is taken by the next reading."""


GIVE_UP_AFTER_S = 2.0
"""Seconds after which an unanswered call is given up and made again: its actor may be restarting."""


LOCATE_TIMEOUT_S = 3.0
"""Seconds that actors have to say where a lost task was running."""


def send_interval(senders: int) -> float:
    """Return the seconds between two calls of an actor that has this many senders.

    Example:
        >>> [send_interval(senders) for senders in (1, 50, 200)]
        [0.2, 0.2, 0.8]
    """
    return max(SEND_INTERVAL_S, senders / MAX_CALLS_PER_SECOND)


def current_attempt_id() -> tuple[str, int]:
    """Return Ray's task id, the same for all attempts, and a timestamp that orders the attempts.

    Outside a Ray task the id is a new one each time.
    """
    ray = sys.modules.get("ray")
    task = ray.get_runtime_context().get_task_id() if ray is not None and ray.is_initialized() else None
    return task or uuid.uuid4().hex, time.time_ns()


@functools.lru_cache(maxsize=1)
def worker_address() -> str:
    """Return where this process runs, for an error message: ``"host-1 (node 1f2e3d4c, process 4711)"``."""
    return process_address(*worker_location())


def process_address(host: str, pid: int, node_id: str) -> str:
    """Return where a process runs, for an error message."""
    return f"{host} (node {node_id[:8]}, process {pid})"


@functools.lru_cache(maxsize=1)
def worker_location() -> Location:
    """Return where this process runs, for its reports."""
    import ray

    return Location(socket.gethostname(), os.getpid(), ray.get_runtime_context().get_node_id())


def worker_node() -> str:
    """Return the node that this process runs on, for a message: ``"host-1 (node 1f2e3d4c)"``."""
    import ray

    return f"{socket.gethostname()} (node {ray.get_runtime_context().get_node_id()[:8]})"


class ActorName(str):
    """The name of a progress actor, which need not have been started yet."""

    __slots__ = ()


class ActorSink:
    """Sends states to a progress actor, with at most one call unanswered.

    Args:
        actor: A handle, a :class:`ProgressActor` of this process, or an :class:`ActorName`.
        senders: How many processes share the actor: with many, each sends less often.
        send_address: Whether the tasks run in this process, so that its address is sent with their counts.
            False in a relay.
        others: The names of actors that are as good, and its own: where one does not answer, the next one
            is called, as its node may be lost.

    Attributes:
        interval: Seconds between two calls of :meth:`send`.
    """

    def __init__(
        self,
        actor: Any,
        senders: int = 1,
        *,
        send_address: bool = True,
        others: Sequence[ActorName] = (),
    ) -> None:
        known = isinstance(actor, (ProgressActor, ActorName))
        if not known and not hasattr(getattr(actor, "report", None), "remote"):
            raise TypeError(
                "the actor must come from create_progress_tracker(), or be a ProgressActor, "
                f"not {shorten(actor)}"
            )
        self.interval = send_interval(senders)
        self._actor = actor
        self._others = list(others)
        self._send_address = send_address
        self._call: PendingCall | None = None

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
        """Send the state of some tasks; see :class:`~speedy_utils._worker.channel.flusher.Sink`."""
        if isinstance(self._actor, ProgressActor):
            self._actor.report(reports, timings)
            return True
        if self._others and self._call is not None and self._call.unanswered():
            self._actor, self._call = self._others.pop(0), None
            self._others.append(self._actor)
        if isinstance(self._actor, ActorName):
            import ray

            try:
                self._actor = ray.get_actor(self._actor)
            except ValueError:  # it has not been started
                return False
        pending = self._call is not None and not self._call.answered() and not self._call.overdue()
        if pending and not last:
            return False
        address = ""
        if self._send_address and in_ray_worker():
            address, location = worker_address(), worker_location()
            reports = [report._replace(location=location) for report in reports]
        self._call = PendingCall(
            self._actor.report.remote([tuple(report) for report in reports], timings, address)
        )
        return True

    def wait(self, seconds: float) -> None:
        """Wait until the last call has arrived."""
        if self._call is not None:
            self._call.answered(seconds)

    def lost(self) -> bool:
        """Return whether the last call has failed because its actor was gone."""
        return self._call is not None and self._call.failed()

    def settled(self) -> bool:
        """Return whether the last call has arrived, or there is no actor, or none any more."""
        return self._call.settled() if self._call is not None else isinstance(self._actor, ActorName)


class ActorReader:
    """Reads from an actor what has changed, and waits only briefly for it.

    Args:
        actor: The actor's handle.

    Attributes:
        answers: How often it has answered.
    """

    def __init__(self, actor: Any) -> None:
        self.answers = 0
        self._actor = actor
        self._epoch = ""
        self._version = 0
        self._committed: list[Task] = []
        self._call: PendingCall | None = None
        self._warned = False

    def close(self) -> None:
        """Release the actor, which is about to end; later readings return nothing."""
        self._actor = None

    def forget(self, task: Task) -> None:
        """Let the actor forget a task that was committed."""
        self._committed.append(task)

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Ask for what has changed since the last call, and when the stages began and last moved.

        Returns:
            Nothing new if the actor does not answer in time: it may be restarting.
        """
        import ray

        actor, self.answered = self._actor, False
        if actor is None:
            self._call = None
            return (), {}
        if self._call is None:
            committed, self._committed = self._committed, []
            self._call = PendingCall(actor.changes_since.remote(self._epoch, self._version, committed))
        # Before the first answer it is starting, which takes longer.
        if not self._call.answered(ANSWER_TIMEOUT_S if self._epoch else 0):
            if self._call.overdue():
                self._call = None
                if self._epoch:  # before the first answer it is starting
                    self._warn("no answer in time")
            return (), {}
        call, self._call = self._call, None
        try:
            changes = Changes(*ray.get(call.ref))
        except (ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError) as error:
            self._warn(type(error).__name__)
            return (), {}
        self._epoch, self._version = changes.epoch, changes.version
        self.answers += 1
        return (Report(*report) for report in changes.reports), changes.timings

    def _warn(self, cause: str) -> None:
        if not self._warned and self._actor is not None:
            self._warned = True
            logger.warning(
                "the progress actor does not answer (%s): the bar may lag while it restarts; "
                "the work goes on and the final count stays exact",
                cause,
            )


def locate_attempts(actors: Sequence[Any], attempts: Mapping[Task, int]) -> dict[Task, str]:
    """Return the addresses of the processes that some attempts ran in, as far as the actors know and answer.

    Args:
        actors: Handles of progress actors and relays.
        attempts: The number of the attempt by task.
    """
    import ray

    calls = [actor.locate.remote(attempts) for actor in actors]
    answered, _ = ray.wait(calls, num_returns=len(calls), timeout=LOCATE_TIMEOUT_S)
    known: dict[Task, str] = {}
    for call in answered:
        with suppress(ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError):  # it is lost too
            known.update(ray.get(call))
    return known


class PendingCall:
    """A call of an actor that may never be answered.

    Args:
        ref: The reference that the call has returned.
    """

    def __init__(self, ref: Any) -> None:
        self.ref = ref
        self._succeeded = self._died = False
        self._deadline = time.monotonic() + GIVE_UP_AFTER_S

    def answered(self, timeout: float = 0.0) -> bool:
        """Return whether an answer, or an error, has come; wait ``timeout`` seconds for it."""
        import ray

        return bool(ray.wait([self.ref], timeout=timeout)[0])

    def failed(self) -> bool:
        """Return whether an error has come in place of an answer."""
        import ray

        if self._succeeded or not self.answered():
            return False
        try:
            ray.get(self.ref)
        except ray.exceptions.RayError as error:
            self._died = isinstance(error, ray.exceptions.ActorDiedError)
            return True
        self._succeeded = True
        return False

    def settled(self) -> bool:
        """Return whether it has succeeded, or can't as its actor has ended for good."""
        failed = self.failed()
        return self._died if failed else self._succeeded

    def unanswered(self) -> bool:
        """Return whether it has failed, or has no answer for so long that it may."""
        return self.failed() or (self.overdue() and not self.answered())

    def overdue(self) -> bool:
        """Return whether to make another call instead."""
        return time.monotonic() >= self._deadline
