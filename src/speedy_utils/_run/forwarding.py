"""A run inside another one: it draws nothing, and what it counts is counted there."""

from __future__ import annotations

from .._display.base import Display
from .._state.ledger import Count, Stage
from .._state.snapshot import Snapshot, StageSnapshot
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
        tally = self._tally.within(name)
        if added >= 0:
            tally.n += added
        else:
            tally.take_back(-added)
        tally.add_to_counters(counters)
        tally.reporter.mark_moved(tally.stage)
