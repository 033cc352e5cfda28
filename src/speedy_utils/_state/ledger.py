"""The merged state of all counts: pure, with no clock, no thread and no engine.

The state of a task is ``(committed, attempt, reading, counts)``, and merging takes the larger one:
committed beats running, a later attempt beats an earlier one, and within one attempt the later reading
replaces all counts of the earlier one. So counts may go down too: a task may take back what it has counted.
That is a join (commutative, associative, idempotent), as no two readings of an attempt have the same
number. It makes the ledger a state-based CRDT: reports may be lost, repeated, late or reordered, and it
still ends in the same state.
Source: Shapiro, Preguiça, Baquero, Zawirski, "Conflict-free Replicated Data Types", SSS 2011.

A task is committed once, by the driver, with the counts that came with its outcome. Nothing can change
a committed task, so its entry is folded into a sum: a ledger holds as many entries as tasks are running.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from math import inf
from typing import NamedTuple

Task = int | str
"""The number of a task of a run; or a name, if user code drives Ray itself."""


Stage = str | None
"""A named phase of the work; None is the run's own stage."""


class Metric(IntEnum):
    """What a count is of. Integers: they pickle to three bytes, and hash in C."""

    ITEMS = 0
    """Items finished."""

    TOTAL = 1
    """Items in all, summed over the tasks that know how many they have."""

    COUNTER = 2
    """What ``report_progress(tokens=512)`` adds to a counter; the label is its name."""

    UNIT = 3
    """Tasks that count in a unit of the stage's own; the label is the unit."""

    TASKS_STARTED = 4
    """Tasks that have come to the stage and have not ended."""

    TASKS_WITH_OWN_TOTAL = 5
    """Tasks that have another number of items in this stage than in all."""

    TASKS_WITHOUT_TOTAL = 6
    """Tasks that don't know how many items they have in this stage."""

    LEFT_OUT = 7
    """Tasks that reported what can't be counted, such as NaN; the label says what, and in which line."""

    ESTIMATED = 8
    """Items that running tasks are taken to have finished beyond those that they counted."""

    ANOTHER_LOOP = 9
    """Tasks that began a loop when all their items were counted; the label says so, and in which line."""

    ONLY_A_PART = 10
    """Tasks that left a loop early, or went through rows: the few items that they counted are no batches."""

    LEFT_NOTHING = 11
    """Tasks that counted here by bars alone which have ended, and were made with ``leave=False``."""

    POSTFIX = 12
    """Tasks whose newest bar of the stage has a postfix; the label is its text: ``loss=0.31``."""

    TASKS_ENDED = 13
    """Tasks that have ended in their workers, and whose outcomes should have come."""

    TASKS_FINISHED = 14
    """Tasks of a chunk that have succeeded before the one that runs; the outcome of the chunk is to come."""


class Key(NamedTuple):
    """What a ledger adds up: one metric of one stage.

    A ledger treats all keys alike. A task of 1,000 items that has tokenized 60 of them reports::

        {
            Key(None, Metric.TASKS_STARTED): 1,
            Key(None, Metric.ITEMS): 0,
            Key("Tokenize", Metric.ITEMS): 60,
            Key("Tokenize", Metric.TASKS_STARTED): 1,
            Key("Tokenize", Metric.TOTAL): 1000,
            Key("Tokenize", Metric.COUNTER, "tokens"): 51_200,
        }

    Attributes:
        stage: The stage; None for the run's own.
        metric: What is counted there.
        label: The name of a counter or of a unit; empty for the other metrics.
    """

    stage: Stage
    metric: Metric
    label: str = ""


RUN_ITEMS = Key(None, Metric.ITEMS)
"""Items of the run's own stage."""


ENDED = Key(None, Metric.TASKS_ENDED)
"""A task has ended in its worker; see :meth:`~speedy_utils._worker.flusher.Flusher.note_end`."""


OF_RUNNING_TASKS = (
    Metric.TASKS_STARTED,
    Metric.ESTIMATED,
    Metric.POSTFIX,
    Metric.TASKS_ENDED,
    Metric.TASKS_FINISHED,
)
"""What a task that has ended does not count for any more."""


FINISHED = Key(None, Metric.TASKS_FINISHED)
"""How many tasks of a chunk have succeeded before the one that runs."""


Count = int | float
"""An amount. Items are whole numbers; counters need not be."""


class Location(NamedTuple):
    """The process in which a task runs.

    Attributes:
        node: The name of its machine.
        pid: The number of the process there.
        node_id: What Ray calls the node; empty without Ray.
    """

    node: str
    pid: int
    node_id: str = ""


class Report(NamedTuple):
    """What one attempt at a task has counted so far: a state, never a difference.

    Tasks that travel as a chunk have one report, under the number of the first.

    Attributes:
        task: The task, or the first of a chunk.
        attempt: The number of the attempt, from 1.
        counts: All that it has counted.
        reading: The number of this reading of its counts, from 1, in the order in which they were read;
            0 before the first. A later one with the same counts says that its worker is there.
        location: Where the attempt runs; None if that is not known.
        stack: Where the code of the task is, if it has not moved for a while; else empty.
        position: The place in its chunk of the task that runs, from 0: ``counts`` are of that task.
        before: What the tasks before it count for; None if they count for nothing, or there are none.
        kept: How many tasks of its chunk the attempt keeps, if it has handed back the others; else 0.
    """

    task: Task
    attempt: int
    counts: Mapping[Key, Count]
    reading: int = 0
    location: Location | None = None
    stack: str = ""
    position: int = 0
    before: Mapping[Key, Count] | None = None
    kept: int = 0

    def all_counts(self) -> Mapping[Key, Count]:
        """Return what the whole chunk has counted so far."""
        return added(self.counts, self.before) if self.before else self.counts

    def reported_counts(self) -> Mapping[Key, Count]:
        """Return the same without items of no stage of finished tasks: their totals may be among these."""
        return {**self.all_counts(), RUN_ITEMS: self.counts.get(RUN_ITEMS, 0)} if self.before else self.counts


def added(counts: Mapping[Key, Count], more: Mapping[Key, Count]) -> dict[Key, Count]:
    """Return the sums of two counts."""
    return {**counts, **{key: counts.get(key, 0) + amount for key, amount in more.items()}}


@dataclass(slots=True)
class _Live:
    report: Report
    version: int


class _TaskSet:
    """A set of tasks: small if their numbers stand side by side, whatever the order in which they came."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._starts: list[int] = []  # of ranges that neither touch nor overlap, in order
        self._stops: list[int] = []

    def __contains__(self, task: Task) -> bool:
        if isinstance(task, str):
            return task in self._names
        at = bisect_right(self._starts, task) - 1
        return at >= 0 and task < self._stops[at]

    def add(self, task: Task, count: int = 1) -> None:
        """Add a task, or as many as ``count`` from a number on."""
        if isinstance(task, str):
            self._names.add(task)
            return
        start, stop = task, task + count
        first = bisect_left(self._stops, start)
        after = bisect_right(self._starts, stop)
        if first < after:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[after - 1])
        self._starts[first:after], self._stops[first:after] = [start], [stop]


class Ledger:
    """All counts of a run, by task and stage.

    Example:
        >>> ledger = Ledger()
        >>> ledger.merge([Report(task=0, attempt=1, counts={RUN_ITEMS: 50}, reading=1)])
        >>> ledger.merge([Report(task=0, attempt=2, counts={RUN_ITEMS: 10}, reading=1)])  # it was run again
        >>> ledger.merge([Report(task=0, attempt=1, counts={RUN_ITEMS: 60}, reading=2)])  # late: no change
        >>> ledger.merge([Report(task=0, attempt=2, counts={RUN_ITEMS: 25}, reading=2)])
        >>> ledger.sums[RUN_ITEMS]
        25
        >>> ledger.commit(0, {RUN_ITEMS: 100})
        >>> ledger.sums[RUN_ITEMS]
        100
    """

    def __init__(self) -> None:
        self._live: dict[Task, _Live] = {}  # in order of their last change, the newest last
        self._committed = _TaskSet()
        self._version = 0
        self._sums: dict[Key, int | Fraction] = {}

    @property
    def sums(self) -> dict[Key, Count]:
        """The counts by key, over all tasks, in the order in which the keys first appeared."""
        return {key: _plain(total) for key, total in self._sums.items()}

    @property
    def version(self) -> int:
        """A number that grows with each change; see :meth:`changes`."""
        return self._version

    def merge(self, reports: Iterable[Report]) -> None:
        """Take in reports, in any order and any number of times.

        Args:
            reports: What attempts have counted so far.
        """
        for report in reports:
            task = report.task
            if task in self._committed:
                continue
            live = self._live.get(task)
            if live is not None and order_of(report) <= order_of(live.report):
                continue
            self._replace({} if live is None else live.report.all_counts(), report.all_counts())
            self._version += 1
            self._live.pop(task, None)  # so that the newest change is the last
            # Faster than _replace().
            copy = Report(
                *(task, report.attempt, dict(report.counts), report.reading, report.location, report.stack),
                *(report.position, report.before and dict(report.before), report.kept),
            )
            self._live[task] = _Live(copy, self._version)

    def commit(self, task: Task, counts: Mapping[Key, Count]) -> None:
        """Close a task with its final counts; later reports and commits of it change nothing.

        Args:
            task: The task.
            counts: Its exact counts.
        """
        if task in self._committed:
            return
        live = self._live.pop(task, None)
        self._replace({} if live is None else live.report.all_counts(), counts)
        self._committed.add(task)
        self._version += 1

    def commit_all(self, first: int, count: int, counts: Mapping[Key, Count]) -> None:
        """Close tasks side by side, none of which is closed or has a report here.

        Args:
            first: The first of them.
            count: How many they are.
            counts: What they count for together.
        """
        self._replace({}, counts)
        self._committed.add(first, count)
        self._version += 1

    def drop(self, task: Task, next_attempt: int = 0) -> Report | None:
        """Take back what the running attempt at a task, or at a chunk, has counted; return its last report.

        Args:
            task: The task, or the first of the chunk.
            next_attempt: The number of the next attempt at it: reports of an earlier one change nothing any
                more. 0 if there won't be one.
        """
        live = self._live.pop(task, None)
        if live is not None:
            self._replace(live.report.all_counts(), {})
        if next_attempt:
            self.merge([Report(task, next_attempt, {})])
        return None if live is None else live.report

    def close(self, task: Task) -> None:
        """Drop the counts of a task that another ledger has committed, so that this one stays small.

        Late reports of it change nothing: a worker's last one may still be on its way when the driver has
        committed the task, and would stay here forever.
        """
        self.commit(task, {})

    def last(self, task: Task) -> dict[Key, Count]:
        """Return the last known counts of a task that is not committed; empty if there are none."""
        live = self._live.get(task)
        return dict(live.report.all_counts()) if live else {}

    def running(self) -> Iterator[Report]:
        """Return the last report of each task that is not committed, to be read at once."""
        return (live.report for live in self._live.values())

    def changes(self, since: int = 0) -> list[Report]:
        """Return the tasks that changed after a version, as reports for another ledger.

        Args:
            since: A :attr:`version` read earlier; 0 for all.

        Returns:
            One report for each changed task. Takes time in proportion to these, not to all tasks.
        """
        changed: list[Report] = []
        for task in reversed(self._live):
            live = self._live[task]
            if live.version <= since:
                break
            changed.append(live.report)
        changed.reverse()  # stages keep the order in which they appeared
        return changed

    def _replace(self, before: Mapping[Key, Count], after: Mapping[Key, Count]) -> None:
        for key, done in before.items():
            if key not in after:
                self._move(key, done, 0)
        for key, done in after.items():
            self._move(key, before.get(key, 0), done)

    def _move(self, key: Key, before: Count, after: Count) -> None:
        total = self._sums.get(key, 0)
        if isinstance(before, int) and isinstance(after, int):
            self._sums[key] = total + after - before
        else:
            # Floats are added as exact fractions: what is taken back then leaves no rounding error.
            self._sums[key] = total + Fraction(after) - Fraction(before)
        if key.metric is Metric.POSTFIX and not self._sums[key]:
            del self._sums[key]  # there would be more and more of them


def order_of(report: Report) -> tuple[int, int]:
    """Return what orders the reports of a task: the largest one counts."""
    return report.attempt, report.reading


def _plain(total: int | Fraction) -> Count:
    if isinstance(total, int):
        return total
    try:
        return float(total)
    except OverflowError:
        return inf
