"""Random runs of engines that are not ours: each ends with exactly what its calls have counted.

A run follows from one seed, which a failure names. ``SPEEDY_UTILS_SEED=17 pytest
tests/engines/test_chaos.py`` runs that one alone; ``SPEEDY_UTILS_ROUNDS=25`` runs some two hundred.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import foreign_work
from support.engines import ENGINES
from support.foreign_work import Call
from support.recorder import Recorder
from support.rounds import ROUNDS

from speedy_utils import multi_process, tracking

SEED = os.environ.get("SPEEDY_UTILS_SEED", "")

STARTED_BEFORE = (
    "executor-forkserver",
    "joblib-loky",
    "joblib-multiprocessing",
    "threads",
    "joblib-threading",
)
"""Engines whose workers need bind: threads, and processes that come from one that may be older."""

needs_forks = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system has no forks"
)


def seeds(count: int) -> list[int]:
    """Return the seeds of that many runs, unless the environment says which one."""
    return [int(SEED)] if SEED else [*range(count)]


def draw(rand: random.Random, folder: Path, styles: list[str], ends: list[str]) -> list[Call]:
    """Return the calls of a run."""
    return [
        Call(
            rand.choice(styles),
            rand.randrange(40),
            rand.choice([0.0, 0.0, 0.0, 0.15]),
            rand.choice(ends),
            str(folder / f"died-{number}"),
        )
        for number in range(rand.randrange(1, 12))
    ]


def check(recorder: Recorder, calls: list[Call], *, bound: bool = True) -> None:
    """Check what a run has shown at its end."""
    last = recorder.last
    staged = sum(call.reported() for call in calls if call.style == "stage")
    assert last.done == sum(call.items(bound=bound) for call in calls)
    assert sum(stage.done for stage in last.stages if stage.name == "Stage") == staged
    shown = [snapshot.done for snapshot in recorder.snapshots]
    assert shown == sorted(shown)


@needs_forks
@pytest.mark.parametrize("seed", seeds(5 * ROUNDS))
def test_random_calls_in_pools_are_counted_exactly(seed: int, tmp_path: Path, recorder: Recorder) -> None:
    """Calls that are slow, raise, and count in any way, in any pool, bound or in processes of the block."""
    rand = random.Random(seed)
    name = rand.choice([*ENGINES])
    bound = name in STARTED_BEFORE or rand.random() < 0.6
    styles = ["loop", "report", "stage", "nothing", *(["bar"] if bound else [])]
    calls = draw(rand, tmp_path, styles, ["return", "return", "raise"])
    with tracking(progress=recorder, poll_interval=rand.choice([0.01, 0.3])) as run:
        work = run.bind(foreign_work.play) if bound else foreign_work.play
        found = ENGINES[name](partial(foreign_work.caught, work), calls)
        assert sorted(map(str, found)) == sorted(
            "None" if call.end == "raise" else str(call.n) for call in calls
        )
        if bound:
            assert run.snapshot().done == sum(call.items() for call in calls)
    check(recorder, calls, bound=bound)


@needs_forks
@pytest.mark.parametrize("seed", seeds(2 * ROUNDS))
def test_what_had_returned_when_a_pool_breaks_is_counted(
    seed: int, tmp_path: Path, recorder: Recorder
) -> None:
    """A pool that gives up as a worker is killed ends short: by the calls under way, and what came after."""
    rand = random.Random(seed)
    calls = draw(rand, tmp_path, ["loop", "report", "bar", "nothing"], ["return", "return", "raise", "die"])
    with tracking(progress=recorder) as run:
        work = run.bind(foreign_work.play)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            errors: list[Any] = []
            with suppress(BrokenProcessPool):
                errors += [call.exception() for call in [pool.submit(work, call) for call in calls]]
        known = zip(calls, errors, strict=False)
        least = sum(call.items() for call, error in known if not isinstance(error, BrokenProcessPool))
        assert run.snapshot().done >= least
    most = sum(max(1, call.n) for call in calls)
    assert least <= recorder.last.done <= most
    if all(call.end != "die" for call in calls):
        check(recorder, calls)


@needs_forks
@pytest.mark.parametrize("seed", seeds(2 * ROUNDS))
def test_random_processes_of_tasks_are_counted_exactly(seed: int, tmp_path: Path, recorder: Recorder) -> None:
    """Pools that tasks of ours start count for the tasks, however slow they are."""
    rand = random.Random(seed)
    calls = draw(rand, tmp_path, ["loop", "report", "stage"], ["return", "return", "raise"])
    calls = [replace(call, n=call.n + 2) for call in calls]
    tasks = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    tasks = [[Call("report", 1, 0.0, "return", ""), *task] for task in tasks]
    backend = rand.choice(["processes", "seq"])
    multi_process(foreign_work.in_pool, tasks, backend=backend, num_workers=2, progress=recorder)
    check(recorder, [call for task in tasks for call in task])


@pytest.mark.ray
@pytest.mark.parametrize("seed", seeds(ROUNDS))
def test_random_calls_on_ray_are_counted_exactly(
    seed: int, tmp_path: Path, recorder: Recorder, ray_session: None
) -> None:
    """Tasks, and methods of actors, that are slow, raise, or run again as their worker is killed."""
    import ray

    ray.cloudpickle.register_pickle_by_value(foreign_work)

    class Actor:
        def play(self, call: Call) -> int:
            return foreign_work.play(call)

    rand = random.Random(seed)
    styles = ["loop", "report", "stage", "bar", "nothing"]
    calls = draw(rand, tmp_path, styles, ["return", "return", "raise", "die once"])
    with tracking(progress=recorder) as run:
        if seed % 2:
            task = ray.remote(max_retries=-1)(run.bind(foreign_work.play))
            refs = [task.remote(call) for call in calls]
        else:
            kind = run.bind(ray.remote(num_cpus=0.1, max_restarts=-1, max_task_retries=-1)(Actor))
            actors = [kind.remote() for _ in range(2)]
            refs = [actors[number % 2].play.remote(call) for number, call in enumerate(calls)]
        for call, ref in zip(calls, refs, strict=True):
            with pytest.raises(ValueError, match="planned") if call.end == "raise" else nullcontext():
                assert ray.get(ref) == call.n
        assert run.snapshot().done == sum(call.items() for call in calls)
    assert recorder.last.done == sum(call.items() for call in calls)
