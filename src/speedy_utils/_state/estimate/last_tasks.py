"""Which task a run waits for while its last tasks run and other workers have nothing left to do."""

from __future__ import annotations

from collections.abc import Sequence

from ..snapshot import TaskSnapshot

PAUSE_S = 3.0
"""Seconds for which at least half of the workers must have been idle before a task is named: the end of a run
of even tasks is not worth a word."""


class LastTasks:
    """Whether only the last tasks of a run are left, and since when.

    Args:
        tasks: How many tasks the run has.
        workers: How many of them run at once.

    Example:
        >>> last = LastTasks(tasks=8, workers=8)
        >>> slow = TaskSnapshot(4, "shard 4 (rows 2,000-2,499)", attempt=1, done=155, total=500)
        >>> last.waits_for([slow], tasks_left=1, now=60.0)
        >>> last.waits_for([slow], tasks_left=1, now=63.0).index
        4
    """

    def __init__(self, tasks: int, workers: int) -> None:
        self._tasks, self._workers = tasks, workers
        self._since: float | None = None

    def waits_for(
        self, slowest: Sequence[TaskSnapshot], *, tasks_left: int, now: float
    ) -> TaskSnapshot | None:
        """Return the task that the run waits for; None while most workers have something to do.

        Args:
            slowest: The tasks that will take longest, the slowest first.
            tasks_left: How many tasks have not ended.
            now: The time.
        """
        if not 0 < tasks_left <= min(self._workers / 2, self._tasks - 1):
            self._since = None
        elif self._since is None:
            self._since = now
        waits = self._since is not None and now - self._since >= PAUSE_S
        return slowest[0] if waits and slowest else None
