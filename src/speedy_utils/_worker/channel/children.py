"""What processes count that a task has started: the task counts it as its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..._state.ledger import Count, Key, Metric, Stage, Task
from .folder import RunFolder
from .lock import may_run
from .reader import FolderReader
from .state_file import SUFFIX

if TYPE_CHECKING:
    from ..reporter import Reporter


SETTLED_S = 0.1
"""Seconds that the time of a folder's last change must have been known before a look at it: file systems keep
that time in steps of up to 10 ms."""


class Children:
    """Counts of the processes that the tasks of this process start, one task at a time.

    They find the folder by the environment, and keep there what they count. A task counts what has come
    there since the last look, so a pool that lives longer than one task counts for each in its turn. Their
    bars of tqdm remain bars, and as in the task itself runs don't count.

    Args:
        folder: The folder, which is made; None for one in a place of this machine.
        most_files: How many files there may be before those of processes that have ended are removed.

    Attributes:
        path: The folder: what the environment has to name.

    Raises:
        OSError: It can't be made.
    """

    def __init__(self, folder: Path | None = None, *, most_files: int = 64) -> None:
        settings = {"adopt_tqdm": False, "stack_after": None, "counts_runs": False}
        self._folder = RunFolder(folder, settings)
        self.path = str(self._folder.path)
        self._reader = FolderReader(self._folder.path, self._folder.run)
        self._counts: dict[Task, Mapping[Key, Count]] = {}
        self._pids: dict[Task, int] = {}
        self._least_files = self._most_files = most_files
        self._lock = threading.Lock()
        self._changed_at, self._seen_at, self._settled = 0, 0.0, False
        self._pid = os.getpid()

    @classmethod
    def if_possible(cls, folder: Path | None = None) -> Children | None:
        """Return what counts in a folder; None if it can't be made, so that processes count nothing."""
        with suppress(OSError):
            return cls(folder)
        return None

    def count_for(self, reporter: Reporter) -> None:
        """Add what has come since the last look to what a task has counted. Any thread may call it."""
        with self._lock:
            # Of a file that is there the folder does not tell that a state was added to it.
            if not self._reader.has_files and self._is_unchanged():
                return
            # Before the reading, which has then all that they have counted.
            ended = self._ended() if len(self._counts) > self._most_files else []
            added: dict[Stage, int] = {}
            counters: dict[Stage, dict[str, Count]] = {}
            for report in self._reader.collect()[0]:
                before, self._counts[report.task] = self._counts.get(report.task, {}), report.counts
                self._pids[report.task] = 0 if report.location is None else report.location.pid
                for key, count in report.counts.items():
                    more = count - before.get(key, 0)
                    if key.metric is Metric.ITEMS:
                        added[key.stage] = added.get(key.stage, 0) + int(more)
                    elif key.metric is Metric.COUNTER:
                        of_stage = counters.setdefault(key.stage, {})
                        of_stage[key.label] = of_stage.get(key.label, 0) + more
            for stage in {**added, **counters}:
                reporter.stage(stage).add(added.get(stage, 0), counters.get(stage, {}))
            for task in ended:
                del self._counts[task], self._pids[task]
                name = str(task).rpartition("/")[2]  # the task is the process: node-1/4711-1f2e3d4c
                Path(self.path, f"{name}{SUFFIX}").unlink(missing_ok=True)

    def _is_unchanged(self) -> bool:
        """Return whether the folder has the files of the last look; if not, another look is to follow."""
        now = time.monotonic()
        try:
            changed_at = os.stat(self.path).st_mtime_ns
        except OSError:  # it was removed
            return False
        unchanged = self._settled and changed_at == self._changed_at
        if changed_at != self._changed_at:
            self._changed_at, self._seen_at = changed_at, now
        # What changes after that look then has a later time.
        self._settled = now - self._seen_at >= SETTLED_S
        return unchanged

    def _ended(self) -> list[Task]:
        ended = [task for task, pid in self._pids.items() if not may_run(pid)]
        self._most_files = max(self._least_files, 2 * (len(self._pids) - len(ended)))
        return ended

    def close(self) -> None:
        """Remove the folder. Idempotent, and does nothing in a forked child."""
        if os.getpid() == self._pid:
            self._folder.close()
