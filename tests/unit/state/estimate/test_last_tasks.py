"""A task is waited for while few others run, after a moment."""

from __future__ import annotations

import pytest

from speedy_utils import TaskSnapshot
from speedy_utils._state.estimate.last_tasks import PAUSE_S, LastTasks

SLOW = [TaskSnapshot(4, "rows 2,000-2,499", 1, 155, 500), TaskSnapshot(6, "rows 3,000-3,499", 1, 400, 500)]


def waits_for(tasks: int, workers: int, left: int, *, after: float = PAUSE_S) -> int | None:
    """Return the number of the task that is waited for, some seconds after that many are left."""
    last = LastTasks(tasks, workers)
    assert last.waits_for(SLOW, tasks_left=left, now=10.0) is None
    task = last.waits_for(SLOW, tasks_left=left, now=10.0 + after)
    return None if task is None else task.index


@pytest.mark.parametrize(
    ("tasks", "workers", "left", "waits"),
    [
        (8, 8, 8, False),
        (8, 8, 5, False),
        (8, 8, 4, True),
        (8, 8, 1, True),
        (8, 2, 1, True),
        (8, 1, 1, False),
        (1, 8, 1, False),
        (2, 8, 2, False),
        (8, 8, 0, False),
    ],
)
def test_the_slowest_is_waited_for_once_half_of_the_workers_are_idle(
    tasks: int, workers: int, left: int, waits: bool
) -> None:
    """Not before another task has ended, and not where one worker does one task after another."""
    assert waits_for(tasks, workers, left) == (4 if waits else None)


def test_it_is_named_after_a_moment() -> None:
    """The end of a run of even tasks names none; what was named is not once more tasks run again."""
    assert waits_for(8, 8, 1, after=PAUSE_S - 0.1) is None
    last = LastTasks(8, 8)
    for now, left in ((0.0, 1), (60.0, 5), (61.0, 1)):
        last.waits_for(SLOW, tasks_left=left, now=now)
    assert last.waits_for(SLOW, tasks_left=1, now=63.0) is None
    assert last.waits_for(SLOW, tasks_left=1, now=64.0) is SLOW[0]
    assert last.waits_for([], tasks_left=1, now=64.0) is None
