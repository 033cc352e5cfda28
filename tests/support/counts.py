"""Counts as a ledger keeps them, written shortly."""

from __future__ import annotations

from collections.abc import Mapping

from speedy_utils._state.ledger import Count, Key, Metric, Stage


def items(run: Count | None = None, /, **stages: Count) -> dict[Key, Count]:
    """Return counts of items: ``items(5, Read=3)`` are five of the run's own and three in a stage."""
    counts = {Key(name, Metric.ITEMS): done for name, done in stages.items()}
    return counts if run is None else {Key(None, Metric.ITEMS): run, **counts}


def own_total(stage: str, total: int) -> dict[Key, Count]:
    """Return what a task reports besides items of a stage for which it declared a total."""
    return {
        Key(stage, Metric.TASKS_STARTED): 1,
        Key(stage, Metric.TOTAL): total,
        Key(stage, Metric.TASKS_WITH_OWN_TOTAL): 1,
    }


def without_total(stage: str) -> dict[Key, Count]:
    """Return what a task reports besides items of a stage that has no total."""
    return {Key(stage, Metric.TASKS_STARTED): 1, Key(stage, Metric.TASKS_WITHOUT_TOTAL): 1}


def estimated(beyond: Count) -> dict[Key, Count]:
    """Return what a task reports that is taken to have finished more than it has counted."""
    return {Key(None, Metric.ESTIMATED): beyond}


def by_stage(counts: Mapping[Key, Count], metric: Metric) -> dict[Stage, Count]:
    """Return the counts of one metric by stage."""
    return {key.stage: count for key, count in counts.items() if key.metric is metric}


def units(counts: Mapping[Key, Count]) -> dict[Stage, str]:
    """Return the units that the counts name, by stage."""
    return {key.stage: key.label for key in counts if key.metric is Metric.UNIT}


class Fixed:
    """A part of a tally that has counted a number of items.

    Args:
        done: The number.
    """

    def __init__(self, done: int) -> None:
        self.done = done
        self.shares = 0  # its total, if it has a share in that of its task

    def read(self) -> int:
        """Return the items finished so far."""
        return self.done

    def share(self, whole: int) -> int:
        """Return its share."""
        return self.done * whole // self.shares if self.shares else 0
