"""What the tasks of a run need, and why Ray can't give it: pure, from what Ray says of its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

GIB = 1024**3

NEVER = "never"
"""The kind of a shortage that does not end."""

TINY = 1e-6
"""Ray counts in ten-thousandths; sums of floats are less exact."""


class Node(NamedTuple):
    """A machine of a Ray.

    Attributes:
        name: Its name.
        total: How much it has of each resource: ``{"CPU": 8.0, "memory": 3.2e10}``.
        free: How much of that is free.
    """

    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]


class Shortage(NamedTuple):
    """Why tasks of a run wait.

    Attributes:
        kind: Which kind it is: each is logged once in a run; after :data:`NEVER` there is none.
        phase: For the line: ``"no node has 1 GPU"``.
        reason: For the log: the same, with what each task needs and what the nodes have.
    """

    kind: str
    phase: str
    reason: str


def needs_of(options: Mapping[str, Any]) -> dict[str, float]:
    """Return what Ray reserves for a task with these options.

    Example:
        >>> needs_of({"num_gpus": 1, "resources": {"special": 2}})
        {'CPU': 1.0, 'GPU': 1.0, 'special': 2.0}
    """
    cpus = options.get("num_cpus")
    needs = {
        "CPU": 1 if cpus is None else cpus,
        "GPU": options.get("num_gpus") or 0,
        "memory": options.get("memory") or 0,
        **(options.get("resources") or {}),
    }
    if kind := options.get("accelerator_type"):
        needs[f"accelerator_type:{kind}"] = 0.001
    return {name: float(amount) for name, amount in needs.items() if amount}


def find_shortage(
    needs: Mapping[str, float], nodes: Sequence[Node], *, in_flight: int, waiting: int, asked: bool
) -> Shortage | None:
    """Return why tasks wait; None if none does for want of resources.

    Args:
        needs: What each of them needs.
        nodes: The machines that they may run on.
        in_flight: How many were submitted and have not ended.
        waiting: How many of these wait for resources, as far as Ray has said so.
        asked: Whether the caller has said how many are to run at once; else it is the number of CPUs.
    """
    room = sum(room_for(needs, node.total) for node in nodes)
    each = f"each task needs {amounts(needs)}; {_state(needs, nodes)}"
    if not room:
        lack = {n: a for n, a in needs.items() if not any(room_for({n: a}, node.total) for node in nodes)}
        phase = f"no node has {amounts(lack or needs)}"
        cure = "The run waits for such a node to join; ray_options= says what a task needs"
        return Shortage("no node", phase, f"{phase}: {each}. {cure}")
    without_room = max(0, in_flight - room)
    if waiting > without_room:
        taken = [n for n, a in needs.items() if not any(room_for({n: a}, node.free) for node in nodes)]
        have = {name: sum(node.total.get(name, 0) for node in nodes) for name in taken[:1] or needs}
        kind, cause = "taken", f"all of {amounts(have)} taken"
        cure = "Other runs, actors or programs have them"
    elif asked and without_room:
        waiting = without_room
        kind, cause = "no room", f"Ray has room for {room:,} task{'s' * (room != 1)}"
        cure = "num_workers= and ray_options= say what is asked for"
    else:
        return None
    wait = f"{waiting:,} tasks wait" if waiting > 1 else "1 task waits"
    return Shortage(kind, cause, f"{cause}, so {wait}: {each}. {cure}")


def amounts(resources: Mapping[str, float]) -> str:
    """Return amounts of resources as a text.

    Example:
        >>> amounts({"CPU": 1, "GPU": 2, "memory": 2**36, "special": 0.5})
        '1 CPU, 2 GPUs, 64 GiB of memory, 0.5 special'
    """
    return ", ".join(_amount(name, amount) for name, amount in resources.items())


def _amount(name: str, amount: float, free: float | None = None) -> str:
    scale = GIB if name.endswith("memory") else 1
    shown = _number(amount / scale)
    if free is not None:
        shown = f"{_number(free / scale)} of {shown}"
    if scale == GIB:
        return f"{shown} GiB of {name.replace('_', ' ')}"
    return f"{shown} {name if shown == '1' else _plural(name)}"


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 1000 else f"{amount:.4g}"


def _plural(name: str) -> str:
    return f"{name}s" if name in ("CPU", "GPU") else name


def _state(needs: Iterable[str], nodes: Sequence[Node]) -> str:
    """Return what nodes have of some resources: ``"node-1 has 0 of 8 CPUs free"``."""
    shown = [
        f"{node.name} has "
        + ", ".join(_amount(name, node.total.get(name, 0), node.free.get(name, 0)) for name in needs)
        + " free"
        for node in nodes[:3]
    ]
    more = [f"{len(nodes) - 3:,} more nodes"] if len(nodes) > 3 else []
    return "; ".join([*shown, *more]) or "Ray has no node"


def room_for(needs: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """Return how many tasks with such needs fit at once, many if they need nothing."""
    return int(min((resources.get(name, 0) / need + TINY for name, need in needs.items()), default=1_000_000))
