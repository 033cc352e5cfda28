"""What all tasks together say of each stage, and of stages that share a line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..ledger import Count, Key, Metric, Stage


@dataclass(frozen=True, slots=True)
class StageSums:
    """What all tasks together say of one stage.

    Attributes:
        items: Items finished.
        total: Items that the tasks declare, over the tasks that know.
        tasks_started: Tasks that have come to the stage and have not ended.
        tasks_with_own_total: Tasks that have another number of items in this stage than in all.
        tasks_without_total: Tasks that don't know how many items they have in this stage.
        unit: The stage's own unit; empty if it has the run's.
        counters: Counters by name.
        estimated: Items that running tasks are taken to have finished beyond those that they counted.
        left_nothing: Tasks that counted here by bars alone which have ended and were made to vanish then.
        may_return: Whether a task that has come to the stage may come to it again, with more items.
    """

    items: int = 0
    total: int = 0
    tasks_started: int = 0
    tasks_with_own_total: int = 0
    tasks_without_total: int = 0
    unit: str = ""
    counters: Mapping[str, Count] = field(default_factory=dict)
    estimated: int = 0
    left_nothing: int = 0
    may_return: bool = False


def sums_by_stage(sums: Mapping[Key, Count]) -> dict[Stage, StageSums]:
    """Return the sums of each stage, in the order in which the stages appeared, the run's own first.

    One pass over all keys: a run may have hundreds of stages.
    """
    amounts: defaultdict[Stage, dict[Metric, int]] = defaultdict(dict)
    counters: defaultdict[Stage, dict[str, Count]] = defaultdict(dict)
    units: dict[Stage, str] = {}
    for (stage, metric, label), amount in sums.items():
        if metric is Metric.COUNTER:
            counters[stage][label] = amount
        elif metric not in (Metric.UNIT, Metric.POSTFIX):
            amounts[stage][metric] = int(amount)
        elif amount and metric is Metric.UNIT:  # 0 if only a lost attempt had the unit
            units.setdefault(stage, label)
    return {
        stage: StageSums(
            items=known.get(Metric.ITEMS, 0),
            total=known.get(Metric.TOTAL, 0),
            tasks_started=known.get(Metric.TASKS_STARTED, 0),
            tasks_with_own_total=known.get(Metric.TASKS_WITH_OWN_TOTAL, 0),
            tasks_without_total=known.get(Metric.TASKS_WITHOUT_TOTAL, 0),
            unit=units.get(stage, ""),
            counters=counters[stage],
            estimated=known.get(Metric.ESTIMATED, 0),
            left_nothing=known.get(Metric.LEFT_NOTHING, 0),
        )
        for stage in [None, *(key.stage for key in sums if key.metric is Metric.ITEMS and key.stage)]
        for known in [amounts[stage]]
    }


def joined(members: Collection[StageSums], *, may_return: bool) -> StageSums:
    """Return the sums of stages that share a line.

    Args:
        members: Those of each.
        may_return: Whether a task may come to several of them. Then they have a total of their own, even if
            each has that of the task.
    """
    counters: defaultdict[str, Count] = defaultdict(int)
    for stage in members:
        for name, amount in stage.counters.items():
            counters[name] += amount
    units = {stage.unit for stage in members}
    return StageSums(
        items=sum(stage.items for stage in members),
        total=sum(stage.total for stage in members),
        tasks_started=sum(stage.tasks_started for stage in members),
        tasks_with_own_total=sum(stage.tasks_with_own_total for stage in members) or may_return,
        tasks_without_total=sum(stage.tasks_without_total for stage in members),
        unit=units.pop() if len(units) == 1 else "items",
        counters=dict(counters),
        left_nothing=sum(stage.left_nothing for stage in members),
        may_return=may_return,
    )
