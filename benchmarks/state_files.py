"""The channel of state files: what reading many costs the driver, and what a call costs that counts.

    python -m benchmarks.state_files FOLDER RUN PROCESSES PER_SECOND START END

This program plays many processes: each has done ``PACE`` items a second since a known moment, and its file is
replaced every so often. What they have done at any time is known without asking them.
"""

from __future__ import annotations

import heapq
import io
import os
import subprocess
import sys
import time

from speedy_utils import Snapshot
from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.terminal.screen import Screen
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric, Report, Task
from speedy_utils._worker.channel.calls import ProcessCounts
from speedy_utils._worker.channel.folder import RunFolder
from speedy_utils._worker.channel.reader import FolderReader
from speedy_utils._worker.channel.state_file import encode_state
from speedy_utils._worker.channel.writer import FolderSink
from speedy_utils._worker.reporter import Reporter

from .measure import cpu_seconds
from .scale import lags_of
from .table import Cell, Table

PACE = 100.0
"""Items a second of each process."""

WARM_UP = 3.0


def play(folder: str, run: str, processes: int, per_second: float, start: float, end: float) -> int:
    """Be some processes from ``start`` to ``end``, and return how many states they have written."""
    interval = 1 / per_second
    due = [(start + interval * process / processes, process) for process in range(processes)]
    heapq.heapify(due)
    unfinished = f"{folder}/0-00000000-0.new"
    state = _template(run)
    made = 0
    while (now := time.monotonic()) < end:
        at, process = due[0]
        made += 1
        if at > now:
            time.sleep(at - now + 0.005)  # several at once, as each pause has its price
        done = int(PACE * max(0.0, time.monotonic() - start))
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT)
        os.write(file, state % (process, done, made))
        os.close(file)
        os.replace(unfinished, f"{folder}/{process}-00000000.json")
        heapq.heapreplace(due, (at + interval, process))
    return made


def _template(run: str) -> bytes:
    """A state with places for a process, its items and its reading: to make one takes long."""
    report = Report("987654001", 1, {RUN_ITEMS: 987654002, Key(None, Metric.TASKS_STARTED): 1}, 987654003)
    text = encode_state(run, [report], {None: (1.0, 0.0)})
    for number in (b"987654001", b"987654002", b"987654003"):
        text = text.replace(number, b"%d", 1)
    return text


class _Watched(BarDisplay):
    """The usual bar, which remembers when it drew what."""

    def __init__(self) -> None:
        super().__init__(Screen(io.StringIO(), size=lambda: (100, 24)))
        self.drawn: list[tuple[float, int]] = []

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        self.drawn.append((time.monotonic(), snapshot.done))


class _Feed(FolderReader):
    """The folder as the feed of a run, which is otherwise the engine."""

    phase = trouble = ""
    answered = True

    def forget(self, task: Task) -> None:
        """Do nothing: a file holds what runs."""


def watch(processes: int, per_second: float, seconds: float) -> list[Cell]:
    """Read their files for some seconds; return what it costs and how far the bar is behind."""
    with RunFolder() as folder:
        start = time.monotonic() + 2.0
        end = start + WARM_UP + seconds
        arguments = [folder.path, folder.run, processes, per_second, start, end]
        player = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.state_files", *map(str, arguments)], stdout=subprocess.PIPE
        )
        display = _Watched()
        try:
            with Run("Simulated", 10**15, display=display, feed=_Feed(folder.path, folder.run)):
                time.sleep(start + WARM_UP - time.monotonic())
                before = cpu_seconds()
                time.sleep(end - time.monotonic())
                own = (cpu_seconds() - before) / seconds
            made = int(player.communicate(timeout=60)[0])
        finally:
            player.kill()
            player.communicate()
    lags = lags_of(display.drawn, start, processes * PACE, (start + WARM_UP, end))
    due = processes * per_second * (end - start)
    return [processes, per_second, 100 * own, *lags, 100 * made / due]


def call_cost(calls: int) -> list[Cell]:
    """Make calls of nothing that count; return what one costs."""
    with RunFolder() as folder:
        sink = FolderSink(folder.path, folder.run)
        counts = ProcessCounts(sink.process_name, sink)
        cpu, wall = time.process_time(), time.perf_counter()
        for number in range(calls):
            reporter = Reporter(number)
            counts.add(reporter)
            counts.finish(reporter, {RUN_ITEMS: 1})
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return [calls, wall, 1e6 * cpu / calls]


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    seconds = 4.0 if quick else 10.0
    reading = Table(
        "state_files",
        "State files of simulated processes against the real reader, poller and bar",
        [
            *("processes", "states a second of each", "driver, % of a core"),
            *("lag, median s", "p95 s", "max s", "states written in time, %"),
        ],
        quick=quick,
    )
    for processes, per_second in ((64, 2.0), (1_000, 1.0), (5_000, 1.0)):
        row = watch(processes, per_second, seconds)
        reading.rows.append(row)
        reading.figures[f"state_files_{processes}_percent"] = float(row[2] or 0)
        reading.figures[f"state_files_{processes}_lag_max_s"] = float(row[5] or 0)
    reading.notes = [
        "A process has done a hundred items a second since a known moment, and replaces its file that "
        "often. Half of the time between two states is a part of the lag.",
    ]
    calls = Table(
        "counted_calls",
        "Calls of nothing, each counted exactly when it returns",
        ["calls", "seconds", "CPU us a call"],
        part_of="state_files",
        quick=quick,
    )
    for number in (1_000, 10_000) if quick else (10_000, 100_000):
        calls.rows.append(call_cost(number))
        calls.figures[f"counted_call_{number}_us"] = float(calls.rows[-1][2] or 0)
    return [reading, calls]


def main() -> None:
    folder, run_id, *numbers = sys.argv[1:]
    processes, per_second, start, end = map(float, numbers)
    print(play(folder, run_id, int(processes), per_second, start, end))


if __name__ == "__main__":
    main()
