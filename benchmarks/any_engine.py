"""Engines that are not ours: what a ``tracking()`` block costs around them, and what a bound call costs.

    python -m benchmarks any_engine

Each call takes 10 ms. Workers are started in what is measured, but Ray is there before.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import ray

from speedy_utils import report_progress, track, tracking

from .measure import in_turns, ratio, timed
from .table import Table

WORKERS = 2
CALL_S = 0.01

Bind = Callable[[Any], Any]
"""``run.bind``, or what leaves a function as it is."""


def same(function: Any) -> Any:
    """Be what stands for ``run.bind`` where there is no run."""
    return function


def call(item: Any) -> Any:
    time.sleep(CALL_S)
    return item


def nothing(_: int) -> None:
    """Take no time."""


def call_and_report(row: dict[str, int]) -> dict[str, int]:
    time.sleep(CALL_S)
    report_progress()
    return row


def executor(bind: Bind, calls: int) -> None:
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(bind(call), range(calls)))


def joblib_parallel(bind: Bind, calls: int) -> None:
    from joblib import Parallel, delayed

    bound = bind(call)
    Parallel(WORKERS)(delayed(bound)(item) for item in range(calls))


def ray_data(bind: Bind, calls: int) -> None:
    import ray.data

    ray.data.range(calls, override_num_blocks=WORKERS).map(bind(call)).materialize()


def datasets_map(_: Bind, calls: int) -> None:
    """Needs no ``bind``: the workers are started in the block."""
    from datasets import Dataset

    rows = Dataset.from_dict({"n": list(range(calls))})
    rows.map(call_and_report, num_proc=WORKERS, load_from_cache_file=False)


def without(engine: Callable[[Bind, int], None], calls: int) -> None:
    engine(same, calls)


def within(engine: Callable[[Bind, int], None], calls: int) -> None:
    with tracking(total=calls, progress=False) as run:
        engine(run.bind, calls)
        assert run.snapshot().done == calls


def bound_calls(calls: int, *, bound: bool) -> float:
    """Return the CPU seconds of a call of nothing in a child."""
    context = multiprocessing.get_context("fork")
    with tracking(total=calls, progress=False) as run, ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(many, run.bind(nothing) if bound else nothing, calls).result()


def many(function: Callable[[int], object], calls: int) -> float:
    start = time.process_time()
    for item in range(calls):
        function(item)
    return (time.process_time() - start) / calls


def reports(turns: int) -> tuple[float, float]:
    """Return the CPU seconds of a call of ``report_progress``, and of an item of ``track``."""
    start = time.process_time()
    for _ in range(turns):
        report_progress()
    middle = time.process_time()
    for _ in track(range(10 * turns)):
        pass
    return (middle - start) / turns, (time.process_time() - middle) / turns / 10


def reports_in_child(turns: int) -> tuple[float, float]:
    context = multiprocessing.get_context("fork")
    with tracking(progress=False), ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(reports, turns).result()


def reports_on_ray(turns: int) -> tuple[float, float]:
    from speedy_utils import multi_process

    found: list[tuple[float, float]] = multi_process(reports, [turns], backend="ray", progress=False)
    return found[0]


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    numbers, rounds = ([50], 1) if quick else ([400, 1_500], 3)
    turns, many_calls = (10_000, 5_000) if quick else (1_000_000, 100_000)
    engines: dict[str, Callable[[Bind, int], None]] = {
        "ProcessPoolExecutor.map": executor,
        "datasets.map(num_proc=2)": datasets_map,
    }
    if importlib.util.find_spec("joblib"):
        engines["joblib.Parallel"] = joblib_parallel
    blocks = Table(
        "any_engine",
        "Engines that are not ours, with and without a tracking() block",
        ["calls of 10 ms", "with", "seconds alone", "in a block", "in a block / alone"],
        quick=quick,
    )
    for name, engine in engines.items():  # before there is a Ray, as they fork
        for calls in numbers:
            _measure(blocks, name, engine, calls, rounds)
    single = Table(
        "bound_calls",
        "What counts in a child process, a call",
        ["what", "calls", "CPU µs a call"],
        part_of="any_engine",
        quick=quick,
    )
    for number in (many_calls // 10, many_calls):
        each = bound_calls(number, bound=True) - bound_calls(number, bound=False)
        single.rows.append(["a bound function that does nothing", number, 1e6 * each])
        single.figures[f"bound_call_{number}_us"] = 1e6 * each
    child = [reports_in_child(turns) for _ in range(rounds)]
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        for calls in numbers:
            _measure(blocks, "Ray Data map", ray_data, calls, rounds)
        on_ray = [reports_on_ray(turns) for _ in range(rounds)]
    finally:
        ray.shutdown()
    for what, found in (("a child process", child), ("a Ray task", on_ray)):
        for kind, values in zip(
            ("report_progress", "an item of track"), zip(*found, strict=True), strict=True
        ):
            single.rows.append([f"{kind} in {what}", turns, 1e6 * statistics.median(values)])
            single.figures[f"{kind} in {what} us"] = 1e6 * statistics.median(values)
    blocks.notes = [
        f"{WORKERS} workers on {os.cpu_count()} cores. Their start is in the times, that of Ray is not.",
        "The functions are bound, but that of `datasets.map`, which reports its rows in both.",
    ]
    return [blocks, single]


def _measure(table: Table, name: str, engine: Callable[[Bind, int], None], calls: int, rounds: int) -> None:
    """Add the row of an engine."""
    variants = {
        "alone": functools.partial(timed, functools.partial(without, engine, calls)),
        "block": functools.partial(timed, functools.partial(within, engine, calls)),
    }
    for imports in (without, within):
        imports(engine, WORKERS)
    took = in_turns(variants, rounds)
    alone, block = ([cost.wall for cost in took[each]] for each in ("alone", "block"))
    times = ratio(block, alone)
    table.rows.append([calls, name, statistics.median(alone), statistics.median(block), times])
    table.figures[f"{name} block {calls}"] = times
