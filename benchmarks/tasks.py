"""A million short tasks and ten thousand long ones: what a task costs beside the work in it."""

from __future__ import annotations

import functools
import heapq
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray

from speedy_utils import Snapshot, multi_process
from speedy_utils._api import multi_process as process
from speedy_utils._engines.task import Attempt, Outcome
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import Report, Task

from .measure import Cost, in_turns, ratio, timed
from .table import Table

ITEMS = 100
"""What a simulated task counts."""

WORKERS = 64
"""Simulated workers."""

SHORT = {"plain ray.wait loop": "plain", "multi_process": "ours", "multi_process(progress=False)": "silent"}
"""What the variants are called in the figures."""


class VirtualTime:
    """Tasks that end when their time has come, by a clock that jumps from one end to the next.

    It is what an engine and a feed are to a run: the driver does all that it does with a real one, but never
    waits. Every ``poll`` seconds of that clock the run is read and shown.
    """

    def __init__(self, run: Run, seconds: float, poll: float = 0.3) -> None:
        self.now = 0.0
        self._run, self._seconds, self._poll, self._next = run, seconds, poll, poll
        self._ends: list[tuple[float, int, Attempt]] = []
        self._outcome = Outcome(counts={None: ITEMS}, timings={None: (seconds, 0.0)})
        run.feed = self

    def submit(self, call: Attempt, item: Any) -> None:
        heapq.heappush(self._ends, (self.now + self._seconds, call.task, call))

    def wait(self) -> list[tuple[Attempt, Outcome]]:
        self.now = self._ends[0][0]
        while self._next < self.now:
            self._next += self._poll
            self._run._poller.poll()  # the thread that does it otherwise knows real time only
        ended = []
        while self._ends and self._ends[0][0] <= self.now:
            ended.append((heapq.heappop(self._ends)[2], self._outcome))
        return ended

    def collect(self) -> tuple[Iterable[Report], Mapping[Any, tuple[float, float]]]:
        """What the tasks at work would have reported by now."""
        part = ITEMS / self._seconds
        reports = [
            Report(
                call.task, call.attempt, {None: min(ITEMS, int((self._next - end + self._seconds) * part))}
            )
            for end, _, call in self._ends
        ]
        return reports, {None: (self.now, 0.0)}

    def forget(self, task: Task) -> None: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def simulated(tasks: int, seconds: float) -> tuple[Cost, float, int]:
    """Drive simulated tasks.

    Returns:
        What the driver took, the virtual seconds that passed, and how often the bar was shown.
    """
    engines: list[VirtualTime] = []
    shown: list[Snapshot] = []

    def start(backend: str, work: Any, run: Run) -> VirtualTime:
        engines.append(VirtualTime(run, seconds))
        return engines[0]

    former, process.open_engine = process.open_engine, start  # type: ignore[assignment]
    try:
        cost = timed(
            lambda: multi_process(
                abs,
                range(tasks),
                num_workers=WORKERS,
                total_items=lambda _: ITEMS,
                backend="seq",
                poll_interval=1e6,
                progress=shown.append,
            )
        )
    finally:
        process.open_engine = former
    if shown[-1].done != tasks * ITEMS:
        raise AssertionError(f"the bar ended at {shown[-1].done:,} of {tasks * ITEMS:,}")
    return cost, engines[0].now, len(shown)


def nap(_: int, seconds: float) -> None:
    time.sleep(seconds)


def plain(tasks: int, workers: int, seconds: float) -> None:
    """A loop with as many tasks under way, and nothing else: the floor."""
    remote = ray.remote(nap)
    running: list[Any] = []
    for number in range(tasks):
        if len(running) == workers:
            ready, running = ray.wait(running)
            ray.get(ready)
        running.append(remote.remote(number, seconds))
    ray.get(running)


def ours(tasks: int, workers: int, seconds: float, progress: Any) -> None:
    multi_process(nap, range(tasks), num_workers=workers, progress=progress, seconds=seconds)


def on_ray(table: Table, tasks: int, seconds: float, rounds: int, workers: int) -> None:
    """Rows of real tasks that sleep for so long."""
    shown: list[Snapshot] = []
    variants: dict[str, Callable[[], None]] = {
        "plain ray.wait loop": functools.partial(plain, tasks, workers, seconds),
        "multi_process": functools.partial(ours, tasks, workers, seconds, shown.append),
        "multi_process(progress=False)": functools.partial(ours, tasks, workers, seconds, False),
    }
    runs = {name: functools.partial(timed, run) for name, run in variants.items()}
    in_turns(runs, 1)  # workers start
    took = in_turns(runs, rounds)
    floor = [cost.wall for cost in took["plain ray.wait loop"]]
    for name, costs in took.items():
        wall = statistics.median(cost.wall for cost in costs)
        cpu = statistics.median(cost.cpu for cost in costs)
        times = ratio([cost.wall for cost in costs], floor)
        what = f"{tasks:,} real tasks of {seconds * 1e3:g} ms, {workers} workers"
        table.rows.append([what, name, wall, wall / tasks * 1e6, cpu / tasks * 1e6, times])
        key = f"{SHORT[name]}_{seconds * 1e3:g}ms"
        table.figures |= {f"{key}_us": wall / tasks * 1e6, f"{key}_cpu_us": cpu / tasks * 1e6}
        table.figures[f"{key}_of_plain"] = times


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    table = Table(
        "tasks",
        "Many tasks",
        ["tasks", "with", "seconds", "µs a task", "driver's CPU µs a task", "of the plain loop"],
        quick=quick,
    )
    for tasks, seconds in ((10_000 if quick else 1_000_000, 0.001), (1_000 if quick else 10_000, 1.0)):
        cost, virtual, shown = simulated(tasks, seconds)
        what = f"{tasks:,} simulated tasks of {seconds:g} s, {WORKERS} workers"
        each = cost.wall / tasks * 1e6
        table.rows.append([what, "multi_process", cost.wall, each, cost.cpu / tasks * 1e6, None])
        table.figures |= {
            f"simulated_{tasks}_us": cost.cpu / tasks * 1e6,
            f"simulated_{tasks}_percent": 100 * cost.cpu / virtual,
        }
        table.notes.append(
            f"{what}: {virtual:,.0f} s by the simulated clock, in which the driver used {cost.cpu:.1f} s of "
            f"CPU, {100 * cost.cpu / virtual:.1f} % of a core; the bar was shown {shown:,} times."
        )
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    for seconds in (0.0, 0.001):
        on_ray(table, 200 if quick else 1_500, seconds, 1 if quick else 3, 2)
    ray.shutdown()
    table.notes += [
        "Simulated tasks run nowhere: a clock jumps from the end of one to the end of the next. The driver "
        "does all that it does for real ones, but for Ray's part, and never waits. Every 0.3 s of that clock "
        "the bar is read and shown, with a fresh count of every task that is under way.",
        f"Real tasks sleep, on a Ray with 2 CPUs on {os.cpu_count()} cores; the plain loop runs two too.",
    ]
    return [table]
