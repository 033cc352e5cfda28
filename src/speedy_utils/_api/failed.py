"""Failed tasks of a run that goes on: the first are logged in full, the others are counted."""

from __future__ import annotations

import logging
from collections import Counter

from .._validation import shorten
from ..errors import TaskError

logger = logging.getLogger("speedy_utils")

MAX_LOGGED = 10
"""Failed tasks that are logged one by one."""


class FailedTasks:
    """Logs failed tasks with item and reason, with one traceback a kind, and how many more there were."""

    def __init__(self) -> None:
        self._logged = 0
        self._kinds: set[str] = set()
        self._others: Counter[str] = Counter()

    def add(self, error: TaskError) -> None:
        """Log a failed task, or count it if many have been logged."""
        kind = error.reason.partition(":")[0]
        if self._logged == MAX_LOGGED:
            self._others[kind] += 1
            return
        self._logged += 1
        task = f"task {error.index:,} (item {shorten(error.item, 80)})"
        logger.warning("%s", error.tell(task, traceback=kind not in self._kinds))
        self._kinds.add(kind)

    def close(self) -> None:
        """Log how many more have failed: ``12 more tasks failed: 9 ConnectionError, 3 ValueError``."""
        if self._others:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self._others.most_common())
            total = sum(self._others.values())
            logger.warning("%s more task%s failed: %s", f"{total:,}", "s" if total > 1 else "", kinds)
