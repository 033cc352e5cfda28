"""Which stages share a line, and in which order the lines stand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..ledger import Count, Key, Metric, Stage, Task
from ..stage_limit import OVERFLOW_STAGE, kind_of
from .sums import StageSums, joined

MAX_OF_A_KIND = 10
"""Lines of names that differ only in digits, at most, where each task goes through several of them."""

MAX_OF_ONE_TASK_EACH = 3
"""Lines of stages that one task each has, at most, if their names are not alike."""


class Line(NamedTuple):
    """A line of a run.

    Attributes:
        name: What it is called: the name of its stage, what all names have in common, ``shard-*.parquet``, or
            the first name of several, ``a.txt and others``.
        members: The stages that share it, in the order in which they appeared.
        sums: What all tasks say of them.
    """

    name: str
    members: tuple[str, ...]
    sums: StageSums

    @property
    def says_all(self) -> bool:
        """Whether each item of the run goes through it, so that it says all that the run's line could say."""
        return not self.sums.tasks_with_own_total


class Grouping:
    """Lets stages share a line.

    These are stages whose names differ only in digits, unless each task goes through several of them and
    they are few; and stages that one task each has, unless these are few.

    Example:
        >>> grouping = Grouping()
        >>> names = ["shard-0.parquet", "shard-1.parquet", "shard-2.parquet"]
        >>> for task, name in enumerate(names):
        ...     grouping.observe(task, {Key(name, Metric.TASKS_STARTED): 1})
        >>> [line.name for line in grouping.lines({name: StageSums() for name in names})]
        ['shard-*.parquet']
    """

    def __init__(self) -> None:
        self._only_task: dict[str, Task | None] = {}  # of a stage; None once a second has come to it
        self._several: set[str] = set()  # kinds of names of which a task has had several
        self._shared: set[str] = set()  # kinds of names that share a line, from then on

    def observe(self, task: Task, counts: Mapping[Key, Count]) -> None:
        """Look at what a task reports: which stages has it come to?"""
        kinds = set()
        for stage, metric, _ in counts:
            if metric is not Metric.TASKS_STARTED or stage is None:
                continue
            if self._only_task.setdefault(stage, task) != task:
                self._only_task[stage] = None
            kind = kind_of(stage)
            if kind in kinds:
                self._several.add(kind)
            kinds.add(kind)

    def lines(self, by_stage: Mapping[Stage, StageSums]) -> list[Line]:
        """Return the lines of the named stages, in the order in which they appeared."""
        named = {name: stage for name, stage in by_stage.items() if name is not None}
        self._shared |= self._kinds_to_share(named)
        line_of = {name: kind if (kind := kind_of(name)) in self._shared else name for name in named}
        members: defaultdict[str, list[str]] = defaultdict(list)
        for name, line in line_of.items():
            members[line].append(name)
        owners = {line: self._owner_of(names) for line, names in members.items()}
        unlike = [line for line, owner in owners.items() if owner is not None]
        tasks = len({owners[line] for line in unlike})
        if tasks > MAX_OF_ONE_TASK_EACH or (tasks > 1 and len(unlike) > MAX_OF_A_KIND):
            members[f"{unlike[0]} and others"] = [name for line in unlike for name in members.pop(line)]
        return [Line(line, tuple(names), self._sums(names, named)) for line, names in members.items()]

    def _kinds_to_share(self, names: Iterable[str]) -> set[str]:
        by_kind: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            by_kind[kind_of(name)].append(name)
        return {
            kind
            for kind, alike in by_kind.items()
            if len(alike) > 1
            and (
                kind not in self._several
                or len(alike) > MAX_OF_A_KIND
                or kind in alike  # names beyond the limit of a run or a task count for it
                or len({self._only_task.get(name) for name in alike} - {None}) > 1
            )
        }

    def _owner_of(self, names: list[str]) -> Task | None:
        """Return the only task that has come to some stages; None if there are several."""
        owners = {self._only_task.get(name) for name in names}
        if names == [OVERFLOW_STAGE]:  # many tasks may have had one each
            return OVERFLOW_STAGE
        return owners.pop() if len(owners) == 1 else None

    def _sums(self, members: list[str], by_stage: Mapping[str, StageSums]) -> StageSums:
        if len(members) == 1:
            return by_stage[members[0]]
        tasks = [task for name in members if (task := self._only_task.get(name)) is not None]
        may_return = kind_of(members[0]) in self._several or OVERFLOW_STAGE in members
        return joined(
            [by_stage[name] for name in members], may_return=may_return or len(set(tasks)) < len(tasks)
        )
