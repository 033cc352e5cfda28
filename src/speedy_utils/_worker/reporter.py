"""The worker's side: what a task has counted, as reports and timings.

Another thread reads the tallies while they grow; see :mod:`.tally`. A report keeps what was read before if
that is more, unless the task has taken something back since.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

from .._state.ledger import RUN_ITEMS, Count, Key, Metric, Report, Stage, Task
from .._state.lines.bar_lines import BarLines
from .._state.timings import StageClock, StageTimings
from .code.left_out import describe
from .code.stacks import stack_of
from .input_rows import InputRows
from .tally import Tally

if TYPE_CHECKING:
    from .channel.children import Children

_key = functools.lru_cache(maxsize=1024)(Key)
"""Reports have the same few keys each time, and making one takes as long as looking it up five times."""


_MOST = sys.float_info.max
"""Counters stop there: beyond it there is only infinity, and nothing can be taken back from that."""


MIN_STACK_INTERVAL_S = 2.0
"""Seconds between two looks at where the code of a task is, at the least."""


class Reporter:
    """What one attempt at a task has counted, by stage.

    Args:
        task: The task.
        attempt: The number of the attempt, from 1; the driver numbers them.
        total: Items of the task, if that is known: its counts stop there.
        total_is_rows: Whether these items are the rows of a dataset.
        declare_lengths: Whether unnamed loops declare how long they are, if the task's items are not known.
        stack_after: Seconds without a movement after which reports say where the task's code is; None for
            never.
        clock: Monotonic clock, in seconds.

    Attributes:
        clock: The same.
        started: When the attempt began, by that clock.
        own: Counts for no named stage.
        declares_lengths: Whether unnamed loops and calls declare how many items they have, if they know.
        input: The rows of the input that the task works on; None if it works on something else.
        of_process: Whether it counts what happens in a process outside all tasks and bound calls.
        counts_runs: Whether runs that its code starts count for it.
        strict: Whether what can't be counted raises in the user's code, as in a test, and is not left out.
        has_more: Whether there is more to say of it than a number of items of no stage.
        reported_none: Whether its code has said that no items are done, and nothing else.
        counts_a_part: Whether it left a loop early, or went through rows: few items are no batches then.
        thread: The thread that works on the task; None before it has started.
        take_backs: How often the task has taken back what it had counted. It grows once a count is smaller.
        children: What its code's processes count, which is read with its own counts; None if that is nothing.
    """

    # Most attempts leave these as they are, and a short call should have little to set.
    strict = counts_a_part = of_process = counts_runs = reported_none = False
    input: InputRows | None = None
    take_backs = 0
    thread: int | None = None
    children: Children | None = None
    _own_declarations = _own_declarations_by_bars = 0  # how often that was for no named stage
    _seen: Mapping[Key, Count] = MappingProxyType({})
    _stack, _stack_at = "", 0.0
    _left_out: str | None = None
    _another_loop = ""
    _reported: tuple[int, Mapping[Key, Count]] = (0, _seen)  # take_backs, and the counts then

    def __init__(
        self,
        task: Task,
        attempt: int = 1,
        *,
        total: int | None = None,
        total_is_rows: bool = False,
        declare_lengths: bool = True,
        stack_after: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.total = total
        self.total_is_rows = total_is_rows
        self.declares_lengths = declare_lengths and total is None
        self.own = Tally(self, None, total)
        self._stages: dict[str, Tally] = {}
        self._declared: dict[Stage, Count] = {}  # infinite if a loop does not know its length
        self._declared_by_bars: dict[Stage, Count] = {}
        self._units: dict[Stage, str] = {}
        self.clock = clock
        self.started = clock()
        self._moved: dict[Stage, float] = {}  # since the last reading, as far as it was marked
        self.has_more = total_is_rows
        self._stack_after = stack_after
        self._readings = itertools.count(1)

    @functools.cached_property
    def _stage_clock(self) -> StageClock:
        return StageClock(self.clock)

    @functools.cached_property
    def bar_lines(self) -> BarLines:
        """What the captured tqdm bars of the task say of the lines of their stages."""
        return BarLines()

    def plain_items(self) -> int | None:
        """Return the items of a task that has succeeded; None if there is more to say of what it has counted.

        Nothing else was counted then, and not more or fewer than the task has, but perhaps none.
        """
        own = self.own
        if self.has_more or own._parts:
            return None
        return own.n if not own.n or self.total is None or own.n == self.total else None

    def has_reported(self) -> bool:
        """Return whether anything was reported, also a loop over no rows, or that no items are done."""
        own = self.own
        return bool(own.n or own.used or own._bars is not None or self._stages or self.reported_none)

    def restart(self, total: int | None) -> None:
        """Count for the next task, after one that :meth:`plain_items` could say all of.

        Args:
            total: The items of the next task, if that is known.
        """
        own = self.own
        if own.n or own.used:
            own.restart()
            self.take_backs += 1  # what was read before does not hold for the next task
        if total is not None:
            self.total = own.limit = total

    def stage(self, name: Stage) -> Tally:
        """Return the tally of a stage; None is the task's own."""
        if name is None:
            return self.own
        tally = self._stages.get(name)
        if tally is None:
            self.has_more = True
            tally = self._stages.setdefault(name, Tally(self, name))
        return tally

    def is_at_work(self) -> bool:
        """Return whether a loop, a bar or a tracked call has not ended."""
        return any(tally.is_at_work() for tally in (self.own, *list(self._stages.values())))

    def declare(self, name: Stage, total: int | None, *, bars: bool = False) -> None:
        """Add to the total that this task declares for a stage.

        Args:
            name: The stage; None for the task's own.
            total: The items of one loop or call; None if that is not known, and so nor is the stage's total.
            bars: Whether a captured tqdm bar declares it: that holds as long as nothing else declares one.
        """
        declared = self._declared_by_bars if bars else self._declared
        if name is None:
            if bars:
                self._own_declarations_by_bars += 1
            else:
                self._own_declarations += 1
        if total is not None or name is not None or self.declares_lengths:
            self.has_more = True
            declared.setdefault(name, 0)
            amount = inf if total is None else total  # not below: Python 3.10 may switch threads at its jump
            declared[name] += amount  # no thread switch in between, as with ``n``
        self.stage(name)

    def set_unit(self, name: Stage, unit: str) -> None:
        """Set the unit of what captured tqdm bars count for a stage, if it is not the run's."""
        self.has_more = True
        self._units[name] = unit

    def leave_out(self, error: Exception, place: str = "") -> None:
        """Note that something can't be counted. The first of it in a task travels with the counts.

        Args:
            error: The error that it is outside a run.
            place: Where it was reported; empty for the line of the user's code that is running.
        """
        if self._left_out is None:
            self.has_more = True
            self._left_out = describe(error, place)

    def note_another_loop(self, text: str) -> None:
        """Note that the user's code is in a loop without a name that can't be counted beside those before.

        Args:
            text: What :meth:`Tally.before_loop` returned; nothing is noted if that is empty.
        """
        self._another_loop = self._another_loop or text
        self.has_more = self.has_more or bool(text)

    def note_part(self) -> None:
        """Note that the user's code left a loop early, or went through rows."""
        self.counts_a_part = self.has_more = True

    def now(self) -> float:
        """Return the time, by the clock of :meth:`mark_started`."""
        return self.clock()

    def mark_started(self, stage: Stage, at: float | None = None) -> None:
        """Note when work on the items of a stage started. The earliest start counts.

        Args:
            stage: The stage.
            at: The time; None for now.
        """
        for each in (None, stage):
            if at is not None or each not in self._stage_clock:
                started = self.clock() if at is None else at
                self._stage_clock.observe(each, started, started)

    def mark_moved(self, stage: Stage) -> None:
        """Note that a stage moved just now.

        If it was not marked when work on it started, that was when the task last counted anything, or when
        the attempt began: the time since then was the work on the first item of the stage.
        """
        if stage not in self._stage_clock:
            self.mark_started(stage, self._last_movement())
        self._moved[stage] = self.clock()

    def report(self) -> Report:
        """Return the state now, for a ledger. Any thread may call it."""
        # Numbered before it is read: of two readings, the later has then seen all that the earlier has.
        reading, take_backs = next(self._readings), self.take_backs
        counts = self.capped_counts()
        take_backs_before, before = self._reported
        if take_backs == take_backs_before:
            # A loop that is just ending may be read without the items that it has counted.
            counts.update(
                (key, done)
                for key, done in before.items()
                if key.metric is Metric.ITEMS and done > counts.get(key, 0)
            )
        self._reported = take_backs, counts
        counts |= self._estimated(counts)
        return Report(self.task, self.attempt, counts, reading, stack=self._stack_if_idle())

    def capped_counts(self) -> dict[Key, Count]:
        """Return what was counted, in each stage at most its total."""
        self.count_children()
        moved = self._take_movements()
        own = self.own.capped_count()  # first: the tqdm bars that are read with it may add stages
        named = {}
        for name, tally in list(self._stages.items()):
            done, total = tally.raw_count(), self._total(name)
            named[name] = done if total is None else min(done, total)
        return self._counts(own, named, moved)

    def raw_counts(self) -> dict[Key, Count]:
        """Return what was counted, also beyond the totals: the driver warns of that."""
        self.count_children()
        moved = self._take_movements()
        own = self.own.raw_count()
        named = {name: tally.raw_count() for name, tally in list(self._stages.items())}
        counts = self._counts(own, named, moved)
        return counts | self._estimated(counts)

    def count_children(self) -> None:
        """Count what processes have counted by now that the task has started."""
        if self.children is not None:
            self.children.count_for(self)

    def timings(self) -> StageTimings:
        """Return how long ago work on the items of each stage started, and last moved, as far as is known."""
        return self._stage_clock.timings()

    def final_timings(self) -> StageTimings:
        """Return the timings of an attempt that succeeded.

        Work started with it if it reported nothing, or counted nothing before the last moment: what a loop
        then counts at once was made ready by all that was done before.
        """
        since_start = self.clock() - self.started
        timings = dict(self._stage_clock.timings())
        if _has_items(self._seen) and not _has_items(self._reported[1]):
            timings[None] = since_start, timings.get(None, (0.0, 0.0))[1]
            if len(timings) == 2:
                timings = {stage: (since_start, moved) for stage, (_, moved) in timings.items()}
        return {None: (since_start, 0.0)} | timings

    def _estimated(self, counts: Mapping[Key, Count]) -> dict[Key, Count]:
        """Return what the task is taken to have finished beyond what was counted."""
        beyond = self.own.estimate() - counts.get(RUN_ITEMS, 0)
        return {_key(None, Metric.ESTIMATED): beyond} if beyond > 0 else {}

    def _total(self, stage: str) -> int | None:
        """Return the items that a stage of this task has; None if that is not known."""
        declared = self._declared.get(stage, self._declared_by_bars.get(stage, inf))
        return self.total if declared == inf else int(declared)

    def _counts(self, own: int, named: Mapping[str, int], moved: Mapping[Stage, float]) -> dict[Key, Count]:
        counts: dict[Key, Count] = {_key(None, Metric.TASKS_STARTED): 1}
        counts[RUN_ITEMS] = own
        if self.declares_lengths:
            counts.update(self._own_total(own))
        elif (declared := self._declared.get(None)) is not None:
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
            tally = self._stages[stage]
            if self.bar_lines.leave_nothing(stage) and not (tally.used or tally.n):
                counts[_key(stage, Metric.LEFT_NOTHING)] = 1
        for measured, unit in list(self._units.items()):
            if measured is not None or not self.own.count_without_bars():
                counts[_key(measured, Metric.UNIT, unit)] = 1
        counts |= self.bar_lines.postfixes()
        for tally in (self.own, *list(self._stages.values())):
            for name, amount in list(tally.counters.items()):
                counts[_key(tally.stage, Metric.COUNTER, name)] = max(-_MOST, min(amount, _MOST))
        if self._left_out is not None:
            counts[_key(None, Metric.LEFT_OUT, self._left_out)] = 1
        if self._another_loop:
            counts[_key(None, Metric.ANOTHER_LOOP, self._another_loop)] = 1
        if self.counts_a_part:
            counts[_key(None, Metric.ONLY_A_PART)] = 1
        self._note_movements(counts, moved)
        return counts

    def _own_total(self, done: int) -> dict[Key, Count]:
        """Return what there is to report of how many items the task has for no named stage.

        It has as many as its loops, if it counts in loops that know their lengths. Once a second one begins,
        more may follow, so only the end of the task tells: until then it is not among the tasks with a total.

        Args:
            done: Items finished.
        """
        declared, loops = self._declared.get(None), self._own_declarations
        if declared is None and not self.own.count_without_bars():
            declared, loops = self._declared_by_bars.get(None), self._own_declarations_by_bars
        if done > (declared or 0) or declared == inf:
            return {_key(None, Metric.TASKS_WITHOUT_TOTAL): 1}
        if declared is None:
            return {}
        own_total = {_key(None, Metric.TASKS_WITH_OWN_TOTAL): 1} if loops == 1 else {}
        return {_key(None, Metric.TOTAL): declared, **own_total}

    def _last_movement(self) -> float:
        """Return when the task last counted anything, as far as is known; at the earliest, when it began."""
        return max(self.started, self._stage_clock.moved(None), *list(self._moved.values()))

    def _stack_if_idle(self) -> str:
        """Return where the task's code is if it has not moved for a while; else nothing."""
        after, now = self._stack_after, self.clock()
        if after is None or self.thread is None or now - self._last_movement() < after:
            self._stack = ""
        elif not self._stack or now - self._stack_at >= max(after / 5, MIN_STACK_INTERVAL_S):
            self._stack, self._stack_at = stack_of(self.thread), now
        return self._stack

    def _take_movements(self) -> Mapping[Stage, float]:
        """Return when the stages have moved since the last reading, as far as that was marked.

        It is called before the counts are read: they then hold what is marked, and perhaps more.
        """
        moved, self._moved = self._moved, {}
        return moved

    def _note_movements(self, counts: Mapping[Key, Count], marked: Mapping[Stage, float]) -> None:
        """Note which stages have moved since the last reading: when that was marked, or by now."""
        now, before = self.clock(), self._last_movement()
        for key, count in counts.items():
            if key.metric in (Metric.ITEMS, Metric.COUNTER) and count != self._seen.get(key, 0):
                moved = marked.get(key.stage, now)
                for stage in (key.stage, None):
                    started = moved if stage in self._stage_clock else min(before, moved)
                    self._stage_clock.observe(stage, started, moved)
        self._seen = counts


def _has_items(counts: Mapping[Key, Count]) -> bool:
    return any(done for key, done in counts.items() if key.metric is Metric.ITEMS)
