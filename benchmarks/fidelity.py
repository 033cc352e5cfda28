"""Fidelity: how far a bar in a terminal is behind the truth, and what it ends with."""

from __future__ import annotations

import json
import mmap
import re
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import former
from .table import Table
from .terminal import ProgramFailed, plain, run_in_terminal

LIMIT = 75.0
"""Seconds that a run may take; the work in it takes some ten, or twenty-five."""

LATE = 10.0
"""Seconds after which a run is told less often: the lag from there on is measured by itself."""

_COUNT = re.compile(r"([\d,.]+[kM]?)/([\d,.]+[kM]?) \[")
_RATE = re.compile(r"([\d,.]+) ?items/s")


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


def watch(
    tool: str, python: str, workers: int, items: int, home: Path, since: float = 0.0
) -> list[str | float | None]:
    """Run the paced workers under a bar; tell the row of the table after its name.

    The lag is that from so many seconds of work on.
    """
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
        program = ["-m", "benchmarks.paced", tool, str(workers), str(items), str(slots), str(spans)]
        run_in_terminal(program, python=python, seen=screen.see, cwd=home, timeout=LIMIT)
    finally:
        over.set()
        looker.join()
    lags = sorted(lags_behind(truth, screen.drawn, total, since))
    done = json.loads(spans.read_text(encoding="ascii"))
    true_rate = total / (max(end for _, end in done) - min(began for began, _ in done))
    return [
        statistics.median(lags),
        lags[int(len(lags) * 0.95)],
        lags[-1],
        f"{screen.drawn[-1][1]:,}/{total:,}",
        screen.rate,
        true_rate,
        None if screen.rate is None else f"{screen.rate / true_rate - 1:+.1%}",
    ]


def lags_behind(
    truth: list[tuple[float, int]], drawn: list[tuple[float, int]], total: int, since: float
) -> list[float]:
    """At each look at the truth from so many seconds of work on: how long ago it was what the bar shows."""
    lags = []
    first = since + next(now for now, done in truth if done)
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
            *("bar", "workers", "lag, median s", "p95 s", "max s", "ended at", "final rate", "true rate"),
            "rate off by",
        ],
        quick=quick,
    )
    tools = {"ours": "speedy_utils", "tqdm_ray": "tqdm_ray", "former": f"speedy-utils {former.VERSION}"}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        pythons = dict.fromkeys(tools, sys.executable)
        try:
            pythons["former"] = former.install(home / "former")
        except former.NotInstalled as error:
            table.notes.append(f"speedy-utils {former.VERSION} could not be installed: {error}")
            del tools["former"]
        late = f"speedy_utils, from {LATE:g} s on"
        runs = [(name, tool, workers, items, 0.0) for workers in (2, 8) for tool, name in tools.items()]
        runs.append((late, "ours", 8, 14_000 if quick else 20_000, LATE))
        for name, tool, workers, each, since in runs:
            try:
                row = watch(tool, pythons[tool], workers, each, home, since)
            except ProgramFailed as error:
                print(error, file=sys.stderr)
                table.notes.append(f"{name}, {workers} workers: {error.why}.")
            else:
                table.rows.append([name, workers, *row])
    for name, workers, median, p95, longest, _, rate, true in (row[:8] for row in table.rows):
        keys = {"speedy_utils": "", late: "late_", "tqdm_ray": "tqdm_ray_"}
        key = keys.get(str(name), "former_")
        table.figures |= {
            f"{key}lag_{workers}": float(median or 0),
            f"{key}lag_p95_{workers}": float(p95 or 0),
            f"{key}lag_max_{workers}": float(longest or 0),
        }
        if rate is not None:
            table.figures[f"{key}rate_off_{workers}"] = float(rate) / float(true or 1) - 1
    table.notes += [
        f"Each worker sleeps a millisecond an item, {items:,} times, or long enough to see the lag later on, "
        "and notes its position in a file.",
        "The lag is how long ago the truth was what is on the screen, looked at every hundredth of a second.",
        "tqdm_ray has a bar for each worker and none for all: the sum of its bars is taken.",
    ]
    return [table]
