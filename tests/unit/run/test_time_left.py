"""The time left in the snapshots of a run: one number for its lines, its displays and programs."""

from __future__ import annotations

import pytest
from support.uneven import UnevenShards

from speedy_utils._state.ledger import Stage


@pytest.mark.parametrize("stages", [(None,), ("Read",), ("Read", "Write")], ids=["own", "one", "two"])
def test_the_lines_that_each_item_goes_through_have_the_time_of_the_slowest(
    stages: tuple[Stage, ...],
) -> None:
    """Whichever line stands for the run, it and the run have the time of the slowest shard."""
    shown = UnevenShards(*stages).work(30)
    assert [line.eta for line in shown.lines] == [pytest.approx(70, abs=1)] * len(stages)
    assert shown.eta == shown.lines[-1].eta
    assert [line.recent_rate for line in shown.lines] == [pytest.approx(1, rel=0.6)] * len(stages)


def test_a_run_of_unknown_size_has_the_time_of_its_tasks() -> None:
    """Without totals a shard in flight is taken to have as many items as those that have ended."""
    shown = UnevenShards(None, known=False).work(30)
    assert (shown.total, shown.eta) == (None, pytest.approx(70, abs=1))


def test_a_hang_has_no_time_left() -> None:
    """Where the only shard that is left hangs, the time left is not known, and then it is again."""
    shards = UnevenShards(None)
    shards.work(20)
    assert shards.work(60, hung=True).eta is None
    assert shards.work(10).eta is not None


@pytest.mark.parametrize(
    ("stages", "known"), [((None,), True), ((None,), False), (("Read",), True), (("Read", "Write"), True)]
)
def test_what_is_named_as_standing_has_no_time_left(stages: tuple[Stage, ...], *, known: bool) -> None:
    """Where the only shard that is left is said to stand, no time left is shown beside that."""
    shards = UnevenShards(*stages, known=known, stall_after=4)
    assert shards.work(20).stalled == ()
    shown = shards.work(6, hung=True)
    assert [task.index for task in shown.stalled] == [0]
    assert shown.eta is None
    assert [line.eta for line in shown.lines] == [None] * len(shown.lines)
    moved = shards.work(10)
    assert (moved.stalled, moved.eta is None) == ((), False)


def test_the_time_left_ends_with_the_run() -> None:
    """A run that ended well has no time left, and one that ended short has none to show."""
    shards, short = UnevenShards(None), UnevenShards(None)
    shards.work(100)
    assert shards.run.snapshot().eta is None  # results may still have to be saved
    shards.run.complete()
    assert shards.run.snapshot().eta == 0
    short.work(50)
    short.run.end()
    assert short.run.snapshot().eta is None
