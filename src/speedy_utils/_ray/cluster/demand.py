"""Compares what a run asks of Ray with what Ray gives, and says what is missing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ..._engines.task import Chunk
from ..._state.ledger import Report, Task
from .shortage import NEVER, Node, Shortage, find_shortage

logger = logging.getLogger("speedy_utils")


LOOK_INTERVAL_S = 1.0
"""Seconds between two looks at a Ray while tasks wait. A look takes some three milliseconds."""


CALM_INTERVAL_S = 10.0
"""The same while none waits: the cluster may grow, or be left."""


LATE_AFTER_S = 1.0
"""Seconds after which a task that was submitted and has not begun is asked after."""


LOG_AFTER_S = 10.0
"""Seconds that tasks wait until it is logged what for."""


class Cluster(Protocol):
    """What Ray says of its nodes, and of tasks with the needs of a run's."""

    def obstacle(self) -> Shortage | None:
        """Return what keeps the tasks from all nodes."""
        ...

    def nodes(self) -> list[Node]:
        """Return the nodes that the tasks may run on."""
        ...

    def pending(self) -> int:
        """Return how many such tasks wait for resources, also those of others; 0 if Ray does not say."""
        ...

    def cpus(self) -> int:
        """Return the CPUs of all nodes."""
        ...


class Demand:
    """What one run asks of Ray.

    Args:
        needs: What each task needs.
        cluster: The Ray.
        asked: Whether the caller has said how many tasks run at once.
        clock: Monotonic clock, in seconds.

    Attributes:
        phase: What the tasks wait for; empty if they don't wait for resources.
    """

    def __init__(
        self,
        needs: Mapping[str, float],
        cluster: Cluster,
        *,
        asked: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = ""
        self._needs, self._cluster, self._asked, self._clock = needs, cluster, asked, clock
        self._not_begun: dict[tuple[Task, int], float] = {}
        self._next_look = 0.0
        self._since: float | None = None
        self._logged: set[str] = set()

    def submitted(self, chunk: Chunk) -> None:
        """Note that a chunk was handed to Ray."""
        self._not_begun[chunk.task, chunk.attempt] = self._clock()

    def begun(self, reports: Iterable[Report]) -> None:
        """Note which attempts have begun, as they report."""
        for report in reports:
            self._not_begun.pop((report.task, report.attempt), None)

    def ended(self, chunk: Chunk) -> None:
        """Note that a chunk has ended."""
        self._not_begun.pop((chunk.task, chunk.attempt), None)

    def look(self, in_flight: int, *, at_once: bool = False) -> int:
        """Look what Ray gives, if it is time to, and log once what has been missing for ten seconds.

        Args:
            in_flight: How many attempts were submitted and have not ended.
            at_once: Whether it is time.

        Returns:
            The CPUs of the cluster, if the number of workers follows them; else 0.

        Raises:
            RuntimeError: The tasks will never run.
        """
        now = self._clock()
        if now < self._next_look and not at_once:
            return 0
        late_after = 0 if self.phase else LATE_AFTER_S  # what is shown stays as tasks take turns
        late = sum(now - since >= late_after for since in list(self._not_begun.values()))
        try:
            shortage = self._find(in_flight, late)
            cpus = 0 if self._asked else self._cluster.cpus()
        except Exception as error:  # Ray does not answer, or has other internals: the work goes on
            logger.debug("what Ray lacks is not known: %s", error)
            shortage, cpus = None, 0
        self._next_look = now + (LOOK_INTERVAL_S if self._not_begun or shortage else CALM_INTERVAL_S)
        if shortage is not None and shortage.kind == NEVER:
            raise RuntimeError(shortage.reason)
        self.phase = shortage.phase if shortage else ""
        self._log(shortage, now)
        return cpus

    def _find(self, in_flight: int, late: int) -> Shortage | None:
        if obstacle := self._cluster.obstacle():
            return obstacle
        nodes = self._cluster.nodes()
        waiting = min(late, self._cluster.pending()) if late else 0
        return find_shortage(self._needs, nodes, in_flight=in_flight, waiting=waiting, asked=self._asked)

    def _log(self, shortage: Shortage | None, now: float) -> None:
        if shortage is None:
            self._since = None
            return
        if self._since is None:
            self._since = now
        if now - self._since >= LOG_AFTER_S and shortage.kind not in self._logged:
            self._logged.add(shortage.kind)
            logger.warning(shortage.reason)
