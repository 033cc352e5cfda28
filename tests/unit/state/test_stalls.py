"""Tasks that count nothing for long are named once, with where their code is, and taken back as they move."""

from __future__ import annotations

from typing import Any

import pytest
from support.counts import items

from speedy_utils._state.ledger import Count, Key, Location, Metric
from speedy_utils._state.running import RunningTask
from speedy_utils._state.stalls import MAX_LISTED, Stalls

AFTER = 300.0
GPU_3 = Location("gpu-3", 4_711, "1f2e")
HERE = Location("laptop", 4_711)
STACK = 'File "/home/me/job.py", line 7, in work\nFile "/home/me/job.py", line 3, in wait'
STARTED: dict[Key, Count] = {Key(None, Metric.TASKS_STARTED): 1}


NOW = 10_000.0


def running(
    number: int = 7, done: int = 20, since: float = AFTER, unheard: float = 0.0, ran: float = NOW, **more: Any
) -> RunningTask:
    """Return a task of a hundred items that has counted some of them, and stands now."""
    known = {"total": 100, "item": "c.json", "location": GPU_3, "stack": STACK, "reading": 9}
    known["first_count"] = 1.0 if done else None
    known |= {"moved": NOW - since, "heard": NOW - unheard, "started": NOW - ran}
    return RunningTask(number, 1, counts=STARTED | items(done), **(known | more))


def stalls(after: float | None = AFTER, *ended: RunningTask, unit: str = "tasks") -> Stalls:
    """Return what has seen some tasks end after ten seconds."""
    known = Stalls(after, unit)
    for each in ended:
        assert known.succeeded(each, now=10.0, counted=bool(each.done)) == []
    return known


def test_a_task_that_stands_is_logged_with_all_that_is_known() -> None:
    """Task, item, attempt, how far, where it runs, since when, and where its code is."""
    (message,) = stalls().read([running(since=720.0)], NOW)
    assert message == (
        "task 7 has counted nothing for 12 min: item 'c.json', attempt 1, 20 of 100 items, on gpu-3, "
        "process 4711\nIt is here:\n"
        '  File "/home/me/job.py", line 7, in work\n  File "/home/me/job.py", line 3, in wait'
    )


def test_it_is_logged_once_and_taken_back_as_it_moves() -> None:
    """Beside the line it is said as long as it is so; in the log, that it began and that it ended."""
    known, task = stalls(), running(since=0.0)
    assert (known.read([task], NOW + 299.9), known.tasks, known.phase(NOW)) == ([], [], "")
    task.heard = NOW + 299.0
    assert len(known.read([task], NOW + 300.0)) == 1
    task.heard = NOW + 719.0
    assert (known.read([task], NOW + 720.0), known.tasks) == ([], [task])
    assert known.phase(NOW + 720.0) == "waiting for task 7 on gpu-3, 12 min"
    task.moved = task.heard = NOW + 780.0
    assert known.read([task], NOW + 780.0) == ["task 7 goes on, after it stood for 13 min"]
    assert (known.read([task], NOW + 781.0), known.tasks, known.phase(NOW + 781.0)) == ([], [], "")
    assert len(known.read([task], NOW + 1_080.0)) == 1


def test_that_it_has_ended_is_logged_too() -> None:
    """Of one that was lost nothing is: the retry, or the error, says it."""
    known, ends, lost = stalls(), running(1, since=400.0), running(2, since=400.0)
    known.read([ends, lost], NOW)
    assert known.succeeded(ends, NOW, counted=True) == ["task 1 has ended, after it stood for 6 min"]
    assert known.read([running(2, 0, since=0.0)], NOW) == []


def test_tasks_that_stand_at_the_same_place_are_logged_together() -> None:
    """The stack of a dead file server is the same for all that wait for it."""
    same = [running(number) for number in range(MAX_LISTED + 54)]
    many, other = stalls().read([*same, running(99, stack='File "b.py", line 1, in b')], NOW)
    lines = many.splitlines()
    assert lines[:2] == [
        "64 tasks have counted nothing for 5 min:",
        "  task 0: item 'c.json', attempt 1, 20 of 100 items, on gpu-3, process 4711",
    ]
    assert lines[MAX_LISTED + 1 :] == [
        "  and 54 more",
        "They are here:",
        *(f"  {n}" for n in STACK.split("\n")),
    ]
    assert other.startswith("task 99 has")


@pytest.mark.parametrize(
    ("tasks", "phase"),
    [
        ([running()], "waiting for task 7 on gpu-3, 5 min"),
        ([running(location=HERE)], "waiting for task 7, 5 min"),
        ([running(), running(9, since=720.0)], "waiting for tasks 7 and 9 on gpu-3, 12 min"),
        ([running(), running(9, location=GPU_3._replace(node="gpu-4"))], "waiting for tasks 7 and 9, 5 min"),
        ([running(number) for number in range(64)], "waiting for 64 tasks on gpu-3, 5 min"),
        ([running(unheard=720.0, since=721.0)], "waiting for task 7 on gpu-3, silent for 12 min"),
        ([running(unheard=720.0, since=721.0), running(9)], "waiting for tasks 7 and 9 on gpu-3, 12 min"),
    ],
)
def test_beside_the_line_it_is_short(tasks: list[RunningTask], phase: str) -> None:
    """A few are named, with their node if that is another machine, and with the longest time."""
    known = stalls()
    known.read(tasks, NOW)
    assert known.phase(NOW) == phase


def test_a_shard_is_named_by_its_unit() -> None:
    """Its item says which it is, so the word item is not needed."""
    known = stalls(AFTER, unit="shards")
    (message,) = known.read([running(4, item=_Shard(), stack="")], NOW) or known.read(
        [running(4, item=_Shard(), stack="", since=306.0)], NOW
    )
    assert message.startswith("shard 4 has counted nothing for 5 min: shard 4 (rows 8-9), attempt 1, ")


class _Shard:
    def __repr__(self) -> str:
        return "shard 4 (rows 8-9)"


def test_a_task_that_has_counted_all_is_said_to_have_not_returned() -> None:
    """It saves, or sends: where it does so is logged."""
    (message,) = stalls().read([running(done=100)], NOW)
    assert message.startswith("task 7 has counted all, and not returned for 5 min: ")
    assert message.endswith(STACK.split("\n")[1])


def test_a_worker_that_sends_nothing_is_silent() -> None:
    """What it has sent of a stack before says nothing of now."""
    known = stalls(3.0)
    assert known.read([running(since=5.9, unheard=5.9, stack="")], NOW) == []
    assert known.phase(NOW) == "waiting for task 7 on gpu-3, 5 s"
    (message,) = known.read([running(since=6.0, unheard=6.0)], NOW)
    assert message == (
        "task 7 is silent for 6 s (stopped, gone, or in a call that holds the interpreter): "
        "item 'c.json', attempt 1, 20 of 100 items, on gpu-3, process 4711"
    )


def test_a_worker_that_has_never_sent_anything_may_be_starting() -> None:
    """To start it takes longer than a report; then it is silent, also while no task counts."""
    known = stalls(3.0)
    unheard = {"location": None, "stack": "", "reading": 0, "total": None}
    for seconds, standing in [(14.9, 0), (15.0, 1)]:
        task = running(7, 0, since=seconds, unheard=seconds, **unheard)
        messages = known.read([task], NOW)
        assert len(known.tasks) == standing
    assert len(messages) == 1
    assert messages[0].startswith("task 7 is silent for 15 s ")
    assert messages[0].endswith(": item 'c.json', attempt 1, 0 items, on a worker that has sent nothing")


def test_the_log_waits_for_the_stack_which_comes_with_the_next_report() -> None:
    """If it does not come, the rest is worth saying."""
    known, task = stalls(), running(since=300.0, stack="")
    assert known.read([task], NOW) == []
    assert known.phase(NOW) == "waiting for task 7 on gpu-3, 5 min"
    (message,) = known.read([task], NOW + 6.0)
    assert message.endswith("on gpu-3, process 4711")


UNCOUNTED = running(1, 0, total=None)
COUNTING = running(1, 5)


@pytest.mark.parametrize(
    ("total", "ended", "others", "ran", "stands"),
    [
        pytest.param(None, [UNCOUNTED], [], 39.0, False, id="below four times the median"),
        pytest.param(None, [UNCOUNTED], [], 40.0, True, id="above it"),
        pytest.param(None, [COUNTING], [], 39.0, False, id="the others counted"),
        pytest.param(100, [COUNTING], [], 30.0, True, id="others of known size counted after a second"),
        pytest.param(100, [UNCOUNTED], [], 39.0, False, id="others of known size never counted"),
        pytest.param(None, [], [COUNTING], 30.0, True, id="none has ended, but others count"),
        pytest.param(100, [], [COUNTING], 30.0, True, id="of known size, but others count"),
        pytest.param(100, [], [], 3_600.0, False, id="of known size, and none counts"),
        pytest.param(None, [], [], 3_600.0, False, id="nothing is known"),
    ],
)
def test_a_task_that_has_counted_nothing_may_just_be_long(
    total: int | None, ended: list[RunningTask], others: list[RunningTask], ran: float, stands: bool
) -> None:
    """Whether it stands is measured by the others: by their ends, or by their first counts."""
    known = stalls(20.0, *ended)
    task = running(7, 0, total=total, since=ran, ran=ran)
    counting = [running(each.number, 5, since=0.0) for each in others]
    known.read([task, *counting], NOW)
    assert (task in known.tasks) is stands


def test_a_few_slow_tasks_before_it_make_no_task_stand() -> None:
    """The median of those that ended counts, and not their mean."""
    known = stalls(20.0)
    for duration in (1.0, 10.0, 900.0):
        known.succeeded(running(1, 0, total=None), now=duration, counted=False)
    task = running(7, 0, total=None, since=39.0, ran=39.0)
    known.read([task], NOW)
    assert known.tasks == []
    known.read([task], NOW + 1.0)
    assert known.tasks == [task]


def test_that_nothing_is_known_is_said_once_with_where_one_task_is() -> None:
    """Where no task has counted or ended, whether they move is not known; where one of them is, is."""
    known = stalls()
    tasks = [running(number, 0, total=None, since=300.0 + number, ran=363.0) for number in range(64)]
    (message,) = known.read(tasks, NOW)
    assert (known.tasks, known.phase(NOW)) == ([], "no counts yet from 64 tasks")
    first, *rest = message.splitlines()
    assert first == (
        "no counts yet from 64 tasks in 6 min, and none has ended: whether they move is not known. The one "
        "that runs for longest is task 63: item 'c.json', attempt 1, 0 items, on gpu-3, process 4711"
    )
    assert rest[0] == "It is here:"
    assert known.read(tasks, NOW) == []
    known.succeeded(tasks.pop(), NOW, counted=False)
    assert (known.read(tasks, NOW), known.phase(NOW)) == ([], "")


def test_never_is_never() -> None:
    """Without a time no task stands, however long it does."""
    known = stalls(None)
    assert (known.read([running(since=NOW)], NOW), known.tasks, known.phase(NOW)) == ([], [], "")


def test_a_process_of_another_engine_has_no_item() -> None:
    """Its message says which process stands, and with how many items."""
    place = Location("gpu-3", 47)
    task = RunningTask(
        "gpu-3/47-1f2e3d4c", 1, counts={Key(None, Metric.ITEMS): 20}, location=place, stack="here"
    )
    task.heard, task.reading = 299.0, 1
    (message,) = Stalls(300.0, "workers").read([task], now=300.0)
    assert message.startswith(
        "worker gpu-3/47-1f2e3d4c has counted nothing for 5 min: 20 items, on gpu-3, process 47"
    )
