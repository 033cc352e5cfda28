"""What a run showed: a recorder to pass as its ``progress``."""

from __future__ import annotations

from collections.abc import Callable

from speedy_utils import Snapshot


def ignore(snapshot: Snapshot) -> None:
    """Do nothing with a snapshot."""


class Recorder:
    """Keeps the snapshots of one run after another that has it as its ``progress``.

    Attributes:
        runs: The snapshots of each run, in order. A run ends with its final snapshot.
        hook: Called with each snapshot, in the poller's thread.
    """

    def __init__(self) -> None:
        self.runs: list[list[Snapshot]] = []
        self.hook: Callable[[Snapshot], object] = ignore

    def __call__(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, and call the hook."""
        if not self.runs or self.runs[-1][-1].final:
            self.runs.append([])
        self.runs[-1].append(snapshot)
        self.hook(snapshot)

    @property
    def snapshots(self) -> list[Snapshot]:
        """The snapshots of the only run."""
        (snapshots,) = self.runs
        return snapshots

    @property
    def last(self) -> Snapshot:
        """The newest snapshot."""
        return self.runs[-1][-1]

    @property
    def done(self) -> int:
        """What the newest snapshot has as done; 0 before the first."""
        return self.last.done if self.runs else 0
