"""Which display a run has. One inside another draws nothing, and what it counts is counted there."""

from __future__ import annotations

from .._display.base import Display, Progress, choose_display
from .._state.ledger import Count, Stage
from .._state.snapshot import Snapshot, StageSnapshot
from .._worker.context import in_task
from .._worker.joining import enclosing_tally
from .._worker.process import in_ray_worker, is_child_process
from .._worker.tally import Tally


class ForwardingDisplay:
    """Counts for a tally what a run has counted.

    Args:
        tally: What counts where the run was started.
        display: What else shows the run.
    """

    def __init__(self, tally: Tally, display: Display) -> None:
        self._tally, self._display = tally, display
        self._done: dict[Stage, int] = {}
        self._counters: dict[tuple[Stage, str], Count] = {}

    def show(self, snapshot: Snapshot) -> None:
        """Count what has been added since the last reading."""
        self._count(None, snapshot.run_line)
        for stage in snapshot.stages:
            self._count(stage.name, stage)
        self._display.show(snapshot)

    def close(self) -> None:
        """End the other display."""
        self._display.close()

    def _count(self, name: Stage, line: StageSnapshot) -> None:
        added = line.done - line.initial - self._done.get(name, 0)
        counters = {
            label: amount - self._counters.get((name, label), 0) for label, amount in line.counters.items()
        }
        if not added and not any(counters.values()):
            return
        self._done[name] = line.done - line.initial
        self._counters |= {(name, label): amount for label, amount in line.counters.items()}
        self._tally.within(name).add(added, counters)


def in_main_program() -> bool:
    """Return whether this is neither a task, nor a child process, nor a Ray worker."""
    return not (in_task() or is_child_process() or in_ray_worker())


def display_here(progress: Progress, *, leave: bool = True) -> Display:
    """Return the display of a run that starts here.

    In a task it shows nothing, as what it counts belongs to the task's own run, but it may call a function.
    In a process or a call that counts for a ``tracking()`` block it counts for that.
    In a child process or a Ray worker of the user's own it logs, unless the environment says otherwise: many
    of them may share a terminal.
    """
    tally = enclosing_tally()
    if tally is not None and tally.reporter.counts_runs:
        return display_inside(progress, leave=leave)
    if in_task() and isinstance(progress, bool):
        progress = False
    return choose_display(progress, leave=leave, may_draw=in_main_program())


def display_inside(progress: Progress, *, leave: bool = True) -> Display:
    """Return the display of a run that starts here, and counts for what counts here, if anything does."""
    tally = enclosing_tally()
    if tally is None:
        return choose_display(progress, leave=leave, may_draw=in_main_program())
    shown = False if isinstance(progress, bool) else progress
    return ForwardingDisplay(tally, choose_display(shown, leave=leave))
