"""Overhead: what progress costs a program, beside plain Ray tasks that run the same function without any.

    python -m benchmarks.overhead DATA ROWS PASSES KIND...

Kinds are `plain` and `ours`; they take turns in one Ray, whose worker processes serve both: two programs
differ by more than progress costs, from where their memory lies alone. The function loops over
`track(rows)`, which outside a run only fetches the rows.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile

from .measure import Cost, in_turns, ratio
from .table import Table
from .terminal import run_in_terminal
from .work import WORK

WORKERS = 2
PLAIN, OURS = "plain Ray tasks", "multi_process"
KINDS = {PLAIN: "plain", OURS: "ours"}
PROGRAM = ("-m", "benchmarks.overhead")
MARK = "<turn>"


def shard(index: int, passes: int, data: str) -> int:
    """Work on the rows of a shard one by one, several times."""
    from datasets import load_from_disk

    from speedy_utils import track

    rows = load_from_disk(data).shard(WORKERS, index, contiguous=True)
    work, letters = WORK["medium"], 0
    for _ in range(passes):
        for row in track(rows):
            letters += len(work(row["text"]))
    return letters


def plain(passes: int, data: str, rows: int) -> None:
    import ray

    remote = ray.remote(shard)
    ray.get([remote.remote(index, passes, data) for index in range(WORKERS)])


def ours(passes: int, data: str, rows: int) -> None:
    from speedy_utils import multi_process

    total = passes * rows // WORKERS
    multi_process(
        shard,
        range(WORKERS),
        num_workers=WORKERS,
        backend="ray",
        total_items=lambda _: total,
        passes=passes,
        data=data,
    )


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    rows, rounds, passes = (50_000, 1, 1) if quick else (1_000_000, 3, 5)
    with tempfile.TemporaryDirectory() as data:
        subprocess.run([sys.executable, "-m", "benchmarks.work", data, str(rows)], check=True, timeout=60)
        starts = {
            name: functools.partial(run_in_terminal, [*PROGRAM, data, str(rows), "0", kind])
            for name, kind in KINDS.items()
        }
        started = {name: [run.cost for run in runs] for name, runs in in_turns(starts, rounds).items()}
        # Each is first as often as the other, or once more.
        order = [name for turn in range(rounds) for name in ((PLAIN, OURS) if turn % 2 else (OURS, PLAIN))]
        program = [*PROGRAM, data, str(rows), str(passes), *(KINDS[name] for name in order)]
        marks = run_in_terminal(program, mark=MARK, timeout=300).marks
    worked: dict[str, list[Cost]] = {PLAIN: [], OURS: []}
    for name, before, after in zip(order, marks[:-1], marks[1:], strict=True):
        worked[name].append(Cost(after.wall - before.wall, after.cpu - before.cpu))
    table = Table(
        "overhead",
        "What progress costs a program, in all its processes",
        ["work", "with", "seconds", "CPU seconds", "CPU over the tasks", "of the tasks"],
        quick=quick,
    )
    _tell(table, "start", "none: the start alone", started)
    _tell(table, "run", f"{passes * rows:,} rows", worked)
    table.figures["million_rows"] = passes * rows / 1e6
    table.notes = [
        f"Medium work on rows of a dataset, one by one in {WORKERS} workers. Both run the same function, "
        "which loops over `track(rows)`: outside a run that only fetches rows.",
        "The start is from that of the program, with Ray, to its end. The rows are worked on in one Ray, "
        "in turns, by worker processes that are there already; the start of the run's actor is part of them.",
        f"Medians of {rounds} turns, and of the differences and ratios of two turns in a row.",
    ]
    return [table]


def _tell(table: Table, key: str, work: str, costs: dict[str, list[Cost]]) -> None:
    cpu = {name: [cost.cpu for cost in took] for name, took in costs.items()}
    wall = {name: statistics.median(cost.wall for cost in took) for name, took in costs.items()}
    more = statistics.median(a - b for a, b in zip(cpu[OURS], cpu[PLAIN], strict=True))
    part = ratio(cpu[OURS], cpu[PLAIN])
    table.rows += [
        [work, PLAIN, wall[PLAIN], statistics.median(cpu[PLAIN]), None, None],
        [work, OURS, wall[OURS], statistics.median(cpu[OURS]), more, f"{part:.3f}"],
    ]
    table.figures |= {f"{key}_more_s": more, f"{key}_cpu_s": statistics.median(cpu[PLAIN])}
    table.figures[f"{key}_percent"] = 100 * (part - 1)


def main() -> None:
    """Start Ray, and work on the rows in turns; the first turn, which is not counted, starts the workers."""
    import ray

    data, rows, passes, *kinds = sys.argv[1:]
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
    work = {"plain": plain, "ours": ours}
    if len(kinds) > 1:
        plain(1, data, int(rows))
        print(MARK)
    for kind in kinds:
        work[kind](int(passes), data, int(rows))
        print(MARK)


if __name__ == "__main__":
    import benchmarks.overhead

    benchmarks.overhead.main()  # so that Ray finds its functions by name
