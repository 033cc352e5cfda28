"""Workers whose true position is known at any time, under one of several bars.

    python -m benchmarks.paced ours|former|tqdm_ray WORKERS ITEMS SLOTS SPANS

Each worker sleeps a millisecond an item and writes its position to its slot of a shared file; when and how
long each worked is written at the end.
"""

from __future__ import annotations

import json
import mmap
import struct
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Span = tuple[float, float]


def pace(worker: int, slots: str, numbers: Iterable[int]) -> Span:
    """Go through the numbers, one a millisecond."""
    with Path(slots).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        began = time.monotonic()
        for number in numbers:
            time.sleep(0.001)
            struct.pack_into("q", memory, 8 * worker, number + 1)
        return began, time.monotonic()


def ours(workers: int, items: int, slots: str) -> list[Span]:
    from speedy_utils import multi_process, track

    def work(worker: int) -> Span:
        return pace(worker, slots, track(range(items)))

    return multi_process(work, range(workers), num_workers=workers, total_items=lambda _: items)


def former(workers: int, items: int, slots: str) -> list[Span]:
    """speedy-utils 1.1.48, with a report every hundred items, as its documentation has it."""
    from speedy_utils import multi_process, report_progress

    def work(worker: int) -> Span:
        def counted() -> Iterable[int]:
            for number in range(items):
                if number % 100 == 0:
                    report_progress(100)
                yield number

        return pace(worker, slots, counted())

    start_ray(workers)
    spans: list[Span] = multi_process(
        work, list(range(workers)), workers=workers, backend="ray", total_items=workers * items, desc="Paced"
    )
    return spans


def tqdm_ray(workers: int, items: int, slots: str) -> list[Span]:
    import ray
    from ray.experimental import tqdm_ray as bars

    @ray.remote
    def work(worker: int) -> Span:
        return pace(worker, slots, bars.tqdm(range(items), desc=f"worker-{worker}"))

    start_ray(workers)
    spans: list[Span] = ray.get([work.remote(worker) for worker in range(workers)])
    return spans


def start_ray(cpus: int) -> Any:
    import ray

    return ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level="ERROR")


TOOLS: dict[str, Callable[[int, int, str], list[Span]]] = {
    "ours": ours,
    "former": former,
    "tqdm_ray": tqdm_ray,
}


def main() -> None:
    tool, workers, items, slots, spans = sys.argv[1:]
    done = TOOLS[tool](int(workers), int(items), slots)
    Path(spans).write_text(json.dumps(done), encoding="ascii")


if __name__ == "__main__":
    main()
