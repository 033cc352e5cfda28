"""One bar for Ray's own tasks, actors and pools, and for Ray Data: what runs again there counts once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import foreign_work
from support.recorder import Recorder

from speedy_utils import report_progress, track, tracking

pytestmark = pytest.mark.ray

ITEMS = range(1, 9)

Work = Callable[[int], int]
Bind = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _ray_has_the_functions(ray_session: None) -> None:
    """Let the functions travel with their code, as Ray's workers can't import the tests."""
    import ray

    ray.cloudpickle.register_pickle_by_value(foreign_work)


class _Actor:
    """Calls a function that it is made with."""

    def __init__(self, work: Work) -> None:
        self._function = work

    def work(self, n: int) -> int:
        return self._function(n)


def _answers(refs: list[Any]) -> list[Any]:
    """Return what the calls have returned, or raised."""
    import ray

    found = []
    for ref in refs:
        try:
            found.append(ray.get(ref))
        except ray.exceptions.RayTaskError as error:
            found.append(type(error.cause))
    return found


def _tasks(work: Work, bind: Bind) -> list[Any]:
    import ray

    task = ray.remote(max_retries=2)(bind(work))
    return _answers([task.remote(item) for item in ITEMS])


def _bound_tasks(work: Work, bind: Bind) -> list[Any]:
    import ray

    task = bind(ray.remote(max_retries=2, num_cpus=0.5)(work))
    return _answers([task.remote(item) for item in ITEMS])


def _actors(work: Work, bind: Bind) -> list[Any]:
    import ray

    kind = ray.remote(num_cpus=0.1, max_restarts=2, max_task_retries=2)(bind(_Actor))
    actors = [kind.remote(work) for _ in range(2)]
    return _answers([actors[item % 2].work.remote(item) for item in ITEMS])


def _actor_pool(work: Work, bind: Bind) -> list[Any]:
    import ray
    from ray.util import ActorPool

    kind = bind(ray.remote(num_cpus=0.1)(_Actor))
    pool: Any = ActorPool([kind.remote(work) for _ in range(2)])
    return [*pool.map(lambda actor, item: actor.work.remote(item), ITEMS)]


def _pool(work: Work, bind: Bind) -> list[Any]:
    from ray.util.multiprocessing import Pool

    with Pool(2) as pool:
        answers = [*pool.imap(bind(work), ITEMS)]
        pool.terminate()
        pool.join()
    return answers


def _rows(work: Work, bind: Bind) -> list[Any]:
    import ray.data

    rows = ray.data.range(8, override_num_blocks=2)
    rows = rows.map(bind(lambda row: {"n": work(int(row["id"]) + 1)}))
    return sorted(row["n"] for row in rows.take_all())


ENGINES = {
    "tasks": _tasks,
    "bound tasks": _bound_tasks,
    "actors": _actors,
    "ActorPool": _actor_pool,
    "Pool": _pool,
    "Ray Data": _rows,
}

# Ray Data 2.60 calls a function of its own that it deprecates.
ray_data = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")


@ray_data
@pytest.mark.parametrize("engine", ENGINES)
def test_bound_calls_on_ray_are_counted_exactly(engine: str, recorder: Recorder) -> None:
    """Loops, reports with a stage, tqdm bars and calls that report nothing add up once they have returned."""
    with tracking(total=28, progress=recorder) as run:
        assert ENGINES[engine](foreign_work.mixed, run.bind) == [*ITEMS]
        assert run.snapshot().done == 28
    last = recorder.last
    assert (last.done, last.complete) == (28, True)
    assert [(stage.name, stage.done) for stage in last.stages] == [("Look", 4)]
    assert last.run_line.counters == {"letters": 4}


@pytest.mark.parametrize("engine", ["tasks", "actors"])
def test_a_call_that_raises_counts_for_what_it_reported(engine: str, recorder: Recorder) -> None:
    """The other calls count for all they have."""
    with tracking(total=36, progress=recorder) as run:
        answers = ENGINES[engine](foreign_work.fail_at_three, run.bind)
        assert answers == [1, 2, ValueError, *ITEMS[3:]]
        assert run.snapshot().done == 36
    assert (recorder.last.done, recorder.last.complete) == (36, True)


@ray_data
@pytest.mark.parametrize("engine", ["tasks", "actors", "Ray Data"])
def test_what_ray_runs_again_counts_once(engine: str, tmp_path: Path, recorder: Recorder) -> None:
    """What the new attempt counts replaces what the worker that was killed had."""
    mark = tmp_path / "mark"

    def work(n: int) -> int:
        for _ in track(range(n)):
            pass
        if n == 3 and not mark.exists():
            mark.touch()
            time.sleep(0.5)  # the flusher sends what was counted
            os._exit(1)
        report_progress(n)
        return n

    with tracking(total=72, progress=recorder) as run:
        assert ENGINES[engine](work, run.bind) == [*ITEMS]
        assert run.snapshot().done == 72
    assert (recorder.last.done, recorder.last.complete) == (72, True)


def test_a_task_that_ray_runs_again_after_an_exception_counts_once(
    tmp_path: Path, recorder: Recorder
) -> None:
    """What an attempt had reported when it raised goes with the next attempt."""
    import ray

    mark = tmp_path / "mark"

    def work(n: int) -> int:
        report_progress(n)
        if n in (3, 5) and not Path(f"{mark}{n}").exists():
            Path(f"{mark}{n}").touch()
            raise ValueError("once")
        return n

    with tracking(total=36, progress=recorder) as run:
        task = ray.remote(max_retries=2, retry_exceptions=True)(run.bind(work))
        assert _answers([task.remote(item) for item in ITEMS]) == [*ITEMS]
        assert run.snapshot().done == 36
    assert (recorder.last.done, recorder.last.complete) == (36, True)


def _count(batch: dict[str, Any]) -> dict[str, Any]:
    report_progress(len(batch["id"]))
    return batch


class _Count:
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return _count(batch)


def _twice(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield row
    yield row


@ray_data
def test_ray_data_is_counted_exactly(recorder: Recorder) -> None:
    """Functions of rows and batches, generators and classes count: their rows, or calls without a report."""
    import ray.data

    with tracking(total=240, progress=recorder) as run:
        rows = ray.data.range(40, override_num_blocks=2).map(run.bind(foreign_work.nothing))
        rows = rows.flat_map(run.bind(_twice))
        rows = rows.map_batches(run.bind(_count), batch_size=10)
        actors = ray.data.ActorPoolStrategy(size=1)
        rows.map_batches(run.bind(_Count), batch_size=10, compute=actors, num_cpus=0.1).materialize()
        assert run.snapshot().done == 240
    assert (recorder.last.done, recorder.last.complete) == (240, True)


def test_a_node_that_does_not_see_the_folder_counts_by_the_actor(until: Callable[..., Any]) -> None:
    """The final state of a call has arrived when the task has returned."""
    import ray

    from speedy_utils._instrument.bound import BoundSpec, counting_function
    from speedy_utils._ray.bound_calls import RunActor
    from speedy_utils._state.ledger import RUN_ITEMS
    from speedy_utils._worker.joining import RunAddress

    actor = RunActor()
    try:
        address = RunAddress("/no/such/folder", "1f2e3d4c", actor.name)
        task = ray.remote(counting_function(BoundSpec(foreign_work.loop, None, address)))
        assert ray.get([task.remote(item) for item in ITEMS]) == [*ITEMS]
        reports: dict[Any, int] = {}

        def counted() -> bool:  # an actor under load may answer late
            reports.update((each.task, int(each.counts[RUN_ITEMS])) for each in actor.collect()[0])
            return sum(reports.values()) == 36

        until(counted)
        assert len(reports) == len(ITEMS)
    finally:
        actor.close()
