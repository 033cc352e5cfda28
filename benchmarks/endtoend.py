"""End to end: a million text rows from the start of the program to the output on disk.

What the documents speak of is run in several rounds.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from .measure import in_turns, ratio
from .table import Table
from .terminal import ProgramFailed, Shown, last_count, run_in_terminal

OURS = "ours, processes, rows"
MAP = ("datasets.map, rows", "datasets.map, batches")
"""What the others are compared with."""

YIELDED = (OURS, "ours, processes, yielded")
MAIN = (*YIELDED, "ours, processes, batches", *MAP)
PEERS = ("plain Ray tasks, rows", *(f"{each}, rows" for each in ("mpire", "joblib") if find_spec(each)))
ALL = (*MAIN, "ours, ray, rows", "ours, ray, batches", *PEERS, "plain Ray tasks, batches")

LIMIT = 90.0
"""Seconds that a run may take."""

BUDGET = 560.0
"""Seconds after which no further run starts."""


class Part(NamedTuple):
    """Some variants that take turns."""

    work: str
    workers: int
    variants: Sequence[str]
    rounds: int


PLAN = (
    Part("cheap", 2, ALL, 1),
    Part("medium", 2, (*YIELDED, *MAP, "ours, ray, rows", *PEERS), 1),
    Part("cheap", 8, MAIN, 1),
    Part("medium", 8, (*YIELDED, *MAP), 1),
    Part("cheap", 2, MAIN, 2),
    Part("medium", 2, (*YIELDED, MAP[1]), 1),
)
"""Not each with each: that takes longer than all other tables."""


class Took(NamedTuple):
    """One run of a variant. Times in seconds.

    Attributes:
        total: From the start of the program to the output on disk.
        start: Of which passed before the first row.
        processing: From the first row to the last.
        saving: From the last row to the output.
        cpu: CPU of all processes, Ray's too, until they ended.
        memory: The most memory of all processes at once, in megabytes.
        shown: The last count that a bar showed.
    """

    total: float
    start: float
    processing: float
    saving: float
    cpu: float
    memory: float
    shown: str


class Variant(NamedTuple):
    """One way to go through the rows. Calling it runs it once.

    Attributes:
        name: That in :mod:`benchmarks.variants`.
        work: What is done to a row.
        workers: How many.
        rows: How many there are.
        home: A folder with the rows in ``data``, and room for the output.
        until: No run starts after that time.
    """

    name: str
    work: str
    workers: int
    rows: int
    home: Path
    until: float

    def __call__(self) -> Took | str:
        """Run it in a process and a terminal of its own; tell why where it fails."""
        if time.monotonic() > self.until:
            return "left out, for lack of time"
        home = self.home
        (home / "here").mkdir()
        paths = [str(home / name) for name in ("data", "out", "marks")]
        program = ["-m", "benchmarks.variants", self.name, self.work, str(self.workers), *paths]
        began = time.monotonic()
        try:
            shown = run_in_terminal(program, cwd=home / "here", timeout=LIMIT)
            return self._took(began, shown)
        except ProgramFailed as error:
            print(error, file=sys.stderr)
            return error.why
        finally:
            _clear(home)

    def _took(self, began: float, shown: Shown) -> Took:
        times: dict[str, list[float]] = {}
        for line in (self.home / "marks").read_text(encoding="ascii").splitlines():
            kind, at = line.split()
            times.setdefault(kind, []).append(float(at))
        first, last, saved = min(times["begin"]), max(times["end"]), times["saved"][0]
        return Took(
            saved - began,
            first - began,
            last - first,
            saved - last,
            shown.cost.cpu,
            shown.memory,
            last_count(shown.text, self.rows),
        )


def _clear(home: Path) -> None:
    for path in [*home.glob("out*"), home / "here"]:
        shutil.rmtree(path, ignore_errors=True)
    (home / "marks").unlink(missing_ok=True)


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    rows = 50_000 if quick else 1_000_000
    table = Table(
        "endtoend",
        f"End to end: {rows:,} rows, from the start of the program to the output on disk",
        [
            *("work, workers", "with", "runs", "seconds", "to the first row", "rows", "saving"),
            *("CPU seconds", "MB", "of datasets.map", "of it in batches", "the bar ended at"),
        ],
        quick=quick,
    )
    cells: dict[tuple[str, int], dict[str, list[Took]]] = {}
    reasons: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = ["-m", "benchmarks.work", str(home / "data"), str(rows)]
        subprocess.run([sys.executable, *data], check=True, timeout=LIMIT)
        until = time.monotonic() + BUDGET
        for part in PLAN:
            runs = {name: Variant(name, part.work, part.workers, rows, home, until) for name in part.variants}
            for name, runs_took in in_turns(runs, 1 if quick else part.rounds).items():
                for took in runs_took:
                    if isinstance(took, Took):
                        cells.setdefault(part[:2], {}).setdefault(name, []).append(took)
                    else:
                        reasons[f"{name}, {part.work} work, {part.workers} workers: {took}"] += 1
    for cell, cell_took in cells.items():
        _add_rows(table, *cell, cell_took)
    table.notes += [f"{why}{f' ({times} times)' if times > 1 else ''}." for why, times in reasons.items()]
    table.notes += [
        "Each run is a program in a terminal. The clock stops with the output on disk.",
        "The variants take turns. Where one ran several times, its figures are medians, and so is the ratio, "
        "of the ratios of the single rounds.",
        "Cheap work is `text.upper()`; medium work is some 9 µs of words and checksums.",
        "The rows are lines of Python's sources. CPU and memory are those of all processes.",
        "Plain Ray tasks have no bar, retry nothing and leave a dataset for each shard. mpire and joblib are "
        "given the indices of 10,000 rows at a time, and their program saves the results.",
        "Memory is without mapped and shared files.",
    ]
    return [table]


def _add_rows(table: Table, work: str, workers: int, cell: dict[str, list[Took]]) -> None:
    totals = {name: [took.total for took in runs] for name, runs in cell.items()}

    def times(name: str, peer: str) -> float | None:
        """Return how many times that of a peer: of rounds in which both finished, which are the first."""
        rounds = min(len(totals[name]), len(totals.get(peer, [])))
        return ratio(totals[name][:rounds], totals[peer][:rounds]) if rounds else None

    for name, runs in cell.items():
        middle = [statistics.median(values) for values in zip(*(took[:6] for took in runs), strict=True)]
        of_map = [times(name, peer) for peer in MAP]
        shown = runs[-1].shown or None
        table.rows.append([f"{work}, {workers}", name, len(runs), *middle, *of_map, shown])
        key = "".join(letter if letter.isalnum() else "_" for letter in f"{work}_{workers}_{name}")
        table.figures |= {f"{key}_s": middle[0], f"{key}_start_s": middle[1], f"{key}_cpu": middle[4]}
        ratios = zip(("of_rows", "of_batches", "of_ours"), (*of_map, times(name, OURS)), strict=True)
        table.figures |= {f"{key}_{of}": value for of, value in ratios if value is not None}
