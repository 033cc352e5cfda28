"""Tasks that take less time than Ray does: some more than can run wait in Ray, and nothing else changes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from support.recorder import Recorder

from speedy_utils import UNFINISHED, TaskError, multi_process
from speedy_utils._ray.tasks.short_chunks import AHEAD, bound_to_node

pytestmark = pytest.mark.ray

ITEMS = 400


@pytest.fixture
def workers(ray_session: None) -> int:
    """As many as Ray has CPUs."""
    import ray

    return int(ray.cluster_resources()["CPU"])


def times(i: int, folder: Path, killed: tuple[int, ...] = ()) -> tuple[int, float, float]:
    """Return an item, and when the task began and ended; end the process of some items the first time."""
    started = time.monotonic()
    if i in killed:
        path = folder / str(i)
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if i == ITEMS // 2:
        time.sleep(0.2)  # those that wait for it begin later
    return i, started, time.monotonic()


def fail_at(i: int, folder: Path, failing: int) -> int:
    """Note that a task has begun, and fail at one item."""
    (folder / str(i)).touch()
    if i == failing:
        raise ValueError("this one")
    return i


def most_at_once(spans: list[tuple[int, float, float]]) -> int:
    """Return how many tasks ran at once, at the most."""
    at_once = most = 0
    for _, change in sorted(each for _, started, ended in spans for each in ((started, 1), (ended, -1))):
        at_once += change
        most = max(most, at_once)
    return most


@pytest.mark.parametrize("killed", [(), (150, 300)])
def test_no_more_tasks_run_at_once_than_there_are_workers(
    workers: int, recorder: Recorder, tmp_path: Path, killed: tuple[int, ...]
) -> None:
    """Short tasks run once each, and no more at once than was asked for; also where workers are killed."""
    found = multi_process(
        times,
        range(ITEMS),
        num_workers=workers,
        chunksize=1,
        folder=tmp_path,
        killed=killed,
        progress=recorder,
    )
    assert [i for i, _, _ in found] == list(range(ITEMS))
    assert most_at_once(found) <= workers
    last = recorder.last
    assert (last.done, last.tasks_failed, last.retries) == (ITEMS, 0, len(killed))


def test_few_tasks_begin_after_one_has_failed(workers: int, tmp_path: Path) -> None:
    """After a short task has failed no more begin than wait in Ray, and what has ended is kept."""
    with pytest.raises(TaskError) as caught:
        multi_process(
            fail_at,
            range(ITEMS),
            num_workers=workers,
            chunksize=1,
            folder=tmp_path,
            failing=100,
            progress=False,
        )
    begun = {int(path.name) for path in tmp_path.iterdir()}
    assert caught.value.index == 100
    assert len(begun) <= 100 + 2 * AHEAD + workers
    kept = {each for each in caught.value.results if each is not UNFINISHED}
    assert kept <= begun
    assert len(kept) >= len(begun) - 1 - workers  # these may have been interrupted


def test_tasks_wait_in_ray_only_where_it_bounds_how_many_run(workers: int) -> None:
    """Tasks are bound to the only node if it has room for just as many; not where options say otherwise."""
    import ray

    home = ray.get_runtime_context().get_node_id()
    bound = bound_to_node(home, {"name": "work", "num_cpus": 1}, workers)
    assert bound is not None
    assert bound["scheduling_strategy"].node_id == home
    assert bound_to_node(home, {"num_cpus": 1}, workers + 1) is None
    assert bound_to_node(home, {"num_cpus": 0.5}, workers) is None
    assert bound_to_node(home, {"num_cpus": 1, "scheduling_strategy": "SPREAD"}, workers) is None
