"""Per item: what a loop costs when something counts it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from .loops import Costs, nanoseconds
from .measure import Cost, ratio
from .table import Table
from .terminal import run_in_terminal


def measured(what: str, quick: bool) -> dict[str, Costs]:
    """Run one of the programs of :mod:`benchmarks.loops` in a terminal."""
    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / "costs.json"
        run_in_terminal(["-m", "benchmarks.loops", what, str(out), *(["--quick"] if quick else [])])
        tables: dict[str, dict[str, list[list[float]]]] = json.loads(out.read_text(encoding="utf-8"))
    return {
        table: {name: [Cost(*cost) for cost in took] for name, took in costs.items()}
        for table, costs in tables.items()
    }


def to_peer(costs: Costs, name: str, peer: str) -> float | None:
    """The CPU time of one as a part of another's, in the same rounds."""
    if peer not in costs:
        return None
    return ratio([cost.cpu for cost in costs[name]], [cost.cpu for cost in costs[peer]])


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    tables = measured("items", quick)
    table = Table(
        "items",
        "Per item, over a bare loop",
        ["loop over", "with", "ns", "CPU ns", "of tqdm"],
        quick=quick,
    )
    names = {
        "list": "a list",
        "generator": "a generator",
        "map": "a `map`",
        "dataset": "a dataset, row and all",
        "ray": "a list, in a Ray task",
    }
    for kind, costs in tables.items():
        for name in costs:
            table.rows.append([names[kind], name, *nanoseconds(costs[name]), to_peer(costs, name, "tqdm")])
    for kind in ("list", "generator", "map"):
        table.figures[f"track_{kind}_ns"] = nanoseconds(tables[kind]["track, every=100"])[1]
        table.figures[f"tqdm_{kind}_ns"] = nanoseconds(tables[kind]["tqdm"])[1]
        table.figures[f"track_{kind}_of_tqdm"] = to_peer(tables[kind], "track, every=100", "tqdm") or 0.0
    rows = tables["dataset"]
    table.figures["track_dataset_ns"] = nanoseconds(rows["track, every=100"])[1]
    table.figures["bare_dataset_ns"] = nanoseconds(rows["bare"])[1]
    table.figures["tqdm_dataset_ns"] = nanoseconds(rows["tqdm"])[1]
    table.notes = [
        "What draws, draws into a terminal. `track` is bound to a reporter, whose thread calls an actor.",
        "CPU time, and the ratio of it, has that of helping threads. Small negative figures are noise.",
        "A dataset's row is one from disk, at the cost of a whole turn: `track` fetches it in batches.",
    ]
    return [table]
