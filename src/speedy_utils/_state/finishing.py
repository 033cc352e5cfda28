"""Tasks that have counted all their items and have not returned: they save, or send, what they made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .ledger import RUN_ITEMS, Count, Key, Metric, Task
from .lines.sums import sums_by_stage
from .running import MAX_NAMED, RunningTask, format_duration, format_tasks

PAUSE_S = 1.0
"""Seconds for which no task must have had anything to count before that is said in the middle of a run, or if
it is only known of stages: the pause between two short tasks, or two stages, is not worth a word."""

LONG_S = 60.0
"""Seconds after which tasks are named, and for how long they have had nothing to count."""

_STARTED, _TOTAL = Key(None, Metric.TASKS_STARTED), Key(None, Metric.TOTAL)
_ESTIMATED = Key(None, Metric.ESTIMATED)


def has_counted_all(counts: Mapping[Key, Count], total: int | None) -> bool:
    """Return whether a running task has counted all the items that are known of.

    Args:
        counts: What it has counted so far.
        total: Its items; None if that is not known, and only what its loops declare is.
    """
    done = _items_done(counts)
    if total is not None and 0 < done < total:
        return False  # most tasks, most of the time
    declared = counts.get(_TOTAL, 0)
    if total is None and (done < declared or not (declared or any(key.stage for key in counts))):
        return False  # most of those that don't know how many they have
    own, *named = sums_by_stage(counts).values()
    if not own.tasks_started:
        return False
    if any(stage.tasks_without_total or stage.items < stage.total for stage in named):
        return False
    if any(key.metric is Metric.ANOTHER_LOOP for key in counts):
        return False  # nothing tells when that ends
    if total is None:
        return done >= own.total and bool(own.total or named)
    return done >= total or any(not stage.tasks_with_own_total for stage in named)


def _items_done(counts: Mapping[Key, Count]) -> Count:
    """Return how many of its items a running task has finished in no named stage."""
    estimated = counts.get(_ESTIMATED, 0)
    return counts.get(RUN_ITEMS, 0) + (estimated + 1 if estimated else 0)  # it never says the last item


class FinishingTasks:
    """The running tasks that have nothing left to count, and since when.

    Args:
        verb: What such a task does: ``"saving"``.
        unit: What a task is called: ``"shards"``.
        tasks: How many the run has; 0 for none.

    Attributes:
        all_counted: Whether nothing is left to count in the whole run.

    Example:
        >>> from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric
        >>> counts = {Key(None, Metric.TASKS_STARTED): 1, RUN_ITEMS: 100}
        >>> finishing = FinishingTasks("saving", "shards", tasks=64)
        >>> finishing.read([RunningTask(4, 1, total=100, counts=counts)], tasks_left=1, now=10.0)
        >>> finishing.phase(now=10.0), finishing.phase(now=370.0)
        ('saving 1 of 64 shards', 'saving shard 4, 6 min')
    """

    def __init__(self, verb: str, unit: str, *, tasks: int) -> None:
        self._verb, self._unit, self._tasks = verb, unit, tasks
        self._since: dict[tuple[Task, int], float] = {}  # by name and attempt
        self._paused_since: float | None = None  # since when no task that has started has anything to count
        self.all_counted = False

    def read(self, running: Sequence[RunningTask], *, tasks_left: int, now: float) -> None:
        """Look at the running tasks.

        Args:
            running: The tasks.
            tasks_left: How many tasks have not ended, those among them that have not started.
            now: The time.
        """
        self._since = {
            (each.name, each.attempt): self._since.get((each.name, each.attempt), now)
            for each in running
            if has_counted_all(each.counts, each.total)
        }
        started = sum(_STARTED in each.counts for each in running)
        if not started or len(self._since) < started:
            self._paused_since = None
        elif self._paused_since is None:
            self._paused_since = now
        self.all_counted = bool(running) and len(self._since) == max(len(running), tasks_left)
        if self.all_counted and not self._has_paused(now):
            # Another stage may follow, or a loop in a task that does not know its items.
            known = ((each.total, _items_done(each.counts)) for each in running)
            self.all_counted = all(total is not None and done >= total for total, done in known)

    def _has_paused(self, now: float) -> bool:
        return self._paused_since is not None and now - self._paused_since >= PAUSE_S

    def phase(self, now: float) -> str:
        """Return what the running tasks do, ``"saving 63 of 64 shards"``; nothing if one of them counts.

        Args:
            now: The time.
        """
        if self._paused_since is None or not (self.all_counted or self._has_paused(now)):
            return ""
        ages = [now - since for since in self._since.values()]
        many, long = len(ages) > MAX_NAMED, f", {format_duration(max(ages))}" if max(ages) >= LONG_S else ""
        if not self._tasks:
            return f"{self._verb}{long}"
        if many or not long:
            of = f" of {self._tasks:,}" * (self._unit != "tasks")
            unit = self._unit if of or len(ages) > 1 else self._unit.removesuffix("s")
            return f"{self._verb} {len(ages):,}{of} {unit}{long}"
        return f"{self._verb} {format_tasks(self._unit, [name for name, _ in self._since])}{long}"
