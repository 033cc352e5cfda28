"""Per item and per call: what a loop costs when something counts it.

    python -m benchmarks.loops items|calls OUT [--quick]

This program measures in a terminal of its own. What counts is bound to a live reporter, whose thread sends to
an actor; what draws, draws.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ray
from tqdm import tqdm

from speedy_utils import (
    ProgressActor,
    create_progress_tracker,
    report_progress,
    set_progress_context,
    track,
    tracked,
)

from .measure import Cost, Loop, per_turn, ratio
from .table import Table
from .terminal import run_in_terminal

Costs = dict[str, list[Cost]]


def consume(iterable: Iterable[Any]) -> None:
    for _ in iterable:
        pass


def bound(loop: Loop) -> Loop:
    """A loop that runs as if in a task, with its reporter and flusher."""

    def run(turns: int) -> None:
        with set_progress_context(ProgressActor()):
            loop(turns)

    return run


@functools.lru_cache
def _list(turns: int) -> list[int]:
    return list(range(turns))


def _generator(turns: int) -> Iterator[int]:
    yield from range(turns)


def _map(turns: int) -> Iterator[int]:
    return map(abs, range(turns))


def _over(source: Callable[[int], Any], wrap: Callable[[Any], Iterable[Any]]) -> Loop:
    return lambda turns: consume(wrap(source(turns)))


def _bars() -> dict[str, Callable[[Any], Iterable[Any]]]:
    from alive_progress import alive_it
    from mqdm import mqdm
    from rich.progress import track as rich_track

    return {
        "tqdm": tqdm,
        "tqdm, disabled": lambda items: tqdm(items, disable=True),
        "rich.track": rich_track,
        "alive-progress": lambda items: alive_it(items, finalize=None),
        "mqdm": mqdm,
    }


def items(rounds: int, seconds: float) -> dict[str, Costs]:
    """An item of each kind of iterable, over a bare loop."""
    tables: dict[str, Costs] = {}
    for kind, source in {"list": _list, "generator": _generator, "map": _map}.items():
        variants: dict[str, Loop] = {"bare": _over(source, lambda items: items)}
        variants["track"] = bound(_over(source, track))
        peers = _bars() if kind == "list" else {"tqdm": tqdm}
        variants |= {name: _over(source, wrap) for name, wrap in peers.items()}
        tables[kind] = per_turn("bare", variants, rounds, seconds)
    tables["dataset"] = _dataset_rows(rounds, seconds)
    return tables


def _dataset_rows(rounds: int, seconds: float) -> Costs:
    """A row of a memory-mapped dataset, with the cost of the row itself, which `track` fetches its way."""
    from datasets import Dataset, load_from_disk

    with tempfile.TemporaryDirectory() as home:
        size = 20_000
        Dataset.from_dict({"text": [f"line {number}" for number in range(size)]}).save_to_disk(home)
        rows = load_from_disk(home)

        def source(turns: int) -> Any:
            return rows.select(range(min(turns, size)))

        def times(loop: Loop) -> Loop:
            def run(turns: int) -> None:
                for first in range(0, turns, size):
                    loop(min(size, turns - first))

            return run

        variants = {
            "nothing": lambda turns: consume(range(turns)),
            "bare": times(_over(source, lambda items: items)),
            "track": bound(times(_over(source, track))),
            "tqdm": times(_over(source, tqdm)),
        }
        return per_turn("nothing", variants, rounds, seconds * 2)


def _repeat(call: Callable[[], Any]) -> Loop:
    def run(turns: int) -> None:
        for _ in itertools.repeat(None, turns):
            call()

    return run


def _with_bar(bar: Callable[[], Any]) -> Loop:
    def run(turns: int) -> None:
        one = bar()
        update = one.update
        for _ in itertools.repeat(None, turns):
            update(1)
        one.close()

    return run


@tracked
def _counted() -> None:
    """What a tracked function costs, where it does nothing."""


def _plain() -> None:
    """What a function costs."""


def _bare(turns: int) -> None:
    for _ in itertools.repeat(None, turns):
        pass


def _report(turns: int) -> None:
    for _ in itertools.repeat(None, turns):
        report_progress(1)


def calls(rounds: int, seconds: float) -> dict[str, Costs]:
    """A call, over an empty loop; in the driver."""
    return {
        "driver": per_turn(
            "bare",
            {
                "bare": _bare,
                "an empty function": _repeat(_plain),
                "report_progress, in a task": bound(_report),
                "report_progress, outside a run": _report,
                "@tracked call, in a task": bound(_repeat(_counted)),
                "@tracked call, outside a run": _repeat(_counted),
                "tqdm.update": _with_bar(tqdm),
            },
            rounds,
            seconds,
        )
    }


def in_ray(what: str, rounds: int, seconds: float) -> Costs:
    """The same in a Ray task, bound to an actor of another process."""

    @ray.remote
    def measure(actor: Any) -> Costs:
        from ray.experimental import tqdm_ray

        def inside(loop: Loop) -> Loop:
            def run(turns: int) -> None:
                with set_progress_context(actor):
                    loop(turns)

            return run

        if what == "items":
            bare = _over(_list, lambda items: items)
            variants = {
                "bare": bare,
                "track": inside(_over(_list, track)),
                "tqdm": _over(_list, lambda items: tqdm(items, mininterval=0.1)),
                "tqdm_ray": _over(_list, tqdm_ray.tqdm),
            }
        else:
            variants = {
                "bare": _bare,
                "report_progress": inside(_report),
                "@tracked call": inside(_repeat(_counted)),
                "tqdm.update": _with_bar(lambda: tqdm(mininterval=0.1)),
                "tqdm_ray's update": _with_bar(lambda: tqdm_ray.tqdm(total=1)),
                "a blocking actor call": _repeat(lambda: ray.get(actor.update.remote(1))),
            }
        return per_turn("bare", variants, rounds, seconds)

    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    actor = create_progress_tracker()
    costs: Costs = ray.get(measure.remote(actor))
    ray.shutdown()
    return costs


def nanoseconds(costs: list[Cost]) -> tuple[float, float]:
    """The medians of wall and CPU time."""
    return (
        statistics.median(cost.wall for cost in costs) * 1e9,
        statistics.median(cost.cpu for cost in costs) * 1e9,
    )


def measured(what: str, quick: bool) -> dict[str, Costs]:
    """Run this program in a terminal."""
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


KINDS = {
    "list": "a list",
    "generator": "a generator",
    "map": "a `map`",
    "dataset": "a dataset, row and all",
    "ray": "a list, in a Ray task",
}


def run_items(quick: bool) -> list[Table]:
    """Measure and tell what an item costs."""
    tables = measured("items", quick)
    columns = ["loop over", "with", "ns", "CPU ns", "of tqdm"]
    table = Table("items", "Per item, over a bare loop", columns, quick=quick)
    for kind, costs in tables.items():
        for name in costs:
            table.rows.append([KINDS[kind], name, *nanoseconds(costs[name]), to_peer(costs, name, "tqdm")])
            table.figures[f"{name}_{kind}_ns"] = nanoseconds(costs[name])[1]
    table.notes = [
        "What draws, draws into a terminal. `track` is bound to a reporter, whose thread calls an actor.",
        "CPU time, and the ratio of it, has that of helping threads. Small negative figures are noise.",
        "A dataset's row is one from disk, at the cost of a whole turn: `track` fetches it in batches.",
    ]
    return [table]


def run_calls(quick: bool) -> list[Table]:
    """Measure and tell what a call costs."""
    tables = measured("calls", quick)
    columns = ["where", "call", "ns", "CPU ns", "of tqdm.update"]
    table = Table("calls", "Per call, over an empty loop", columns, quick=quick)
    for where, costs in tables.items():
        place = "a Ray task" if where == "ray" else "the driver"
        for name in costs:
            table.rows.append([place, name, *nanoseconds(costs[name]), to_peer(costs, name, "tqdm.update")])
    ray_costs = tables["ray"]
    table.figures = {
        "report_ns": nanoseconds(ray_costs["report_progress"])[1],
        "tqdm_update_ns": nanoseconds(ray_costs["tqdm.update"])[1],
        "actor_call_us": nanoseconds(ray_costs["a blocking actor call"])[0] / 1e3,
    }
    table.notes = [
        '"In a task" means bound to a live reporter; "outside a run" nothing listens.',
        "A blocking actor call is `ray.get(actor.update.remote(1))`, one worker alone.",
        "The ratio is that of CPU time: of the calling process, without the actor's.",
    ]
    return [table]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["items", "calls"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rounds, seconds = (3, 0.05) if options.quick else (9, 0.15)
    tables = items(rounds, seconds) if options.what == "items" else calls(rounds, seconds)
    tables["ray"] = in_ray(options.what, rounds, seconds)
    options.out.write_text(json.dumps(tables), encoding="utf-8")


if __name__ == "__main__":
    import benchmarks.loops

    benchmarks.loops.main()  # not this module's: what is called __main__ would have to travel to Ray whole
