"""Fidelity: how far a bar in a terminal is behind the truth, and what it ends with.

    python -m benchmarks.fidelity TOOL WORKERS ITEMS SLOTS SPANS

This program works under a bar. Each worker sleeps a millisecond an item and writes its position to its slot
of a shared file; when each of them worked is written at the end.
"""

from __future__ import annotations

import functools
import json
import mmap
import multiprocessing
import re
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from .table import Table
from .terminal import ProgramFailed, plain, run_in_terminal

LIMIT = 110.0
"""Seconds that a run may take; the work in it takes some ten, thirty or sixty."""

BATCH = 100
"""Rows of a batch."""

CLOSE = 0.05
"""How far a share that is shown may be from the true one to count as close."""

_COUNT = re.compile(r"([\d,.]+[kM]?)/([\d,.]+[kM]?) \[")
_RATE = re.compile(r"([\d,.]+) ?items/s")


Span = tuple[float, float]


def pace(worker: int, slots: str, numbers: Iterable[int]) -> Span:
    """Go through the numbers, one a millisecond."""
    with Path(slots).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        began = time.monotonic()
        for number in numbers:
            time.sleep(0.001)
            struct.pack_into("q", memory, 8 * worker, number + 1)
        return began, time.monotonic()


def ours(workers: int, items: int, slots: str, backend: str = "ray") -> list[Span]:
    from speedy_utils import multi_process, track

    def work(worker: int) -> Span:
        return pace(worker, slots, track(range(items)))

    return multi_process(
        work, range(workers), num_workers=workers, total_items=lambda _: items, backend=backend
    )


def processes(workers: int, items: int, slots: str) -> list[Span]:
    return ours(workers, items, slots, "processes")


def _track(items: int, slots: str, worker: int) -> Span:
    from speedy_utils import track

    return pace(worker, slots, track(range(items)))


def pool(workers: int, items: int, slots: str, *, bound: bool = False) -> list[Span]:
    """In the workers of a ``ProcessPoolExecutor``, within a ``tracking()`` block."""
    from speedy_utils import tracking

    work = functools.partial(_track, items, slots)
    context = multiprocessing.get_context("fork")
    with tracking(total=workers * items) as run, ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(run.bind(work) if bound else work, range(workers)))


def bound_pool(workers: int, items: int, slots: str) -> list[Span]:
    return pool(workers, items, slots, bound=True)


def running(workers: int, items: int, slots: str) -> list[Span]:
    """On a Ray that was running: it has no worker for this program yet."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": workers, "include_dashboard": False})
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        return ours(workers, items, slots)
    finally:
        ray.shutdown()
        cluster.shutdown()


def batches(workers: int, items: int, slots: str) -> list[Span]:
    from datasets import Dataset

    from speedy_utils import multi_process_dataset, track

    folder = Path(slots).parent

    def work(shard: Any, output_path: str) -> Any:
        first = shard[0]["id"]
        worker, done, began = first // items, 0, time.monotonic()
        with Path(slots).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            for batch in track(shard.iter(BATCH)):
                time.sleep(0.001 * BATCH)
                done += len(batch["id"])
                struct.pack_into("q", memory, 8 * worker, done)
        (folder / f"span-{worker}").write_text(json.dumps([began, time.monotonic()]), encoding="ascii")
        return shard

    with tempfile.TemporaryDirectory() as output:
        rows = Dataset.from_dict({"id": range(workers * items)})
        multi_process_dataset(
            rows, work, f"{output}/out", num_workers=workers, backend="ray", num_shards=workers
        )
    return [tuple(json.loads(path.read_text(encoding="ascii"))) for path in folder.glob("span-*")]


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
    "running": running,
    "processes": processes,
    "pool": pool,
    "bound_pool": bound_pool,
    "batches": batches,
    "tqdm_ray": tqdm_ray,
}


class Screen:
    """What a bar of a known total shows, read from the terminal as it is drawn.

    Attributes:
        drawn: When it showed how many items.
        rate: The last rate that it showed; None where it shows none.
    """

    def __init__(self, total: int, workers: int) -> None:
        self.drawn: list[tuple[float, int]] = []
        self.rate: float | None = None
        self._totals = {total, total // workers}
        self._bars: dict[str, int] = {}
        self._rest = ""

    def see(self, now: float, text: str) -> None:
        """Take in what has been written."""
        lines = re.split(r"[\r\n]+|\x1b\[A", self._rest + text)
        self._rest = lines[-1][-200:]
        for line in map(plain, lines):
            # One bar for all, or one bar for each worker, whose sum is what can be seen.
            for done, of in _COUNT.findall(line):
                if _whole(of) not in self._totals:
                    continue
                who = re.search(r"worker-\d+", line)
                self._bars[who.group() if who else ""] = _whole(done)
                self.drawn.append((now, sum(self._bars.values())))
                if rate := _RATE.search(line):
                    self.rate = float(rate.group(1).replace(",", ""))


def _whole(number: str) -> int:
    """A number as bars write it, some of them to three digits only."""
    scale = {"k": 1e3, "M": 1e6}.get(number[-1], 1.0)
    return round(float(number.rstrip("kM").replace(",", "")) * scale)


def watch(tool: str, workers: int, items: int, home: Path) -> list[str | float | None]:
    """Run the paced workers under a bar; return the row of the table after its name."""
    slots, spans = home / "slots", home / "spans"
    slots.write_bytes(bytes(8 * workers))
    total = workers * items
    screen = Screen(total, workers)
    truth: list[tuple[float, int]] = []
    over = threading.Event()

    def look() -> None:
        with slots.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            while not over.wait(0.01):
                truth.append((time.monotonic(), sum(struct.unpack_from(f"{workers}q", memory))))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        program = ["-m", "benchmarks.fidelity", tool, str(workers), str(items), str(slots), str(spans)]
        run_in_terminal(program, seen=screen.see, cwd=home, timeout=LIMIT)
    finally:
        over.set()
        looker.join()
    lags = sorted(lags_behind(truth, screen.drawn, total))
    first_item = next(now for now, done in truth if done)
    first_count = next(now for now, done in screen.drawn if done) - first_item
    done = json.loads(spans.read_text(encoding="ascii"))
    true_rate = total / (max(end for _, end in done) - min(began for began, _ in done))
    return [
        first_count,
        statistics.median(lags),
        lags[int(len(lags) * 0.95)],
        lags[-1],
        f"{close_looks(truth, screen.drawn, total):.1%}",
        f"{screen.drawn[-1][1]:,}/{total:,}",
        screen.rate,
        true_rate,
        None if screen.rate is None else f"{screen.rate / true_rate - 1:+.1%}",
    ]


def close_looks(truth: list[tuple[float, int]], drawn: list[tuple[float, int]], total: int) -> float:
    """The part of the looks at the truth during the work at which the bar showed about the true share."""
    close = looks = shown = 0
    for now, done in truth:
        while shown + 1 < len(drawn) and drawn[shown + 1][0] <= now:
            shown += 1
        seen = drawn[shown][1] if drawn and drawn[shown][0] <= now else 0
        if 0 < done < total:
            looks += 1
            close += abs(seen - done) <= CLOSE * total
    return close / looks


def lags_behind(truth: list[tuple[float, int]], drawn: list[tuple[float, int]], total: int) -> list[float]:
    """At each look at the truth during the work: how long ago it was what the bar shows."""
    lags = []
    first = next(now for now, done in truth if done)
    shown = was = 0
    for now, done in truth:
        while shown + 1 < len(drawn) and drawn[shown + 1][0] <= now:
            shown += 1
        seen = drawn[shown][1] if drawn and drawn[shown][0] <= now else 0
        while was + 1 < len(truth) and truth[was + 1][1] <= seen:
            was += 1
        if first <= now and done < total:
            lags.append(max(0.0, now - truth[was][0]))
    return lags


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    items = 2_000 if quick else 6_000
    table = Table(
        "fidelity",
        "Fidelity: a bar in a terminal against the truth",
        [
            *(
                "bar",
                "workers",
                "first count after s",
                "lag, median s",
                "p95 s",
                "max s",
                "within 5 points",
                "ended at",
            ),
            *("final rate", "true rate", "rate off by"),
        ],
        quick=quick,
    )
    tools = {
        "ours": "speedy_utils",
        "running": "speedy_utils, on a Ray that was running",
        "processes": "speedy_utils, processes",
        "pool": "speedy_utils, a process pool",
        "bound_pool": "speedy_utils, bound calls in a process pool",
        "tqdm_ray": "tqdm_ray",
        "batches": "speedy_utils, batches",
    }
    runs = [
        (tool, workers, items)
        for workers in (2, 8)
        for tool in ("ours", "running", "processes", "pool", "bound_pool", "tqdm_ray")
        if workers == 8 or tool in ("ours", "tqdm_ray")
    ]
    runs.append(("batches", 8, 10 * items))
    runs.append(("ours", 8, 4 * items))  # long enough to see that the lag does not grow
    with tempfile.TemporaryDirectory() as folder:
        for tool, workers, each in runs:
            name = tools[tool] + (", a long run" if each > items and tool == "ours" else "")
            try:
                row = watch(tool, workers, each, Path(folder))
            except ProgramFailed as error:
                print(error, file=sys.stderr)
                table.notes.append(f"{name}, {workers} workers: {error.why}.")
                continue
            table.rows.append([name, workers, *row])
            key = {"ours": "long_" if each > items else ""}.get(tool, f"{tool}_")
            for figure, value in zip(("first", "lag", "lag_p95", "lag_max"), row, strict=False):
                table.figures[f"{key}{figure}_{workers}"] = float(value or 0)
    table.notes += [
        f"Each worker sleeps a millisecond an item, {items:,} times (the long run: {4 * items:,}), and notes "
        "its position in a file.",
        "The lag is how long ago the truth was what is on the screen, looked at every hundredth of a second.",
        f"In batches: `track(shard.iter({BATCH}))` in a run of datasets, {10 * items:,} rows a worker.",
        "Within 5 points: at how many of the looks the share on the screen was that close to the true one.",
        "tqdm_ray has a bar for each worker and none for all: the sum of its bars is taken.",
    ]
    return [table]


def main() -> None:
    tool, workers, items, slots, spans = sys.argv[1:]
    done = TOOLS[tool](int(workers), int(items), slots)
    Path(spans).write_text(json.dumps(done), encoding="ascii")


if __name__ == "__main__":
    main()
