"""The actor that merges the live counts of all nodes.

The actor is for liveness only: it may die, lag or restart, and what is lost is freshness. Exact counts
come to the driver with the tasks' own results. Workers send states, not differences, and send them again
every two seconds, so an actor that has restarted soon knows everything again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .._state.ledger import RUN_ITEMS, Count, Key, Ledger, Metric, Report, Task
from .._state.timings import StageClock, StageTimings
from .._validation import checked_count, checked_items


class Changes(NamedTuple):
    """What has changed in an actor since it was last asked.

    Attributes:
        epoch: The actor's own name, which changes when it restarts.
        version: What to ask with next time.
        reports: The states of the tasks that changed.
        timings: How long ago work on the stages began, and last moved.
    """

    epoch: str
    version: int
    reports: Sequence[Report]
    timings: StageTimings


class ProgressActor:
    """Adds up what workers count. Made a Ray actor by :func:`create_progress_tracker`.

    It is a plain class: without Ray it works in one process, which is enough for a test. Any thread may
    use it.

    Args:
        total: Items in all; None if that is not known.
        desc: What is being done.
        clock: Monotonic clock, in seconds.

    Raises:
        TypeError: ``total`` is neither an integer nor None.
        ValueError: ``total`` is negative.

    Example:
        >>> from speedy_utils import ProgressActor
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
        self._locations = TaskLocations()
        self._added = 0
        self._stage_clock = StageClock(clock)
        self._reset_at = clock()
        self._before_reset: dict[Key, Count] = {}
        self._lock = threading.RLock()  # without Ray, threads that count and a poller use it at once

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a ProgressActor counts in its own process, and a copy elsewhere would count nowhere. On Ray "
            "pass the handle that create_progress_tracker() returns. For other processes open a tracking() "
            "block, and pass run.bind(function): what the function counts reaches the bar of the block"
        )

    def update(self, n: int = 1) -> int:
        """Add items directly. It is a call over the network; ``report_progress`` in a bound task is cheaper.

        Args:
            n: How many items. If it is negative, that many are taken back, to zero at the least.

        Returns:
            All items counted so far.

        Raises:
            TypeError: ``n`` is no number.
            ValueError: ``n`` is no whole number.
        """
        n = checked_items(n)
        with self._lock:
            self._stage_clock.merge({None: (0.0, 0.0)})
            self._added += max(n, -self._processed())
            return self._processed()

    def get_progress(self) -> dict[str, Any]:
        """Return the state now.

        Returns:
            ``processed`` and ``total`` in items, ``elapsed`` in seconds since the first count, ``rate`` in
            items a second, ``desc``, ``counters``, and in ``stages`` the items of each named stage. In
            ``left_out`` is a line on each thing that was reported and can't be counted.
        """
        with self._lock:
            elapsed = self._stage_clock.elapsed(None, self._clock())
            done = self._processed()
            sums = {
                # A lost attempt from before the reset may leave less than there was; a counter may be < 0.
                key: max(min(0, count), count - self._before_reset.get(key, 0))
                for key, count in self._ledger.sums.items()
            }
        return {
            "processed": done,
            "total": self._total,
            "elapsed": elapsed,
            "rate": done / elapsed if elapsed else 0.0,
            "desc": self._desc,
            "counters": {
                key.label: count
                for key, count in sums.items()
                if key.stage is None and key.metric is Metric.COUNTER
            },
            "stages": {
                key.stage: count
                for key, count in sums.items()
                if key.stage is not None and key.metric is Metric.ITEMS
            },
            "left_out": [key.label for key in sums if key.metric is Metric.LEFT_OUT],
        }

    def set_total(self, total: int | None) -> None:
        """Set how many items there are, once that is known.

        Args:
            total: Items in all; None if that is not known.

        Raises:
            TypeError: ``total`` is neither an integer nor None.
            ValueError: ``total`` is negative.
        """
        self._total = None if total is None else checked_count(total, "total")

    def reset(self) -> None:
        """Start again at zero; the clock starts with the next count."""
        with self._lock:
            self._added = 0
            self._stage_clock.clear()
            self._reset_at = self._clock()
            self._before_reset = self._ledger.sums

    def report(self, reports: Iterable[Report], timings: StageTimings, address: str = "") -> None:
        """Merge the state of some tasks; see :class:`~speedy_utils._worker.channel.flusher.Sink`.

        Args:
            reports: What each task has counted so far.
            timings: How long ago their work on items started, and last moved, by stage.
            address: The process that they run in, as ``worker_address`` returns it.
        """
        known = [Report(*report) for report in reports]
        with self._lock:
            self._ledger.merge(known)
            self._locations.note(address, known)
            self._stage_clock.merge(timings, since=self._reset_at)

    def changes_since(self, epoch: str, version: int, committed: Sequence[Task]) -> Changes:
        """Return what has changed, for the ledger of the driver.

        Args:
            epoch: The epoch that ``version`` is from; an actor that was restarted has another one.
            version: The version that the driver has seen.
            committed: Tasks that need not be remembered any more.

        Returns:
            The changes, or all that is known if the epoch is another one.
        """
        with self._lock:
            for task in committed:
                self._ledger.close(task)
            reports = self._ledger.changes(version if epoch == self._epoch else 0)
            # Plain tuples, which the types don't know here: they pickle without a reference to their class.
            plain: Any = [tuple(report) for report in reports]
            return Changes(self._epoch, self._ledger.version, plain, self._stage_clock.timings())

    def locate(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Return the addresses of the processes that some attempts ran in, if they have reported.

        Args:
            attempts: The number of the attempt by task.
        """
        with self._lock:
            return self._locations.find(attempts)

    def _processed(self) -> int:
        reported = self._ledger.sums.get(RUN_ITEMS, 0) - self._before_reset.get(RUN_ITEMS, 0)
        return self._added + max(0, int(reported))


ProgressActor.__module__ = "speedy_utils"


def start_actor(total: int | None, desc: str, name: str | None = None) -> Any:
    """Start a :class:`ProgressActor` on Ray, under ``name`` if it is not None."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options: dict[str, Any] = {"name": name}
    if ray.is_initialized():  # else Ray starts on its own, and has one node
        # On the node of the driver: then the loss of another node costs only that one's tasks. Not soft, as
        # Ray ignores a soft affinity of an actor that needs no CPU.
        home = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(home, soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(ProgressActor)
    return actor.options(**options).remote(total, desc)


class TaskLocations:
    """The tasks that each process was running when it last reported. Grows with processes, not with tasks.

    Example:
        >>> locations = TaskLocations()
        >>> locations.note("host-1 (process 7)", [Report(task=3, attempt=1, counts={})])
        >>> locations.find({3: 1, 4: 1})
        {3: 'host-1 (process 7)'}
    """

    def __init__(self) -> None:
        self._attempts: dict[str, dict[Task, int]] = {}

    def note(self, address: str, reports: Iterable[Report]) -> None:
        """Note which tasks a process runs.

        Args:
            address: The process; ignored if empty.
            reports: What it has sent in one call.
        """
        if address:
            self._attempts[address] = {report.task: report.attempt for report in reports}

    def find(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Return the addresses of some attempts, if they are known.

        Args:
            attempts: The number of the attempt by task.
        """
        return {
            task: address
            for address, known in self._attempts.items()
            for task, attempt in known.items()
            if attempts.get(task) == attempt
        }
