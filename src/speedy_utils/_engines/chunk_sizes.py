"""How many tasks travel together: pure, with no clock and no engine."""

from __future__ import annotations

from math import ceil, inf

CHUNK_S = 0.2
"""Seconds that a chunk should take: long beside what it costs to send it, short beside a run."""

MIN_CHUNK_S = 0.005
"""Seconds that a chunk should take at the least: the last ones are smaller, but not that small."""

MAX_CHUNK_S = 0.5
"""Seconds after which a chunk ends with the task that runs then: its tasks take longer than was expected."""

MAX_CHUNK = 20_000
"""Tasks in a chunk, at the most: its results are in memory three times when they arrive."""

MAX_CHUNK_BYTES = 32_000_000
"""Bytes of the items of a chunk and of its results, at the most: they are in memory as often."""

CHUNKS_LEFT = 2
"""Chunks that each worker still gets, at least, of the tasks that are left."""

NEWEST_WEIGHT = 0.5
"""The weight of the last chunk in what a task is expected to take, if its tasks took longer."""


class ChunkSizes:
    """Chooses how many tasks the next chunk has.

    The first are of one task each. Then each has as many as take about 0.2 seconds and, towards the end, so
    few that no worker waits for long for another's last chunk.

    Args:
        fixed: How many tasks a chunk has; None to choose.

    Example:
        >>> sizes = ChunkSizes()
        >>> sizes.next(100_000, workers=2)
        1
        >>> sizes.observe(1, seconds=0.001)  # a task of a millisecond
        >>> [sizes.next(left, workers=2) for left in (99_999, 400, 8)]
        [200, 100, 5]
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._seconds: float | None = None
        self._bytes = 0.0

    @property
    def most_seconds(self) -> float | None:
        """Seconds after which a chunk ends early; None for never."""
        return MAX_CHUNK_S if self._fixed is None else None

    def next(self, left: int | None, workers: int) -> int:
        """Return how many tasks the next chunk has, at the most.

        Args:
            left: How many tasks have not been started; None if that is not known.
            workers: How many workers there are.
        """
        if self._fixed is not None:
            return self._fixed
        if self._seconds is None:
            return 1
        fair = inf if left is None else ceil(left / (workers * CHUNKS_LEFT))
        least, most = MIN_CHUNK_S / self._seconds, CHUNK_S / self._seconds
        fitting = MAX_CHUNK_BYTES / max(self._bytes, 1.0)
        return max(1, int(min(max(fair, least), most, fitting, MAX_CHUNK)))

    def observe(self, tasks: int, seconds: float, size: int = 0) -> None:
        """Note how long a chunk took.

        Args:
            tasks: How many of its tasks have ended, at least one.
            seconds: How long that took, with what it took to send it and to send it back.
            size: The bytes of its items and results.
        """
        # More at once, as memory runs out at once.
        self._bytes = max(size / tasks, self._bytes + (size / tasks - self._bytes) * NEWEST_WEIGHT)
        each = max(seconds, 1e-9) / tasks
        known = self._seconds
        # Less at once, as the first ones are slow; a chunk that is too long ends early.
        self._seconds = each if known is None else min(each, known + (each - known) * NEWEST_WEIGHT)
