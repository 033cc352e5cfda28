"""How the tasks of a chunk have ended: what a driver tells its run of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .._state.finishing import has_counted_all
from .._state.ledger import Count, Key, Task
from .._state.timings import StageTimings


class TaskEnd(NamedTuple):
    """The end of one task.

    Attributes:
        task: The task.
        counts: What it reported: ``raw_counts`` of its reporter, or ``capped_counts`` if it failed. None if
            it died: then its last live counts are kept.
        total: Its items; None if that is not known, or it failed.
        timings: How long ago its stages started, and last moved.
        failed: Whether it failed for good.
    """

    task: Task
    counts: Mapping[Key, Count] | None
    total: int | None
    timings: StageTimings
    failed: bool = False

    def final_timings(self) -> StageTimings:
        """Return how long ago its stages started, and last moved: what it did not report counts only now."""
        if self.total is None or has_counted_all(self.counts or {}, self.total):
            return self.timings
        since_start, _ = self.timings.get(None, (0.0, 0.0))
        return {**self.timings, None: (since_start, 0.0)}


class PlainEnds(NamedTuple):
    """The ends of tasks that succeeded and counted nothing but items of no stage.

    Attributes:
        ranges: The first task and the length of each row of tasks side by side.
        tasks: How many they are.
        items: What they counted together.
        total: Their items, if these are known.
        seconds: How long ago the first of them began.
    """

    ranges: Sequence[tuple[int, int]]
    tasks: int
    items: int
    total: int | None
    seconds: float
