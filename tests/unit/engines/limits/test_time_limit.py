"""Blocks that run for too long: what ends them, where it can."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from speedy_utils._engines.limits import time_limit
from speedy_utils._engines.limits.time_limit import TimeLimit, signalling_main_thread, timeout_error
from speedy_utils._interrupts import Cancelled
from speedy_utils._worker.event_loop import EventLoop

LIMIT_S = 0.05


def spin() -> None:
    """Compute for ever."""
    while True:
        pass


def wait_for_lock() -> None:
    """Wait for a lock that is never released."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def run_child() -> None:
    """Wait for another program."""
    subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], check=True)


def await_for_ever() -> None:
    """Wait in a coroutine."""
    with EventLoop() as loop:
        loop.run(asyncio.sleep(600))


def block_a_loop() -> None:
    """Let a coroutine never come to an await."""

    async def blocking() -> None:
        spin()

    with EventLoop() as loop:
        loop.run(blocking())


def insist() -> None:
    """Go on twice after an interruption, and return as if nothing had been."""
    for _ in range(2):
        try:
            spin()
        except BaseException:
            continue


@pytest.fixture
def signalled() -> Iterator[None]:
    """Let limits interrupt this thread by signals, and take that back."""
    before = signal.getsignal(signal.SIGINT)
    with signalling_main_thread():
        yield
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture(params=["main", "thread"])
def within(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], BaseException | None]:
    """Run a block under a limit, in the main thread with signals or in another one; return what it raises."""

    def run(block: Callable[[], None]) -> BaseException | None:
        raised: list[BaseException | None] = []

        def limited() -> None:
            try:
                with TimeLimit(LIMIT_S):
                    block()
            except BaseException as error:
                raised.append(error)
            else:
                raised.append(None)

        if request.param == "main":
            with signalling_main_thread():
                limited()
        else:
            thread = threading.Thread(target=limited)
            thread.start()
            thread.join()
        return raised[0]

    return run


@pytest.mark.parametrize("block", [spin, await_for_ever, block_a_loop, insist])
def test_what_runs_for_too_long_ends(within: Callable[[Any], BaseException | None], block: Any) -> None:
    """Python code and coroutines end at their limit, and the error says where they stood."""
    error = within(block)
    assert type(error) is TimeoutError
    assert str(error).startswith("it ran for longer than task_timeout=0.05 seconds, and stood in File ")


@pytest.mark.parametrize("block", [lambda: time.sleep(600), wait_for_lock, run_child])
def test_waiting_for_the_system_ends_in_the_main_thread(signalled: None, block: Callable[[], None]) -> None:
    """A signal ends what no exception reaches: sleeping, waiting for a lock, for another program."""
    with pytest.raises(TimeoutError, match="task_timeout"), TimeLimit(LIMIT_S):
        block()


def test_the_stack_ends_with_the_line_that_was_interrupted() -> None:
    """The traceback leads into the user's code, and so does the stack that was taken."""
    with pytest.raises(TimeoutError, match="in spin") as caught, TimeLimit(LIMIT_S):
        spin()
    assert caught.traceback[-1].name == "spin"


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_a_block_that_ends_in_time_is_left_alone(signalled: None, error: BaseException | None) -> None:
    """Its value, its exception and Ctrl-C go their way, and no limit is left."""

    def block() -> None:
        if error is not None:
            raise error

    with nullcontext() if error is None else pytest.raises(type(error)), TimeLimit(600):
        block()
    assert not time_limit._watch._limits


def test_the_inner_of_two_limits_ends_its_block_alone(signalled: None) -> None:
    """A run within a task has limits of its own."""
    with TimeLimit(600) as outer:
        with pytest.raises(TimeoutError, match=r"=0\.05 "), TimeLimit(LIMIT_S):
            time.sleep(600)
        with pytest.raises(TimeoutError, match=r"=0\.04 "), TimeLimit(0.04):
            time.sleep(600)
    assert not outer.expired


def test_a_ctrl_c_is_no_limit(signalled: None) -> None:
    """A SIGINT from elsewhere is handled as it would be without limits."""
    with pytest.raises(KeyboardInterrupt), TimeLimit(600):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("given_up", [False, True])
def test_what_can_not_be_ended_is_said_once(monkeypatch: pytest.MonkeyPatch, given_up: bool) -> None:
    """A thread in a call that does not return is named once, after a moment; given up, it ends its thread."""
    ended: list[bool] = []
    monkeypatch.setattr(time_limit, "GRACE_S", 0.0)
    stuck: list[TimeLimit] = []
    noted, release = threading.Event(), threading.Lock()
    release.acquire()

    def note(limit: TimeLimit) -> bool:
        stuck.append(limit)
        noted.set()
        return given_up

    def task() -> None:
        with pytest.raises(Cancelled if given_up else TimeoutError), TimeLimit(LIMIT_S, note):
            release.acquire()
        ended.append(True)

    thread = threading.Thread(target=task)
    thread.start()
    assert noted.wait(60)
    (limit,) = stuck
    limit.enforce(limit.due)
    release.release()
    thread.join()
    assert stuck == [limit]
    assert ended
    assert "in task" in limit.stack


def test_the_error_of_a_process_that_says_nothing_names_no_place() -> None:
    """Where no stack is known, the error still says which limit was passed."""
    assert str(timeout_error(2.0, "")) == (
        "it ran for longer than task_timeout=2 seconds; where it stood is not known: its process "
        "answered no signal, as one that is stopped"
    )
    stack = 'File "/a.py", line 1, in f\nFile "/a.py", line 7, in g'
    assert str(timeout_error(2.5, stack)).endswith('=2.5 seconds, and stood in File "/a.py", line 7, in g')
