"""The tasks that run are known by what the driver has seen of them: how far they are, and since when."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from support.counts import estimated, items, own_total

from speedy_utils import TaskSnapshot
from speedy_utils._state.ledger import Count, Key, Location, Metric, Report
from speedy_utils._state.running import MAX_SLOWEST, RunningTask, RunningTasks, format_tasks

HERE = Location("gpu-3", 4_711, "1f2e")


def report(task: int, done: int, reading: int = 1, attempt: int = 1) -> Report:
    """Return what an attempt has counted, by its own reading."""
    return Report(task, attempt, items(done), reading, HERE)


def started(*tasks: int, total: int | None = 100, attempt: int = 1) -> RunningTasks:
    """Return tasks that were handed to workers at ten seconds."""
    running = RunningTasks()
    for task in tasks:
        running.start(task, attempt, total, "c.json", now=10.0)
    return running


def test_a_task_is_read_with_all_that_is_known_of_it() -> None:
    """How far it is, since when, where it runs and what it works on."""
    tasks = started(7, attempt=2)
    tasks.read([report(7, 20, attempt=2)], now=12.0)
    assert tasks.slowest(now=15.0) == (
        TaskSnapshot(7, "'c.json'", 2, 20, 100, since=3.0, node="gpu-3", pid=4_711, elapsed=5.0, unheard=3.0),
    )


def test_of_a_chunk_the_task_that_runs_is_known() -> None:
    """With its own number, item and total; and none of those that were handed back."""
    tasks = RunningTasks()
    tasks.start_chunk(7, 1, [10, 20, 30], ["a", "b", "c"], now=10.0)
    found = []
    for reading, position, kept in ((1, 1, 0), (2, 2, 2)):
        tasks.read([report(7, 4, reading)._replace(position=position, kept=kept)], now=11.0)
        (task,) = tasks.slowest(now=15.0)
        found.append((task.index, task.item, task.total, task.elapsed))
    assert found == [(8, "'b'", 20, 4.0)] * 2


def test_a_task_that_sent_nothing_stands_since_it_was_handed_out() -> None:
    """Nothing else is known of it: neither its node nor its process."""
    tasks = started(7)
    tasks.read([Report(7, 1, {})], now=12.0)
    (task,) = tasks.slowest(now=15.0)
    assert (task.since, task.unheard, task.elapsed, task.node, task.pid) == (5.0, 5.0, 5.0, "", None)


def test_unchanged_counts_are_word_from_the_worker_but_no_movement() -> None:
    """A later reading with the same counts says that the worker is there."""
    tasks = started(7)
    for now, reading, done in [(12.0, 1, 20), (14.0, 2, 20), (16.0, 3, 20), (18.0, 3, 20)]:
        tasks.read([report(7, done, reading)], now)
    (task,) = tasks.slowest(now=18.0)
    assert (task.since, task.unheard) == (6.0, 2.0)
    tasks.read([report(7, 19, reading=4)], now=18.5)
    assert [task.since for task in tasks.slowest(now=18.5)] == [0.0]


def test_it_is_known_when_a_task_first_counted() -> None:
    """That a task has started is no count."""
    tasks = started(7)
    tasks.read([Report(7, 1, {Key(None, Metric.TASKS_STARTED): 1, **items(0)}, 1)], now=12.0)
    assert [task.first_count for task in tasks] == [None]
    for reading in (2, 3):
        tasks.read([report(7, reading, reading)], now=12.0 + reading)
    assert [task.first_count for task in tasks] == [4.0]


def test_a_new_attempt_starts_anew_and_a_task_that_ended_is_gone() -> None:
    """What the lost attempt had counted, and when, says nothing of the next."""
    tasks = started(7)
    tasks.read([report(7, 20)], now=12.0)
    tasks.start(7, attempt=2, total=100, item="c", now=15.0)
    tasks.read([], now=19.0)
    (task,) = tasks.slowest(now=19.0)
    assert (task.attempt, task.done, task.since, task.node) == (2, 0, 4.0, "")
    tasks.end(7)
    assert tasks.slowest(now=19.0) == ()


def test_shards_are_called_by_their_own_numbers() -> None:
    """The tasks of a run that goes on with an interrupted one are the shards that were missing."""
    tasks = RunningTasks(numbers=[3, 7])
    for task in range(2):
        tasks.start(task, attempt=1, total=10, item=None, now=0.0)
    assert {task.index for task in tasks.slowest(now=9.0)} == {3, 7}


def test_the_slowest_task_is_the_one_with_most_left_at_its_own_rate() -> None:
    """One that has counted nothing is expected to take as long again as it has; short ones are left out."""
    tasks = RunningTasks()
    for task, (done, started) in enumerate([(50, 0.0), (10, 0.0), (0, 0.0), (90, 0.0), (0, 9.5)]):
        tasks.start(task, attempt=1, total=100, item=None, now=started)
        tasks.read([report(task, done)], now=9.8)
    assert [task.index for task in tasks.slowest(now=10.0)] == [1, 0, 2, 3]


def test_of_many_tasks_a_few_are_read() -> None:
    """A snapshot of a thousand workers costs no more than one of five."""
    tasks = RunningTasks()
    for task in range(100):
        tasks.start(task, attempt=1, total=None, item=None, now=float(task))
    assert [task.index for task in tasks.slowest(now=200.0)] == [*range(MAX_SLOWEST)]


@pytest.mark.parametrize(
    ("total", "counts", "done", "known_total"),
    [
        pytest.param(10, {}, 0, 10, id="has sent nothing"),
        pytest.param(10, items(4), 4, 10, id="has counted"),
        pytest.param(10, items(2) | estimated(3), 5, 10, id="is taken to be further"),
        pytest.param(10, items(0, Read=8, Pack=3), 3, 10, id="through all its stages"),
        pytest.param(None, items(4), 4, None, id="of unknown size"),
        pytest.param(None, items(4) | {Key(None, Metric.TOTAL): 9}, 4, 9, id="its loop knows"),
        pytest.param(None, items(0, Pages=4) | own_total("Pages", 9), 4, None, id="a stage of its own size"),
    ],
)
def test_how_far_a_task_is(
    total: int | None, counts: Mapping[Key, Count], done: int, known_total: int | None
) -> None:
    """By what it counts in no named stage, or else by what has gone through all its stages."""
    task = RunningTask(0, 1, total, counts=counts)
    assert (task.done, task.known_total) == (done, known_total)


@pytest.mark.parametrize(
    ("unit", "numbers", "text"),
    [
        ("shards", [7], "shard 7"),
        ("tasks", [0, 1], "tasks 0 and 1"),
        ("tasks", [0, 1, 12], "tasks 0, 1 and 12"),
        ("tasks", [*range(1_200)], "1,200 tasks"),
        ("sheep", [3], "sheep 3"),
    ],
)
def test_a_few_tasks_are_named_and_many_are_counted(unit: str, numbers: list[int], text: str) -> None:
    """Up to three have room in a line."""
    assert format_tasks(unit, numbers) == text


@pytest.mark.parametrize(
    ("heard", "seconds", "workers", "at_work"),
    [
        (2, 4.0, 8, None),  # the others may begin yet
        (2, 6.0, 8, 2),
        (0, 6.0, 8, None),  # nothing comes from any
        (8, 6.0, 8, None),
        (2, 6.0, 2_000, None),  # such a number reports less often
    ],
)
def test_workers_that_are_missing_are_known(
    heard: int, seconds: float, workers: int, at_work: int | None
) -> None:
    """If tasks have waited for some seconds for a worker, it is known how many workers are at work."""
    tasks = started(*range(8))
    counts = {Key(None, Metric.TASKS_STARTED): 1}
    tasks.read([Report(task, 1, counts, 1, HERE) for task in range(heard)], now=11.0)
    assert tasks.workers_at_work(workers, now=10.0 + seconds) == at_work
