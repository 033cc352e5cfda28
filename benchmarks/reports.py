"""Many workers that do nothing but report: how many reports a second, and how long a look takes.

python benchmarks/reports.py [--workers 16] [--seconds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from speedy_utils import multi_process, report_progress
from speedy_utils.multi_worker import process
from speedy_utils.progress.link import ActorFeed
from speedy_utils.testing import RecordingDisplay


def hammer(_: int, seconds: float) -> int:
    """Report one by one for some seconds; the clock is read every 1,000 calls."""
    done = 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for _ in range(1_000):
            report_progress(1)
        done += 1_000
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()

    display = RecordingDisplay()
    process.display_here = lambda _: display
    looks: list[float] = []
    collect = ActorFeed.collect

    def timed(feed: ActorFeed) -> Any:
        start = time.perf_counter()
        try:
            return collect(feed)
        finally:
            looks.append(time.perf_counter() - start)

    ActorFeed.collect = timed  # type: ignore[method-assign]
    # A declared total that nobody can reach leaves the count as it was reported.
    done = multi_process(
        hammer,
        range(options.workers),
        num_workers=options.workers,
        total_items=10**15,
        seconds=options.seconds,
    )
    running = [s for s in display.snapshots if not s.final]
    print(
        f"{options.workers} workers, {sum(done):,} reports, "
        f"{sum(done) / options.seconds / 1e6:.1f} million a second"
    )
    print(f"counted live before the end: {running[-1].done:,}")
    print(
        f"a look at the count: median {statistics.median(looks) * 1e3:.1f} ms, max {max(looks) * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
