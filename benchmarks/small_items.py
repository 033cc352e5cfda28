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
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, cast

import ray

from speedy_utils import multi_process

from .measure import Cost, in_turns, ratio, timed
from .table import Table

WORKERS = 2
PAUSE_S = 0.001

BACKENDS = ("processes", "ray", "threads", "seq")

Item = Callable[[int], None]

Map = Callable[[Item, Iterable[int]], Any]
"""Calls a function with each item."""

Start = Callable[[ExitStack], Map]
"""Starts what maps."""

Measure = Callable[[Item, int], Cost]
"""Returns how long it takes to call a function with each number up to one."""


def nothing(_: int) -> None:
    """Take no time."""


def pause(_: int) -> None:
    time.sleep(PAUSE_S)


def uneven(item: int) -> None:
    """Take 20 µs, or 2 ms."""
    end = time.perf_counter() + (0.002 if item % 100 == 50 else 0.000_02)
    while time.perf_counter() < end:
        pass


def bare(function: Item, calls: int = 1_000) -> float:
    """Return the seconds of a call in a bare loop: a wait of 1 ms takes longer than that."""
    return timed(lambda: [function(item) for item in range(calls)]).wall / calls


def pool_map(stack: ExitStack) -> Map:
    return stack.enter_context(multiprocessing.get_context("fork").Pool(WORKERS)).map


def mpire_map(stack: ExitStack) -> Map:
    from mpire import WorkerPool

    pool = stack.enter_context(WorkerPool(WORKERS, keep_alive=True))
    return pool.map


def joblib_map(stack: ExitStack) -> Map:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    stack.callback(lambda: get_reusable_executor().shutdown())  # else this program waits for its workers
    parallel = stack.enter_context(Parallel(WORKERS))
    return lambda function, items: parallel(delayed(function)(item) for item in items)


def ray_pool_map(stack: ExitStack) -> Map:
    from ray.util.multiprocessing import Pool

    start_ray(stack)
    return Pool(WORKERS).map  # type: ignore[no-any-return]  # Ray has no types for it


def start_ray(stack: ExitStack) -> None:
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
    stack.callback(ray.shutdown)


def ours(backend: str, stack: ExitStack) -> Map:
    if backend == "ray":
        start_ray(stack)
    return functools.partial(multi_process, backend=backend, num_workers=WORKERS, progress=False)


def variants() -> dict[str, Start]:
    """Return what starts each variant: those of others that are installed, and ours."""
    others: dict[str, Start] = {"mpire": mpire_map, "joblib": joblib_map}
    return {
        "Pool.map": pool_map,
        **{name: start for name, start in others.items() if importlib.util.find_spec(name)},
        "ray.util.multiprocessing.Pool": ray_pool_map,
        **{f'backend="{each}"': functools.partial(ours, each) for each in BACKENDS},
    }


@contextmanager
def in_program_of_its_own(start: Start) -> Iterator[Measure]:
    """Start a variant in a process of its own: beside the threads of pools or of Ray, ours would not fork."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(there, start))
    process.start()
    there.close()

    def measure(function: Item, count: int) -> Cost:
        here.send((function, count))
        return cast("Cost", here.recv())

    try:
        yield measure
    finally:
        here.send(None)
        process.join()


def _serve(connection: Connection, start: Start) -> None:
    with ExitStack() as stack:
        run = start(stack)
        while (asked := connection.recv()) is not None:
            function, count = asked
            connection.send(timed(functools.partial(run, function, range(count))))


def each_by_itself(quick: bool) -> Table:
    """Measure items of which each is a task of Ray's, beside Ray's own tasks."""
    import ray

    columns = ["items", "with", "seconds", "µs an item", "of ray.get"]
    table = Table("single_items", "Items that travel by themselves", columns, quick=quick)
    items = range(300 if quick else 3_000)
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
    task: Any = ray.remote(nothing)
    alone = functools.partial(multi_process, backend="ray", num_workers=WORKERS, progress=False, chunksize=1)
    own, other = 'backend="ray", chunksize=1', "ray.get([f.remote(item) for item in items])"
    runs: dict[str, Callable[[], Any]] = {
        other: lambda: ray.get([task.remote(item) for item in items]),
        own: lambda: alone(nothing, items),
    }
    for measured in runs.values():
        measured()  # workers start
    took = in_turns({name: functools.partial(timed, each) for name, each in runs.items()}, 1 if quick else 3)
    ray.shutdown()
    for name, costs in took.items():
        walls = [cost.wall for cost in costs]
        wall = statistics.median(walls)
        of_ray = ratio(walls, [cost.wall for cost in took[other]])
        table.rows.append([f"{len(items):,} that do nothing", name, wall, wall / len(items) * 1e6, of_ray])
        table.figures[f"{name} us"] = wall / len(items) * 1e6
    return table


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    table = Table(
        "small_items",
        "Many small items",
        ["items", "with", "seconds", "µs an item", "of the workers' time for items, %", "of Pool.map"],
        quick=quick,
    )
    many = 20_000 if quick else 1_000_000
    kinds: list[tuple[str, Item, int, float]] = [
        ("that do nothing", nothing, many, 0.0),
        ("that wait 1 ms", pause, 500 if quick else 10_000, bare(pause)),
        ("uneven", uneven, many // 10, bare(uneven)),
    ]
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(in_program_of_its_own(start)) for name, start in variants().items()
        }
        for what, function, count, own in kinds:
            _measure(table, what, started, function, count, own, 1 if quick else 3)
    table.notes = [
        f"{WORKERS} workers on {os.cpu_count()} cores. Each is in a program of its own; pools of others are "
        "started before, and Ray is. What the items take themselves was measured in a bare loop.",
        '`backend="seq"` has one worker. Joblib gets the items one by one, as it is called.',
    ]
    return [table, each_by_itself(quick)]


def _measure(
    table: Table,
    what: str,
    variants: dict[str, Measure],
    function: Item,
    count: int,
    own: float,
    rounds: int,
) -> None:
    """Add the rows of items of a kind."""
    for measure in variants.values():
        measure(function, 100)  # workers start
    runs = {name: functools.partial(measure, function, count) for name, measure in variants.items()}
    took = in_turns(runs, rounds)
    floor = [cost.wall for cost in took["Pool.map"]]
    for name, costs in took.items():
        walls = [cost.wall for cost in costs]
        wall, workers = statistics.median(walls), 1 if "seq" in name else WORKERS
        share = count * own / wall / workers * 100 if own else None
        table.rows.append([f"{count:,} {what}", name, wall, wall / count * 1e6, share, ratio(walls, floor)])
        key = "".join(letter if letter.isalnum() else "_" for letter in f"{name}_{what}")
        table.figures[f"{key}_us"] = wall / count * 1e6
