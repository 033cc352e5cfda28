"""How far the bar is behind the truth, and whether the rate it ends with is right.

    python benchmarks/fidelity.py [--workers 8] [--items 10000]

Each worker sleeps a millisecond an item and writes its true position to a shared file, which a thread
of the driver compares with what was drawn last.
"""

from __future__ import annotations

import argparse
import io
import mmap
import statistics
import struct
import tempfile
import threading
import time
from pathlib import Path

from speedy_utils import Snapshot, multi_process, track
from speedy_utils.multi_worker import process
from speedy_utils.progress.display import BarDisplay


class WatchedBar(BarDisplay):
    """The usual bar, which remembers what it drew."""

    shown: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        self.shown = snapshot


def work(worker: int, count: int, path: str) -> tuple[float, float]:
    """Runs in a worker: one process, one slot of the file."""
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as slots:
        began = time.time()
        for item in track(range(count)):
            time.sleep(0.001)
            struct.pack_into("q", slots, 8 * worker, item + 1)
        return began, time.time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--items", type=int, default=10_000)
    options = parser.parse_args()

    display = WatchedBar(io.StringIO())
    process.display_here = lambda _: display
    truth: list[tuple[float, int]] = []
    lags: list[float] = []
    over = threading.Event()

    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8 * options.workers))
        file.flush()

        def watch() -> None:
            with mmap.mmap(file.fileno(), 0) as slots:
                while not over.wait(0.02):
                    done = sum(struct.unpack_from(f"{options.workers}q", slots))
                    now = time.perf_counter()
                    truth.append((now, done))
                    if display.shown is not None and 0 < done < options.workers * options.items:
                        # How long ago the truth was what is on the screen now.
                        since = next(
                            (then for then, was in reversed(truth) if was <= display.shown.done), None
                        )
                        lags.append(now - (truth[0][0] if since is None else since))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        spans = multi_process(
            work,
            range(options.workers),
            num_workers=options.workers,
            total_items=lambda _: options.items,
            count=options.items,
            path=file.name,
        )
        over.set()
        watcher.join()

    total = options.workers * options.items
    last = display.shown
    assert last is not None
    rate = total / (max(end for _, end in spans) - min(began for began, _ in spans))
    steady = sorted(lags)
    print(f"lag: median {statistics.median(steady):.2f} s, p95 {steady[int(len(steady) * 0.95)]:.2f} s")
    print(f"final rate: {last.rate:,.0f} items/s shown, {rate:,.0f} true ({last.rate / rate - 1:+.1%})")
    print(f"final count: {last.done:,}/{last.total:,}")


if __name__ == "__main__":
    main()
