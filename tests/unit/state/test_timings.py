"""Time spans of stages: whatever happens to what is told of them, they end the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils._state.timings import StageClock, StageTimings
from speedy_utils.testing import FakeClock

AGES = st.dictionaries(
    st.sampled_from([None, "Read", "Write"]),
    st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda pair: (max(pair), min(pair))),
    max_size=3,
)


@given(st.lists(AGES, max_size=6), st.data())
def test_order_and_repetition_change_nothing(told: list[StageTimings], data: st.DataObject) -> None:
    """What is told at one moment may come in any order, any number of times."""
    mixed = data.draw(st.permutations(told + told))
    one, other = StageClock(FakeClock()), StageClock(FakeClock())
    for timings in told:
        one.merge(timings)
    for timings in mixed:
        other.merge(timings)
    assert one.timings() == other.timings()


@given(st.lists(st.tuples(st.integers(0, 9), AGES), max_size=6))
def test_a_span_is_from_the_first_beginning_to_the_last_movement(
    told: list[tuple[int, StageTimings]],
) -> None:
    """Merging keeps the earliest beginning and the latest movement of each stage, by the reader's clock."""
    clock = FakeClock()
    spans = StageClock(clock)
    began: dict[str | None, list[float]] = {}
    moved: dict[str | None, list[float]] = {}
    for wait, timings in told:
        clock.advance(wait)
        spans.merge(timings)
        for stage, (since_begun, since_moved) in timings.items():
            began.setdefault(stage, []).append(clock() - since_begun)
            moved.setdefault(stage, []).append(clock() - since_moved)
    now = clock()
    assert spans.timings() == {stage: (now - min(began[stage]), now - max(moved[stage])) for stage in began}
    for stage in began:
        assert spans.elapsed(stage, None) == max(moved[stage]) - min(began[stage])
        assert spans.elapsed(stage, now) == now - min(began[stage])


@given(AGES, st.integers(0, 1_000))
def test_ages_mean_the_same_by_any_clock(timings: StageTimings, head_start: int) -> None:
    """StageClock that are handed from clock to clock keep their lengths, however far the clocks are apart."""
    clock, other = FakeClock(), FakeClock()
    other.advance(head_start)
    first, second = StageClock(clock), StageClock(other)
    first.merge(timings)
    second.merge(first.timings())
    assert second.timings() == first.timings() == timings


def test_a_beginning_is_never_before_what_is_allowed() -> None:
    """A reader that was reset takes in nothing from before that."""
    clock = FakeClock()
    spans = StageClock(clock)
    clock.advance(10)
    spans.merge({"Read": (50.0, 3.0), "Write": (50.0, 40.0)}, since=4.0)
    assert spans.timings() == {"Read": (6, 3), "Write": (6, 6)}


def test_a_stage_that_was_not_begun_has_no_time() -> None:
    """Nothing is known of a stage before it begins, nor after all was forgotten."""
    spans = StageClock(FakeClock())
    assert ("Read" in spans, spans.elapsed("Read", 99.0), spans.timings()) == (False, 0, {})
    spans.merge({"Read": (5.0, 2.0)})
    assert "Read" in spans
    assert spans.elapsed("Read", None) == pytest.approx(3)
    spans.clear()
    assert ("Read" in spans, spans.elapsed("Read", None)) == (False, 0)
