"""The worker's side: adds up what a task reports.

Nothing here takes a lock on the user's path. A tally is read by another thread while it grows, so its
parts keep an order: a part is taken out *before* its count is added to the whole, and a reader looks at
the whole *before* it looks at the parts. A reading may therefore be a moment behind, never ahead, and
the ledger keeps the largest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Protocol

from .._state.ledger import Count, Fact, Key, Report, Stage, Task
from .._state.timings import StageClock, StageTimings


class Part(Protocol):
    """Something that counts for a tally until it ends: a loop, or a call of a tracked function."""

    def read(self) -> int:
        """Items finished so far."""
        ...


class Tally:
    """Items of one stage of a task, or of one tracked call in it.

    ``n`` may be added to from any thread: ``tally.n += n`` with plain integers runs between two points at
    which CPython (3.10 and later, with its global lock) may switch threads.

    Args:
        reporter: The reporter it belongs to.
        stage: The stage; None for the task's own.
        limit: The most it may count for; None for no limit.
        counters: Where what is counted beside the items is added up; its own where None.
    """

    __slots__ = ("_bars", "_parts", "counters", "limit", "n", "reporter", "stage")

    def __init__(
        self,
        reporter: Reporter,
        stage: Stage = None,
        limit: int | None = None,
        counters: dict[str, Count] | None = None,
    ) -> None:
        self.reporter = reporter
        self.stage = stage
        self.limit = limit
        self.n = 0
        self.counters: dict[str, Count] = {} if counters is None else counters
        self._parts: dict[Part, None] = {}
        self._bars: Tally | None = None

    @property
    def bars(self) -> Tally:
        """What adopted bars of tqdm count here. It stands for the whole as long as nothing else counts."""
        if self._bars is None:
            self._bars = Tally(self.reporter, self.stage)
        return self._bars

    def read(self) -> int:
        """Items finished so far, at most ``limit``."""
        done = self.reported()
        return done if self.limit is None else min(done, self.limit)

    def reported(self) -> int:
        """Items reported so far, whatever the limit."""
        done = self.n
        done += sum(part.read() for part in list(self._parts))
        return done if done or self._bars is None else self._bars.reported()

    def within(self, stage: Stage) -> Tally:
        """The tally that counts here for a stage: this one, unless it is for another stage."""
        return self if stage is None or stage == self.stage else self.reporter.stage(stage)

    def add_to_counters(self, counters: dict[str, Count]) -> None:
        """Add to what is counted beside the items, from any thread."""
        for name, amount in counters.items():
            self.counters.setdefault(name, 0)
            self.counters[name] += amount  # no thread switch in between, as with ``n``

    def open(self, part: Part) -> None:
        """Count a part from now on, as far as it has got."""
        self._parts[part] = None

    def close(self, part: Part, done: int) -> None:
        """End a part with its final count."""
        del self._parts[part]
        self.n += done


class Reporter:
    """What one attempt at a task has counted, by stage.

    Args:
        task: The task.
        attempt: Which attempt at it, from 1; the driver numbers them.
        total: Items of the task, where that is known: its counts stop there.
        items: False where the run counts tasks and not items: unnamed counts are then left out.
        clock: Seconds that only grow.

    Attributes:
        own: Counts for no named stage.
    """

    def __init__(
        self,
        task: Task,
        attempt: int = 1,
        *,
        total: int | None = None,
        items: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.total = total
        self.own = Tally(self, None, total if items else 0)
        self._items = items
        self._stages: dict[str, Tally] = {}
        self._declared: dict[Stage, Count] = {}  # infinite where a loop can't tell its part
        self._declared_by_bars: dict[Stage, Count] = {}
        self._units: dict[Stage, str] = {}
        self._clock = clock
        self._created = self._looked = clock()
        self._stage_clock = StageClock(clock)
        self._seen: dict[Key, Count] = {}

    def stage(self, name: Stage) -> Tally:
        """The tally of a stage; None names the task's own."""
        if name is None:
            return self.own
        tally = self._stages.get(name)
        return tally or self._stages.setdefault(name, Tally(self, name))

    def declare(self, name: Stage, total: int | None, *, bars: bool = False) -> None:
        """Add to the total that this task declares for a stage.

        Args:
            name: The stage; None for the task's own.
            total: The items of one loop or call; None where it can't tell, and so nor can the stage.
            bars: Whether an adopted bar says so: that holds as long as nothing else says anything.
        """
        declared = self._declared_by_bars if bars else self._declared
        if total is not None or name is not None:
            declared.setdefault(name, 0)
            declared[name] += inf if total is None else total  # no thread switch in between, as with ``n``
        self.stage(name)

    def unit(self, name: str, unit: str) -> None:
        """Say in what a stage counts, where that is not the run's unit."""
        self._units[name] = unit

    def begin(self, stage: Stage) -> None:
        """Note that work on the items of a stage starts now, if none had before."""
        if None not in self._stage_clock:
            self.touch(None)
        if stage not in self._stage_clock:
            self.touch(stage)

    def touch(self, stage: Stage) -> None:
        """Note that a stage has moved just now."""
        now = self._clock()
        self._stage_clock.cover(stage, now, now)

    def report(self) -> Report:
        """The state now, for a ledger."""
        own = self.own.read()  # first: bars that are looked at with it may bring stages
        named = {}
        for name, tally in list(self._stages.items()):
            done, total = tally.reported(), self._total(name)
            named[name] = done if total is None else min(done, total)
        return self._report(own, named)

    def reported(self) -> dict[Key, Count]:
        """The counts without their limits, for the driver to judge."""
        own = self.own.reported()
        named = {name: tally.reported() for name, tally in list(self._stages.items())}
        return dict(self._report(own, named).counts)

    def timings(self) -> StageTimings:
        """How long ago the work on items of each stage started, and last moved, as far as is known."""
        return self._stage_clock.timings()

    def lifetime(self) -> StageTimings:
        """The same for an attempt that has ended well: it counts from its start where it reported nothing."""
        now = self._clock()
        return {None: (now - self._created, 0.0)} | dict(self._stage_clock.timings())

    def _total(self, stage: str) -> int | None:
        """The items that a stage of this task has, where that is known."""
        declared = self._declared.get(stage, self._declared_by_bars.get(stage, inf))
        return self.total if declared == inf else int(declared)

    def _report(self, own: int, named: Mapping[str, int]) -> Report:
        counts: dict[Key, Count] = {Fact("entered", None): 1}
        if self._items:
            counts[None] = own
        if (declared := self._declared.get(None)) is not None:
            counts[Fact("total", None)] = declared
        for stage, done in named.items():
            counts[stage] = done
            counts[Fact("entered", stage)] = 1
            total = self._total(stage)
            if total is None:
                counts[Fact("open", stage)] = 1
            else:
                counts[Fact("total", stage)] = total
                if total != self.total:
                    counts[Fact("part", stage)] = 1
        counts.update((Fact("unit", stage, unit), 1) for stage, unit in list(self._units.items()))
        for tally in (self.own, *list(self._stages.values())):
            for name, amount in list(tally.counters.items()):
                counts[Fact("counter", tally.stage, name)] = min(amount, sys.float_info.max)
        self._look(counts)
        return Report(self.task, self.attempt, counts)

    def _look(self, counts: Mapping[Key, Count]) -> None:
        """Note which stages have moved since the last look."""
        now = self._clock()
        for key, count in counts.items():
            stage, moves = (key.stage, key.kind == "counter") if isinstance(key, Fact) else (key, True)
            if moves and count > self._seen.get(key, 0):
                # Where nobody said that work begins, it did so after the last look.
                for each in (stage, None):
                    self._stage_clock.cover(each, now if each in self._stage_clock else self._looked, now)
        self._seen, self._looked = dict(counts), now
