"""The tasks that run: how far each one is, since when it stands there, and where it runs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .._validation import shorten
from .ledger import RUN_ITEMS, Count, Key, Location, Metric, Report, Task
from .snapshot import TaskSnapshot

MAX_SLOWEST = 5
"""How many of the slowest tasks a snapshot holds."""

MIN_SECONDS = 1.0
"""Seconds after which a task may be among them: to describe the items of short tasks would cost too much."""

ITEM_COLUMNS = 80
"""How long an item in short may be."""

MAX_NAMED = 3
"""How many tasks are named, at most, where they are not listed."""

LATE_S, LATE_S_PER_WORKER = 5.0, 0.01
"""Seconds after which a task of which nothing was heard waits for a worker, or seconds for each worker of the
run, if these are more: many workers report less often."""

_STARTED = Key(None, Metric.TASKS_STARTED)
_ESTIMATED, _TOTAL = Key(None, Metric.ESTIMATED), Key(None, Metric.TOTAL)


def has_counted(counts: Mapping[Key, Count]) -> bool:
    """Return whether a task has counted anything."""
    # Called for each task that ends: a loop is faster than any().
    for key, count in counts.items():
        if count and key.metric in (Metric.ITEMS, Metric.COUNTER, Metric.ESTIMATED):
            return True
    return False


@dataclass(slots=True, eq=False)
class RunningTask:
    """An attempt that was handed to a worker, and has not ended.

    Of a chunk it is the attempt at the task that runs; the others of the chunk wait, or have finished.

    Attributes:
        task: The task, or the first of its chunk.
        attempt: The number of the attempt.
        total: Its items; None if that is not known, and only what its loops declare is.
        item: What it works on.
        started: When it was handed to a worker.
        moved: When it was first seen to have counted what it has; ``started`` before it has counted anything.
        heard: When its worker was last heard of; ``started`` before the first report.
        first_count: Seconds from ``started`` until it was first seen to have counted anything; None before.
        counts: What it has counted so far.
        reading: The number of the report with that; 0 before the first.
        location: Where it runs; None before that is known.
        stack: Where its code is, if its worker has looked; else empty.
        number: What the task is called by, if not by its own number.
        stands: Whether it was found to stand, by :class:`~.stalls.Stalls`.
        position: The place of the task in its chunk, from 0.
        handed_over: When its chunk was handed to the worker.
    """

    task: Task
    attempt: int
    total: int | None = None
    item: object = None
    started: float = 0.0
    moved: float = 0.0
    heard: float = 0.0
    first_count: float | None = None
    counts: Mapping[Key, Count] = field(default_factory=dict)
    reading: int = 0
    location: Location | None = None
    stack: str = ""
    number: int | None = None
    stands: bool = False
    position: int = 0
    handed_over: float = 0.0
    _item_in_short: str | None = None

    def move_to(self, position: int, total: int | None, item: object, now: float) -> None:
        """Note that its worker works on another task of the chunk."""
        self.position, self.total, self.item = position, total, item
        self.started = self.moved = now
        self.first_count, self.counts, self._item_in_short = None, {}, None

    def read(self, report: Report, now: float) -> None:
        """Take in the last report of the attempt."""
        if report.reading == self.reading:
            return
        if report.counts != self.counts:
            self.moved = now
            if self.first_count is None and has_counted(report.counts):
                self.first_count = now - self.started
        self.heard, self.reading, self.counts = now, report.reading, report.counts
        self.location, self.stack = report.location or self.location, report.stack

    @property
    def name(self) -> Task:
        """What the task is called by."""
        if self.number is not None:
            return self.number
        return self.task + self.position if isinstance(self.task, int) else self.task

    @property
    def done(self) -> int:
        """Items that it has finished: those of no named stage, or else those through all its stages."""
        done = self.counts.get(RUN_ITEMS, 0) + self.counts.get(_ESTIMATED, 0)
        if not done:
            named = [
                n for key, n in self.counts.items() if key.metric is Metric.ITEMS and key.stage is not None
            ]
            done = min(named, default=0)
        return int(done)

    @property
    def known_total(self) -> int | None:
        """Its items, or as many as its loops declare; None if neither is known."""
        if self.total is not None:
            return self.total
        declared = self.counts.get(_TOTAL)
        return None if declared is None else int(declared)

    @property
    def item_in_short(self) -> str:
        """Its item as text."""
        if self._item_in_short is None:
            self._item_in_short = shorten(self.item, ITEM_COLUMNS)
        return self._item_in_short

    def seconds_left(self, now: float) -> float:
        """Return how long it is expected to take from now on.

        As long for an item as up to now or, if it has counted nothing, as long as it has taken already.
        """
        elapsed, done, total = now - self.started, self.done, self.known_total
        return elapsed * (total - done) / done if done and total is not None else elapsed

    def snapshot(self, now: float) -> TaskSnapshot:
        """Return a frozen reading."""
        node, pid, _ = self.location or Location("", 0)
        return TaskSnapshot(
            int(self.name),
            self.item_in_short,
            self.attempt,
            self.done,
            self.known_total,
            since=max(0.0, now - self.moved),
            node=node,
            pid=pid or None,
            stack=self.stack,
            elapsed=max(0.0, now - self.started),
            unheard=max(0.0, now - self.heard),
        )


class RunningTasks:
    """The tasks of a run that were handed to a worker, and have not ended.

    Args:
        numbers: What each task is called by, if not by its own number: a run that was interrupted has shards
            3 and 7 left, which are its tasks 0 and 1.

    Example:
        >>> from speedy_utils._state.ledger import RUN_ITEMS, Report
        >>> tasks = RunningTasks()
        >>> tasks.start(7, attempt=1, total=100, item="c.json", now=10.0)
        >>> tasks.read([Report(7, 1, {RUN_ITEMS: 20}, reading=1)], now=12.0)
        >>> (slow,) = tasks.slowest(now=15.0)
        >>> slow.index, slow.item, slow.done, slow.since
        (7, "'c.json'", 20, 3.0)
    """

    def __init__(self, numbers: Sequence[int] = ()) -> None:
        self._numbers = numbers
        self._tasks: dict[Task, RunningTask] = {}
        self._chunks: dict[Task, tuple[Sequence[object], Sequence[int | None] | None]] = {}

    def __iter__(self) -> Iterator[RunningTask]:
        return iter(self._tasks.values())

    def get(self, task: Task) -> RunningTask | None:
        """Return what is known of a task; None if it does not run."""
        return self._tasks.get(task)

    def start(self, task: Task, attempt: int, total: int | None, item: object, now: float) -> None:
        """Note that an attempt at a task was handed to a worker."""
        self._tasks[task] = RunningTask(
            *(task, attempt, total, item), started=now, moved=now, heard=now, handed_over=now
        )
        self._tasks[task].number = self._number(task, 0)

    def start_chunk(
        self,
        first: int,
        attempt: int,
        totals: Sequence[int | None] | None,
        items: Sequence[object],
        now: float,
    ) -> None:
        """Note that attempts at tasks side by side were handed to a worker, which runs one after another."""
        self.start(first, attempt, None if totals is None else totals[0], items[0], now)
        if len(items) > 1:
            self._chunks[first] = items, totals

    def _number(self, task: Task, position: int) -> int | None:
        return self._numbers[task + position] if self._numbers and isinstance(task, int) else None

    def end(self, task: Task) -> RunningTask | None:
        """Forget a task that has ended, and return what was known of it."""
        self._chunks.pop(task, None)
        return self._tasks.pop(task, None)

    def read(self, reports: Iterable[Report], now: float) -> None:
        """Take in the last report of each task.

        Args:
            reports: The reports, old ones too.
            now: The time.
        """
        for report in reports:
            known = self._tasks.get(report.task)
            if known is None and not report.reading:
                continue  # it is to start again later
            if known is None or known.attempt != report.attempt:
                self.start(report.task, report.attempt, None, None, now)
                known = self._tasks[report.task]
            if report.position != known.position and (chunk := self._chunks.get(report.task)):
                items, totals = chunk
                if 0 <= report.position < (report.kept or len(items)):
                    total = None if totals is None else totals[report.position]
                    known.move_to(report.position, total, items[report.position], now)
                    known.number = self._number(report.task, report.position)
            known.read(report, now)

    def workers_at_work(self, workers: int, now: float) -> int | None:
        """Return how many workers work, if fewer than asked for do, and tasks wait for the others; else None.

        Args:
            workers: How many were asked for.
            now: The time.
        """
        late = max(LATE_S, LATE_S_PER_WORKER * workers)
        if len(self._tasks) > workers:  # some wait for others to end
            return None
        if not any(not each.reading and now - each.started > late for each in self):
            return None
        working = sum(_STARTED in each.counts for each in self)
        return working if 0 < working < workers else None

    @staticmethod
    def snapshots(tasks: Iterable[RunningTask], now: float) -> tuple[TaskSnapshot, ...]:
        """Return frozen readings of some tasks."""
        return tuple(each.snapshot(now) for each in tasks if isinstance(each.task, int))

    def slowest(self, now: float) -> tuple[TaskSnapshot, ...]:
        """Return readings of the tasks that will take longest, as far as is known, the slowest first."""
        long = [each for each in self if now - each.started >= MIN_SECONDS]
        return self.snapshots(heapq.nlargest(MAX_SLOWEST, long, key=lambda each: each.seconds_left(now)), now)


def format_tasks(unit: str, numbers: Sequence[Task]) -> str:
    """Return the names of tasks: ``"shard 7"``, ``"tasks 0, 1 and 2"``, or ``"64 tasks"`` if there are many.

    Args:
        unit: What they are called, in the plural.
        numbers: Their numbers.
    """
    if len(numbers) > MAX_NAMED:
        return f"{len(numbers):,} {unit}"
    *names, last = map(str, numbers)
    return (
        f"{unit if names else unit.removesuffix('s')} {' and '.join(filter(None, [', '.join(names), last]))}"
    )


def format_duration(seconds: float) -> str:
    """Return a time in one unit: ``"12 s"``, ``"12 min"``, ``"3 h"``.

    Example:
        >>> [format_duration(seconds) for seconds in (59.9, 60.0, 7_199.0, 7_200.0)]
        ['59 s', '1 min', '119 min', '2 h']
    """
    minutes = int(seconds // 60)
    return f"{int(seconds)} s" if not minutes else f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
