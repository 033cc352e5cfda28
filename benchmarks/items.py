"""What counting costs: nanoseconds an item over a bare loop, and a call, beside tqdm.

    python benchmarks/items.py [--ray]

The variants take turns, and the figure is the median of the rounds. With ``--ray`` it runs in a Ray task.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from speedy_utils import multi_process, report_progress, track

N = 500_000
ROUNDS = 9


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def loop(iterable: Any) -> None:
    for _ in iterable:
        pass


def calls(function: Callable[[int], Any]) -> None:
    for _ in range(N):
        function(1)


def nothing(n: int) -> None:
    """The cost of calling anything."""


def medians(variants: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Nanoseconds an item, the first variant being the floor of the others."""
    rounds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            rounds[name].append(seconds(run) / N * 1e9)
    floor = rounds.pop(next(iter(variants)))
    return {
        name: statistics.median(a - b for a, b in zip(took, floor, strict=True))
        for name, took in rounds.items()
    }


def measure(_: Any = None) -> dict[str, dict[str, float]]:
    items = list(range(N))

    def generator() -> Iterator[int]:
        yield from items

    quiet = io.StringIO()
    bar = tqdm(total=N * ROUNDS, file=quiet)
    tables = {
        "an item of a list": medians(
            {
                "bare": lambda: loop(items),
                "track": lambda: loop(track(items)),
                "tqdm": lambda: loop(tqdm(items, file=quiet)),
            }
        ),
        "an item of a generator": medians(
            {
                "bare": lambda: loop(generator()),
                "track": lambda: loop(track(generator())),
                "tqdm": lambda: loop(tqdm(generator(), file=quiet)),
            }
        ),
        "an item of a map": medians(
            {
                "bare": lambda: loop(map(abs, items)),
                "track": lambda: loop(track(map(abs, items))),
                "tqdm": lambda: loop(tqdm(map(abs, items), file=quiet)),
            }
        ),
        "a call": medians(
            {
                "bare": lambda: loop(range(N)),
                "empty function": lambda: calls(nothing),
                "report_progress": lambda: calls(report_progress),
                "tqdm.update": lambda: calls(bar.update),
            }
        ),
    }
    bar.close()
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ray", action="store_true")
    backend = "ray" if parser.parse_args().ray else "seq"
    [tables] = multi_process(measure, [None], backend=backend, num_workers=1, total_items=N, progress=False)
    for what, table in tables.items():
        peer = table.get("tqdm", table.get("tqdm.update", 0.0))
        print(f"\nns {what}, over a bare loop")
        for name, cost in table.items():
            print(f"  {name:<16} {cost:7.1f}   {cost / peer:5.2f} of tqdm")


if __name__ == "__main__":
    main()
