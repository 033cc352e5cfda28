"""A frozen reading of a run: what every display gets, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StageSnapshot:
    """One line: a stage, summed over all workers.

    Attributes:
        name: What the line is called.
        done: Items finished, over all tasks.
        total: Items in all; None where that is not known.
    """

    name: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A reading of a run at one moment.

    Attributes:
        stages: The run's own line, then its named stages in the order in which they appeared.
        unit: What is counted: ``"items"`` or ``"tasks"``.
        elapsed: Seconds since the first count; 0 before it.
        initial: Items that were done before this run began.
        tasks_total: Tasks of the run; 0 where it has none.
        tasks_done: Tasks that succeeded.
        task_unit: What a task is called: ``"tasks"``, or ``"shards"``.
        tasks_failed: Tasks that failed for good.
        retries: Attempts beyond each task's first.
        phase: What the run is busy with besides counting, such as ``"starting Ray"``; empty while it counts.
        final: Whether this is the run's last reading.
    """

    stages: tuple[StageSnapshot, ...]
    unit: str = "items"
    elapsed: float = 0.0
    initial: int = 0
    tasks_total: int = 0
    tasks_done: int = 0
    task_unit: str = "tasks"
    tasks_failed: int = 0
    retries: int = 0
    phase: str = ""
    final: bool = False

    @property
    def desc(self) -> str:
        """What the run is called."""
        return self.stages[0].name

    @property
    def done(self) -> int:
        """Items finished, over all tasks."""
        return self.stages[0].done

    @property
    def total(self) -> int | None:
        """Items in all; None where that is not known."""
        return self.stages[0].total

    @property
    def rate(self) -> float:
        """Items a second since the first count; 0 before it."""
        return (self.done - self.initial) / self.elapsed if self.elapsed else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self) | {"desc": self.desc, "done": self.done, "total": self.total, "rate": self.rate}
