"""The time left in the snapshots of a run: one number for its lines, its displays and programs."""

from __future__ import annotations

import pytest

from speedy_utils import Snapshot
from speedy_utils._display.base import NullDisplay
from speedy_utils._run.run import LocalFeed, Run
from speedy_utils._state.ledger import Stage
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock

SPEEDS = (1, 10, 10, 10)
"""Items a second of four shards of a hundred items: the first takes ten times as long as the others."""


class Shards:
    """A run of four shards on a clock that the test moves.

    Args:
        stages: The named stages that each item goes through; None is the run's own.
        known: Whether the run knows how many items there are.
    """

    def __init__(self, *stages: Stage, known: bool = True) -> None:
        self.clock, self.feed = FakeClock(), LocalFeed()
        self.run = Run(
            "Run",
            400 if known else None,
            tasks=4,
            display=NullDisplay(),
            feed=self.feed,
            poll_interval=3_600,
            clock=self.clock,
        )
        self._stages, self._total = stages, 100 if known else None
        self._reporters = [Reporter(task, total=self._total, clock=self.clock) for task in range(4)]
        self._left = set(self._reporters)
        for reporter in self._reporters:
            self.run.attempt(reporter.task, 1, total=self._total)
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


@pytest.mark.parametrize("stages", [(None,), ("Read",), ("Read", "Write")], ids=["own", "one", "two"])
def test_the_lines_that_each_item_goes_through_have_the_time_of_the_slowest(
    stages: tuple[Stage, ...],
) -> None:
    """Whichever line stands for the run, it and the run have the time of the slowest shard."""
    shown = Shards(*stages).work(30)
    assert [line.eta for line in shown.lines] == [pytest.approx(70, abs=1)] * len(stages)
    assert shown.eta == shown.lines[-1].eta
    assert [line.recent_rate for line in shown.lines] == [pytest.approx(1, rel=0.6)] * len(stages)


def test_a_run_of_unknown_size_has_the_time_of_its_tasks() -> None:
    """Without totals a shard in flight is taken to have as many items as those that have ended."""
    shown = Shards(None, known=False).work(30)
    assert (shown.total, shown.eta) == (None, pytest.approx(70, abs=1))


def test_a_hang_has_no_time_left() -> None:
    """Where the only shard that is left hangs, the time left is not known, and then it is again."""
    shards = Shards(None)
    shards.work(20)
    assert shards.work(60, hung=True).eta is None
    assert shards.work(10).eta is not None


def test_the_time_left_ends_with_the_run() -> None:
    """A run that ended well has no time left, and one that ended short has none to show."""
    shards, short = Shards(None), Shards(None)
    shards.work(100)
    assert shards.run.snapshot().eta is None  # results may still have to be saved
    shards.run.complete()
    assert shards.run.snapshot().eta == 0
    short.work(50)
    short.run.end()
    assert short.run.snapshot().eta is None
