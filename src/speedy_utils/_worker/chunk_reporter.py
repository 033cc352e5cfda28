"""What the tasks of a chunk have counted, in one sum and the one that runs, and those that have not begun."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from .._state.ledger import FINISHED, RUN_ITEMS, Count, Key, Metric, Report, added
from .._state.timings import StageClock, StageTimings
from .reporter import Reporter
from .tally import Tally

_ENDS_WITH_TASK = (
    Metric.ESTIMATED,
    Metric.POSTFIX,
    Metric.TASKS_STARTED,
    Metric.TASKS_WITH_OWN_TOTAL,
    Metric.TASKS_WITHOUT_TOTAL,
)


_WITHOUT_TOTAL = RUN_ITEMS._replace(metric=Metric.TASKS_WITHOUT_TOTAL)
"""Keeps a total that loops of other tasks declare from being shown while it lacks these items."""


CHILD_S = 0.001
"""Seconds that a task takes at the least which starts a process and waits for its end."""


_Done = tuple[int, int, Mapping[Key, Count]]
"""What the tasks before the one that runs have counted: the items of plain ones, how many are not plain, and
what these count for. It is replaced whole, as other threads read it."""


class ChunkReporter:
    """Reports for all tasks of a chunk, which run one after another.

    A task that has counted nothing, or just items of no stage, leaves its reporter to the next one: for a
    million small tasks that makes the difference. Any other task is followed by a new reporter.

    Args:
        make: Makes the reporter of a task from the task's items.
        totals: The items of each task; None if these are not known.
        apart: Whether it must be known what each task counts: only those are plain then that count nothing.
        most_seconds: Seconds after which the tasks that have not begun are handed back; None for never.

    Attributes:
        current: The reporter of the task that runs.
        position: The place of that task in the chunk, from 0.
        began: When the chunk began, by the reporters' clock.
        started: When that task began.
        deadline: When the tasks that have not begun are handed back, by that clock.
        plain_items: What the tasks have counted that left their reporters to the next.
        left: The items of the tasks that have not begun: their worker takes them from the left, one by one.

    Example:
        >>> chunk = ChunkReporter(lambda total: Reporter(7, total=total))
        >>> chunk.own.n += 3
        >>> chunk.next_if_plain()
        True
        >>> chunk.report().position, chunk.report().before[RUN_ITEMS]
        (1, 3)
    """

    def __init__(
        self,
        make: Callable[[int | None], Reporter],
        totals: Sequence[int | None] | None = None,
        *,
        apart: bool = False,
        most_seconds: float | None = None,
    ) -> None:
        self._make, self._totals = make, totals
        self._apart = apart
        self.position = 0
        self.current = make(totals[0] if totals else None)
        self._clock = self.current.clock
        self.started = self.began = self._clock()
        self.deadline = inf if most_seconds is None else self.began + most_seconds
        self.left: deque[Any] = deque()
        self._taking = threading.Lock()
        self._tasks = self._kept = 0
        self.plain_items = 0
        self._done: _Done = (0, 0, {})
        self._readings = itertools.count(1)
        self._stage_clock = StageClock(self._clock)

    @property
    def task(self) -> int | str:
        """The first task of the chunk."""
        return self.current.task

    @property
    def own(self) -> Tally:
        """Counts for no named stage of the task that runs."""
        return self.current.own

    @property
    def thread(self) -> int | None:
        """The thread that works on the chunk."""
        return self.current.thread

    @thread.setter
    def thread(self, thread: int | None) -> None:
        self.current.thread = thread

    def begin(self, items: Iterable[Any]) -> None:
        """Let the worker take the items of the chunk."""
        self.left.extend(items)
        self._tasks = len(self.left)

    def kept_if_late(self) -> int:
        """Hand back the tasks that have not begun if it is time; return how many the worker keeps then, or 0.

        Any thread may call it, while one of the tasks hangs. Either the worker takes an item or this does.
        """
        # At least one stays: a process that stood still may not have taken the first yet.
        if 0 < len(self.left) < self._tasks and self._clock() >= self.deadline:
            with self._taking:
                given = 0
                try:
                    while True:
                        self.left.pop()
                        given += 1
                except IndexError:
                    self._kept = (self._kept or self._tasks) - given
        return self._kept

    def next_if_plain(self) -> bool:
        """Go on to the next task if the one that has succeeded has counted at most items of no stage.

        Returns:
            Whether it has. If not, what it has counted is still to be read, and :meth:`next` to be called.
        """
        current = self.current
        own, now = current.own, self._clock()
        if now - self.started > CHILD_S:
            current.count_children()
        if (own.n or own.used or current.has_more or self._totals) and not self._restart():
            return False
        self.started = current.started = now
        # Only once the reporter counts for the next task is this one done: see report().
        self.position += 1
        return True

    def _restart(self) -> bool:
        """Let the reporter of a plain task that has, or may have, counted items count for the next one.

        Returns:
            Whether it was one.
        """
        current, totals, following = self.current, self._totals, self.position + 1
        items = current.plain_items()
        if items is None or (items and self._apart):
            return False
        done = current.total or items
        current.restart(totals[following] if totals and following < len(totals) else None)
        self.plain_items += items
        before, others, counted = self._done
        self._done = before + done, others, counted
        return True

    def next(self, counts: Mapping[Key, Count] | None) -> None:
        """Go on to the next task after one that was not plain.

        Args:
            counts: What the task has reported if it succeeded; None if it failed: it may run again.
        """
        done, totals, position = self.current, self._totals, self.position + 1
        self._stage_clock.merge(done.timings())
        following = self._make(totals[position] if totals and position < len(totals) else None)
        following.thread = done.thread
        self.started, self.current = following.started, following
        items, others, counted = self._done
        if counts is not None:
            counted = added(counted, _final(counts, done.total) | {FINISHED: 1})
        self._done = items, others + 1, counted
        self.position = position

    def report(self) -> Report:
        """Return the state now, for a ledger. Any thread may call it."""
        reading, kept = next(self._readings), self.kept_if_late()
        # What is done is read first, and before it how many tasks have ended, so nothing counts twice: too
        # little may be seen while one task follows another, and is looked at again. Tasks of microseconds
        # follow each other all the time.
        for _ in range(3):
            position = self.position
            items, others, before = self._done
            report = self.current.report()
            if self.position == position:
                break
        if (plain := position - others) > 0:
            before = added(before, {FINISHED: plain, RUN_ITEMS: items})
            if items and self._totals is None:
                before[_WITHOUT_TOTAL] = 1
        return report._replace(reading=reading, position=position, before=before or None, kept=kept)

    def timings(self) -> StageTimings:
        """Return how long ago work on the items of each stage started, and last moved, as far as is known."""
        stage_clock = StageClock(self._clock)
        for timings in (self._stage_clock.timings(), self.current.timings()):
            stage_clock.merge(timings)
        return stage_clock.timings()

    def seconds(self) -> float:
        """Return the seconds since the chunk began."""
        return self._clock() - self.began


AnyReporter = Reporter | ChunkReporter
"""What counts in a worker, and can be read from another thread."""


def _final(counts: Mapping[Key, Count], total: int | None) -> dict[Key, Count]:
    """Return what a task that has succeeded counts for until its outcome says so."""
    final: dict[Key, Count] = {}
    for key, amount in counts.items():
        if key.metric in _ENDS_WITH_TASK:
            continue
        if key.metric in (Metric.ITEMS, Metric.TOTAL):
            done = counts.get(key._replace(metric=Metric.ITEMS), 0)
            limit = total if key.stage is None else counts.get(key._replace(metric=Metric.TOTAL), total)
            amount = done if limit is None else min(done, limit)
        final[key] = amount
    if total is not None:
        final[RUN_ITEMS] = total
    elif final.get(RUN_ITEMS) and RUN_ITEMS._replace(metric=Metric.TOTAL) not in final:
        final[_WITHOUT_TOTAL] = 1
    return final
