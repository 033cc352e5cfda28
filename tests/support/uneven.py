"""A run of shards of which one takes ten times as long as the others, on a clock that the test moves."""

from __future__ import annotations

from speedy_utils import Snapshot
from speedy_utils._display.base import NullDisplay
from speedy_utils._run.feed import LocalFeed
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import Stage
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock

SPEEDS = (1, 10, 10, 10)
"""Items a second of four shards of a hundred items: the first takes ten times as long as the others."""


class Named:
    """Something whose ``repr`` is its name.

    Args:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        """Return the name."""
        return self._name


class UnevenShards:
    """A run of four shards on a clock that the test moves.

    Args:
        stages: The named stages that each item goes through; None is the run's own.
        known: Whether the run knows how many items there are.
        stall_after: Seconds without a count after which a shard is said to stand; None for never.

    Attributes:
        run: The run; nothing draws it.
    """

    def __init__(self, *stages: Stage, known: bool = True, stall_after: float | None = None) -> None:
        self.clock, self.feed = FakeClock(), LocalFeed()
        self.run = Run(
            "Run",
            400 if known else None,
            tasks=4,
            workers=4,
            task_unit="shards",
            display=NullDisplay(),
            feed=self.feed,
            poll_interval=3_600,
            stall_after=stall_after,
            clock=self.clock,
        )
        self._stages, self._total = stages, 100 if known else None
        self._reporters = [Reporter(task, total=self._total, clock=self.clock) for task in range(4)]
        self._left = set(self._reporters)
        for reporter in self._reporters:
            rows = f"shard {reporter.task} (rows {100 * int(reporter.task)}-{100 * int(reporter.task) + 99})"
            self.run.attempt(reporter.task, 1, total=self._total, item=Named(rows))
            self.feed.add(reporter)

    def work(self, seconds: int, *, hung: bool = False) -> Snapshot:
        """Let some seconds pass, and return what is shown then; the slow shard may hang."""
        for _ in range(seconds):
            for reporter, speed in zip(self._reporters, SPEEDS, strict=True):
                for stage in self._stages:
                    reporter.mark_started(stage)
                    tally = reporter.stage(stage)
                    tally.n = min(tally.n + speed * (not hung or speed > 1), 100)
                if reporter in self._left and reporter.stage(self._stages[-1]).n == 100:
                    self._left.remove(reporter)
                    self.feed.remove(reporter)
                    self.run.commit(reporter.task, reporter.raw_counts(), total=self._total, timings={})
            self.clock.advance(1)
            shown = self.run.snapshot()
        return shown
