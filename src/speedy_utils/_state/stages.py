"""The lines of a run: which stages it has, how far each is, and of how much."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from .ledger import FINISHED, OF_RUNNING_TASKS, RUN_ITEMS, Count, Key, Metric, Stage, Task
from .lines.grouping import Grouping, Line
from .lines.sums import StageSums, sums_by_stage
from .running import RunningTask
from .snapshot import StageSnapshot
from .timings import StageClock

_RUN_TOTAL = Key(None, Metric.TOTAL)
_RUN_WITH_OWN_TOTAL = Key(None, Metric.TASKS_WITH_OWN_TOTAL)
_RUN_WITHOUT_TOTAL = Key(None, Metric.TASKS_WITHOUT_TOTAL)


UNKNOWN = 1 << 62
"""Tasks that are left where their number is not known: more than ever run."""


class Excess(NamedTuple):
    """More was reported than there is.

    Attributes:
        task: The task that reported it; None for all tasks together.
        reported: Items that were reported.
        total: Items that there are.
        unit: What is counted.
    """

    task: Task | None
    reported: int
    total: int
    unit: str


class Reading(NamedTuple):
    """What the stages of a run are at one moment.

    Attributes:
        run_line: The run's own line.
        stages: The named stages, in the order in which they appeared.
        show_run_line: Whether the run's line is shown.
        lines: What is shown of the stages, in order.
    """

    run_line: StageSnapshot
    stages: tuple[StageSnapshot, ...]
    show_run_line: bool
    lines: tuple[StageSnapshot, ...]


class RunSums(NamedTuple):
    """What the total of a named stage depends on besides the stage's own sums.

    Attributes:
        total: Items that the tasks of this run have; None if that is not known.
        missed: Items of tasks that succeeded without bringing them to the stage.
        tasks_left: Tasks that have not ended.
    """

    total: int | None
    missed: int
    tasks_left: int


class Total(NamedTuple):
    """The total of a stage.

    Attributes:
        value: Items in all; None if that is not known.
        growing: Whether tasks that have not come to the stage yet will add to it.
    """

    value: int | None
    growing: bool = False


def expected_total(stage: StageSums, run: RunSums) -> Total:
    """Return the total of a named stage.

    ==================== =================== ========= ============ ================================

    tasks_with_own_total tasks_without_total run.total value        growing
    ==================== =================== ========= ============ ================================

    0                    any                 None      None         no
    0                    any                 known     what is left no
    1 or more            1 or more           any       None         no
    1 or more            0                   any       stage.total  while tasks may come to the stage
    ==================== =================== ========= ============ ================================


    *What is left* of the run's total are all its items but those that a task left out of this stage.

    Example:
        >>> expected_total(StageSums(items=60), RunSums(total=100, missed=10, tasks_left=2))
        Total(value=90, growing=False)
        >>> pages = StageSums(items=3, total=40, tasks_with_own_total=1, tasks_started=1)
        >>> expected_total(pages, RunSums(total=100, missed=0, tasks_left=2))
        Total(value=40, growing=True)
    """
    if not stage.tasks_with_own_total:
        return Total(None if run.total is None else run.total - run.missed)
    if stage.tasks_without_total:
        return Total(None)
    settled = 0 if stage.may_return else stage.tasks_started
    return Total(stage.total, growing=settled < run.tasks_left)


class Stages:
    """The stages of a run, and the tasks that have ended.

    A stage has the run's total unless tasks declare another. A task that succeeded counts for no more
    than it did: what a stage was expected to get from it, and did not, comes off the stage's total.
    So the lines of a run that went well all end at exactly their totals.

    Without a total the run's own line counts tasks. Once a task counts items for it, it counts these. They
    have the sum of the totals that the tasks' own loops declare, if each task that runs has such a total.

    Args:
        desc: What the run is called.
        total: Items in all; None if that is not known.
        unit: What is counted.
        task_unit: What a task is called.
        initial: Items that were done before.
        tasks: How many tasks have not ended; 0 if the run has no tasks, None if that is not known.
        open_ended: Whether the run does not know which calls will work for it.
        initial_tasks: Tasks that were done before, for a run that counts tasks.
    """

    def __init__(
        self,
        desc: str,
        total: int | None,
        *,
        unit: str = "items",
        task_unit: str = "tasks",
        initial: int = 0,
        tasks: int | None = 0,
        open_ended: bool = False,
        initial_tasks: int = 0,
    ) -> None:
        self._open_ended = open_ended
        self._desc, self._total, self._unit, self._task_unit = desc, total, unit, task_unit
        self._initial, self._initial_tasks = initial, initial_tasks
        self._tasks = None if tasks is None else tasks + initial_tasks
        self._tasks_left = UNKNOWN if tasks is None else tasks
        self._tasks_succeeded = self._kept = 0
        self._succeeded_items = 0  # items of the tasks that succeeded and know how many they have
        self._succeeded_by_stage: dict[Stage, int] = {}  # what the tasks that succeeded counted
        self._items_without_total = 0  # what they counted for the run's own line without declaring a total
        self._loops_follow = False  # whether one of them had another loop after its first for that line
        self._counted_items = False  # whether a task counted items for the run's own line
        self._counted_unnamed = False  # whether a task counted items or counters for it
        self._complete = False
        self._initial_by_stage: dict[Stage, int] = {}  # what tasks of an earlier run counted
        self._initial_counters: dict[Stage, dict[str, Count]] = {}
        self._initial_counted = 0  # items of those of which that is known
        self._grouping = Grouping()
        self._ended_by_stage: dict[str, int] = {}  # how many tasks that came to it have ended
        self._paused: set[str] = set()  # lines that have had nothing left to count, for a moment at least
        self._line_of: dict[Stage, str] = {}  # the line of each stage that shares one
        self._postfixes: dict[Stage, str] = {}  # the newest of each stage, the newest of all last
        self.excess: Excess | None = None
        """The first case of more items than there are; None if there was none."""
        self.for_run: Stage = None
        """The line that stands for the run, as of the last reading; None for the run's own."""

    def observe(self, task: Task, counts: Mapping[Key, Count]) -> None:
        """Look at what a task reports: does it count for the run's own line, or for which stages?"""
        self._grouping.observe(task, counts)
        for key in counts:
            if key.metric is Metric.POSTFIX and self._postfixes.get(key.stage) != key.label:
                self._postfixes.pop(key.stage, None)
                self._postfixes[key.stage] = key.label
        self._counted_items = self._counted_items or bool(counts.get(RUN_ITEMS))
        self._counted_unnamed = (
            self._counted_unnamed
            or self._counted_items
            or any(
                amount for key, amount in counts.items() if key.stage is None and key.metric is Metric.COUNTER
            )
        )

    def task_succeeded(self, task: Task, counts: Mapping[Key, Count], total: int | None) -> dict[Key, Count]:
        """Note that a task succeeded, and return what it counts for.

        Args:
            task: The task.
            counts: What it reported, without limits.
            total: Its items, if that is known.
        """
        final = self._end_task(task, counts)
        self._tasks_succeeded += 1
        for key in [key for key in final if key.metric is Metric.ITEMS]:
            total_key = Key(key.stage, Metric.TOTAL)
            done = int(final[key])
            # What a loop without a name declares is a part of its task's items.
            limit = total if key == RUN_ITEMS else counts.get(total_key, total)
            if limit is not None and done > limit:
                unit = next(
                    (label for stage, metric, label in counts if (stage, metric) == (key.stage, Metric.UNIT)),
                    "",
                )
                self.excess = self.excess or Excess(task, done, int(limit), unit or self._unit)
                done = int(limit)
            final[key] = done
            if total_key in final:
                final[total_key] = done
            self._succeeded_by_stage[key.stage] = self._succeeded_by_stage.get(key.stage, 0) + done
        if total is not None:
            final[RUN_ITEMS] = total
        elif _RUN_TOTAL not in final:
            self._items_without_total += int(final.get(RUN_ITEMS, 0))
        elif _RUN_WITH_OWN_TOTAL not in final:
            self._loops_follow = True
        for key in (_RUN_WITH_OWN_TOTAL, _RUN_WITHOUT_TOTAL):  # they are of tasks that run
            final.pop(key, None)
        self._succeeded_items += total or 0
        return final

    def tasks_succeeded(self, count: int, items: int, total: int | None) -> dict[Key, Count]:
        """Note that tasks succeeded that counted only items of no stage, and return what they count for.

        Args:
            count: How many tasks they are.
            items: What they counted together; each no more than its total.
            total: Their items, if these are known.
        """
        self._tasks_left -= count
        self._tasks_succeeded += count
        self._counted_items = self._counted_items or bool(items)
        self._counted_unnamed = self._counted_unnamed or self._counted_items
        self._succeeded_by_stage[None] = self._succeeded_by_stage.get(None, 0) + items
        if total is None:
            self._items_without_total += items
        self._succeeded_items += total or 0
        return {RUN_ITEMS: items if total is None else total}

    def task_kept(self, counts: Mapping[Key, Count], total: int | None) -> dict[Key, Count]:
        """Note what a task counted that an earlier run finished, and return what it counts for.

        Its items of the run's own line are among ``initial``, and it is none of the tasks.

        Args:
            counts: What it reported, without limits.
            total: Its items, if that is known.
        """
        left, succeeded, excess = self._tasks_left, self._tasks_succeeded, self.excess
        without_total = self._items_without_total
        final = self.task_succeeded(f"kept {self._kept}", counts, total)
        self._kept += 1
        self._tasks_left, self._tasks_succeeded, self.excess = left, succeeded, excess
        self._items_without_total = without_total
        final.pop(_RUN_TOTAL, None)
        self._initial_counted += int(final.pop(RUN_ITEMS, 0))
        for key, done in final.items():
            if key.metric is Metric.ITEMS:
                self._initial_by_stage[key.stage] = self._initial_by_stage.get(key.stage, 0) + int(done)
            elif key.metric is Metric.COUNTER:
                counters = self._initial_counters.setdefault(key.stage, {})
                counters[key.label] = counters.get(key.label, 0) + done
        return final

    def task_failed(
        self, task: Task, counts: Mapping[Key, Count], sums: Mapping[Key, Count]
    ) -> dict[Key, Count]:
        """Note that a task failed for good, or was stopped, and return what it counts for.

        If only named stages have counted items, those that it has brought through all of them are done.

        Args:
            task: The task.
            counts: What it reported, within its limits.
            sums: The sums of the ledger.
        """
        final = self._end_task(task, counts)
        if self._total is None:
            final[_RUN_WITHOUT_TOTAL] = 1  # what it would have counted in all is not known
        elif not self._counted_unnamed:
            passed = [
                sum(counts.get(Key(member, Metric.ITEMS), 0) for member in line.members)
                for line in self._grouping.lines(sums_by_stage(sums))
                if line.says_all
            ]
            if passed:
                final[RUN_ITEMS] = min(passed)
        return final

    def is_full(self, reading: Reading) -> bool:
        """Return whether the line that stands for the run has counted all that there is."""
        lines = {line.name: line for line in reading.stages}
        line = reading.run_line if self.for_run is None else lines.get(self.for_run, reading.run_line)
        return line.total is None or line.done >= line.total

    def all_succeeded(self) -> None:
        """Note that all tasks succeeded, and their results are saved: what was counted is the total."""
        self._complete = True

    def read(
        self, sums: Mapping[Key, Count], clock: StageClock, now: float, *, all_counted: bool = False
    ) -> Reading:
        """Return what there is to show.

        One line stands for the run: its own or, if that is not shown, the last one that says the same. It
        is not finished before all results are in and saved, and its clock goes on until then.

        Args:
            sums: The sums of the ledger.
            clock: When the stages began and last moved.
            now: The time, or when the run ended.
            all_counted: Whether nothing is left to count, also where no total tells.
        """
        by_stage = sums_by_stage(sums)
        finished = int(sums.get(FINISHED, 0))
        run_line = self._run_line(by_stage[None], clock, now, finished=finished, all_counted=all_counted)
        lines = self._grouping.lines(by_stage)
        for line in lines:
            clock.join(line.name, line.members)
        same = [line.name for line in lines if line.says_all and not self._run_sums(line.members).missed]
        shown = self._counted_unnamed or self._total is None or not same
        self.for_run = for_run = None if shown else same[-1]
        self._line_of = {name: line.name for line in lines if line.members[1:] for name in line.members}

        def snapshot(line: Line) -> StageSnapshot:
            return self._stage_line(line, clock, now, all_counted=all_counted, for_run=line.name == for_run)

        by_line = {line.name: snapshot(line) for line in lines}
        stages = tuple(
            by_line[name] if name in by_line else snapshot(Line(name, (name,), stage))
            for name, stage in by_stage.items()
            if name is not None
        )
        visible = [line for line in lines if not self._has_vanished(line) or line.name == for_run]
        in_order = self._in_order(visible, by_line)
        return Reading(run_line, stages, shown, tuple(by_line[line.name] for line in in_order))

    def on_shared_lines(self, running: Iterable[RunningTask]) -> list[RunningTask]:
        """Return tasks with what they have counted for stages that share a line, also for that line."""
        found = []
        for task in running:
            counts = dict(task.counts)
            for key, amount in task.counts.items():
                if line := self._line_of.get(key.stage):
                    shared = key._replace(stage=line)
                    counts[shared] = counts.get(shared, 0) + amount
            found.append(replace(task, counts=counts))
        return found

    def _has_vanished(self, line: Line) -> bool:
        """Return whether all that counted for a line has ended, and was made to leave nothing."""
        ended = sum(self._ended_by_stage.get(name, 0) for name in line.members)
        return 0 < line.sums.left_nothing == line.sums.tasks_started + ended

    def _in_order(self, lines: Iterable[Line], shown: Mapping[str, StageSnapshot]) -> list[Line]:
        """Return lines with those first that are at work and, of these, those that say how far the run is.

        A line that had nothing left to count once is one of many short stages, and stays below the others.
        """

        def rank(line: Line) -> tuple[bool, bool, bool]:
            over = shown[line.name].finished or not (line.says_all or line.sums.tasks_started)
            if not line.sums.tasks_without_total and line.sums.items == line.sums.total > 0:
                self._paused.add(line.name)
            return over, not line.says_all, line.name in self._paused and not line.says_all

        return sorted(lines, key=rank)

    def _end_task(self, task: Task, counts: Mapping[Key, Count]) -> dict[Key, Count]:
        self.observe(task, counts)
        self._tasks_left -= 1
        for key in counts:
            if key.metric is Metric.TASKS_STARTED and key.stage is not None:
                self._ended_by_stage[key.stage] = self._ended_by_stage.get(key.stage, 0) + 1
        return {key: amount for key, amount in counts.items() if key.metric not in OF_RUNNING_TASKS}

    def _run_line(
        self, run: StageSums, clock: StageClock, now: float, *, finished: int, all_counted: bool
    ) -> StageSnapshot:
        """Return the run's own line: never more than the total, and exactly it at a clean end."""
        done, unit, initial = run.items + run.estimated + self._initial, self._unit, self._initial
        if self._total is not None:
            total, growing = Total(self._total)
            done = self._within(done, self._total, unit)  # also at the end: it notes what is too much
            done = self._total if self._complete else done
        elif self._tasks != 0 and not (self._counted_items or (self._initial and not self._initial_tasks)):
            initial = self._initial_tasks
            done, unit = self._tasks_succeeded + finished + initial, self._task_unit
            # Where the number of tasks is not known, or there were more than that.
            uncertain = self._tasks is None or done > self._tasks
            total, growing = Total((done if self._complete else None) if uncertain else self._tasks)
        else:
            unit = run.unit or unit
            total, growing = Total(done) if self._complete else self._declared_total(run)
        counted = done == total and not growing
        # Tasks, if it counts these, move it when they return, which is not when a stage moves last.
        timed = (counted or all_counted) and unit != self._task_unit
        return StageSnapshot(
            self._desc,
            done,
            total,
            unit,
            clock.elapsed(None, now),
            initial,
            growing=growing,
            counters=run.counters,
            # Nothing tells whether more calls follow: the line of a full count waits for those that run.
            pending=(counted or all_counted)
            and not (self._complete or (self._open_ended and not run.tasks_started)),
            counted_in=clock.elapsed(None, None) if timed else None,
            initial_counters=self._initial_counters.get(None, {}),
            postfix=self._postfix_of((None,)),
        )

    def _declared_total(self, run: StageSums) -> Total:
        """Return the total of a run that was given none: what its tasks' loops declare, if all have such."""
        if run.tasks_without_total or not run.total or self._open_ended:
            return Total(None)
        return Total(
            run.total + self._items_without_total + self._initial,
            growing=self._tasks_left > (0 if self._loops_follow else run.tasks_with_own_total),
        )

    def _stage_line(
        self, line: Line, clock: StageClock, now: float, *, all_counted: bool, for_run: bool
    ) -> StageSnapshot:
        name, members, stage = line
        total, growing = expected_total(stage, self._run_sums(members))
        done, unit = stage.items, stage.unit or self._unit
        if total is not None:
            done = self._within(done, total, unit)
            total = done if self._complete else total
        counted = self._complete or (done == total and not growing)
        # Also while other tasks may still come to it: what no task works on gets no slower.
        stands = counted or done == total or not stage.tasks_started
        return StageSnapshot(
            name,
            done,
            total,
            unit,
            clock.elapsed(name, None if stands and not for_run else now),
            min(sum(self._initial_by_stage.get(member, 0) for member in members), done),
            growing=growing,
            counters=stage.counters,
            pending=for_run and counted and not self._complete,
            counted_in=clock.elapsed(name, None) if counted or all_counted else None,
            initial_counters=self._initial_counters_of(members),
            postfix=self._postfix_of(members),
        )

    def _initial_counters_of(self, members: Iterable[str]) -> Mapping[str, Count]:
        known = [self._initial_counters.get(member, {}) for member in members]
        return {name: sum(each.get(name, 0) for each in known) for name in dict.fromkeys(chain(*known))}

    def _postfix_of(self, members: Iterable[Stage]) -> str:
        return next((self._postfixes[stage] for stage in reversed(self._postfixes) if stage in members), "")

    def _run_sums(self, members: Iterable[str]) -> RunSums:
        # If the tasks' totals are not known, nor is what a task left out.
        passed = sum(self._succeeded_by_stage.get(member, 0) for member in members)
        missed = self._succeeded_items and self._succeeded_items - passed
        total = None if self._total is None else self._total - self._initial + self._initial_counted
        more = self._open_ended and not self._complete
        return RunSums(total, missed, sys.maxsize if more else self._tasks_left)

    def _within(self, done: int, total: int, unit: str) -> int:
        if done > total:
            self.excess = self.excess or Excess(None, done, total, unit)
        return min(done, total)
