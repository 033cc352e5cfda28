"""Captured bars: what a bar of tqdm costs that a task counts, beside the same bar drawing by itself."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils._worker.context import counting, registered
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink

from .measure import Cost, in_turns, ratio
from .table import Table
from .terminal import read_terminal

N = 300_000
BARS = 2_000
ITEMS = list(range(N))


def loop(**options: Any) -> None:
    for _ in tqdm(ITEMS, desc="Items", **options):
        pass


def by_hand(**options: Any) -> None:
    with tqdm(total=N, desc="Items", **options) as bar:
        for _ in ITEMS:
            bar.update(1)


def many(**options: Any) -> None:
    for _ in range(BARS):
        for _ in tqdm((1,), desc="Items", **options):
            pass


def captured(work: Callable[..., None]) -> None:
    reporter = Reporter(0)
    with registered(reporter, RecordingSink()), counting(reporter.own), capturing_tqdm():
        work()


def timed(run: Callable[[], None]) -> Cost:
    """What a call takes, of CPU only this thread's: that of what reads the terminal is another's."""
    cpu, wall = time.thread_time(), time.perf_counter()
    run()
    return Cost(time.perf_counter() - wall, time.thread_time() - cpu)


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    rounds = 3 if quick else 9
    screen, null = read_terminal(), open(os.devnull, "w")  # noqa: SIM115 - it is open as long as the program
    table = Table(
        "captured",
        "A bar of tqdm that a task captures, beside the same bar by itself",
        ["what", "the bar", "ns", "CPU ns", "of it, when captured"],
        quick=quick,
    )
    for what, work, n, unit in (
        ("for x in tqdm(list)", loop, N, "an item"),
        ("bar.update(1)", by_hand, N, "a call"),
        ("a bar of one item", many, BARS, "a bar"),
    ):
        variants: dict[str, Callable[[], Cost]] = {
            "drawn in a terminal": lambda work=work: timed(lambda: work(file=screen)),
            "drawn to /dev/null": lambda work=work: timed(lambda: work(file=null)),
            "captured": lambda work=work: timed(lambda: captured(work)),
            "disable=True": lambda work=work: timed(lambda: work(disable=True)),
        }
        took = in_turns(variants, rounds)
        cpu = {name: [cost.cpu / n * 1e9 for cost in costs] for name, costs in took.items()}
        for name, costs in took.items():
            wall = statistics.median(cost.wall for cost in costs) / n * 1e9
            each = [wall, statistics.median(cpu[name]), ratio(cpu["captured"], cpu[name])]
            table.rows.append([f"`{what}`, {unit}", name, *each])
        key = work.__name__
        table.figures[f"{key}_ns"] = statistics.median(cpu["captured"])
        table.figures[f"{key}_drawn_ns"] = statistics.median(cpu["drawn in a terminal"])
        table.figures[f"{key}_of_drawn"] = ratio(cpu["captured"], cpu["drawn in a terminal"])
    table.notes = [
        "Captured bars are read every 50 ms meanwhile, as in a worker. The terminal is read.",
        "CPU time of the thread that loops: what the flusher takes beside it is in the table of items.",
    ]
    return [table]
