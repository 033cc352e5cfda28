"""Chunks that take less time than what Ray does around them.

Where Ray has no further task for a worker it gives that back, and has it lent again for the next one, which
takes longer than such a chunk. So some more chunks are handed over than can run::

    in Ray   ├── running, one for each worker ──┤── waiting, AHEAD ──┤

Then it is for Ray to see that no more run than there are workers. It does if the tasks are bound to one node
that has room for just as many. No autoscaler starts nodes for tasks that are bound to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..._engines.task import ChunkOutcome
from ..cluster.nodes import only_node
from ..cluster.shortage import needs_of, room_for

SHORT_S = 0.005
"""Seconds that a short chunk takes in its worker, at the most. Ray lends the CPU of a task that waits in
``ray.get`` to one that waits in the queue: for no longer than this more tasks may have begun than there are
workers."""

MAX_BYTES = 100_000
"""Bytes of the items and results of a short chunk, at the most."""

AHEAD = 16
"""Chunks that wait in Ray, so that the driver handles half of them at a time."""

BATCH_TIMEOUT_S = 0.02
"""Seconds for which the driver waits for half of them: other chunks may take longer."""

NEWEST_WEIGHT = 1 / 8
"""The weight of the last chunk in the mean: a longer one ends the queue at once, many short ones begin it."""

_OPTIONS = {"name", "num_cpus", "memory", "max_retries", "runtime_env"}
"""Options of tasks that may be bound to a node."""


class ShortChunks:
    """Knows whether the chunks of a run are short.

    Args:
        possible: Whether they may be. Not where the number of tasks is chosen so that chunks are long.

    Example:
        >>> chunks = ShortChunks(possible=True)
        >>> chunks.observe(ChunkOutcome(values=[None], seconds=0.0003) for _ in range(20))
        >>> chunks.are_short
        True
        >>> chunks.observe([ChunkOutcome(values=[None], seconds=0.1)])
        >>> chunks.are_short
        False
    """

    def __init__(self, *, possible: bool) -> None:
        self.possible = possible
        self._seconds = 4 * SHORT_S
        self._bytes = 0.0

    @property
    def are_short(self) -> bool:
        """Whether the last ones were."""
        return self.possible and self._seconds < SHORT_S and self._bytes < MAX_BYTES

    def observe(self, outcomes: Iterable[ChunkOutcome]) -> None:
        """Note how long some chunks took."""
        for outcome in outcomes:
            if outcome.failure is None:
                self._seconds += (outcome.seconds - self._seconds) * NEWEST_WEIGHT
                self._bytes += (outcome.size - self._bytes) * NEWEST_WEIGHT


def bound_to_node(node: str, options: Mapping[str, Any], workers: int) -> dict[str, Any] | None:
    """Return options of tasks of which Ray runs as many at once as a run has workers; None if it would not.

    Args:
        node: Ray's id of the node of this program.
        options: The options of the tasks.
        workers: How many workers the run has.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if ray.util.client.ray.is_connected() or ray.util.get_current_placement_group() is not None:
        return None
    if only_node() != node or not options.keys() <= _OPTIONS:
        return None
    if room_for(needs_of(options), ray.cluster_resources()) != workers:
        return None
    return {**options, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
