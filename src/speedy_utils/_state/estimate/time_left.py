"""How long a run will take: by the slowest of what is in flight, and by what is still to start.

The mean rate says when a run ends if all its workers stay busy to the end. Where one shard of eight has ten
times the work, seven workers are soon idle, and the mean rate is wrong until the last second. So the end is
reckoned as it comes about, worker by worker:

- A task in flight takes ``items left / its own pace`` seconds more. Its pace is that of the last quarter of
  the time for which it has counted, of 10 s at the least and 5 min at the most.
- One that has counted nothing yet, or never counts, takes as long as its items take on average: the
  seconds that all workers together have worked, over the items counted in them.
- What is still to start takes the same seconds an item, in tasks of equal size, each begun by the worker
  that is free first (list scheduling).
- What stands still can't be foreseen: a task that has not moved for twice as long as it ever took, or for
  longer than all its items should have taken, or that counts nothing and has taken twice its expected time;
  and whatever the run itself has found to stand.
  It is taken to stand for as long again as it has stood. If the run would wait for it then, or if all tasks
  stand, the time left is not known.

A run that doesn't know how many items its tasks have is as far as its tasks: one in flight has as many items
as its loops declare, or as tasks had that ended, and what is still to start takes as long as these. Where a
total is all that is known, what is left of it takes the mean seconds of late an item.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from heapq import nsmallest
from itertools import accumulate
from math import inf
from typing import NamedTuple

from ..ledger import Key, Metric, Stage, Task
from ..running import RunningTask
from ..snapshot import StageSnapshot
from .pace import RECENT_S, STILL_S, Pace

MIN_SECONDS_PER_TASK, MAX_SECONDS_PER_TASK = 0.001, 0.01
"""Seconds between two estimates, for each task in flight: the larger number once a run has lasted for ten
times as long. One takes some 10 µs a task: 0.1 % of a core. In between the time left is counted down."""

OVERDUE_S = 2.0
"""Seconds after which a task stands that has counted nothing since, and should have counted all by then."""

STARTED = Key(None, Metric.TASKS_STARTED)

_Attempt = tuple[Task, int]


def last_end(free: Sequence[float], tasks: int, seconds: float) -> float:
    """Return when the last of some equal tasks ends, each begun by the worker that is free first.

    Args:
        free: When each worker is free, in any order.
        tasks: How many tasks are still to start.
        seconds: How long each of them takes.

    Returns:
        The end of the last task, or of what the last worker does now. Takes time in proportion to the
        workers, not to the tasks.

    Example:
        >>> last_end([0.0, 1.0], tasks=3, seconds=2.0), last_end([0.0, 9.0], tasks=3, seconds=2.0)
        (4.0, 9.0)
    """
    if not tasks or seconds <= 0:
        return max(free)
    free = sorted(free)
    # If tasks could be shared out to the last second, the first workers would all end at this time.
    work = tasks * seconds
    for busy, total in enumerate(accumulate(free), 1):
        level = (total + work) / busy
        if busy == len(free) or level <= free[busy]:
            break
    # As many whole tasks as end by then; the few that are left begin at the ends of these.
    whole = [int((level - each) / seconds) for each in free[:busy]]
    ends = [each + number * seconds for each, number in zip(free, whole, strict=False)]
    rest = min(max(tasks - sum(whole), 0), busy)
    last = nsmallest(rest, ends)[-1] + seconds if rest else max(ends)
    return max(last, free[-1])


class _Work(NamedTuple):
    """What a run has done, and has left to do.

    Attributes:
        flights: The tasks on which workers work, and for how many seconds.
        to_start: How many tasks no worker has begun.
        ended: How many tasks have ended.
        worked: Seconds that all workers together have worked so far.
    """

    flights: Sequence[tuple[RunningTask, float]]
    to_start: int
    ended: int
    worked: float


class _Ahead(NamedTuple):
    """What a task in flight has ahead.

    Attributes:
        seconds: How long it will take or, if it stands still, how long it has stood.
        items: How many items it has not counted, as far as is known.
        stands: Whether it stands still.
    """

    seconds: float
    items: float = 0.0
    stands: bool = False


class _Line:
    """The pace of a line, and of each task in it.

    Args:
        stage: Its stage; None for the run's own line.

    Attributes:
        end: When all is expected to be counted; None if that is not known.
    """

    def __init__(self, stage: Stage) -> None:
        self._items, self._estimated = Key(stage, Metric.ITEMS), Key(stage, Metric.ESTIMATED)
        self._total, self._own_total = Key(stage, Metric.TOTAL), Key(stage, Metric.TASKS_WITH_OWN_TOTAL)
        self._by_tasks = False
        self._pace: Pace | None = None  # in seconds of all workers together
        self._recent = Pace(0.0, memory=RECENT_S)  # by the line's own clock, which may stand
        self._paces: dict[_Attempt, Pace] = {}
        self.end: float | None = None

    def recent_rate(self, line: StageSnapshot, *, final: bool) -> float:
        """Return the rate of late or, once all items are counted or the run has ended, the mean."""
        self._recent.note(line.elapsed, line.done - line.initial)
        if final or line.finished or line.counted_in is not None:
            return line.rate
        return self._recent.rate(line.elapsed) or line.rate

    def estimate(self, line: StageSnapshot, work: _Work, now: float, *, by_tasks: bool) -> None:
        """Find out when all is counted.

        Args:
            line: The line now.
            work: What the run has done, and has left to do.
            now: The time.
            by_tasks: Whether it is as far as its tasks, as the number of items is not known.
        """
        flights = [
            (task, age, int(task.counts.get(self._items, 0) + task.counts.get(self._estimated, 0)))
            for task, age in work.flights
        ]
        done = line.done - line.initial
        # What workers have done for tasks that don't show in the count yet is part of what these will take.
        hidden = sum(age for _, age, items in flights if by_tasks or not items)
        reading = now, work.ended if by_tasks else done, work.worked - hidden
        if self._pace is None or by_tasks is not self._by_tasks:
            self._pace, self._by_tasks = Pace(*reading), by_tasks
        self._pace.note(*reading)
        seconds = self._pace.seconds_each
        usual = None
        if by_tasks and work.ended and (counted := sum(items for *_, items in flights)):
            usual = (done - counted) / work.ended
        before, self._paces = self._paces, {}
        found = [self._ahead(*flight, before, usual, seconds, now) for flight in flights]
        ahead = [each for each in found if each is not None]
        if len(ahead) == len(found) > 0:
            end = self._end(line, work, ahead, seconds)
        elif seconds and line.total is not None and not by_tasks and not self._pace.stands(now):
            # Nothing tells how many items a task has, or none is in flight: all go on as they did.
            end = (line.total - line.done) * seconds / max(len(found), 1) - self._pace.idle(now)
        else:
            end = inf
        self.end = None if end == inf else now + max(end, 0.0)

    def _end(self, line: StageSnapshot, work: _Work, ahead: Sequence[_Ahead], seconds: float | None) -> float:
        """Return in how many seconds all is counted; infinity if nothing tells.

        Args:
            line: The line now.
            work: What the run has done, and has left to do.
            ahead: What each task in flight has ahead.
            seconds: What a worker needs for an item on average or, without known items, for a task.
        """
        each_seconds: float | None = 0.0
        if work.to_start and self._by_tasks:
            each_seconds = seconds
            if work.ended < len(ahead):  # those that have ended are the short ones
                begun = work.ended + len(ahead)
                each_seconds = (work.worked + sum(each.seconds for each in ahead)) / begun
        elif work.to_start:
            items = (line.total or 0) - line.done - sum(each.items for each in ahead)
            each_seconds = None if seconds is None else seconds * max(items, 0.0) / work.to_start
        if each_seconds is None or all(each.stands for each in ahead):
            return inf
        end = last_end([each.seconds for each in ahead], work.to_start, each_seconds)
        stood = max((each.seconds for each in ahead if each.stands), default=-inf)
        return inf if stood >= end else end

    def _ahead(
        self,
        task: RunningTask,
        age: float,
        done: int,
        paces: Mapping[_Attempt, Pace],
        usual: float | None,
        seconds: float | None,
        now: float,
    ) -> _Ahead | None:
        """Return what a task has ahead; None if nothing tells.

        Args:
            task: The task.
            age: Since when a worker works on it.
            done: What it has counted.
            paces: The paces of the tasks in the last reading.
            usual: How many items the tasks had that have ended, if the numbers of items are not known.
            seconds: What a worker needs for an item on average or, without known items, for a task.
            now: The time.
        """
        size: float | None = task.total
        if size is None or task.counts.get(self._own_total):
            size = task.counts.get(self._total)
        if size is None and usual and done < usual:
            size = usual
        if done:
            attempt = task.task, task.attempt
            pace = self._paces[attempt] = paces.get(attempt) or Pace(now, done)  # from its first count on
            pace.note(now, done)
            if size is not None and done >= size:
                return _Ahead(0.0)
            idle = pace.idle(now)
            if size is not None and (task.stands or pace.stands(now)):
                return _Ahead(idle, size - done, stands=True)
            if size is not None and pace.seconds_each:
                left = (size - done) * pace.seconds_each - idle
                overdue = left < -OVERDUE_S and idle > pace.longest
                return _Ahead(idle if overdue else max(left, 0.0), size - done, stands=overdue)
        if seconds is None or (size is None and not self._by_tasks):
            return None
        expected = seconds * (1.0 if self._by_tasks else size or 0.0)
        items = max((size or 0.0) - done, 0.0)
        return _Ahead(abs(expected - age), items, stands=task.stands or age > max(2 * expected, STILL_S))


class TimeLeft:
    """How long each line of a run will take, reading after reading.

    Args:
        tasks: Tasks of the run that have not ended; 0 if it has none.
        task_unit: What a task is called: a run's own line with this unit counts tasks.

    Example:
        Two shards, of which one has ten times the work. The mean rate would say 13 seconds:

        >>> from speedy_utils._state.ledger import RUN_ITEMS
        >>> shards = TimeLeft(tasks=2)
        >>> for second in range(21):
        ...     done = {0: second, 1: min(10 * second, 100)}
        ...     running = [
        ...         RunningTask(shard, 1, 100, counts={STARTED: 1, RUN_ITEMS: items})
        ...         for shard, items in done.items()
        ...     ]
        ...     line = StageSnapshot("Pack", sum(done.values()), 200, elapsed=second)
        ...     line, _ = shards.read(line, (), running, ended=0, now=second)
        >>> line.eta
        80.0
    """

    def __init__(self, tasks: int, task_unit: str = "tasks") -> None:
        self._tasks, self._task_unit = tasks, task_unit
        self._since: dict[_Attempt, float] = {}  # when workers began with the tasks in flight
        self._worked = self._read_at = 0.0
        self._lines: dict[tuple[Stage, str], _Line] = {}
        self._began: float | None = None
        self._next = -inf

    def read(
        self,
        run_line: StageSnapshot,
        stages: Sequence[StageSnapshot],
        running: Collection[RunningTask],
        *,
        ended: int,
        now: float,
        for_run: Stage = None,
        final: bool = False,
    ) -> tuple[StageSnapshot, tuple[StageSnapshot, ...]]:
        """Return the lines with their rates of late, and with the time that is left for each.

        Args:
            run_line: The run's own line.
            stages: Its named stages.
            running: The tasks in flight, and what each has counted.
            ended: How many tasks have ended.
            now: The time.
            for_run: The stage that stands for the run; None for its own line.
            final: Whether the run has ended.
        """
        work = None
        if now >= self._next and not final:
            self._began = now if self._began is None else self._began
            pause = max((now - self._began) / 10, MIN_SECONDS_PER_TASK * len(running))
            self._next = now + min(pause, MAX_SECONDS_PER_TASK * len(running))
            work = self._work(running, ended, now)
        lines: dict[Stage, StageSnapshot] = {}
        for stage, line in [(None, run_line), *((each.name, each) for each in stages)]:
            known = line.total is not None and not line.growing
            by_tasks = stage is None and self._tasks > 0 and (not known or line.unit == self._task_unit)
            key = stage, line.unit
            lines[stage] = line
            if key not in self._lines:
                if not line.elapsed and line.done <= line.initial:
                    continue  # work on it has not begun
                self._lines[key] = _Line(stage)
            followed = self._lines[key]
            eta = 0.0 if line.finished else None
            if (known or by_tasks) and not (line.finished or line.pending or final):
                if work is not None:
                    followed.estimate(line, work, now, by_tasks=by_tasks)
                eta = None if followed.end is None else max(followed.end - now, 0.0)
            lines[stage] = replace(line, recent_rate=followed.recent_rate(line, final=final), eta=eta)
        run_line = lines.pop(None)
        if for_run is not None:
            run_line = replace(run_line, eta=lines[for_run].eta)
        return run_line, tuple(lines.values())

    def _work(self, running: Iterable[RunningTask], ended: int, now: float) -> _Work:
        """Return what the run has done, and has left to do."""
        self._worked += len(self._since) * (now - self._read_at)
        before, self._since, self._read_at = self._since, {}, now
        flights = []
        for task in running:
            if STARTED in task.counts:  # it does not wait for its worker
                attempt = task.task, task.attempt
                since = self._since[attempt] = before.get(attempt, now)
                flights.append((task, now - since))
        return _Work(flights, max(self._tasks - ended - len(flights), 0), ended, self._worked)
