"""A frozen reading of a run: what every display gets, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class StageSnapshot:
    """One line: a stage, summed over all workers.

    Attributes:
        name: What the line is called.
        done: Items finished, over all tasks.
        total: Items in all; None where that is not known.
        unit: What is counted: ``"items"``, ``"tasks"``, ``"B"`` for bytes.
        elapsed: Seconds since its first item was begun; 0 before it. The clock of a finished stage stands.
        initial: Items that were done before this run began.
        growing: Whether tasks that have not come to this stage yet will add to its total.
        counters: What was counted beside the items, by name.

    Example:
        >>> from speedy_utils import StageSnapshot
        >>> line = StageSnapshot("Read", done=60, total=100, elapsed=5.0, initial=10)
        >>> line.rate, line.finished
        (10.0, False)
    """

    name: str
    done: int
    total: int | None
    unit: str = "items"
    elapsed: float = 0.0
    initial: int = 0
    growing: bool = False
    counters: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Items a second since the first was begun; 0 before it."""
        return (self.done - self.initial) / self.elapsed if self.elapsed else 0.0

    @property
    def finished(self) -> bool:
        """Whether all there is was done."""
        return self.total is not None and self.done >= self.total and not self.growing

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {"counters": dict(self.counters), "rate": self.rate}


StageSnapshot.__module__ = "speedy_utils"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A reading of a run at one moment.

    Attributes:
        own: The run as a whole, and what was counted for no named stage.
        stages: Its named stages, in the order in which they appeared.
        whole: Whether :attr:`own` has a line. It has none where named stages tell the same, and nothing
            was counted outside them.
        tasks_total: Tasks of the run; 0 where it has none.
        tasks_done: Tasks that succeeded.
        task_unit: What a task is called: ``"tasks"``, or ``"shards"``.
        tasks_failed: Tasks that failed for good.
        retries: Attempts beyond each task's first.
        phase: What the run is busy with besides counting, such as ``"starting Ray"``; empty while it counts.
        final: Whether this is the run's last reading.

    Example:
        >>> from speedy_utils import Snapshot, StageSnapshot
        >>> tokenize = StageSnapshot("Tokenize", done=50, total=200, elapsed=2.0)
        >>> snapshot = Snapshot(StageSnapshot("Run", done=0, total=200), (tokenize,), whole=False)
        >>> [(line.name, line.rate) for line in snapshot.lines]
        [('Tokenize', 25.0)]
    """

    own: StageSnapshot
    stages: tuple[StageSnapshot, ...] = ()
    whole: bool = True
    tasks_total: int = 0
    tasks_done: int = 0
    task_unit: str = "tasks"
    tasks_failed: int = 0
    retries: int = 0
    phase: str = ""
    final: bool = False

    @property
    def lines(self) -> tuple[StageSnapshot, ...]:
        """What a display shows, in order."""
        return (self.own, *self.stages) if self.whole else self.stages

    @property
    def desc(self) -> str:
        """What the run is called."""
        return self.own.name

    @property
    def done(self) -> int:
        """Items finished, over all tasks."""
        return self.own.done

    @property
    def total(self) -> int | None:
        """Items in all; None where that is not known."""
        return self.own.total

    @property
    def unit(self) -> str:
        """What is counted."""
        return self.own.unit

    @property
    def elapsed(self) -> float:
        """Seconds since the first item was begun; 0 before it."""
        return self.own.elapsed

    @property
    def initial(self) -> int:
        """Items that were done before this run began."""
        return self.own.initial

    @property
    def rate(self) -> float:
        """Items a second since the first was begun; 0 before it."""
        return self.own.rate

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON: the run's own numbers, and a list of ``stages``."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "own"}
        own = self.own.to_dict()
        own["desc"] = own.pop("name")
        return own | plain | {"stages": [stage.to_dict() for stage in self.stages]}


Snapshot.__module__ = "speedy_utils"
