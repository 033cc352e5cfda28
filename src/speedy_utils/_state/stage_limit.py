"""A limit on the number of stages: the first have a line each, and all others share one."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from .ledger import Count, Key, Metric, Stage
from .timings import StageTimings

OVERFLOW_STAGE = "others"
"""The stage that names beyond a limit share."""


@functools.lru_cache(maxsize=1024)
def kind_of(name: str) -> str:
    """Return what names that differ only in digits have in common: ``shard-*.parquet``."""
    return re.sub(r"\d+", "*", name)


_COUNT_TASKS = (
    Metric.UNIT,
    Metric.TASKS_STARTED,
    Metric.TASKS_WITH_OWN_TOTAL,
    Metric.TASKS_WITHOUT_TOTAL,
    Metric.POSTFIX,
)
"""Metrics of which a task has one, however many of its stages become one."""


class StageLimit:
    """Lets the first names be stages, and makes one stage of all others.

    Tasks that each have a bar named after a file would make thousands of stages otherwise. Names that differ
    only in digits from one of the first make a stage of their own.

    Args:
        most: How many names are stages of their own.

    Example:
        >>> limit = StageLimit(most=1)
        >>> [limit.stage(name) for name in ("a.txt", "b.txt", "a.txt", None)]
        ['a.txt', 'others', 'a.txt', None]
        >>> limit = StageLimit(most=1)
        >>> [limit.stage(name) for name in ("1.txt", "2.txt")]
        ['1.txt', '*.txt']
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[Stage] = {None, OVERFLOW_STAGE}  # they take no place
        self._kinds: set[str] = set()

    def stage(self, name: Stage) -> Stage:
        """Return the stage for a name: the name itself, or the overflow stage."""
        if name is not None and name not in self._known:
            kind = kind_of(name)
            if len(self._known) >= self._most + 2:
                return kind if kind in self._kinds else OVERFLOW_STAGE
            self._known.add(name)
            self._kinds.add(kind)
        return name

    def counts(self, counts: Mapping[Key, Count]) -> Mapping[Key, Count]:
        """Return what a task has counted, by the stages within the limit.

        Args:
            counts: All counts of the task: with a part of them the sum of the overflow stage would be less.
        """
        names = {key.stage for key in counts}
        if self._known.issuperset(names):
            return counts
        stages = {name: self.stage(name) for name in dict.fromkeys(key.stage for key in counts)}
        if all(name == stage for name, stage in stages.items()):
            return counts
        limited: dict[Key, Count] = {
            Key(stage, Metric.LEFT_NOTHING): 1
            for stage in dict.fromkeys(stages.values())
            if all(Key(name, Metric.LEFT_NOTHING) in counts for name in stages if stages[name] == stage)
        }
        for key, amount in counts.items():
            if key.metric is Metric.LEFT_NOTHING:
                continue
            stage = stages[key.stage]
            if stage != key.stage:
                key = key._replace(stage=stage)
                # Several names share the stage, so its total is its own, also if each has the task's.
                limited[Key(stage, Metric.TASKS_WITH_OWN_TOTAL)] = 1
            limited[key] = amount if key.metric in _COUNT_TASKS else limited.get(key, 0) + amount
        return limited

    def timings(self, timings: StageTimings) -> StageTimings:
        """Return when the stages within the limit began and last moved."""
        if self._known.issuperset(timings):
            return timings
        limited: dict[Stage, tuple[float, float]] = {}
        for name, (since_start, since_update) in timings.items():
            stage = self.stage(name)
            known = limited.get(stage, (since_start, since_update))
            limited[stage] = max(known[0], since_start), min(known[1], since_update)
        return limited
