"""Scale: real workers that do nothing but report, then thousands of simulated ones."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import ray

from speedy_utils import Snapshot, multi_process, report_progress

from .measure import cpu_seconds
from .sources import KEPT_UP, Looks, Scale, one_gatherer, simulate
from .table import Table, results_of


def hammer(worker: int, workers: int, seconds: float, folder: str) -> tuple[int, float]:
    """Report one by one for some seconds, from the moment at which all workers are up; say how often."""
    (Path(folder) / str(worker)).touch()
    while len(list(Path(folder).iterdir())) < workers:
        time.sleep(0.05)
    done, cpu = 0, time.process_time()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for _ in range(1_000):
            report_progress(1)
        done += 1_000
    return done, time.process_time() - cpu


def real(workers: int, seconds: float) -> list[str | float | int | None]:
    """A row of real workers."""
    live: list[Snapshot] = []
    with tempfile.TemporaryDirectory() as folder, Looks() as looks:
        own, wall = cpu_seconds(), time.perf_counter()
        done = multi_process(
            hammer,
            range(workers),
            num_workers=workers,
            total_items=10**15,
            progress=live.append,
            workers=workers,
            seconds=seconds,
            folder=folder,
        )
        own, wall = cpu_seconds() - own, time.perf_counter() - wall
    reports = sum(count for count, _ in done)
    nanoseconds = sum(cpu for _, cpu in done) / reports * 1e9
    return [
        workers,
        reports / seconds / 1e6,
        nanoseconds,
        100 * own / wall,
        statistics.median(looks.took) * 1e3,
        max(looks.took) * 1e3,
        100 * max(snapshot.done for snapshot in live if not snapshot.final) / reports,
    ]


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    many = 4 if quick else 64
    seconds = 2.0 if quick else 3.0
    # Ray warns about more worker processes than three times what it may start at once.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(many))
    ray.init(address="local", num_cpus=many, include_dashboard=False, logging_level="ERROR")
    reports = Table(
        "reports",
        "Real workers that only report",
        [
            *("workers", "million reports a second", "CPU ns a report", "driver, % of a core"),
            *("a look, median ms", "longest ms", "% shown before the end"),
        ],
        part_of="scale",
        quick=quick,
    )
    began = time.monotonic()
    for workers in (1, 2, 4, 8, 16, 32, 64):
        if workers <= many:
            reports.rows.append(real(workers, seconds))
            reports.figures[f"million_reports_{workers}"] = float(reports.rows[-1][1] or 0)
            reports.figures[f"look_ms_{workers}"] = float(reports.rows[-1][4] or 0)
    spent = time.monotonic() - began
    reports.notes = [
        "Each worker calls `report_progress(1)` in a loop; they start at once when all are up.",
        "What is shown before the end is a report and a look old, more than a second once a run has lasted.",
        f"They share {os.cpu_count()} cores. The rounds took {spent:.0f} s, most of it the start of workers.",
    ]
    ray.shutdown()
    return [reports, simulated(quick)]


def simulated(quick: bool) -> Table:
    """Sources against the real actor and poller."""
    seconds = 3.0 if quick else 6.0
    table = Table(
        "scale",
        "Simulated workers against the real actor, poller and bar",
        [
            *("sources", "that call the actor", "actor, % of a core", "driver, % of a core"),
            *("a look, median ms", "longest ms", "lag, median s", "p95 s", "max s", "actor MB", "driver MB"),
            "reports made in time, %",
        ],
        quick=quick,
        plot="scale.svg",
    )
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    measured = [simulate(sources, seconds) for sources in (1, 100, 200, 1_000, 3_000, 10_000)]
    direct = [simulate(sources, seconds, direct=True) for sources in (1_000, 3_000, 10_000)]
    relay = one_gatherer(100, seconds)
    ray.shutdown()
    for kind, scales in (("", measured), (" (each by itself)", direct)):
        for scale in scales:
            table.rows.append(
                [
                    f"{scale.sources:,}{kind}",
                    scale.calls,
                    100 * scale.actor,
                    100 * scale.driver,
                    *(1e3 * look for look in scale.look),
                    *scale.lag,
                    *scale.memory,
                    100 * scale.kept_up,
                ]
            )
    most = measured[-1]
    kept_up = [scale for scale in [*measured, *direct] if scale.kept_up > KEPT_UP]
    call, report, base = fit(kept_up)
    table.figures = {
        "actor_10000_percent": 100 * most.actor,
        "driver_10000_percent": 100 * most.driver,
        "lag_max_10000_s": most.lag[2],
        "lag_median_10000_s": most.lag[0],
        "gatherer_percent": 100 * relay,
        "microseconds_a_call": 1e6 * call,
        "microseconds_a_report": 1e6 * report,
        "direct_10000_percent": 100 * direct[-1].actor,
        "direct_10000_lag_max_s": direct[-1].lag[2],
    }
    table.notes = [
        "A source has done a hundred items a second since a known moment, and says so every interval, "
        "with one call under way. Two Ray tasks host them all. Intervals are those of a run that has lasted: "
        "in its first ten seconds it is told, and asks, more often.",
        "Beyond 200 sources a hundred share a relay; those live in the hosts and call the actor.",
        f"A relay in its own process, with 100 sources: {100 * relay:.0f} % of a core.",
        '"Each by itself": without relays.',
        f"Fitted over all rows whose reports were made in time: {1e6 * call:.0f} µs of the actor a call, "
        f"{1e6 * report:.1f} µs a report in it, and {100 * base:.1f} % of a core without any. A worker that "
        f"reports every 2 s by itself costs it {50 * (call + report):.3f} % of a core, and one of the 10,000 "
        f"through its relay {100 * most.of_a_worker(call, report):.4f} %.",
    ]
    from .plot import draw

    draw(measured, direct, (call, report, base), results_of(quick) / table.plot)
    return table


def fit(scales: Sequence[Scale]) -> tuple[float, float, float]:
    """What the actor spends its time on, by least squares over all runs.

    Returns:
        CPU seconds of a call and of a report in it, and the part of a core that it takes without either.
    """
    import numpy as np

    loads = np.array([[scale.calls_made, scale.reports_made, 1.0] for scale in scales])
    actor = np.array([scale.actor for scale in scales])
    (call, report, base), *_ = np.linalg.lstsq(loads, actor, rcond=None)
    if report < 0:  # too little to tell from the noise
        (call, base), *_ = np.linalg.lstsq(loads[:, ::2], actor, rcond=None)
    return float(call), max(0.0, float(report)), float(base)
