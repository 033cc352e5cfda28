"""Time spans of stages: whatever happens to what is told of them, they end the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils.progress.spans import Ages, Spans
from speedy_utils.testing import FakeClock

AGES = st.dictionaries(
    st.sampled_from([None, "Read", "Write"]),
    st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda pair: (max(pair), min(pair))),
    max_size=3,
)


@given(st.lists(AGES, max_size=6), st.data())
def test_order_and_repetition_change_nothing(told: list[Ages], data: st.DataObject) -> None:
    """What is told at one moment may come in any order, any number of times."""
    mixed = data.draw(st.permutations(told + told))
    one, other = Spans(FakeClock()), Spans(FakeClock())
    for ages in told:
        one.merge(ages)
    for ages in mixed:
        other.merge(ages)
    assert one.ages() == other.ages()


@given(st.lists(st.tuples(st.integers(0, 9), AGES), max_size=6))
def test_a_span_is_from_the_first_beginning_to_the_last_movement(told: list[tuple[int, Ages]]) -> None:
    """Merging keeps the earliest beginning and the latest movement of each stage, by the reader's clock."""
    clock = FakeClock()
    spans = Spans(clock)
    began: dict[str | None, list[float]] = {}
    moved: dict[str | None, list[float]] = {}
    for wait, ages in told:
        clock.advance(wait)
        spans.merge(ages)
        for stage, (since_begun, since_moved) in ages.items():
            began.setdefault(stage, []).append(clock() - since_begun)
            moved.setdefault(stage, []).append(clock() - since_moved)
    now = clock()
    assert spans.ages() == {stage: (now - min(began[stage]), now - max(moved[stage])) for stage in began}
    for stage in began:
        assert spans.elapsed(stage, None) == max(moved[stage]) - min(began[stage])
        assert spans.elapsed(stage, now) == now - min(began[stage])


@given(AGES, st.integers(0, 1_000))
def test_ages_mean_the_same_by_any_clock(ages: Ages, head_start: int) -> None:
    """Spans that are handed from clock to clock keep their lengths, however far the clocks are apart."""
    clock, other = FakeClock(), FakeClock()
    other.advance(head_start)
    first, second = Spans(clock), Spans(other)
    first.merge(ages)
    second.merge(first.ages())
    assert second.ages() == first.ages() == ages


def test_a_beginning_is_never_before_what_is_allowed() -> None:
    """A reader that was reset takes in nothing from before that."""
    clock = FakeClock()
    spans = Spans(clock)
    clock.advance(10)
    spans.merge({"Read": (50.0, 3.0), "Write": (50.0, 40.0)}, since=4.0)
    assert spans.ages() == {"Read": (6, 3), "Write": (6, 6)}


def test_a_stage_that_was_not_begun_has_no_time() -> None:
    """Nothing is known of a stage before it begins, nor after all was forgotten."""
    spans = Spans(FakeClock())
    assert ("Read" in spans, spans.elapsed("Read", 99.0), spans.ages()) == (False, 0, {})
    spans.merge({"Read": (5.0, 2.0)})
    assert "Read" in spans
    assert spans.elapsed("Read", None) == pytest.approx(3)
    spans.clear()
    assert ("Read" in spans, spans.elapsed("Read", None)) == (False, 0)
