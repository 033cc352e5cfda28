"""The actor that gathers live counts from all nodes; the one module here that knows Ray.

The actor is for liveness only: it may die, lag or restart, and what is lost is freshness. Exact counts
come to the driver with the tasks' own results. Workers send states, not differences, and send them again
every two seconds, so a restarted actor knows everything again after one round.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ..checks import checked_count
from .ledger import Ledger, Report, Task

logger = logging.getLogger(__name__)

_GIVE_UP_AFTER = 2.0
"""Seconds after which a call of an actor that may be restarting is left alone and made again."""

_CALLS_PER_SECOND = 150
"""What all workers together ask of the actor: a tenth of what one actor can take."""


class Gathered(NamedTuple):
    """What has changed in an actor since it was last asked."""

    epoch: str
    version: int
    reports: Sequence[Report]
    age: float | None


class ProgressActor:
    """Gathers what workers count. Made a Ray actor by :func:`create_progress_tracker`.

    It is a plain class: without Ray it works in one process, which is enough for a test.

    Args:
        total: Items in all; None where that is not known.
        desc: What is being done.
        clock: Seconds that only grow.

    Example:
        >>> actor = ProgressActor(total=10, desc="Reading")
        >>> actor.update(4)
        4
        >>> actor.get_progress()["processed"], actor.get_progress()["total"]
        (4, 10)
    """

    def __init__(
        self,
        total: int | None = None,
        desc: str = "Processing",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.set_total(total)
        self._desc = desc
        self._clock = clock
        self._epoch = uuid.uuid4().hex
        self._ledger = Ledger()
        self._added = 0
        self._began: float | None = None
        self._reset_at = clock()
        self._before_reset = 0

    def _begin(self, age: float) -> None:
        began = max(self._clock() - age, self._reset_at)
        self._began = began if self._began is None else min(self._began, began)

    def update(self, n: int = 1) -> int:
        """Add items directly. It is a call over the network; ``report_progress`` in a bound task is cheaper.

        Args:
            n: How many.

        Returns:
            All items counted so far.

        Raises:
            TypeError: ``n`` is no integer.
            ValueError: ``n`` is negative.
        """
        n = checked_count(n)
        self._begin(0.0)
        self._added += n
        return self._processed()

    def get_progress(self) -> dict[str, Any]:
        """The state now.

        Returns:
            ``processed`` and ``total`` in items, ``elapsed`` in seconds since the first count, ``rate`` in
            items a second, and ``desc``.
        """
        elapsed = 0.0 if self._began is None else self._clock() - self._began
        done = self._processed()
        return {
            "processed": done,
            "total": self._total,
            "elapsed": elapsed,
            "rate": done / elapsed if elapsed else 0.0,
            "desc": self._desc,
        }

    def set_total(self, total: int | None) -> None:
        """Say how many items there are, once that is known.

        Raises:
            TypeError: ``total`` is no integer, nor None.
            ValueError: ``total`` is negative.
        """
        self._total = None if total is None else checked_count(total, "total")

    def reset(self) -> None:
        """Start over at zero, with a clock that waits for the next count."""
        self._added = 0
        self._began = None
        self._reset_at = self._clock()
        self._before_reset = self._ledger.sums.get(None, 0)

    def report(self, reports: Iterable[Report], age: float | None) -> None:
        """Take in the state of some tasks; see :class:`~speedy_utils.progress.reporter.Sink`."""
        self._ledger.merge(Report(*report) for report in reports)
        if age is not None:
            self._begin(age)

    def gather(self, epoch: str, since: int, committed: Iterable[Task]) -> Gathered:
        """What has changed, for the ledger of the driver.

        Args:
            epoch: The epoch that ``since`` is from; an actor that was restarted has another.
            since: The version that the driver has seen.
            committed: Tasks that need not be remembered any more.

        Returns:
            The changes, and what to ask with next time.
        """
        self._ledger.forget(committed)
        reports = self._ledger.changes(since if epoch == self._epoch else 0)
        age = None if self._began is None else self._clock() - self._began
        return Gathered(self._epoch, self._ledger.version, [tuple(r) for r in reports], age)  # type: ignore[misc]

    def _processed(self) -> int:
        return self._added + max(0, self._ledger.sums.get(None, 0) - self._before_reset)


def create_progress_tracker(total: int | None = None, desc: str = "Processing") -> Any:
    """Start a :class:`ProgressActor` on the Ray that is running, for tasks of your own.

    It needs no CPU, restarts by itself, and ends with its last handle. Hand the handle to your tasks as an
    argument, call ``set_progress_context(handle)`` in them, and show it with ``ProgressPoller(handle, bar)``.

    Args:
        total: Items in all; None where that is not known.
        desc: What is being done.

    Returns:
        The handle of the actor; its methods are called with ``.remote``.

    Raises:
        ValueError: ``total`` is negative.
        TypeError: ``total`` is no integer.
    """
    import ray

    if total is not None:
        total = checked_count(total, "total")
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(ProgressActor)
    return actor.remote(total, desc)


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


class ActorSink:
    """Sends states to a progress actor, one call in flight.

    Args:
        actor: A handle, or a :class:`ProgressActor` of this process.
        workers: How many workers share the actor: with many, each sends less often.
    """

    def __init__(self, actor: Any, workers: int = 1) -> None:
        if not isinstance(actor, ProgressActor) and not hasattr(getattr(actor, "report", None), "remote"):
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


def read_progress(actor: Any) -> dict[str, Any]:
    """``get_progress()`` of an actor's handle, or of a :class:`ProgressActor` of this process."""
    if isinstance(actor, ProgressActor):
        return actor.get_progress()
    import ray

    state: dict[str, Any] = ray.get(actor.get_progress.remote(), timeout=_GIVE_UP_AFTER)
    return state
