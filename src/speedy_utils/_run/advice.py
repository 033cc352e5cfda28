"""What a run warns of if the counts of a task don't say how far it is, and what to do about it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from .._state.ledger import RUN_ITEMS, Count, Key, Metric, Task
from .._state.stages import Excess

logger = logging.getLogger("speedy_utils")

SMALL_PART = 0.5
"""A task that reported less of its items than this is worth a word: batches of two are half of them."""


class CountingAdvice:
    """Warns once in a run of each thing. Any thread may call it.

    Args:
        unit: What the run counts.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        # Each is taken once, by the thread that warns.
        self._of_another_loop, self._of_small_part = threading.Lock(), threading.Lock()

    @property
    def has_warned_of_another_loop(self) -> bool:
        """Whether a task went on with a loop that could not be counted any more."""
        return self._of_another_loop.locked()

    def look_at(self, task: Task | None, counts: Mapping[Key, Count]) -> None:
        """Look at what a task reports: has it begun another loop than those that are counted?"""
        text = next((key.label for key in counts if key.metric is Metric.ANOTHER_LOOP), None)
        if text is not None and self._of_another_loop.acquire(blocking=False):
            from .._display.format import format_task  # needs tqdm

            logger.warning(
                "%s %s: an item counts once. Name the passes, and each has a line of its own: "
                'track(rows, desc="Pass 2") or tqdm(rows, desc="Pass 2")',
                format_task(task),
                text,
            )

    def task_succeeded(self, task: Task | None, counts: Mapping[Key, Count], total: int | None) -> None:
        """Look at what a task reported that succeeded: was it a small part of its items?

        Nothing is said of a task that has left its loop, or that counted rows: it meant to count no more.

        Args:
            task: The task; None for all tasks together.
            counts: What it reported.
            total: Its items; None if that is not known.
        """
        self.look_at(task, counts)
        if total is None or counts.get(Key(None, Metric.ONLY_A_PART)):
            return
        reported = int(counts.get(RUN_ITEMS, 0) + counts.get(Key(None, Metric.ESTIMATED), 0))
        if not reported or reported >= SMALL_PART * total:
            return
        if any(count for key, count in counts.items() if key.metric is Metric.ITEMS and key.stage):
            return
        if self._of_small_part.acquire(blocking=False):
            from .._display.format import format_excess  # needs tqdm

            logger.warning(
                "%s and returned: all of them count now. "
                "If a loop goes over batches, say how many each stands for: track(batches, size=len)",
                format_excess(Excess(task, reported, total, self._unit)),
            )


def warn_of_left_out(text: str) -> None:
    """Log a warning of what can't be counted.

    Args:
        text: What and where: the label of a :attr:`~.ledger.Metric.LEFT_OUT`.
    """
    logger.warning("%s: it is left out, and the work goes on; this warning comes only once", text)
