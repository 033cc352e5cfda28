"""Memory: the most that a program and all that it starts need, with what they share counted once.

The rows are in memory, as those are that a program has made, or on disk.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from .measure import end_tree, in_turns, ratio
from .table import Table
from .terminal import HOME

WORKERS, LOOK_EVERY_S, LIMIT_S = 2, 0.1, 300.0

PEER = "datasets.map, rows"

NAMES = ("ours, processes, yielded", PEER, "ours, ray, yielded")


def pss(pid: int) -> float:
    """Return the megabytes of a process, without mapped files: of what n processes share, an n-th."""
    with suppress(OSError, ValueError, KeyError):  # it has ended
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        sizes = {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
        return (sizes["Pss_Anon"] + sizes["Pss_Shmem"]) / 1e3
    return 0.0


def peak(name: str, home: Path, in_memory: bool) -> float:
    """Run a variant, and return the most memory that its processes had at once."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        paths = [str(home / "data"), f"{folder}/out", f"{folder}/marks"]
        program = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.variants", name, "cheap", str(WORKERS), *paths],
            env=os.environ | {"PYTHONPATH": str(HOME), "BENCHMARK_IN_MEMORY": "1" if in_memory else ""},
            cwd=HOME,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        most, until = 0.0, time.monotonic() + LIMIT_S
        try:
            root = psutil.Process(program.pid)
            while program.poll() is None and time.monotonic() < until:
                with suppress(psutil.NoSuchProcess):
                    most = max(most, sum(pss(each.pid) for each in [root, *root.children(recursive=True)]))
                time.sleep(LOOK_EVERY_S)
        finally:
            end_tree(program.pid)
        if program.wait():
            raise RuntimeError(f"{name} ended with the code {program.returncode}")
    return most


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    rows = 100_000 if quick else 1_000_000
    table = Table(
        "memory",
        f"Memory: {rows:,} rows of cheap work, {WORKERS} workers",
        ["the rows are", "with", "MB", f"of {PEER}"],
        notes=["The most that all processes had at once, medians. What processes share counts once (PSS)."],
        quick=quick,
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = ["-m", "benchmarks.work", str(home / "data"), str(rows)]
        subprocess.run([sys.executable, *data], check=True, timeout=LIMIT_S)
        for place, in_memory in (("in memory", True), ("on disk", False)):
            runs: dict[str, Callable[[], float]] = {
                name: partial(peak, name, home, in_memory) for name in NAMES
            }
            took = in_turns(runs, 1 if quick else 3)
            for name, peaks in took.items():
                of_peer = ratio(peaks, took[PEER])
                table.rows.append([place, name, statistics.median(peaks), of_peer])
                key = f"{place}_{name}".replace(", ", "_").replace(" ", "_").replace(".", "_")
                table.figures |= {f"{key}_mb": statistics.median(peaks), f"{key}_of_map": of_peer}
    return [table]
