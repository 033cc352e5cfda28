"""What the lines of a run show: which there are, how far they are, and of how much."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from .ledger import Count, Fact, Key, Stage, Task
from .snapshot import StageSnapshot
from .timings import StageClock, StageTimings

_Facts = defaultdict[str, dict[str, Count]]
"""What is known of a stage besides its items: by kind, the amounts by name."""


class Stages:
    """The stages of a run, and the tasks that have ended.

    A stage has the run's total unless tasks declare another. A task that has returned counts for no
    more than it did: what a stage was expected to get from it, and did not, comes off the stage's total.
    So the lines of a run that went well all end at exactly their totals.

    Args:
        desc: What the run is called.
        total: Items in all; None where that is not known.
        unit: What is counted.
        by_task: Whether that is tasks, which says nothing of how many items a stage has.
        initial: Items that were done before.
        tasks: How many tasks the run has; 0 for none.
    """

    def __init__(
        self, desc: str, total: int | None, *, unit: str, by_task: bool, initial: int, tasks: int
    ) -> None:
        self._desc, self._total, self._unit, self._by_task = desc, total, unit, by_task
        self._initial, self._tasks = initial, tasks
        self._returned = 0  # items of the tasks that succeeded, where each says how many it has
        self._kept: dict[str, int] = {}  # what these counted, by named stage
        self._ended = 0
        self._counted = False  # whether a task counts for the run's own line
        self.whole = False
        """Whether all has ended well: then the count is the total."""
        self.excess = ""
        """One line on a task that reported more than there is; empty where none did."""

    def note(self, counts: Mapping[Key, Count]) -> None:
        """Look at what a task reports: does it count for the run's own line?"""
        self._counted = self._counted or any(
            amount
            for key, amount in counts.items()
            if key is None or (isinstance(key, Fact) and key.kind == "counter" and key.stage is None)
        )

    def returned(self, task: Task, counts: Mapping[Key, Count], total: int | None) -> dict[Key, Count]:
        """A task has succeeded.

        Args:
            task: The task.
            counts: What it reported, without limits.
            total: Its items, where that is known.

        Returns:
            What it counts for.
        """
        final = self.failed(counts)
        known = None if self._by_task else total
        for stage in [key for key in final if not isinstance(key, Fact)]:
            done = int(final[stage])
            limit = counts.get(Fact("total", stage), known) if stage is not None or known is None else known
            if limit is not None and done > limit:
                final[stage] = done = int(limit)
                reported = int(counts[stage])
                self.excess = self.excess or f"task {task} reported {reported:,} of {done:,} items"
            if stage is not None:
                self._kept[stage] = self._kept.get(stage, 0) + done
            if Fact("total", stage) in final:
                final[Fact("total", stage)] = done
        if total is not None:
            final[None] = total
        self._returned += known or 0
        return final

    def failed(self, counts: Mapping[Key, Count]) -> dict[Key, Count]:
        """A task has ended; what it counts for where it failed."""
        self.note(counts)
        self._ended += 1
        return {
            key: amount
            for key, amount in counts.items()
            if not (isinstance(key, Fact) and key.kind == "entered")
        }

    def read(
        self, sums: Mapping[Key, Count], spans: StageClock, now: float
    ) -> tuple[StageSnapshot, tuple[StageSnapshot, ...], bool]:
        """The run's own line, its named stages, and whether the own line is to be shown."""
        facts = _by_stage(sums)
        named = tuple(
            self._named(key, int(done), facts[key], spans, now)
            for key, done in sums.items()
            if isinstance(key, str)
        )
        told = not self._by_task and any(not any(facts[stage.name]["part"].values()) for stage in named)
        return self._own(sums, facts[None], spans, now), named, self._counted or not told

    def _own(self, sums: Mapping[Key, Count], facts: _Facts, spans: StageClock, now: float) -> StageSnapshot:
        """What the run's own line shows: never more than the total, and exactly it at a clean end."""
        done = int(sums.get(None, 0)) + self._initial
        total = self._total
        if total is None:
            declared = int(sums.get(Fact("total", None), 0)) + self._initial
            # A task that declares nothing may count as well: then nobody knows the total.
            total = declared if declared > self._initial and declared >= done else None
        else:
            done = self._within(done, total)
            done = total if self.whole else done
        return StageSnapshot(
            self._desc,
            done,
            total,
            self._unit,
            spans.elapsed(None, now),
            self._initial,
            counters=facts["counter"],
        )

    def _named(self, name: str, done: int, facts: _Facts, spans: StageClock, now: float) -> StageSnapshot:
        total, growing = self._expected(name, facts)
        if total is not None:
            done = self._within(done, total)
            total = done if self.whole else total
        units = [unit for unit, tasks in facts["unit"].items() if tasks]
        over = self.whole or (done == total and not growing)
        return StageSnapshot(
            name,
            done,
            total,
            units[0] if units else "items" if self._by_task else self._unit,
            spans.elapsed(name, None if over else now),
            growing=growing,
            counters=facts["counter"],
        )

    def _expected(self, name: str, facts: _Facts) -> tuple[int | None, bool]:
        """The total of a named stage, and whether it grows with each task that comes to it."""
        if not any(facts["part"].values()):
            if self._by_task or self._total is None:
                return None, False
            left = self._total - self._initial - self._returned
            return (left + self._kept.get(name, 0) if self._returned else left), False
        if any(facts["open"].values()):
            return None, False
        waiting = self._ended + sum(facts["entered"].values()) < self._tasks
        return int(sum(facts["total"].values())), waiting

    def _within(self, done: int, total: int) -> int:
        if done > total:
            self.excess = self.excess or f"the tasks reported {done:,} of {total:,} items"
        return min(done, total)


def _by_stage(sums: Mapping[Key, Count]) -> defaultdict[Stage, _Facts]:
    """The facts of each stage, from one look at all: a run may have a stage a task."""
    found: defaultdict[Stage, _Facts] = defaultdict(lambda: defaultdict(dict))
    for key, amount in sums.items():
        if isinstance(key, Fact):
            found[key.stage][key.kind][key.name] = amount
    return found


OVERFLOW_STAGE = "others"
"""The stage of what has a name too many."""


_MOST = 50
"""Named stages of a run with a line each, about as many as a terminal has rows. Tasks that each have a bar
named after a file would make thousands otherwise."""


class StageLimit:
    """Gives the first stages of a run a line each, and one to all others.

    Args:
        most: How many the first are.

    Example:
        >>> folding = StageLimit(most=1)
        >>> counts = folding.counts({None: 9, "a.txt": 4, "b.txt": 3, "c.txt": 2})
        >>> counts[None], counts["a.txt"], counts["others"]
        (9, 4, 5)
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: set[Stage] = {None, OVERFLOW_STAGE}

    def counts(self, counts: Mapping[Key, Count]) -> Mapping[Key, Count]:
        """What a task has counted, by the stages that have a line.

        Args:
            counts: All that it has counted: a part of it would make less of what its stages share.
        """
        for key in counts:
            if not isinstance(key, Fact) and self._has_room():
                self._known.add(key)
        if self._known.issuperset(key.stage if isinstance(key, Fact) else key for key in counts):
            return counts
        folded: dict[Key, Count] = {}
        for key, amount in counts.items():
            fact = key if isinstance(key, Fact) else None
            name = key
            if (fact.stage if fact else key) not in self._known:
                name = fact._replace(stage=OVERFLOW_STAGE) if fact else OVERFLOW_STAGE
                # Several names share the line, so it has a total of its own, also where each has the task's.
                folded[Fact("part", OVERFLOW_STAGE)] = 1
            # A task comes to a stage once, whatever it calls it there.
            once = fact is not None and fact.kind in ("entered", "part")
            folded[name] = amount if once else folded.get(name, 0) + amount
        return folded

    def timings(self, timings: StageTimings) -> StageTimings:
        """When the stages that have a line began, and last moved."""
        folded: dict[Stage, tuple[float, float]] = {}
        for stage, (began, moved) in timings.items():
            name = stage if stage in self._known or self._has_room() else OVERFLOW_STAGE
            known = folded.get(name, (began, moved))
            folded[name] = max(known[0], began), min(known[1], moved)
        return folded

    def _has_room(self) -> bool:
        return len(self._known) < self._most + 2  # those that have a line in any case
