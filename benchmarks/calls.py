"""Per call: what it costs to report."""

from __future__ import annotations

from .items import measured, to_peer
from .loops import nanoseconds
from .table import Table


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    tables = measured("calls", quick)
    table = Table(
        "calls",
        "Per call, over an empty loop",
        ["where", "call", "ns", "CPU ns", "of tqdm.update"],
        quick=quick,
    )
    for where, costs in tables.items():
        for name in costs:
            place = "a Ray task" if where == "ray" else "the driver"
            table.rows.append([place, name, *nanoseconds(costs[name]), to_peer(costs, name, "tqdm.update")])
    ray = tables["ray"]
    table.figures = {
        "report_ns": nanoseconds(ray["report_progress"])[1],
        "tqdm_update_ns": nanoseconds(ray["tqdm.update"])[1],
        "report_of_tqdm_update": to_peer(ray, "report_progress", "tqdm.update") or 0.0,
        "tqdm_ray_update_ns": nanoseconds(ray["tqdm_ray's update"])[1],
        "actor_call_us": nanoseconds(ray["a blocking actor call"])[0] / 1e3,
    }
    table.notes = [
        '"In a task" means bound to a live reporter; "outside a run" nothing listens.',
        "A blocking actor call is `ray.get(actor.update.remote(1))`, one worker alone.",
        "The ratio is that of CPU time: of the calling process, without the actor's.",
    ]
    return [table]
