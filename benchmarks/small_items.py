"""Many small items: what one costs on each engine, and in the pools of others.

    python -m benchmarks small_items

Pools are started before, and have run something. The items do nothing, wait for a millisecond each, or are
uneven: one in a hundred takes a hundred times as long as the others.
"""

from __future__ import annotations

import functools
import importlib.util
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import ray

from speedy_utils import multi_process

from .measure import in_turns, ratio, timed
from .table import Table

WORKERS = 2
PAUSE_S = 0.001

Map = Callable[[Callable[[int], Any], Iterable[int]], Any]
"""Calls a function with each item."""


def nothing(_: int) -> None:
    """Take no time."""


def pause(_: int) -> None:
    time.sleep(PAUSE_S)


def uneven(item: int) -> None:
    """Take 20 µs, or 2 ms."""
    end = time.perf_counter() + (0.002 if item % 100 == 50 else 0.000_02)
    while time.perf_counter() < end:
        pass


def ours(backend: str, function: Callable[[int], Any], items: Iterable[int]) -> None:
    multi_process(function, items, backend=backend, num_workers=WORKERS, progress=False)


def peers(stack: ExitStack) -> dict[str, Map]:
    """Return the pools of others that are installed and fork, started."""
    context = multiprocessing.get_context("fork")
    found: dict[str, Map] = {"Pool.map": stack.enter_context(context.Pool(WORKERS)).map}
    if importlib.util.find_spec("mpire"):
        from mpire import WorkerPool

        pool = stack.enter_context(WorkerPool(WORKERS, keep_alive=True))
        found["mpire"] = pool.map
    if importlib.util.find_spec("joblib"):
        from joblib import Parallel, delayed

        parallel = stack.enter_context(Parallel(WORKERS))
        found["joblib"] = lambda function, items: parallel(delayed(function)(item) for item in items)
    return found


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    table = Table(
        "small_items",
        "Many small items",
        ["items", "with", "seconds", "µs an item", "of the workers' time for items, %", "of Pool.map"],
        quick=quick,
    )
    many = 20_000 if quick else 1_000_000
    kinds: list[tuple[str, Callable[[int], None], int, float]] = [
        ("that do nothing", nothing, many, 0.0),
        ("that wait 1 ms", pause, 500 if quick else 10_000, PAUSE_S),
        ("uneven", uneven, many // 10, 0.000_02 * 0.99 + 0.002 * 0.01),
    ]
    with ExitStack() as stack:
        variants = peers(stack)  # first, as they fork
        ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
        stack.callback(ray.shutdown)
        from ray.util.multiprocessing import Pool

        variants["ray.util.multiprocessing.Pool"] = Pool(WORKERS).map
        for backend in ("processes", "ray", "threads", "seq"):
            variants[f'backend="{backend}"'] = functools.partial(ours, backend)
        for what, function, count, own in kinds:
            _measure(table, what, variants, function, count, own, 1 if quick else 3)
    table.notes = [
        f"{WORKERS} workers on {os.cpu_count()} cores. Pools of others are started before, and Ray is.",
        '`backend="seq"` has one worker. Joblib gets the items one by one, as it is called.',
    ]
    return [table]


def _measure(
    table: Table,
    what: str,
    variants: dict[str, Map],
    function: Callable[[int], None],
    count: int,
    own: float,
    rounds: int,
) -> None:
    """Add the rows of items of a kind."""
    runs = {
        name: functools.partial(timed, functools.partial(run, function, range(count)))
        for name, run in variants.items()
    }
    for run in variants.values():
        run(function, range(100))  # workers start
    took = in_turns(runs, rounds)
    floor = [cost.wall for cost in took["Pool.map"]]
    for name, costs in took.items():
        walls = [cost.wall for cost in costs]
        wall, workers = statistics.median(walls), 1 if "seq" in name else WORKERS
        share = count * own / wall / workers * 100 if own else None
        table.rows.append([f"{count:,} {what}", name, wall, wall / count * 1e6, share, ratio(walls, floor)])
        table.figures[f"{name} {what} us"] = wall / count * 1e6
