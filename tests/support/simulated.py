"""Runs on a simulated clock, whose tasks take the seconds that they are given, to see which end is shown."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speedy_utils import StageSnapshot
from speedy_utils._state.estimate.time_left import STARTED, TimeLeft
from speedy_utils._state.ledger import RUN_ITEMS
from speedy_utils._state.running import RunningTask


class Reading(NamedTuple):
    """What a run shows at a time.

    Attributes:
        now: Seconds since its start.
        eta: The time left; None if it is not known.
        by_mean_rate: The time left by the mean rate.
    """

    now: float
    eta: float | None
    by_mean_rate: float | None


class SimulatedRun:
    """Tasks that workers do in order, each begun by the one that is free first.

    Args:
        seconds: How long each task takes.
        workers: How many there are.
        items: The items of each task; None if the run doesn't know that these are 100.
        counts: Whether tasks count their items as they go.
        batch: How many items are counted at once.
        hang: Tasks that hang, and how many seconds after their start.
        step: Seconds between two readings.

    Attributes:
        end: When the last task ends that doesn't hang.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        workers: int,
        *,
        items: int | None = 100,
        counts: bool = True,
        batch: int = 1,
        hang: Mapping[int, float] | None = None,
        step: float = 0.5,
    ) -> None:
        self._seconds, self._counts, self._batch = seconds, counts, batch
        self._known, self._items = items is not None, items or 100
        self._hang, self._step = hang or {}, step
        free = [0.0] * workers
        self._starts: list[float] = []
        for task, each in enumerate(seconds):
            start = free[0]
            self._starts.append(start)
            heapq.heapreplace(free, float("inf") if task in self._hang else start + each)
        self.end = max((each for each in free if each < float("inf")), default=0.0)

    def readings(self, until: float | None = None) -> list[Reading]:
        """Return what it shows until a time, or until its end."""
        number, items = len(self._seconds), self._items
        time_left = TimeLeft(number)
        order = sorted(range(number), key=self._starts.__getitem__)
        readings: list[Reading] = []
        in_flight: list[int] = []
        begun = ended = steps = 0
        while (now := steps * self._step) < (self.end if until is None else until):
            while begun < number and self._starts[order[begun]] <= now:
                in_flight.append(order[begun])
                begun += 1
            for task in [task for task in in_flight if self._done(task, now) == items]:
                in_flight.remove(task)
                ended += 1
            counts = {
                task: self._done(task, now) // self._batch * self._batch if self._counts else 0
                for task in in_flight
            }
            done = ended * items + sum(counts.values())
            if self._known:
                line = StageSnapshot("Run", done, number * items, elapsed=now)
            elif self._counts:
                line = StageSnapshot("Run", done, None, elapsed=now)
            else:
                line = StageSnapshot("Run", ended, number, "tasks", elapsed=now)
            running = [
                RunningTask(task, 1, items if self._known else None, counts={STARTED: 1, RUN_ITEMS: count})
                for task, count in counts.items()
            ]
            line, _ = time_left.read(line, (), running, ended=ended, now=now)
            left = None if line.total is None or not line.rate else (line.total - line.done) / line.rate
            readings.append(Reading(now, line.eta, left))
            steps += 1
        return readings

    def _done(self, task: int, now: float) -> int:
        """Return how many items a task has finished at a time."""
        worked = min(now - self._starts[task], self._hang.get(task, float("inf")))
        return min(int(self._items * worked / self._seconds[task] + 1e-9), self._items)
