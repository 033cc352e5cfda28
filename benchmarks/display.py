"""Display: what it costs the driver to show a run with eight stages, as often as by default."""

from __future__ import annotations

import time
from statistics import median

from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.terminal.screen import Screen
from speedy_utils._run.feed import LocalFeed
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric, Report
from speedy_utils._state.timings import StageTimings

from .table import Table
from .terminal import read_terminal

STAGES, TASKS, INTERVAL = 8, 64, 0.3


class Feed(LocalFeed):
    """What 64 tasks report, a little more at each look."""

    def __init__(self) -> None:
        super().__init__()
        self.look = 0

    def collect(self) -> tuple[list[Report], StageTimings]:
        self.look += 1
        names = [f"Stage {number}" for number in range(STAGES)]
        counts = {RUN_ITEMS: 0, Key("Stage 0", Metric.COUNTER, "tokens"): self.look}
        for name in names:
            counts |= {Key(name, Metric.ITEMS): self.look * 10, Key(name, Metric.TASKS_STARTED): 1}
        timings = dict.fromkeys([None, *names], (self.look * INTERVAL, 0.0))
        return [Report(task, 1, counts) for task in range(TASKS)], timings


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    rounds = 30 if quick else 1_000
    display = BarDisplay(Screen(read_terminal(), size=lambda: (120, 40)))
    run = Run("Run", 10**6, tasks=TASKS, display=display, feed=Feed(), poll_interval=3_600)
    walls, costs = [], []
    for _ in range(rounds):
        cpu, wall = time.thread_time(), time.perf_counter()
        display.show(run.snapshot())
        walls.append(time.perf_counter() - wall)
        costs.append(time.thread_time() - cpu)
    display.close()
    cost = median(costs)
    table = Table(
        "display",
        "The display",
        ["what", "ms a look", "CPU ms", "% of a core"],
        [[f"{STAGES} stages, {TASKS} tasks", 1e3 * median(walls), 1e3 * cost, 100 * cost / INTERVAL]],
        [f"A look is taken every {INTERVAL} s: counts are merged, and the lines drawn. {rounds:,} of them."],
        {"look_ms": 1e3 * cost, "percent": 100 * cost / INTERVAL},
        quick=quick,
    )
    return [table]
