"""The progress actor paused, killed again and again, or gone for good: the work goes on, the end is exact.

That it may be killed once, in each of the ways, is in test_killed_workers.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import Snapshot, multi_process, report_progress, track

pytestmark = pytest.mark.ray

ITEMS = 1000

PAUSE_S = 7.0
"""Seconds for which the actor is paused: longer than any call is waited for, and than a resend takes."""

LONGEST_WAIT_S = 1.5
"""Seconds that no call may wait: fewer than an actor is waited for."""


@contextlib.contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread while the block runs, and pass on what goes wrong there."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        for error in failed:
            raise error


def pid_of(actor: Any) -> int:
    """The process of an actor, once it is there."""
    import ray

    while True:
        with contextlib.suppress(ray.exceptions.RayActorError):  # it is being started again
            return int(ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=30))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
def test_a_paused_actor_slows_no_loop(
    ray_session: None,
    recorder: Recorder,
    actors: list[Any],
    tmp_path: Path,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    here: Callable[[float], float],
) -> None:
    """Cut off from the actor for seconds no call waits, and what was counted meanwhile arrives afterwards.

    No network is cut here. To a worker an actor that is stopped looks the same, calls without an answer,
    except that its connections stay.
    """
    paused, resumed, caught_up = tmp_path / "paused", tmp_path / "resumed", tmp_path / "caught up"

    def task(i: int) -> None:
        counted, busiest, waited, costs = 0, 0.0, 0.0, []

        def turns(until_it_is: Callable[[], bool]) -> tuple[float, float]:
            """Report in turns; the median CPU time, and time, of a call, over the turns."""
            nonlocal counted, busiest, waited
            costs, times = [], []
            # On a busy machine it may be so before the first turn.
            while len(costs) < 20 or not until_it_is():
                start, at = time.thread_time(), time.monotonic()
                for _ in range(1000):
                    before, began = time.thread_time(), time.monotonic()
                    report_progress()
                    spent, took = time.thread_time() - before, time.monotonic() - began
                    busiest = max(busiest, spent)
                    # Waiting shows as time without CPU time, and so does a busy machine: it has to be long.
                    waited = max(waited, took - spent)
                    counted += 1
                costs.append((time.thread_time() - start) / 1000)
                times.append((time.monotonic() - at) / 1000)
            return statistics.median(costs), statistics.median(times)

        turns(lambda: counted > 100_000)
        (tmp_path / f"warm-{i}").touch()
        costs = [turns(paused.exists), turns(resumed.exists)]
        (tmp_path / f"turns-{i}").write_text(json.dumps([counted, busiest, waited, costs]))
        until(caught_up.exists)

    def measured() -> list[Any]:
        """What the tasks have measured, once they have left their loops."""
        return [json.loads(text) for file in tmp_path.glob("turns-*") if (text := file.read_text())]

    seen: list[int] = []

    def look(snapshot: Snapshot) -> None:
        seen.append(snapshot.done)
        found = measured() if resumed.exists() else []
        if len(found) == 2 and snapshot.done == sum(counted for counted, *_ in found):
            caught_up.touch()

    def pause() -> None:
        until(lambda: len(list(tmp_path.glob("warm-*"))) == 2 and recorder.done)
        pid = pid_of(actors[0])
        os.kill(pid, signal.SIGSTOP)
        try:
            paused.touch()
            threading.Event().wait(PAUSE_S)
        finally:
            resumed.touch()
            os.kill(pid, signal.SIGCONT)

    def billion(item: Any) -> int:
        return 10**9

    recorder.hook = look
    with beside(pause):
        multi_process(
            task, range(2), num_workers=2, total_items=billion, poll_interval=0.05, progress=recorder
        )
    for counted, busiest, waited, (free, cut) in measured():
        assert counted > 0
        assert busiest < 0.1  # of CPU time; on a busy host that has its share of it
        assert waited < min(here(LONGEST_WAIT_S), PAUSE_S / 2)
        # Far from what is measured, and as near as a busy machine allows.
        assert cut[0] < 2 * free[0]
        assert cut[1] < 10 * free[1]
    assert (recorder.last.done, recorder.last.total) == (2 * 10**9, 2 * 10**9)
    assert seen == sorted(seen), "the bar went back"
    warning, part = warnings(caplog)
    assert "the progress actor does not answer" in warning
    assert "of 1,000,000,000 items" in part


@pytest.mark.slow
def test_an_actor_may_be_killed_again_and_again(
    ray_session: None,
    recorder: Recorder,
    actors: list[Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After each of four kills the bar moves again within five seconds, while the tasks still run."""
    kills = 4
    pauses: list[float] = []
    go = [tmp_path / f"go-{turn}" for turn in range(kills + 1)]

    def task(i: int) -> int:
        for each in go:
            until(each.exists)
            report_progress(100)
        return i

    def kill() -> None:
        go[0].touch()
        until(lambda: recorder.done == 2 * 100)
        for turn, each in enumerate(go[1:], 2):
            os.kill(pid_of(actors[0]), signal.SIGKILL)
            killed = time.monotonic()
            each.touch()
            until(lambda turn=turn: recorder.done >= 2 * 100 * turn)
            pauses.append(time.monotonic() - killed)

    with beside(kill):
        results = multi_process(
            task, range(2), num_workers=2, total_items=lambda i: ITEMS, poll_interval=0.02, progress=recorder
        )
    assert results == [0, 1]
    assert (recorder.last.done, recorder.last.total) == (2 * ITEMS, 2 * ITEMS)
    done = [snapshot.done for snapshot in recorder.snapshots]
    assert done == sorted(done), "the bar went back"
    assert max(pauses) < here(5)
    (warning,) = warnings(caplog)
    assert "the progress actor does not answer" in warning


def test_without_its_actor_the_bar_goes_on_task_by_task(
    ray_session: None,
    recorder: Recorder,
    actors: list[Any],
    tmp_path: Path,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An actor that has no restart left leaves a bar that moves with each task that ends, and is exact."""
    import ray

    killed = tmp_path / "killed"
    go = [tmp_path / f"go-{i}" for i in range(6)]

    def task(i: int) -> int:
        for done in track(range(ITEMS)):
            if done == ITEMS // 2:
                until(killed.exists)
        until(go[i].exists)
        return i

    def look(snapshot: Snapshot) -> None:
        if snapshot.done >= ITEMS and not killed.exists():
            ray.kill(actors[0])
            killed.touch()

    def release() -> None:
        until(killed.exists)
        for i, each in enumerate(go):
            each.touch()
            until(lambda i=i: recorder.last.tasks_done == i + 1 and recorder.last.done >= ITEMS * (i + 1))
            until(lambda: warnings(caplog))  # the driver asks the actor several times a second, not at once

    recorder.hook = look
    with beside(release):
        multi_process(
            task, range(6), num_workers=2, total_items=lambda i: ITEMS, poll_interval=0.02, progress=recorder
        )
    assert (recorder.last.done, recorder.last.total) == (6 * ITEMS, 6 * ITEMS)
    assert len(warnings(caplog)) == 1
