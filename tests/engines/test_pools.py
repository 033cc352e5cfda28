"""One bar for pools of processes and threads that are not ours: each ends exact, bound and unbound."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from support import foreign_work
from support.engines import ENGINES, Map
from support.recorder import Recorder

from speedy_utils import tracking

ITEMS = range(1, 9)

needs_forks = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system has no forks"
)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Map:
    """A way to call a function on items, in two workers."""
    return ENGINES[request.param]


@needs_forks
def test_bound_calls_are_counted_exactly(engine: Map, recorder: Recorder) -> None:
    """Loops, reports with a stage, tqdm bars and calls that report nothing add up once they have returned."""
    with tracking(total=28, progress=recorder) as run:
        assert sorted(engine(run.bind(foreign_work.mixed), ITEMS)) == [*ITEMS]
        assert run.snapshot().done == 28
    last = recorder.last
    assert (last.done, last.complete) == (28, True)
    assert [(stage.name, stage.done) for stage in last.stages] == [("Look", 4)]
    assert last.run_line.counters == {"letters": 4}


@needs_forks
@pytest.mark.parametrize(
    "name", ["executor-fork", "executor-spawn", "pool-map", "pool-maxtasksperchild", "mpire"]
)
@pytest.mark.parametrize("work", [foreign_work.loop, foreign_work.bar])
def test_processes_that_are_started_in_the_block_need_no_bind(
    name: str, work: Callable[[int], int], recorder: Recorder
) -> None:
    """They find the run, and what they counted last arrives however their pool ends them."""
    with tracking(total=36, progress=recorder):
        assert sorted(ENGINES[name](work, ITEMS)) == [*ITEMS]
    assert (recorder.last.done, recorder.last.complete) == (36, True)


@needs_forks
def test_threads_of_processes_that_a_pool_ends_by_a_signal_count(recorder: Recorder) -> None:
    """Also those that count first at the same moment, though only the main thread can handle a signal."""
    with tracking(total=8 * 36, progress=recorder):
        assert sorted(ENGINES["pool-map"](foreign_work.loop_in_threads, ITEMS)) == [*ITEMS]
    assert recorder.last.done == 8 * 36


@needs_forks
def test_a_pool_that_outlives_its_block_has_counted_everything(recorder: Recorder) -> None:
    """Its processes need no ``bind`` if they were started in the block, though they go on after it."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        with tracking(total=36, progress=recorder):
            assert list(pool.map(foreign_work.loop, ITEMS)) == [*ITEMS]
        assert (recorder.last.done, recorder.last.complete) == (36, True)


@needs_forks
@pytest.mark.parametrize("named", [False, True])
def test_a_pool_from_before_the_block_counts_if_bound(
    named: bool, recorder: Recorder, tmp_path: Path
) -> None:
    """A bound call brings the way to its run with it, and one that raises counts for what it reported.

    Also where the next run has the folder of the one before.
    """
    folder = tmp_path / "run" if named else None
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(foreign_work.nothing, ITEMS)) == [*ITEMS]
        for _ in range(2):
            with tracking(total=36, progress=recorder, folder=folder) as run:
                calls = [pool.submit(run.bind(foreign_work.fail_at_three), item) for item in ITEMS]
                assert [type(call.exception()) for call in calls].count(ValueError) == 1
            assert (recorder.last.done, recorder.last.complete) == (36, True)
