"""Uneven tasks that all move are never said to stand, and one that hangs among them always is."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from support.counts import items

from speedy_utils._display.base import NullDisplay
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import Key, Metric, Report
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.channel.flusher import RESEND_AFTER_S
from speedy_utils.testing import FakeClock

AFTER, INTERVAL, TASKS, WORKERS = 10.0, 0.5, 40, 8

few = settings(max_examples=settings.default.max_examples // 4)  # one takes a tenth of a second


class Task:
    """One that counts, or one that counts nothing until it ends.

    Args:
        started: When it began.
        steps: How long each of its steps takes.
        counts: Whether it counts them.
    """

    def __init__(self, started: float, steps: list[float], *, counts: bool) -> None:
        self.ends = [started + sum(steps[: number + 1]) for number in range(len(steps))]
        self.counts, self.sent = counts, started

    def done(self, now: float) -> int:
        """Return how many items it has counted."""
        return sum(end <= now for end in self.ends) if self.counts else 0


class Simulation:
    """A run on a clock that the test moves, whose workers send a report every now and then.

    Args:
        seed: Of all that is random.
        counts: Whether tasks count their items.
        totals: Whether it is known how many they have.
        hangs: The task whose last step never ends; None for none.
    """

    phase = trouble = ""
    answered = True

    def __init__(self, seed: int, *, counts: bool, totals: bool, hangs: int | None = None) -> None:
        self._random, self._counts, self._totals, self._hangs = random.Random(seed), counts, totals, hangs
        self._clock = FakeClock()
        self._running: dict[int, Task] = {}
        self._reading = 0
        options = {"tasks": TASKS, "feed": self, "stall_after": AFTER, "clock": self._clock}
        self._run = Run("Run", None, display=NullDisplay(), poll_interval=3_600, **options)
        self.stalled: set[int] = set()

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return what the tasks have counted that a worker has sent since."""
        self._reading += 1
        started = {Key(None, Metric.TASKS_STARTED): 1}
        now = self._clock()
        reports = []
        for number, task in self._running.items():
            if self._random.random() < 0.4 or now - task.sent >= RESEND_AFTER_S:
                task.sent = now
                reports.append(Report(number, 1, started | items(task.done(now)), self._reading))
        return reports, {}

    def forget(self, task: object) -> None:
        """Do nothing."""

    def _steps(self, number: int) -> list[float]:
        """Return how long the steps of a task take: never as long as is taken for a hang, but for one."""
        if not self._counts:
            return [self._random.uniform(5.0, 19.0)]  # four times the least is more than the most
        size = min(60, int(self._random.paretovariate(0.8) * 2))  # a few have thirty times the work
        steps = [
            self._random.uniform(0.01, 0.7 * AFTER) ** self._random.choice([1, 0.2]) for _ in range(size)
        ]
        return [*steps, 9e9] if number == self._hangs else steps

    def run(self) -> None:
        """Run all tasks, except the one that hangs."""
        queue, left = iter(range(TASKS)), TASKS
        while left:
            now = self._clock()
            for number in [*self._running]:
                if self._running[number].ends[-1] <= now:
                    task, total = self._running.pop(number), None
                    if self._totals:
                        total = len(task.ends)
                    self._run.commit(number, items(task.done(now)), total=total, timings={})
                    left -= 1
            while len(self._running) < WORKERS and (number := next(queue, None)) is not None:
                steps = self._steps(number)
                self._run.attempt(number, 1, total=len(steps) if self._totals else None, item=number)
                self._running[number] = Task(now, steps, counts=self._counts)
            self.stalled |= {task.index for task in self._run.snapshot().stalled}
            if [*self._running] == [self._hangs] and self.stalled:
                return
            self._clock.advance(self._random.choice([INTERVAL, INTERVAL, 3 * INTERVAL]))


@few
@given(seed=st.integers(0, 10**6), counts=st.booleans(), totals=st.booleans())
def test_tasks_that_move_are_never_said_to_stand(seed: int, *, counts: bool, totals: bool) -> None:
    """However uneven they are, and however late their reports come."""
    simulation = Simulation(seed, counts=counts, totals=totals)
    simulation.run()
    assert simulation.stalled == set()


@few
@given(seed=st.integers(0, 10**6), hangs=st.integers(0, TASKS - 1), totals=st.booleans())
def test_one_that_hangs_is_the_only_one_that_is_named(seed: int, hangs: int, *, totals: bool) -> None:
    """Among uneven tasks that move."""
    simulation = Simulation(seed, counts=True, totals=totals, hangs=hangs)
    simulation.run()
    assert simulation.stalled == {hangs}
