"""What a run waits for, in words: the slowest of its last tasks."""

from __future__ import annotations

from tqdm import tqdm
from tqdm.utils import disp_len

from .._state.snapshot import Snapshot, TaskSnapshot
from .format import format_quantity, singular


def format_waiting(snapshot: Snapshot) -> list[str]:
    """Return what a run waits for, the longest form first; empty if it waits for no task.

    ``waiting for shard 4 of 8: rows 2,000-2,499, 31 %``, ``waiting for shard 4 of 8: 31 %``, ``waiting for
    shard 4``.
    """
    task = snapshot.waiting_for
    if task is None:
        return []
    name = f"{singular(snapshot.task_unit)} {task.index}"
    of = f"waiting for {name} of {snapshot.tasks_total:,}"
    state = _state(task, snapshot.unit)
    item = task.item.removeprefix(f"{name} (").removesuffix(")") if task.item.startswith(name) else task.item
    says_more = item not in ("", str(task.index))  # items may be numbers
    return [*[f"{of}: {item}, {state}"] * says_more, f"{of}: {state}", f"waiting for {name}"]


def first_that_fits(texts: list[str], width: int) -> list[str]:
    """Return the first of some texts that has at most ``width`` columns, in a list; empty if none has."""
    return next(([text] for text in texts if disp_len(text) <= width), [])


def _state(task: TaskSnapshot, unit: str) -> str:
    """Return ``31 %``, without a total ``155 items`` or, if it has counted nothing, how long it has taken."""
    if not task.done:
        return str(tqdm.format_interval(task.elapsed))
    if not task.total:
        return format_quantity(task.done, unit)
    return f"{min(100 * task.done // task.total, 99)} %"
