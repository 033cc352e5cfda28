"""Tasks that have nothing left to count are known, and what they do is said when none of them counts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from support.counts import estimated, items, own_total, without_total

from speedy_utils._state.finishing import FinishingTasks, has_counted_all
from speedy_utils._state.ledger import Count, Key, Metric
from speedy_utils._state.running import RunningTask

STARTED: dict[Key, Count] = {Key(None, Metric.TASKS_STARTED): 1}
AGAIN = Key(None, Metric.ANOTHER_LOOP, "has counted all its items (/home/me/train.py:17)")


def declared(total: int, stage: str | None = None) -> dict[Key, Count]:
    """Return what a loop adds to the counts that has as many items as the task has in all."""
    return {Key(stage, Metric.TOTAL): total}


@pytest.mark.parametrize(
    ("total", "counts", "all_counted"),
    [
        pytest.param(10, {}, False, id="waits for a worker"),
        pytest.param(0, {}, False, id="waits, without items"),
        pytest.param(0, items(0), True, id="has no items"),
        pytest.param(10, items(0), False, id="has counted none"),
        pytest.param(10, items(9), False, id="lacks one"),
        pytest.param(10, items(10), True, id="has counted all"),
        pytest.param(10, items(10) | {AGAIN: 1}, False, id="goes through them once more"),
        pytest.param(10, items(2) | estimated(7) | {AGAIN: 1}, False, id="goes on after its first loop"),
        pytest.param(10, items(0, Read=10) | declared(10, "Read"), True, id="all in a stage"),
        pytest.param(10, items(0, Read=9) | declared(10, "Read"), False, id="lacks one in a stage"),
        pytest.param(
            10,
            items(0, Read=10, Write=3) | declared(10, "Read") | declared(10, "Write"),
            False,
            id="in its second stage",
        ),
        pytest.param(10, items(0, Load=3) | own_total("Load", 3), False, id="has loaded what it needs"),
        pytest.param(10, items(10, Pack=1) | own_total("Pack", 3), False, id="packs what it has counted"),
        pytest.param(10, items(10, Pack=3) | own_total("Pack", 3), True, id="has packed it"),
        pytest.param(10, items(1) | estimated(5), False, id="is taken to have finished six"),
        pytest.param(10, items(2) | estimated(7), True, id="its only loop is through"),
        pytest.param(None, items(10), False, id="of unknown size"),
        pytest.param(None, items(10) | declared(10), True, id="its loop is through"),
        pytest.param(None, items(9) | declared(10), False, id="its loop goes on"),
        pytest.param(None, items(0, Read=4) | own_total("Read", 4), True, id="a stage of unknown size"),
        pytest.param(None, items(0, Read=4) | without_total("Read"), False, id="a stage without a total"),
    ],
)
def test_a_task_has_counted_all(total: int | None, counts: Mapping[Key, Count], all_counted: bool) -> None:
    """All that is known of must be counted: its items, by themselves or in a stage, and its stages."""
    known = {**STARTED, **counts} if counts else counts
    assert has_counted_all(known, total) is all_counted


def running(task: int, counts: Mapping[Key, Count], total: int | None = 10, attempt: int = 1) -> RunningTask:
    """Return a task that has counted something, of ten items if not said otherwise."""
    return RunningTask(task, attempt, total, counts=counts)


def full(*tasks: int) -> list[RunningTask]:
    """Return tasks of ten items that have counted all of them."""
    return [running(task, STARTED | items(10)) for task in tasks]


def half(*tasks: int, attempt: int = 1) -> list[RunningTask]:
    """Return tasks of ten items that have counted half of them."""
    return [running(task, STARTED | items(5), attempt=attempt) for task in tasks]


@pytest.mark.parametrize(
    ("verb", "unit", "tasks", "finishing", "seconds", "phase"),
    [
        ("saving", "shards", 64, 63, 0, "saving 63 of 64 shards"),
        ("saving", "shards", 64, 63, 3_600, "saving 63 of 64 shards, 60 min"),
        ("saving", "shards", 2, 1, 59, "saving 1 of 2 shards"),
        ("saving", "shards", 64, 1, 360, "saving shard 0, 6 min"),
        ("finishing", "tasks", 64, 3, 0, "finishing 3 tasks"),
        ("finishing", "tasks", 5_000, 1_200, 0, "finishing 1,200 tasks"),
        ("finishing", "tasks", 64, 1, 0, "finishing 1 task"),
        ("finishing", "tasks", 64, 3, 119, "finishing tasks 0, 1 and 2, 1 min"),
        ("finishing", "tasks", 64, 1, 7_200, "finishing task 0, 2 h"),
        ("finishing", "tasks", 0, 1, 0, "finishing"),
        ("finishing", "tasks", 0, 1, 61, "finishing, 1 min"),
    ],
)
def test_the_phase_says_how_many_and_if_it_takes_long_which(
    verb: str, unit: str, tasks: int, finishing: int, seconds: float, phase: str
) -> None:
    """Tasks are counted or, if a few of them take more than a minute, named, with the time."""
    known = FinishingTasks(verb, unit, tasks=tasks)
    saving = full(*range(finishing))
    known.read(saving, tasks_left=finishing if tasks else 0, now=5.0)
    known.read(saving, tasks_left=finishing if tasks else 0, now=5.0 + seconds)
    assert known.all_counted
    assert known.phase(5.0 + seconds) == phase


@pytest.mark.parametrize(
    ("total", "counts", "after"),
    [
        (10, items(10, Read=10) | declared(10, "Read"), 0.0),
        (10, items(2) | estimated(7), 0.0),
        (10, items(0, Read=10) | declared(10, "Read"), 1.0),
        (None, items(10) | declared(10), 1.0),
        (None, items(0, Read=10) | own_total("Read", 10), 1.0),
    ],
)
def test_where_another_stage_or_loop_may_follow_it_is_said_after_a_while(
    total: int | None, counts: dict[Key, Count], after: float
) -> None:
    """Only the items of a task tell that nothing will follow."""
    finishing = FinishingTasks("finishing", "tasks", tasks=1)
    for now in (5.0, 5.9, 6.0):
        finishing.read([running(0, STARTED | counts, total)], tasks_left=1, now=now)
        said = now >= 5.0 + after
        assert (finishing.all_counted, finishing.phase(now)) == (said, "finishing 1 task" * said)


def test_nothing_is_said_while_a_task_counts() -> None:
    """A task that counts has something left to count; and for a moment, one that waits for its worker."""
    finishing = FinishingTasks("saving", "shards", tasks=64)
    finishing.read([*full(0), *half(1)], tasks_left=2, now=0.0)
    assert (finishing.phase(9.0), finishing.all_counted) == ("", False)
    finishing.read([running(1, {})], tasks_left=2, now=9.0)
    assert (finishing.phase(9.0), finishing.all_counted) == ("", False)
    for now, phase in [(9.0, ""), (9.9, ""), (10.0, "saving 1 of 64 shards")]:
        finishing.read([*full(0), running(1, {})], tasks_left=2, now=now)
        assert (finishing.phase(now), finishing.all_counted) == (phase, False)
    finishing.read([], tasks_left=2, now=19.0)
    assert (finishing.phase(19.0), finishing.all_counted) == ("", False)


def test_while_tasks_are_to_start_a_pause_must_be_longer() -> None:
    """In the middle of a run it is only said that no task counts if that holds for a while."""
    finishing = FinishingTasks("saving", "shards", tasks=64)
    for now, phase in [(0.0, ""), (0.9, ""), (1.0, "saving 2 of 64 shards")]:
        finishing.read(full(0, 1), tasks_left=50, now=now)
        assert (finishing.phase(now), finishing.all_counted) == (phase, False)


def test_a_task_that_is_run_again_starts_anew() -> None:
    """The time of a lost attempt does not count for the next one."""
    finishing = FinishingTasks("saving", "shards", tasks=64)
    finishing.read(full(0), tasks_left=1, now=0.0)
    finishing.read(half(0, attempt=2), tasks_left=1, now=50.0)
    assert finishing.phase(50.0) == ""
    finishing.read(full(0), tasks_left=1, now=100.0)
    assert finishing.phase(100.0) == "saving 1 of 64 shards"
    finishing.read([], tasks_left=0, now=100.0)
    assert finishing.phase(100.0) == ""
