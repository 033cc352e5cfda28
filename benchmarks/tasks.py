"""Many short tasks on Ray: what a task costs beside the work in it."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import ray

from speedy_utils import Snapshot, multi_process

from .measure import in_turns, ratio, timed
from .table import Table

SHORT = {"plain ray.wait loop": "plain", "multi_process": "ours", "multi_process(progress=False)": "silent"}
"""What the variants are called in the figures."""


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
    multi_process(nap, range(tasks), num_workers=workers, backend="ray", progress=progress, seconds=seconds)


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
        what = f"{tasks:,} tasks of {seconds * 1e3:g} ms, {workers} workers"
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
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    for seconds in (0.0, 0.001):
        on_ray(table, 200 if quick else 1_500, seconds, 1 if quick else 3, 2)
    ray.shutdown()
    table.notes = [
        f"The tasks sleep, on a Ray with 2 CPUs on {os.cpu_count()} cores; the plain loop runs two too.",
    ]
    return [table]
