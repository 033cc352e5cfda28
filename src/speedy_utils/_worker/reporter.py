"""The worker's side: adds up what a task reports.

Nothing here takes a lock on the user's path. A tally is read by another thread while it grows, so its
parts keep an order: a part is taken out *before* its count is added to the whole, and a reader looks at
the whole *before* it looks at the parts. A reading may therefore be a moment behind, never ahead, and
the ledger keeps the largest.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Protocol

from .._state.ledger import RUN_ITEMS, Count, Key, Metric, Report, Stage, Task
from .._state.timings import StageClock, StageTimings

_key = functools.lru_cache(maxsize=1024)(Key)
"""Reports have the same few keys again and again, and a call of :class:`Key` costs five look-ups."""


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

    def capped_count(self) -> int:
        """Return the items finished so far, at most ``limit``."""
        done = self.raw_count()
        return done if self.limit is None else min(done, self.limit)

    def raw_count(self) -> int:
        """Return the items reported so far, whatever the limit."""
        done = self.n
        done += sum(part.read() for part in list(self._parts))
        return done if done or self._bars is None else self._bars.raw_count()

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
        counts_items: False if the run counts tasks and not items: unnamed counts are then left out.
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
        counts_items: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.total = total
        self.own = Tally(self, None, total if counts_items else 0)
        self._counts_items = counts_items
        self._stages: dict[str, Tally] = {}
        self._declared: dict[Stage, Count] = {}  # infinite where a loop can't tell its part
        self._declared_by_bars: dict[Stage, Count] = {}
        self._units: dict[Stage, str] = {}
        self._clock = clock
        self._created = self._looked = clock()
        self._stage_clock = StageClock(clock)
        self._seen: Mapping[Key, Count] = {}

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
        """Return the state now, for a ledger."""
        return Report(self.task, self.attempt, self.capped_counts())

    def capped_counts(self) -> dict[Key, Count]:
        """Return what was counted, each stage at most as far as its total."""
        own = self.own.capped_count()  # first: bars that are looked at with it may bring stages
        named = {}
        for name, tally in list(self._stages.items()):
            done, total = tally.raw_count(), self._total(name)
            named[name] = done if total is None else min(done, total)
        return self._counts(own, named)

    def raw_counts(self) -> dict[Key, Count]:
        """Return what was counted without limits, for the driver to judge."""
        own = self.own.raw_count()
        return self._counts(own, {name: tally.raw_count() for name, tally in list(self._stages.items())})

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

    def _counts(self, own: int, named: Mapping[str, int]) -> dict[Key, Count]:
        counts: dict[Key, Count] = {_key(None, Metric.TASKS_STARTED): 1}
        if self._counts_items:
            counts[RUN_ITEMS] = own
        if (declared := self._declared.get(None)) is not None:
            counts[_key(None, Metric.TOTAL)] = declared
        for stage, done in named.items():
            counts[_key(stage, Metric.ITEMS)] = done
            counts[_key(stage, Metric.TASKS_STARTED)] = 1
            total = self._total(stage)
            if total is None:
                counts[_key(stage, Metric.TASKS_WITHOUT_TOTAL)] = 1
            else:
                counts[_key(stage, Metric.TOTAL)] = total
                if total != self.total:
                    counts[_key(stage, Metric.TASKS_WITH_OWN_TOTAL)] = 1
        counts.update((_key(stage, Metric.UNIT, unit), 1) for stage, unit in list(self._units.items()))
        for tally in (self.own, *list(self._stages.values())):
            for name, amount in list(tally.counters.items()):
                counts[_key(tally.stage, Metric.COUNTER, name)] = min(amount, sys.float_info.max)
        self._note_movement(counts)
        return counts

    def _note_movement(self, counts: Mapping[Key, Count]) -> None:
        """Note which stages have moved since the last reading."""
        now = self._clock()
        for key, count in counts.items():
            if key.metric in (Metric.ITEMS, Metric.COUNTER) and count > self._seen.get(key, 0):
                # If no loop said that its work begins, it did so after the last reading.
                for stage in (key.stage, None):
                    began = now if stage in self._stage_clock else self._looked
                    self._stage_clock.cover(stage, began, now)
        self._seen, self._looked = counts, now
