"""Workers that are lost, in each of the ways: exact end, right results, and a line that says which."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.ray_workers import kill_worker
from support.recorder import Recorder

from speedy_utils import TaskError, multi_process, report_progress, track
from speedy_utils._display.format import format_remarks

LOGGER = "speedy_utils"

ITEMS = 1000


def thousand(item: Any) -> int:
    """Any item stands for a thousand."""
    return ITEMS


def retries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about tasks that run again."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == LOGGER and " runs again" in record.getMessage()
    ]


def kill() -> None:
    """Be killed from outside."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """Read memory at address 0, in C code."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # Ray's handler prints pages of C++ before it gives up
    ctypes.string_at(0)


def leave() -> None:
    """Leave the process without a word."""
    os._exit(3)


def leave_politely() -> None:
    """Leave the process as a script would."""
    sys.exit(3)


WAYS = [kill, crash, leave, leave_politely]


@pytest.mark.ray
@pytest.mark.parametrize("die", WAYS)
def test_a_lost_worker_is_reported_with_task_node_and_cause(
    ray_session: None,
    recorder: Recorder,
    tmp_path: Path,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    die: Callable[[], None],
) -> None:
    """However a worker ends, its task runs again, one line says which, where and why; the end is exact."""
    import ray

    # On a busy machine the answer may take longer than three seconds.
    monkeypatch.setattr("speedy_utils._ray.client.LOCATE_TIMEOUT_S", 60.0)
    seen = tmp_path / "seen"

    def task(i: int) -> int:
        report_progress(600)
        if i == 1 and not (tmp_path / "died").exists():
            until(seen.exists)  # the driver has heard of it
            (tmp_path / "died").touch()
            die()
        return i * i

    recorder.hook = lambda snapshot: snapshot.done == 1600 and seen.touch()
    options: Any = {"num_workers": 1, "chunksize": 1, "poll_interval": 0.02, "progress": recorder}
    results = multi_process(task, range(3), total_items=thousand, **options)
    assert results == [0, 1, 4]
    assert (recorder.last.done, recorder.last.total, recorder.last.retries) == (3 * ITEMS, 3 * ITEMS, 1)
    (line,) = retries(caplog)
    assert line.startswith("task 1 (item 1) runs again, attempt 2 of 4: ")
    assert ("sys.exit(3)" if die is leave_politely else "WorkerCrashedError") in line
    (host, node) = re.findall(r"\[(\S+) \(node (\w+), process \d+\)\]", line)[0]
    assert host == socket.gethostname()
    assert ray.get_runtime_context().get_node_id().startswith(node)


@pytest.mark.ray
@pytest.mark.parametrize("die", [kill, leave_politely])
def test_a_task_that_always_dies_says_how(
    ray_session: None, recorder: Recorder, tmp_path: Path, die: Callable[[], None]
) -> None:
    """After max_retries the error names the task, its attempts and its end; with "continue" others finish."""
    calls = tmp_path / "calls"

    def task(i: int) -> int:
        report_progress(600)
        if i == 1:
            with calls.open("a") as file:
                file.write("x")
            die()
        return i

    options: dict[str, Any] = {"max_retries": 2, "on_error": "continue", "total_items": thousand}
    results = multi_process(task, range(4), num_workers=2, progress=recorder, **options)
    error = results.pop(1)
    assert results == [0, 2, 3]
    assert isinstance(error, TaskError)
    assert (error.index, error.item, error.attempts, calls.read_text()) == (1, 1, 3, "xxx")
    expected = "sys.exit(3) in the function" if die is leave_politely else "the worker was lost"
    assert error.reason.startswith(expected)
    assert str(error).startswith(f"task 1 (item 1) failed after 3 attempts: {expected}")
    assert (recorder.last.tasks_done, recorder.last.tasks_failed, recorder.last.retries) == (3, 1, 2)
    assert 3 * ITEMS <= recorder.last.done <= 3 * ITEMS + 600


KILLS = 30


@pytest.mark.slow
@pytest.mark.ray
def test_thirty_kills_in_one_run(
    ray_session: None, recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Thirty workers killed at random moments of one run: exact end, right results, one line for each."""
    import ray

    pids, enough = tmp_path / "pids", tmp_path / "enough"
    pids.mkdir()

    def task(i: int) -> int:
        mark = pids / str(os.getpid())
        mark.touch()
        busy = threading.Event()
        for done in track(range(ITEMS)):
            if done % 100 == 0:
                busy.wait(0.02)
        while i >= 4 and not enough.exists():  # a worker is left to be killed until all kills have been
            busy.wait(0.02)
        mark.unlink()
        return i * i

    random_ = random.Random(30)
    ended = threading.Event()
    killed: list[int] = []

    def kill_workers() -> None:
        while len(killed) < KILLS and not ended.wait(random_.uniform(0.0, 0.3)):
            for pid in kill_worker((int(path.name) for path in pids.iterdir()), random_):
                killed.append(pid)
                (pids / str(pid)).unlink(missing_ok=True)
        enough.touch()

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        results = multi_process(
            task,
            range(12),
            num_workers=4,
            total_items=thousand,
            max_retries=KILLS,
            poll_interval=0.05,
            progress=recorder,
        )
    finally:
        ended.set()
        killer.join()
    assert len(killed) == KILLS
    assert results == [i * i for i in range(12)]
    assert (recorder.last.done, recorder.last.total) == (12 * ITEMS, 12 * ITEMS)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (12, 0)
    assert max(snapshot.done for snapshot in recorder.snapshots) <= 12 * ITEMS
    lines = retries(caplog)
    assert len(lines) == recorder.last.retries
    assert f"{len(lines)} retried" in format_remarks(recorder.last)
    # A worker may be killed between two tasks, or with its result on its way.
    assert KILLS - 6 <= len(lines) <= KILLS
    found = [
        re.match(
            r"task \d+ \(item \d+\) runs again, attempt \d+ of 31: the worker was lost: WorkerCrashedError.*?"
            r"(?: \[(\S+) \(node (\w+), process (\d+)\)\])?$",
            line,
        )
        for line in lines
    ]
    # Where it was is not known of a worker that died before anything had been heard of its task.
    places = [each.groups() for each in found if each and each[1]]
    assert None not in found
    assert len(places) > KILLS / 6
    assert {int(process) for _, _, process in places} <= set(killed)
    assert len({process for _, _, process in places}) == len(places)
    assert {host for host, _, _ in places} == {socket.gethostname()}
    assert all(ray.get_runtime_context().get_node_id().startswith(node) for _, node, _ in places)
    assert all(record.levelno == logging.WARNING for record in caplog.records)
