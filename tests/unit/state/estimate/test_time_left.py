"""The time left of runs on a simulated clock: by the slowest in flight, and by what is still to start."""

from __future__ import annotations

import heapq
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.simulated import Reading, SimulatedRun

from speedy_utils import StageSnapshot
from speedy_utils._state.estimate.time_left import STARTED, TimeLeft, last_end
from speedy_utils._state.ledger import RUN_ITEMS
from speedy_utils._state.running import RunningTask


@given(st.lists(st.floats(0, 1_000), min_size=1, max_size=20), st.integers(0, 200), st.floats(0.01, 100))
def test_the_last_end_is_that_of_list_scheduling(free: list[float], tasks: int, seconds: float) -> None:
    """Without going through the tasks it finds what giving each to the worker that is free first does."""
    workers = list(free)
    heapq.heapify(workers)
    for _ in range(tasks):
        heapq.heapreplace(workers, workers[0] + seconds)
    assert last_end(free, tasks, seconds) == pytest.approx(max(workers))


def test_a_million_tasks_to_start_are_not_gone_through() -> None:
    """The last end is found in a time that depends on the workers alone."""
    assert last_end([0.0] * 10_000, 10**12, 1.0) == pytest.approx(10**8)


def errors(readings: list[Reading], end: float) -> list[float]:
    """Return how far the end that is shown is from the true one, from the middle of the run on."""
    return [abs(now + eta - end) / end for now, eta, _ in readings if now >= end / 2 and eta is not None]


SHARDS = [
    pytest.param([10.0] * 4 + [100.0] + [10.0] * 3, 8, id="one of eight"),
    pytest.param([10.0] * 7 + [100.0], 4, id="the last of eight"),
    pytest.param([10.0] * 30 + [200.0] + [10.0] * 33, 8, id="one of 64"),
    pytest.param([10.0 + shard % 7 for shard in range(64)], 8, id="even"),
    pytest.param([5.0 * 64 / (shard * 37 % 64 + 1) for shard in range(64)], 8, id="heavy-tailed"),
]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize(("seconds", "workers"), SHARDS)
def test_the_end_holds_with_uneven_tasks(seconds: list[float], workers: int, known: bool) -> None:
    """From the middle on the end is within 20 % of the true one, with known and with estimated totals."""
    run = SimulatedRun(seconds, workers, items=100 if known else None)
    readings = run.readings()
    late = [reading for reading in readings if reading.now >= run.end / 2]
    assert all(reading.eta is not None for reading in late)
    assert max(errors(readings, run.end)) < 0.2


def test_the_mean_rate_does_not_hold() -> None:
    """The simulation shows what the mean rate says: half of the time that it takes."""
    run = SimulatedRun([10.0] * 4 + [100.0] + [10.0] * 3, 8)
    (middle,) = [reading for reading in run.readings() if reading.now == run.end / 2]
    assert middle.by_mean_rate is not None
    assert middle.by_mean_rate < 0.4 * (run.end - middle.now)
    assert middle.eta == pytest.approx(run.end - middle.now, rel=0.05)


def test_tasks_that_count_nothing_take_as_long_as_those_that_ended() -> None:
    """Without counts even tasks have a time left once one has ended, within a tenth of what it takes."""
    run = SimulatedRun([10.0 + task % 3 for task in range(64)], 8, counts=False)
    readings = run.readings()
    assert all(reading.eta is None for reading in readings if reading.now < 10)
    assert max(errors(readings, run.end)) < 0.1


def test_a_task_that_takes_too_long_has_no_time_left_to_show() -> None:
    """A task that counts nothing, and takes more than twice as long as the others, can't be foreseen."""
    run = SimulatedRun([10.0] * 7 + [100.0], 8, counts=False)
    assert {reading.eta for reading in run.readings() if reading.now > 35} == {None}


@pytest.mark.parametrize("hung", [1, 8])
def test_a_hang_is_no_time(hung: int) -> None:
    """Where a task hangs, the time left is known until it has stood for longer than the others take."""
    run = SimulatedRun([100.0] * 8, 8, hang=dict.fromkeys(range(hung), 50.0))
    etas = {round(reading.now): reading.eta for reading in run.readings(until=400.0)}
    assert etas[49] == pytest.approx(51, rel=0.05)
    assert {etas[second] for second in range(80, 400)} == {None}


def test_a_hang_at_the_end_is_not_the_last_second() -> None:
    """A task that hangs with a second left has no time left soon after that, and never zero for long."""
    run = SimulatedRun([100.0] * 8, 8, hang={3: 99.0})
    zeros = [reading.now for reading in run.readings(until=400.0) if reading.eta == 0]
    assert len(zeros) < 10


def test_one_hang_among_many_tasks_to_start_leaves_their_time() -> None:
    """A task that has stood for a minute doesn't hide that the others will take ten."""
    run = SimulatedRun([10.0] * 500, 8, hang={3: 5.0})
    middle = next(reading for reading in run.readings(until=320.0) if reading.now >= 300)
    assert middle.eta == pytest.approx(10 * 499 / 7 - 300, rel=0.15)


def test_batches_count_down() -> None:
    """Between two batches the time left falls with the clock: it neither stands nor grows."""
    run = SimulatedRun([400.0] * 4, 4, items=4_000, batch=500)
    late = [reading for reading in run.readings() if 150 <= reading.now < 399 and reading.eta is not None]
    assert max(errors(late, run.end)) < 0.05


def test_a_total_of_all_tasks_goes_by_the_pace_of_the_line() -> None:
    """Where nothing tells how many items a task has, what is left is done as fast as it was of late."""
    run = TimeLeft(2)
    for second in range(101):
        tasks = [
            RunningTask(task, 1, counts={STARTED: 1, RUN_ITEMS: n * second}) for task, n in enumerate((2, 3))
        ]
        line = StageSnapshot("Work", 5 * second, 1_000, elapsed=float(second))
        line, _ = run.read(line, (), tasks, ended=0, now=float(second))
    assert (line.recent_rate, line.eta) == (pytest.approx(5), pytest.approx(100))
    line, _ = run.read(replace(line, elapsed=140.0), (), tasks, ended=0, now=140.0)
    assert line.eta is None


def test_with_many_tasks_the_time_left_is_counted_down() -> None:
    """With thousands of tasks in flight an estimate holds for seconds, in which the time left falls."""
    run = SimulatedRun([100.0] * 2_000, 2_000, step=0.5)
    readings = [reading for reading in run.readings(until=20.0) if reading.eta is not None]
    ends = {round(reading.now + (reading.eta or 0), 6) for reading in readings}
    assert len(ends) < len(readings) / 3
    assert max(abs(end - 100) for end in ends) < 2


@given(
    st.lists(st.floats(0.5, 200), min_size=1, max_size=30),
    st.integers(1, 10),
    st.booleans(),
    st.sampled_from([None, 1, 50]),
)
def test_the_time_left_is_never_negative_and_ends_at_nothing(
    seconds: list[float], workers: int, counts: bool, items: int | None
) -> None:
    """Whatever the tasks, the time left is no less than 0, and none is left once all is counted."""
    run = SimulatedRun(seconds, workers, items=items, counts=counts, step=2.0)
    for reading in run.readings():
        assert reading.eta is None or reading.eta >= 0
