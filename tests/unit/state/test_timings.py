"""When stages started and last moved: the same however the reports of it arrive."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from speedy_utils._state.timings import StageClock, StageTimings
from speedy_utils.testing import FakeClock

TIMINGS = st.dictionaries(
    st.sampled_from([None, "Read", "Write"]),
    st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda pair: (max(pair), min(pair))),
    max_size=3,
)


@given(st.lists(st.tuples(st.integers(0, 9), TIMINGS), max_size=6))
def test_a_stage_lasts_from_the_first_start_to_the_last_movement(
    reported: list[tuple[int, StageTimings]],
) -> None:
    """Merging keeps the earliest start and the latest movement of each stage, in whatever order they came."""
    clock = FakeClock()
    stages = StageClock(clock)
    started, moved = defaultdict(list), defaultdict(list)
    for wait, timings in reported:
        clock.advance(wait)
        stages.merge(timings)
        for stage, (since_start, since_move) in timings.items():
            started[stage].append(clock() - since_start)
            moved[stage].append(clock() - since_move)
    now = clock()
    assert stages.timings() == {
        stage: (now - min(started[stage]), now - max(moved[stage])) for stage in started
    }
    for stage in started:
        assert stages.elapsed(stage, None) == max(moved[stage]) - min(started[stage])
        assert stages.elapsed(stage, now) == now - min(started[stage])


@given(TIMINGS, st.integers(0, 1_000))
def test_timings_mean_the_same_by_any_clock(timings: StageTimings, head_start: int) -> None:
    """Timings that go from one clock to another stay the same, however far the clocks are apart."""
    clock, other = FakeClock(), FakeClock()
    other.advance(head_start)
    first, second = StageClock(clock), StageClock(other)
    first.merge(timings)
    second.merge(first.timings())
    assert second.timings() == first.timings() == timings


def test_a_reader_that_was_reset_takes_in_nothing_from_before() -> None:
    """Nothing is known of a stage before it starts, nor from before a reset."""
    clock = FakeClock()
    stages = StageClock(clock)
    clock.advance(10)
    stages.merge({"Read": (50.0, 3.0), "Write": (50.0, 40.0)}, since=4.0)
    assert stages.timings() == {"Read": (6, 3), "Write": (6, 6)}
    assert "Read" in stages
    stages.clear()
    assert ("Read" in stages, stages.elapsed("Read", 99.0), stages.timings()) == (False, 0, {})
