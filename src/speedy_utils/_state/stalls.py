"""Which running tasks stand still: decided by what the driver knows, whatever shows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from statistics import median

from .finishing import has_counted_all
from .ledger import ENDED
from .running import RunningTask, format_duration, format_tasks, has_counted

SILENT_AFTER_S = 6.0
"""Seconds without a report after which a worker is silent: it sends one every two seconds."""

FIRST_REPORT_S = 15.0
"""Seconds in which a worker must have sent its first report: it may have to be started."""

STACK_TIMEOUT_S = 6.0
"""Seconds to wait for the stack of a task that stands: its worker sends it with the next report."""

MEDIANS = 4
"""A task that has counted nothing does not stand before it takes this many times as long as others."""

MAX_KEPT = 1_000
"""How many of the tasks that have ended are remembered: the last ones."""

MAX_LISTED = 10
"""How many tasks one message lists."""


class Stalls:
    """The running tasks that stand: they have counted nothing for long.

    A task that has counted before stands if it counts nothing for ``after`` seconds. One that has counted
    nothing yet may just be long: it does not stand before it takes four times as long as others took, until
    they ended or, if its items are known, until they counted for the first time. If no other has ended or
    counted, nothing is known. A task whose worker sends no reports stands in any case.

    Args:
        after: Seconds; None for never.
        task_unit: What the tasks are called.
        unit: What they count.

    Attributes:
        tasks: The tasks that stand.

    Example:
        >>> from speedy_utils._state.ledger import RUN_ITEMS, Location
        >>> place, stack = Location("gpu-3", 47, "1f2e"), 'File "/home/me/job.py", line 7, in work'
        >>> task = RunningTask(7, 1, 100, "c.json", counts={RUN_ITEMS: 20}, location=place, stack=stack)
        >>> task.heard = 299.0
        >>> stalls = Stalls(300.0, "tasks")
        >>> print(*stalls.read([task], now=300.0))
        task 7 has counted nothing for 5 min: item 'c.json', attempt 1, 20 of 100 items, on gpu-3, process 47
        It is here:
          File "/home/me/job.py", line 7, in work
        >>> stalls.phase(now=300.0)
        'waiting for task 7 on gpu-3, 5 min'
    """

    def __init__(self, after: float | None, task_unit: str, unit: str = "items") -> None:
        self._after, self._task_unit, self._unit = after, task_unit, unit
        self._durations: deque[float] = deque(maxlen=MAX_KEPT)
        self._first_counts: deque[float] = deque(
            maxlen=MAX_KEPT
        )  # seconds until tasks first counted, or ended
        self._some_counted = False
        self._said: dict[RunningTask, float] = {}  # what was logged to stand, and since when it does
        self._uncounted: Sequence[RunningTask] = ()  # all that run, if nothing is known of any
        self._said_uncounted = False
        self.tasks: list[RunningTask] = []

    def succeeded(self, task: RunningTask, now: float, *, tasks: int = 1, counted: bool) -> list[str]:
        """Note that a task succeeded, and return what to log of it: something if it was said to stand.

        Args:
            task: The task.
            now: The time.
            tasks: How many tasks of its chunk have ended by now: their mean stands for each of them.
            counted: Whether it has counted anything, or one of these has.
        """
        duration = now - task.started if tasks == 1 else (now - task.handed_over) / tasks
        self._durations.append(duration)
        first_count = None if tasks > 1 else task.first_count
        self._first_counts.append(duration if first_count is None else first_count)
        self._some_counted = self._some_counted or counted
        since = self._said.pop(task, None)
        return [] if since is None else [f"{self._names(task)} has ended, {_stood(now - since)}"]

    def read(self, running: Sequence[RunningTask], now: float) -> list[str]:
        """Look at the running tasks, and return what to log.

        Args:
            running: The tasks.
            now: The time.
        """
        after = self._after
        if after is None:
            return []
        self._some_counted = self._some_counted or any(each.first_count is not None for each in running)
        idle = [each for each in running if now - each.moved >= after and ENDED not in each.counts]
        for each in self.tasks:
            each.stands = False
        self.tasks = [each for each in idle if self._stands(each, now)]
        for each in self.tasks:
            each.stands = True
        known = self.tasks or self._some_counted or self._durations or not idle
        self._uncounted = () if known else running
        return [*self._gone_on({*running}), *self._standing(now), *self._nothing_known(now)]

    def phase(self, now: float) -> str:
        """Return what the run waits for, ``"waiting for task 7 on gpu-3, 12 min"``, if anything stands."""
        if not self.tasks:
            return f"no counts yet from {self._names(*self._uncounted)}" if self._uncounted else ""
        nodes = {each.location.node for each in self.tasks if each.location and each.location.node_id}
        node = f" on {nodes.pop()}" if len(nodes) == 1 else ""
        silent = " silent for" * all(self.is_silent(each, now) for each in self.tasks)
        longest = format_duration(max(now - each.moved for each in self.tasks))
        return f"waiting for {self._names(*self.tasks)}{node},{silent} {longest}"

    def is_silent(self, task: RunningTask, now: float) -> bool:
        """Return whether reports of a task's worker should have come, and have not."""
        least = SILENT_AFTER_S if task.reading else FIRST_REPORT_S
        return now - task.heard >= max(least, self._after or 0.0)

    def _stands(self, task: RunningTask, now: float) -> bool:
        if self.is_silent(task, now) or has_counted(task.counts):
            return True
        if not task.reading:
            return False  # its worker may have to be started
        if others := self._durations if task.total is None else self._first_counts:
            return now - task.started >= MEDIANS * median(others)
        return self._some_counted

    def _gone_on(self, running: set[RunningTask]) -> Iterator[str]:
        """Yield what to log of tasks that were said to stand and go on; nothing of those that were lost."""
        for task, since in list(self._said.items()):
            if task not in running:
                del self._said[task]
            elif task.moved != since:
                del self._said[task]
                yield f"{self._names(task)} goes on, {_stood(task.moved - since)}"

    def _standing(self, now: float) -> Iterator[str]:
        """Yield what to log of tasks that newly stand: of all with the same stack in one message."""
        alike: dict[tuple[str, str], list[RunningTask]] = {}
        for task in self.tasks:
            silent = self.is_silent(task, now)
            waited = task.reading and now - task.moved >= (self._after or 0.0) + STACK_TIMEOUT_S
            if task in self._said or not (task.stack or silent or waited):
                continue
            self._said[task] = task.moved
            if silent:
                alike.setdefault((_SILENT, ""), []).append(task)
            else:
                saves = has_counted_all(task.counts, task.total)
                alike.setdefault((_SAVES if saves else _STANDS, task.stack), []).append(task)
        for (text, stack), tasks in alike.items():
            many = len(tasks) > 1
            longest = format_duration(max(now - each.moved for each in tasks))
            what = text.format(have="have" if many else "has", are="are" if many else "is", time=longest)
            yield f"{self._names(*tasks)} {what}:{self._list(tasks)}{_here(stack, many=many)}"

    def _nothing_known(self, now: float) -> Iterator[str]:
        """Yield, once, that no task has counted or ended, and where one of them is."""
        first = min(self._uncounted, key=lambda each: each.moved, default=None)
        if first is None or self._said_uncounted:
            return
        if first.stack or now - first.moved >= (self._after or 0.0) + STACK_TIMEOUT_S:
            self._said_uncounted = True
            yield (
                f"{self.phase(now)} in {format_duration(now - first.started)}, and none has ended: whether "
                f"they move is not known. The one that runs for longest is {self._names(first)}:"
                f"{self._list([first])}{_here(first.stack)}"
            )

    def _names(self, *tasks: RunningTask) -> str:
        return format_tasks(self._task_unit, [each.name for each in tasks])

    def _list(self, tasks: Sequence[RunningTask]) -> str:
        if len(tasks) == 1:
            return f" {self._describe(tasks[0])}"
        lines = [f"\n  {self._names(each)}: {self._describe(each)}" for each in tasks[:MAX_LISTED]]
        return "".join([*lines, *[f"\n  and {len(tasks) - MAX_LISTED:,} more"] * (len(tasks) > MAX_LISTED)])

    def _describe(self, task: RunningTask) -> str:
        """Return ``"item 'c.json', attempt 1, 20 of 100 items, on gpu-3, process 4711"``."""
        total = task.known_total
        done = f"{task.done:,} {self._unit}" if total is None else f"{task.done:,} of {total:,} {self._unit}"
        place = "on a worker that has sent nothing"
        if task.location is not None:
            place = f"on {task.location.node}, process {task.location.pid}"
        if isinstance(task.task, str) and task.item is None:  # a process, which works on many
            return f"{done}, {place}"
        item = task.item_in_short
        if not item.startswith(self._names(task)):  # a shard says which it is
            item = f"item {item}"
        return f"{item}, attempt {task.attempt}, {done}, {place}"


_STANDS = "{have} counted nothing for {time}"
_SAVES = "{have} counted all, and not returned for {time}"
_SILENT = "{are} silent for {time} (stopped, gone, or in a call that holds the interpreter)"


def _stood(seconds: float) -> str:
    return f"after it stood for {format_duration(seconds)}"


def _here(stack: str, *, many: bool = False) -> str:
    lines = "".join(f"\n  {line}" for line in stack.splitlines())
    return f"\n{'They are' if many else 'It is'} here:{lines}" if lines else ""
