"""Ray tasks that do not end at their limit: in a call that does not end, or in a process that is stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..._engines.limits.time_limit import GRACE_S
from ..._engines.task import Chunk, TaskSettings
from ..._state.ledger import Report, Task

KILL_GRACE_S = GRACE_S + 1.0
"""Seconds after the limit of a task in which its worker may end it, and say so, before it is killed."""

UNHEARD_GRACE_S = 2.0
"""Seconds besides, after which it is looked whether a worker that was never heard of is stopped."""


class _UnderWay(NamedTuple):
    chunk: Chunk
    submitted: float
    began: float | None = None  # when it was first heard of
    report: Report | None = None


class OverdueChunks:
    """Knows which chunks have run for longer than the limits of their tasks allow. Any thread may use it.

    Args:
        settings: What holds for all tasks; with a ``task_timeout``.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, settings: TaskSettings, clock: Callable[[], float] = time.monotonic) -> None:
        # When its time is over a chunk ends with the task that runs, and that at its own limit.
        self._limit = (settings.most_seconds or 0.0) + (settings.task_timeout or 0.0) + KILL_GRACE_S
        self._clock = clock
        self._chunks: dict[Task, _UnderWay] = {}
        self._looked_for: set[tuple[Task, int]] = set()

    def start(self, chunk: Chunk) -> None:
        """Note that a chunk is handed to Ray."""
        self._chunks[chunk.task] = _UnderWay(chunk, self._clock())

    def end(self, task: Task) -> bool:
        """Forget a chunk, and return whether its worker was to be killed if it is stopped."""
        under_way = self._chunks.pop(task, None)
        return under_way is not None and (task, under_way.chunk.attempt) in self._looked_for

    def hear(self, reports: Iterable[Report]) -> None:
        """Note what was heard of chunks."""
        for report in reports:
            under_way = self._chunks.get(report.task)
            if under_way is None or report.attempt != under_way.chunk.attempt or not report.reading:
                continue
            began = self._clock() if under_way.began is None else under_way.began
            self._chunks[report.task] = under_way._replace(began=began, report=report)

    def overdue(self) -> list[tuple[Chunk, Report]]:
        """Return the chunks whose tasks run for too long, with what was heard of them last."""
        now = self._clock()
        return [
            (each.chunk, each.report)
            for each in list(self._chunks.values())
            if each.began is not None
            and each.report is not None
            and each.report.position
            < (each.report.kept or len(each.chunk.items))  # else its results are sent
            and now - each.began >= self._limit
        ]

    def unheard(self) -> bool:
        """Return whether there is a chunk, once for each, of which no word came in the time that it has."""
        now, found = self._clock(), False
        for task, each in list(self._chunks.items()):
            name = task, each.chunk.attempt
            late = each.began is None and now - each.submitted >= self._limit + UNHEARD_GRACE_S
            if late and name not in self._looked_for:
                self._looked_for.add(name)
                found = True
        return found


def end_stopped_workers(task_name: str, nodes: Iterable[str]) -> None:
    """Let the workers of a run that are stopped be killed, and go on at once: nothing else ends them.

    Args:
        task_name: What Ray calls the run's tasks.
        nodes: Ray's ids of the nodes to look at.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(kill_stopped)
        task.remote(task_name)


def kill_stopped(task_name: str) -> list[int]:
    """Kill the stopped processes of this machine that run a Ray task of a name, and return their numbers."""
    killed = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            title = (folder / "cmdline").read_bytes().rstrip(b"\0 ")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if title == f"ray::{task_name}".encode() and state in "Tt":
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
    return killed
