"""Scale: real workers that do nothing but report, then thousands of simulated ones.

A simulated worker is what the actor sees of one: it has done ``PACE`` items a second since a known moment,
and says so every interval, with one call under way. What it has done at any time is known without asking it.
Two Ray tasks host all of a run; a run of that size has its relays as real :class:`Relay` objects in the
hosts, which call the actor over the network as they would from processes of their own.
"""

from __future__ import annotations

import heapq
import io
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from speedy_utils import Snapshot, multi_process, report_progress
from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.terminal.screen import Screen
from speedy_utils._ray.actor import start_actor
from speedy_utils._ray.client import ActorName, ActorReader, ActorSink
from speedy_utils._ray.relay import Relay, plan_relays
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import RUN_ITEMS, Report

from .measure import cpu_of, cpu_seconds, find_process
from .table import Table, results_of

PACE = 100.0
"""Items a second of each simulated worker."""

HOSTS = 2
WARM_UP = 3.0

MAX_INTERVAL_S = 2.0
"""Seconds between two calls of a worker without a relay, however many there are."""


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
    with tempfile.TemporaryDirectory() as folder:
        own, wall = cpu_seconds(), time.perf_counter()
        done = multi_process(
            hammer,
            range(workers),
            num_workers=workers,
            backend="ray",
            total_items=10**15,
            progress=live.append,
            workers=workers,
            seconds=seconds,
            folder=folder,
        )
        own, wall = cpu_seconds() - own, time.perf_counter() - wall
    reports = sum(count for count, _ in done)
    return [
        workers,
        reports / seconds / 1e6,
        sum(cpu for _, cpu in done) / reports * 1e9,
        100 * own / wall,
        100 * max(snapshot.done for snapshot in live if not snapshot.final) / reports,
    ]


@dataclass(frozen=True)
class Scale:
    """What some number of simulated workers cost.

    Attributes:
        workers: How many there were.
        callers: How many processes called the actor: the workers, or their relays.
        actor: CPU of the actor, as a part of one core.
        driver: The same of the driver with its poller and bar.
        lag: Seconds that the bar was behind: the median, that of 95 in 100 moments, and the longest.
        memory: Megabytes of the actor's process, and of the driver's.
        kept_up: The part of the reports that the hosts had time to make.
    """

    workers: int
    callers: int
    actor: float
    driver: float
    lag: tuple[float, float, float]
    memory: tuple[float, float]
    kept_up: float


@ray.remote(num_cpus=0.5, max_retries=0)
def host(actor: Any, numbers: Sequence[int], relays: int, interval: float, start: float, end: float) -> int:
    """Be some workers from ``start`` to ``end``, and say how many reports they made."""
    if relays:
        mine = [Relay(ActorSink(actor, relays, send_address=False)) for _ in range(-(-relays // HOSTS))]
        ways = [mine[number % len(mine)].report for number in numbers]
    else:
        ways = [ActorSink(actor).send for _ in numbers]  # each with one call under way
    due = [(start + interval * turn / len(numbers), turn) for turn in range(len(numbers))]
    heapq.heapify(due)
    made = 0
    while (now := time.monotonic()) < end:
        at, turn = due[0]
        if at > now:
            time.sleep(min(at, end) - now)
            continue
        age = max(0.0, now - start)
        ways[turn]([Report(numbers[turn], 1, {RUN_ITEMS: int(PACE * age)})], {None: (age, 0.0)})
        made += 1
        heapq.heapreplace(due, (max(at + interval, now), turn))
    return made


class _Watched(BarDisplay):
    """The usual bar, which remembers when it drew what."""

    def __init__(self) -> None:
        super().__init__(Screen(io.StringIO(), size=lambda: (100, 24)))
        self.drawn: list[tuple[float, int]] = []

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        self.drawn.append((time.monotonic(), snapshot.done))


class _Feed(ActorReader):
    """The actor as the feed of a run, which is otherwise the engine."""

    phase = ""


def simulate(workers: int, seconds: float, *, direct: bool = False) -> Scale:
    """Let workers report to an actor of their own for some seconds, and see what it costs.

    Args:
        workers: How many.
        seconds: How long, after a warm-up.
        direct: Whether each calls the actor itself, however many they are.
    """
    actor = start_actor(None, "")
    names, sinks = plan_relays(ActorName(""), workers)
    relays = 0 if direct else len(names)
    interval = min(ActorSink(actor, workers).interval, MAX_INTERVAL_S) if direct else sinks[0].interval
    ray.get(actor.get_progress.remote())
    process = find_process("ray::ProgressActor")
    start = time.monotonic() + 1.0
    end = start + WARM_UP + seconds
    hosts = [
        host.remote(actor, range(part, workers, HOSTS), relays, interval, start, end)
        for part in range(min(HOSTS, workers))
    ]
    display, feed = _Watched(), _Feed(actor)
    with Run("Simulated", 10**15, display=display, feed=feed):
        time.sleep(start + WARM_UP - time.monotonic())
        before, own_before = cpu_of(process), cpu_seconds()
        time.sleep(end - time.monotonic())
        spent, own = cpu_of(process) - before, cpu_seconds() - own_before
        memory = process.memory_info().rss / 1e6
        made = sum(ray.get(hosts))
        feed.close()
    ray.kill(actor)
    return Scale(
        workers,
        relays or workers,
        spent / seconds,
        own / seconds,
        lags_of(display.drawn, start, workers * PACE, (start + WARM_UP, end)),
        (memory, psutil.Process().memory_info().rss / 1e6),
        made / (workers * (end - start) / interval),
    )


def lags_of(
    drawn: Sequence[tuple[float, int]], start: float, pace: float, window: tuple[float, float]
) -> tuple[float, float, float]:
    """How far a bar was behind at every hundredth of a second: the median, 95 in 100, and the longest."""
    lags = []
    shown = 0
    for tick in range(round((window[1] - window[0]) * 100)):
        now = window[0] + tick / 100
        while shown + 1 < len(drawn) and drawn[shown + 1][0] <= now:
            shown += 1
        lags.append(now - start - drawn[shown][1] / pace)
    lags.sort()
    return statistics.median(lags), lags[int(len(lags) * 0.95)], lags[-1]


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
            "% shown before the end",
        ],
        part_of="scale",
        quick=quick,
    )
    for workers in (1, 4, 16, 64):
        if workers <= many:
            reports.rows.append(real(workers, seconds))
            reports.figures[f"million_reports_{workers}"] = float(reports.rows[-1][1] or 0)
    reports.notes = [
        "Each worker calls `report_progress(1)` in a loop; they start at once when all are up.",
        f"What is shown before the end is a report and a look old. They share {os.cpu_count()} cores.",
    ]
    ray.shutdown()
    return [reports, simulated(quick)]


def simulated(quick: bool) -> Table:
    """Simulated workers against the real actor and poller."""
    seconds = 3.0 if quick else 6.0
    table = Table(
        "scale",
        "Simulated workers against the real actor, poller and bar",
        [
            *("workers", "that call the actor", "actor, % of a core", "driver, % of a core"),
            *("lag, median s", "p95 s", "max s", "actor MB", "driver MB", "reports made in time, %"),
        ],
        quick=quick,
        plot="scale.svg",
    )
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    measured = [simulate(workers, seconds) for workers in (1, 100, 200, 1_000, 3_000, 10_000)]
    direct = [simulate(workers, seconds, direct=True) for workers in (1_000, 3_000, 10_000)]
    ray.shutdown()
    for kind, scales in (("", measured), (" (each by itself)", direct)):
        for scale in scales:
            costs = [100 * scale.actor, 100 * scale.driver, *scale.lag, *scale.memory, 100 * scale.kept_up]
            table.rows.append([f"{scale.workers:,}{kind}", scale.callers, *costs])
    table.figures = {
        "actor_10000_percent": 100 * measured[-1].actor,
        "driver_10000_percent": 100 * measured[-1].driver,
        "lag_max_10000_s": measured[-1].lag[2],
        "direct_10000_percent": 100 * direct[-1].actor,
        "direct_10000_lag_max_s": direct[-1].lag[2],
    }
    table.notes = [
        "A worker has done a hundred items a second since a known moment, and says so every interval, "
        "with one call under way. Two Ray tasks host them all.",
        "Beyond 200 workers a hundred share a relay; those live in the hosts and call the actor.",
        '"Each by itself": without relays.',
    ]
    draw(measured, direct, results_of(quick) / table.plot)
    return table


def draw(measured: Sequence[Scale], direct: Sequence[Scale], path: Path) -> None:
    """Write the plot of the actor's CPU against the number of workers, as an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"})
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for scales, name in ((measured, "as it is"), (direct, "without relays")):
        axes.plot([s.workers for s in scales], [100 * s.actor for s in scales], "o-", label=name)
    axes.set(xscale="log", xlabel="workers that report", ylabel="actor, % of a core", ylim=(0, 105))
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
