"""Workers that die: the run ends exact, with the right results."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.backends import RAY
from support.ray_workers import kill_worker
from support.recorder import Recorder
from support.rounds import ROUNDS

from speedy_utils import Snapshot, TaskError, multi_process, report_progress, track

PROCESSES = [RAY, "processes"]
"""Backends whose workers are processes, which may die."""

backends = pytest.mark.parametrize("backend", PROCESSES, indirect=True)

ITEMS = 1000


def thousand(item: Any) -> int:
    """Any item stands for a thousand."""
    return ITEMS


def die() -> None:
    """Die without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


@backends
@pytest.mark.parametrize("_round", range(ROUNDS))
def test_a_task_that_kills_its_worker_counts_once(
    backend: str, recorder: Recorder, tmp_path: Path, until: Callable[..., Any], _round: int
) -> None:
    """A task that dies with half of its items done runs again; its first count drops, the end is exact."""
    half, dropped, others = tmp_path / "half", tmp_path / "dropped", tmp_path / "others"
    others.mkdir()

    def task(i: int) -> int:
        first = i == 1 and not half.exists()
        if i == 1 and not first:
            until(dropped.exists)
        for done, _ in enumerate(track(range(ITEMS), every=10)):
            if first and done == ITEMS // 2:
                until(half.exists)  # the bar has shown it
                die()
        (others / str(i)).touch()
        return i * i

    def look(snapshot: Snapshot) -> None:
        if len(list(others.iterdir())) == 3 and snapshot.done == 3 * ITEMS + ITEMS // 2:
            half.touch()
        if snapshot.retries == 1 and snapshot.done == 3 * ITEMS:
            dropped.touch()

    recorder.hook = look
    results = multi_process(
        task,
        range(4),
        num_workers=2,
        backend=backend,
        total_items=thousand,
        poll_interval=0.02,
        progress=recorder,
    )
    assert results == [0, 1, 4, 9]
    assert (recorder.last.done, recorder.last.total) == (4 * ITEMS, 4 * ITEMS)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed, recorder.last.retries) == (4, 0, 1)
    assert max(snapshot.done for snapshot in recorder.snapshots) == 4 * ITEMS


@backends
def test_without_a_total_only_the_last_attempt_counts(
    backend: str, recorder: Recorder, tmp_path: Path
) -> None:
    """Without a known total, what the last attempt reported counts, and nothing of a dead one."""

    def task(i: int) -> None:
        report_progress(70, desc="Rows")
        if not (tmp_path / str(i)).exists():
            (tmp_path / str(i)).touch()
            die()

    multi_process(task, range(4), num_workers=2, backend=backend, progress=recorder)
    assert [(stage.name, stage.done) for stage in recorder.last.stages] == [("Rows", 280)]
    assert recorder.last.retries == 4


@backends
def test_a_task_that_always_dies_ends_the_run(backend: str, recorder: Recorder) -> None:
    """If a failure ends the run, so does a task that dies each time."""
    with pytest.raises(TaskError, match=r"task 0 \(item 0\) failed after 2 attempts: the worker was lost"):
        multi_process(
            lambda i: die(), range(3), num_workers=1, backend=backend, max_retries=1, progress=recorder
        )
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (0, 1)
    assert recorder.last.final


def kill_process(actor: Any) -> None:
    """Kill the process that the actor lives in."""
    import ray

    os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)


def kill_and_restart(actor: Any) -> None:
    """Let Ray kill the actor, and start it again."""
    import ray

    ray.kill(actor, no_restart=False)


def kill_for_good(actor: Any) -> None:
    """Let Ray kill the actor."""
    import ray

    ray.kill(actor)


@pytest.mark.ray
@pytest.mark.parametrize("kill", [kill_process, kill_and_restart, kill_for_good])
def test_the_actor_may_be_killed(
    ray_session: None,
    recorder: Recorder,
    actors: list[Any],
    tmp_path: Path,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    kill: Callable[[Any], None],
) -> None:
    """If the actor dies in the middle the end is exact, the results are right, and one warning says so."""
    killed = tmp_path / "killed"
    half = threading.Event()

    def task(i: int) -> int:
        for done in track(range(ITEMS)):
            if done == ITEMS // 2:
                until(killed.exists)
        return i * i

    def look(snapshot: Snapshot) -> None:
        if snapshot.done == ITEMS:  # two tasks wait, each with half of its items done
            half.set()

    def kill_it() -> None:
        half.wait(240)
        kill(actors[0])
        killed.touch()

    recorder.hook = look
    killer = threading.Thread(target=kill_it)
    killer.start()
    results = multi_process(
        task, range(6), num_workers=2, total_items=thousand, poll_interval=0.02, progress=recorder
    )
    killer.join()
    assert half.is_set()
    assert results == [i * i for i in range(6)]
    assert (recorder.last.done, recorder.last.total) == (6 * ITEMS, 6 * ITEMS)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed, recorder.last.retries) == (6, 0, 0)
    done = [snapshot.done for snapshot in recorder.snapshots]
    assert done == sorted(done), "the bar went back"
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


@pytest.mark.ray
def test_the_bar_lives_on_after_the_actor_has_restarted(
    ray_session: None, recorder: Recorder, actors: list[Any], tmp_path: Path, until: Callable[..., Any]
) -> None:
    """An actor that has restarted gets all counts again, and the bar moves on during the run."""
    killed, seen = tmp_path / "killed", tmp_path / "seen"
    half = threading.Event()

    def task(i: int) -> None:
        report_progress(400)
        if i == 0:  # it says nothing more: its count must come back by itself
            until(seen.exists)
            return
        until(killed.exists)
        report_progress(200)
        until(seen.exists)

    def look(snapshot: Snapshot) -> None:
        if snapshot.done == 800:
            half.set()
        if snapshot.done == 1000:
            seen.touch()

    def kill_it() -> None:
        half.wait(240)
        kill_process(actors[0])
        killed.touch()

    recorder.hook = look
    killer = threading.Thread(target=kill_it)
    killer.start()
    multi_process(task, range(2), num_workers=2, total_items=thousand, poll_interval=0.02, progress=recorder)
    killer.join()
    assert (recorder.last.done, recorder.last.total) == (2 * ITEMS, 2 * ITEMS)


@pytest.mark.ray
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_workers_and_the_actor_may_be_killed_together(
    ray_session: None, recorder: Recorder, actors: list[Any], tmp_path: Path, seed: int
) -> None:
    """Kills of workers and of the actor, and exits, all in one run, change neither results nor the end."""
    import ray

    pids, tried = tmp_path / "pids", tmp_path / "tried"
    pids.mkdir()
    tried.mkdir()

    def task(i: int) -> int:
        (pids / str(os.getpid())).touch()
        first = not (tried / str(i)).exists()
        (tried / str(i)).touch()
        busy = threading.Event()
        for done in track(range(ITEMS)):
            if done % 200 == 0:
                busy.wait(0.02)
            if first and i % 5 == 0 and done == 300:
                raise SystemExit(i)
        report_progress(3, desc="Ends")
        return i

    random_ = random.Random(seed)
    ended = threading.Event()

    def kill() -> None:
        for turn in range(6):
            if ended.wait(random_.uniform(0.05, 0.3)):
                return
            if turn % 3 == 2 and actors:
                ray.kill(actors[0], no_restart=False)
            else:
                kill_worker((int(path.name) for path in pids.iterdir()), random_)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        results = multi_process(
            task,
            range(15),
            num_workers=3,
            total_items=thousand,
            max_retries=10,
            poll_interval=0.05,
            progress=recorder,
        )
    finally:
        ended.set()
        killer.join()
    assert results == list(range(15))
    lines = {stage.name: stage.done for stage in recorder.last.lines}
    assert lines == {"Processing 15,000 items": 15_000, "Ends": 45}
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (15, 0)
    assert recorder.last.retries >= 3
