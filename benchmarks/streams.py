"""Items from a generator, results as they come: what one costs, and how much memory they hold.

    python -m benchmarks streams

Beside it stands ``multi_process`` over a list of a tenth as many items, as it holds all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import psutil

from speedy_utils import multi_process, multi_process_iter

from .table import Table

WORKERS = 2
MIB = 1 << 20


class _Streamed(NamedTuple):
    seconds: float
    early: float  # MiB of this process and its children after a tenth of the items
    most: float  # and at most, after that


def double(item: int) -> int:
    return 2 * item


def run(quick: bool) -> list[Table]:
    table = Table(
        "streams",
        "Streams: a generator of small items",
        ["items", "engine", "µs an item", "µs in multi_process", "MiB after a tenth", "MiB at most"],
        quick=quick,
    )
    count = 100_000 if quick else 10_000_000
    for backend in ("threads", "processes"):
        streamed = _stream(backend, count)
        begin = time.perf_counter()
        multi_process(double, range(count // 10), backend=backend, num_workers=WORKERS, progress=False)
        of_list = (time.perf_counter() - begin) / (count // 10)
        each = streamed.seconds / count
        table.rows.append(
            [f"{count:,}", backend, each * 1e6, of_list * 1e6, round(streamed.early), round(streamed.most)]
        )
        table.figures[f"{backend} us"] = each * 1e6
        table.figures[f"{backend} growth"] = streamed.most / streamed.early
    table.notes = [
        f"{WORKERS} workers. The items are numbers from a generator, which are doubled.",
        "Memory is what the program and its workers hold together (RSS), seen after each hundredth.",
    ]
    return [table]


def _stream(backend: str, count: int) -> _Streamed:
    def numbers() -> Iterator[int]:
        yield from range(count)

    begin, early, most = time.perf_counter(), 0.0, 0.0
    results = multi_process_iter(
        double, numbers(), backend=backend, num_workers=WORKERS, total_items=count, progress=lambda _: None
    )
    for n, result in enumerate(results, 1):
        if n % (count // 100) == 0:
            if result != 2 * (n - 1):
                raise AssertionError(f"result {n} is {result}")
            held = _memory()
            early = early or (held if n >= count // 10 else 0.0)
            most = max(most, held if early else 0.0)
    return _Streamed(time.perf_counter() - begin, early, most)


def _memory() -> float:
    program = psutil.Process()
    return sum(each.memory_info().rss for each in [program, *program.children(recursive=True)]) / MIB
