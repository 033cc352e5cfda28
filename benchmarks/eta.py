"""The time left: the end that is shown against the true one, ours beside the mean rate.

Eight workers do shards of a thousand rows each, in order: even ones, ones of which one has twenty times the
work, and heavy-tailed ones. A run reads their counts on a simulated clock; one is really run, in threads.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from speedy_utils import Snapshot, multi_process, track
from speedy_utils._display.base import NullDisplay
from speedy_utils._run.feed import LocalFeed
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric, Report
from speedy_utils._state.timings import StageTimings

from .table import Table, results_of

WORKERS, SHARDS, ROWS = 8, 64, 1_000

PARTS = 20
"""In how many parts of a shard its pace changes."""

SECONDS = 60.0
"""How long a shard takes on a simulated clock, if it is one of the usual."""

REAL_SHARDS, REAL_ROWS, REAL_SECONDS = 16, 100, 1.0
"""The same for what is really run."""


class Reading(NamedTuple):
    """The ends that are shown at a time; None if there is none. All in seconds since the start."""

    now: float
    ours: float | None
    mean_rate: float | None

    @classmethod
    def of(cls, snapshot: Snapshot, now: float) -> Reading:
        rate, total = snapshot.rate, snapshot.total or 0
        mean_rate = now + (total - snapshot.done) / rate if rate else None
        return cls(now, None if snapshot.eta is None else now + snapshot.eta, mean_rate)


class Curve(NamedTuple):
    """What a run showed, and when it ended."""

    name: str
    readings: Sequence[Reading]
    end: float

    def errors(self, which: str) -> list[float]:
        """How far the shown end is from the true one, as a share of it, from the middle of the run on."""
        late = [reading for reading in self.readings if self.end / 2 <= reading.now < self.end]
        shown = [getattr(reading, which) for reading in late]
        return [abs(end - self.end) / self.end for end in shown if end is not None]

    def unknown(self) -> float:
        """The share of the second half in which we show no time left."""
        late = [reading.ours for reading in self.readings if self.end / 2 <= reading.now < self.end]
        return late.count(None) / len(late)


def shapes(shards: int, seconds: float) -> Mapping[str, list[float]]:
    """How long each shard takes."""
    chance = random.Random(17)
    even = [seconds * chance.uniform(0.9, 1.1) for _ in range(shards)]
    uneven = list(even)
    uneven[shards // 3] *= 20
    tailed = [seconds / 3 * min(chance.paretovariate(1.2), 60) for _ in range(shards)]
    return {"even": even, "one of 20×": uneven, "heavy-tailed": tailed}


class Shard:
    """How far a shard is, some seconds after it began: parts of it take up to three times as long as others.

    Args:
        number: Its number.
        seconds: How long it takes.
    """

    def __init__(self, number: int, seconds: float) -> None:
        chance = random.Random(number)
        costs = [chance.uniform(0.5, 1.5) for _ in range(PARTS)]
        ends = itertools.accumulate(costs, initial=0.0)
        self._ends = [seconds * end / sum(costs) for end in ends]  # of its parts

    def rows(self, seconds: float) -> int:
        part = min(bisect.bisect_right(self._ends, seconds), PARTS) - 1
        begin, end = self._ends[part : part + 2]
        return int(ROWS / PARTS * (part + min((seconds - begin) / (end - begin), 1.0)))


class Feed(LocalFeed):
    """What the shards in flight report on a simulated clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.steps = 0.0, 0
        self.running: dict[int, tuple[float, Shard]] = {}  # with the time when each began

    def collect(self) -> tuple[list[Report], StageTimings]:
        self.steps += 1
        started = Key(None, Metric.TASKS_STARTED)
        reports = [
            Report(number, 1, {started: 1, RUN_ITEMS: shard.rows(self.now - began)}, self.steps)
            for number, (began, shard) in self.running.items()
        ]
        return reports, {None: (self.now, 0.0)}


def simulate(name: str, seconds: Sequence[float], step: float) -> Curve:
    """Let a run read the counts of simulated workers every ``step`` seconds."""
    feed = Feed()
    run = Run(
        "Run",
        ROWS * len(seconds),
        tasks=len(seconds),
        display=NullDisplay(),
        feed=feed,
        poll_interval=3_600,
        clock=lambda: feed.now,
    )
    free = [0.0] * WORKERS
    events: list[tuple[float, bool, int]] = []  # the ends of shards before the starts that they allow
    for shard, takes in enumerate(seconds):
        events += [(free[0], True, shard), (free[0] + takes, False, shard)]
        heapq.heapreplace(free, free[0] + takes)
    events.sort()
    readings = []
    for number in range(int(max(free) / step) + 1):
        feed.now = number * step
        while events and events[0][0] <= feed.now:
            at, starts, shard = events.pop(0)
            if starts:
                run.attempt(shard, 1, total=ROWS)
                feed.running[shard] = at, Shard(shard, seconds[shard])
            else:
                del feed.running[shard]
                run.commit(shard, {RUN_ITEMS: ROWS}, total=ROWS, timings={})
        readings.append(Reading.of(run.snapshot(), feed.now))
    return Curve(name, readings, max(free))


def really(seconds: Sequence[float]) -> Curve:
    """Run it in threads, each row a sleep."""
    readings: list[tuple[float, Snapshot]] = []

    def work(shard: int) -> None:
        for _ in track(range(REAL_ROWS)):
            time.sleep(seconds[shard] / REAL_ROWS)

    multi_process(
        work,
        range(len(seconds)),
        num_workers=WORKERS,
        backend="threads",
        total_items=lambda _: REAL_ROWS,
        progress=lambda snapshot: readings.append((time.monotonic(), snapshot)),
    )
    began, end = readings[0][0], readings[-1][0]
    shown = [Reading.of(snapshot, now - began) for now, snapshot in readings]
    return Curve(f"one of 20×, really, in {end - began:.0f} s", shown, end - began)


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    curves = [
        simulate(name, seconds, 5.0 if quick else 1.0) for name, seconds in shapes(SHARDS, SECONDS).items()
    ]
    curves.append(really(shapes(REAL_SHARDS, REAL_SECONDS / (4 if quick else 1))["one of 20×"]))
    table = Table(
        "eta",
        "The end that is shown against the true one",
        [
            *("shards", "true end, s", "ours off by, at most %", "on average %", "not shown, %"),
            *("mean rate off by, at most %", "on average %"),
        ],
        quick=quick,
        plot="eta.svg",
    )
    for curve, key in zip(curves, ("even", "uneven", "tailed", "really"), strict=True):
        ours, mean_rate = (curve.errors(which) for which in ("ours", "mean_rate"))
        row = [
            100 * value for errors in (ours, mean_rate) for value in (max(errors), sum(errors) / len(errors))
        ]
        table.rows.append([curve.name, curve.end, *row[:2], 100 * curve.unknown(), *row[2:]])
        table.figures |= {f"{key}_percent": row[0], f"{key}_mean_rate_percent": row[2]}
    table.notes = [
        f"{WORKERS} workers do {SHARDS} shards of {ROWS:,} rows in order, in {SECONDS:.0f} s each; the "
        "counts are read every second of a simulated clock.",
        "Each twentieth of a shard takes another time, by a factor of up to three.",
        f"Really: {REAL_SHARDS} shards in threads, {REAL_SECONDS:.0f} s each.",
        "From the middle of the run on: how far the shown end is from the true one, as a share of it.",
        "The mean rate: what is left over the mean rate of the run.",
        "Nothing tells of a slow shard before it has begun.",
    ]
    draw(curves, results_of(quick) / table.plot)
    return [table]


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Write the plot of the ends that are shown against the time, as an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"})
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), sharey=True), curves, strict=True):
        for which, name in (("ours", "speedy_utils"), ("mean_rate", "mean rate")):
            shown = [getattr(reading, which) for reading in curve.readings]
            axes.plot(
                [reading.now / curve.end for reading in curve.readings],
                [float("nan") if end is None else end / curve.end for end in shown],
                label=name,
            )
        axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
        axes.set(title=curve.name, xlabel="time / true end", ylim=(0, 2), xlim=(0, 1))
        axes.title.set_fontsize(9)
    figure.axes[0].set_ylabel("shown end / true end")
    figure.axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
