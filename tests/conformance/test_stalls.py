"""A task that hangs is named, with where its code is, on each backend; and taken back as it moves."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.backends import AT_ONCE
from support.recorder import Recorder
from support.screen import a_terminal
from support.waiting import wait_until

from speedy_utils import Snapshot, TaskSnapshot, multi_process, track
from speedy_utils._display.bars import BarDisplay

SLEEPS, WAITS, STOPS = 7, 12, 20

IN_PROCESSES = ("ray", "processes")
"""The backends whose workers are processes of their own, which may be stopped."""


def sleep(folder: Path) -> None:
    """Sleep until all were named."""
    while not (folder / "named").exists():
        time.sleep(0.05)


def wait_for_lock(folder: Path) -> None:
    """Wait for a lock that is not released before all were named."""
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=lambda: (sleep(folder), lock.release())).start()
    with lock:
        pass


def stop(folder: Path) -> None:
    """Stop this process, once its worker is known."""
    wait_until((folder / "known").exists)
    os.kill(os.getpid(), signal.SIGSTOP)


def hang(number: int, folder: Path, ways: dict[int, Callable[[Path], None]]) -> int:
    """Count ten items; in some tasks the fifth takes for ever."""
    for item in track(range(10)):
        if item == 4 and number in ways:
            ways[number](folder)
    return number


class Watcher(Recorder):
    """Lets the tasks go on once all that hang were named.

    Args:
        folder: Where the tasks look for flags.
        named: Returns whether all were named in the log.
    """

    def __init__(self, folder: Path, named: Callable[[], bool]) -> None:
        super().__init__()
        self._folder, self._named = folder, named
        self.stalled: dict[int, TaskSnapshot] = {}
        self.hook = self._look

    def _look(self, snapshot: Snapshot) -> None:
        self.stalled |= {task.index: task for task in snapshot.stalled}
        pids = {task.index: task.pid for task in snapshot.slowest}
        if pids.get(STOPS):
            (self._folder / "known").touch()
        if self._named():
            (self._folder / "named").touch()
            if STOPS in self.stalled and (pid := self.stalled[STOPS].pid) is not None:
                with suppress(ProcessLookupError):  # it has ended since
                    os.kill(pid, signal.SIGCONT)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Callable[[], dict[int, list[str]]]:
    """Return what returns the log's messages about tasks, by task."""
    caplog.set_level(logging.WARNING, "speedy_utils")

    def by_task() -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for message in list(caplog.messages):
            first, second, *_ = message.split()
            assert first == "task"
            found.setdefault(int(second), []).append(message)
        return found

    return by_task


def test_what_hangs_is_named_with_its_stack(
    backend: str, tmp_path: Path, messages: Callable[[], dict[int, list[str]]]
) -> None:
    """Of 40 tasks those that sleep, wait for a lock or were stopped, and no others: on screen and in logs."""
    ways: dict[int, Callable[[Path], None]] = {SLEEPS: sleep}
    if backend != "seq":
        ways[WAITS] = wait_for_lock
    if backend in IN_PROCESSES:
        ways[STOPS] = stop
    watch = Watcher(tmp_path, lambda: messages().keys() == ways.keys())
    frames: list[str] = []
    with a_terminal(150) as (terminal, screen):
        terminal.on_write = lambda: frames.extend(terminal.lines())
        bars = BarDisplay(screen)

        def show(snapshot: Snapshot) -> None:
            bars.show(snapshot)
            watch(snapshot)

        options: Any = {"backend": backend, "num_workers": 4, "poll_interval": 0.05, "progress": show}
        # One stops as it is known, and before its worker looks for its stack, after half the time.
        stall_after = 4 if backend in IN_PROCESSES else 0.5
        results = multi_process(
            hang,
            range(40),
            folder=tmp_path,
            ways=ways,
            total_items=lambda _: 10,
            stall_after=stall_after,
            **options,
        )
        bars.close()
    assert results == [*range(40)]
    assert watch.stalled.keys() == ways.keys()
    assert {(task.item, task.attempt, task.done, task.total) for task in watch.stalled.values()} == {
        (str(number), 1, 4, 10) for number in ways
    }
    assert all(task.node and task.pid for task in watch.stalled.values())
    for number, way in {SLEEPS: "sleep", WAITS: "wait_for_lock"}.items():
        if number in ways:
            assert f", in {way}" in watch.stalled[number].stack
            said, taken_back = messages()[number]
            assert (
                f"item {number}, attempt 1, 4 of 10 items, on {watch.stalled[number].node}, process" in said
            )
            assert f'\n  File "{__file__}", line ' in said
            assert ", in hang\n" in said
            assert "threading.py" not in said.splitlines()[2]
            assert taken_back.startswith(f"task {number} ")
            assert "after it stood for " in taken_back
    if backend in IN_PROCESSES:
        assert watch.stalled[STOPS].unheard >= 1  # its last word may be later than its last count
        assert messages()[STOPS][0].startswith("task 20 is silent for ")
        place = " on " if backend == "ray" else ", "
        assert any(f"waiting for tasks 7, 12 and 20{place}" in line for line in frames)
    elif backend == "threads":
        assert any("waiting for tasks 7 and 12, " in line for line in frames)
    else:
        assert any("waiting for task 7, " in line for line in frames)
    assert (watch.last.stalled, watch.last.phase) == ((), "")


async def wait_for_answer(number: int, folder: Path) -> int:
    """Await what does not come before all were named; or block the loop instead."""
    for item in track(range(10)):
        if item == 4 and number == SLEEPS:
            await asyncio.gather(asyncio.sleep(0), answer(folder))
        if item == 4 and number == WAITS:
            wait_until((folder / "known").exists)
            sleep(folder)
    return number


async def answer(folder: Path) -> None:
    """Await in steps."""
    while not (folder / "named").exists():
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
@pytest.mark.parametrize(("number", "place"), [(SLEEPS, "answer"), (WAITS, "sleep")])
def test_a_coroutine_that_hangs_is_named_with_where_it_stands(
    backend: str, number: int, place: str, tmp_path: Path, messages: Callable[[], dict[int, list[str]]]
) -> None:
    """Where it awaits, also in a task of asyncio that it waits for; or where it blocks the loop."""
    (tmp_path / "known").touch()
    watch = Watcher(tmp_path, lambda: 1 in messages())
    options: Any = {"backend": backend, "num_workers": 2, "poll_interval": 0.05, "progress": watch}
    multi_process(
        wait_for_answer, [1, number], folder=tmp_path, total_items=lambda _: 10, stall_after=0.5, **options
    )
    lines = messages()[1][0].splitlines()[2:]
    assert ", in wait_for_answer" in lines[0]
    assert f", in {place}" in watch.stalled[1].stack


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_the_log_names_a_task_that_hangs_with_the_bar_off_too(
    backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is shown does not decide."""
    caplog.set_level(logging.WARNING, "speedy_utils")
    released = threading.Thread(
        target=lambda: (
            wait_until(lambda: "task 1 has counted nothing" in caplog.text),
            (tmp_path / "named").touch(),
        )
    )
    released.start()
    options: Any = {"backend": backend, "num_workers": 2, "progress": False, "stall_after": 0.5}
    multi_process(hang, range(2), folder=tmp_path, ways={1: sleep}, total_items=lambda _: 10, **options)
    released.join()


def test_never_is_never(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With None nothing is said, and snapshots have no stalled tasks."""
    recorder = Recorder()
    recorder.hook = lambda snapshot: (tmp_path / "named").touch() if snapshot.slowest else None
    options: Any = {"backend": "threads", "progress": recorder, "poll_interval": 0.05, "stall_after": None}
    multi_process(hang, range(2), folder=tmp_path, ways={1: sleep}, **options)
    assert not any(snapshot.stalled for snapshot in recorder.snapshots)
    assert caplog.text == ""
