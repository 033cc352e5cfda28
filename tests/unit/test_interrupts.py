"""Threads are interrupted in user code only, Ctrl-C is not swallowed, and no lock stays held after it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from support.forks import in_fork
from support.programs import run_program
from support.threads import held

from speedy_utils._interrupts import (
    after_fork_in_child,
    delaying_ctrl_c,
    ending_on_sigterm,
    holding,
    interruptible,
    keeping_ctrl_c,
    raise_in_thread,
    release_locks,
)


class Stop(BaseException):
    """What is raised in the threads."""


def function_of(module: str, name: str, body: str) -> Callable[..., Any]:
    """Return a function as a module could have it."""
    scope: dict[str, Any] = {"__name__": module}
    exec(f"def {name}(go, inside, call=None):\n    {body}", scope)
    function: Callable[..., Any] = scope[name]
    return function


SPIN = "inside.set()\n    while not go: pass"
CALL = "call(go, inside)"


@contextmanager
def thread_in(*functions: Callable[..., Any]) -> Iterator[tuple[int, list[str]]]:
    """Run a thread that is in the last of some functions, each called by the one before.

    Yields:
        Its ident, and what became of it: whether it ``"left"`` the functions, and was ``"stopped"``.
    """
    go: list[None] = []
    inside = threading.Event()
    story: list[str] = []

    def call(rest: tuple[Callable[..., Any], ...]) -> Callable[..., Any] | None:
        return (lambda go, inside: rest[0](go, inside, call(rest[1:]))) if rest else None

    def task() -> None:
        try:
            functions[0](go, inside, call(functions[1:]))
            story.append("left")
            while True:  # user code again
                pass
        except Stop:
            story.append("stopped")

    thread = threading.Thread(target=task)
    thread.start()
    assert inside.wait(60)
    try:
        yield thread.ident or 0, story
    finally:
        go.append(None)
        while thread.is_alive():
            raise_in_thread(thread.ident or 0, Stop)
            thread.join(0.001)


USER = function_of("mine.tasks", "__enter__", SPIN)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("tqdm.std", "acquire"),
        ("tqdm.std", "update"),
        ("logging", "handle"),
        ("weakref", "remove"),
        ("importlib._bootstrap", "_get_module_lock"),
        ("tqdm.asyncio", "refresh"),
        ("speedy_utils._instrument.tqdm.capture", "_init"),
        ("threading", "__enter__"),
        ("multiprocessing.synchronize", "__exit__"),
        ("queue", "release"),
    ],
)
def test_what_may_hold_a_lock_is_left_first(module: str, name: str) -> None:
    """A thread in code that takes locks goes on until it is back in user code, and is stopped there."""
    with thread_in(function_of(module, name, SPIN)) as (thread, story):
        assert not raise_in_thread(thread, Stop)
    assert story == ["left", "stopped"]


def test_a_bar_that_draws_is_left_to_it() -> None:
    """A bar holds tqdm's lock while it writes to a stream, which may be user code."""
    with thread_in(function_of("tqdm.std", "refresh", CALL), USER) as (thread, story):
        assert not raise_in_thread(thread, Stop)
    assert story == ["left", "stopped"]


@pytest.mark.parametrize(
    "functions",
    [
        pytest.param((function_of(module, name, CALL), USER), id=f"user code called by {module}")
        for module, name in (
            ("mine.tasks", "work"),
            ("tqdm.pandas", "inner"),
            ("speedy_utils._instrument.rows.dataset_rows", "rows"),
        )
    ]
    + [
        pytest.param((function_of("tqdm.std", "__iter__", SPIN),), id="a bar that waits for items"),
        pytest.param(
            (interruptible(function_of("speedy_utils._engines.in_process.threads", "wait", SPIN)),),
            id="a marked function of this package",
        ),
    ],
)
def test_user_code_and_what_waits_for_it_is_stopped(
    functions: tuple[Callable[..., Any], ...], until: Callable[..., Any]
) -> None:
    """A thread is stopped in user code, and in functions that may wait for user code forever."""
    with thread_in(*functions) as (thread, story):
        assert raise_in_thread(thread, Stop)
        until(lambda: story)  # from Python 3.13 on a thread that waits for its turn has a step more
    assert story == ["stopped"]


def test_a_thread_that_waits_is_stopped_once_it_wakes() -> None:
    """User code that waits for another thread is interrupted, as it may wait forever."""
    awake = threading.Event()

    def sleep(go: list[None], inside: threading.Event, call: object = None) -> None:
        inside.set()
        awake.wait()

    with thread_in(sleep) as (thread, story):
        while not raise_in_thread(thread, Stop):  # on its way it takes a lock
            pass
        awake.set()
    assert story == ["stopped"]


def test_a_thread_that_has_ended_is_not_interrupted() -> None:
    """Nothing is raised for the ident of a thread that has ended."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert not raise_in_thread(thread.ident or 0, Stop)


def free(lock: Any) -> bool:
    """Return whether another thread can take a lock."""
    got: list[bool] = []

    def take() -> None:
        got.append(lock.acquire(blocking=False))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got[0]


LOCKS = [threading.RLock(), threading.RLock()]
hold_locks = holding(lambda: LOCKS)


def test_locks_are_held_while_a_function_runs() -> None:
    """All the locks are held inside, the result passes, and no lock is held after it, nor after an error."""

    @hold_locks
    def function(fail: bool) -> list[bool]:
        if fail:
            raise KeyboardInterrupt
        return [free(lock) for lock in LOCKS]

    assert function(False) == [False, False]
    with pytest.raises(KeyboardInterrupt):
        function(True)
    assert [free(lock) for lock in LOCKS] == [True, True]


def test_only_the_locks_that_were_acquired_are_released() -> None:
    """If acquiring one lock is interrupted, those before it are released and it is not."""

    class Interrupted:
        def acquire(self) -> bool:
            raise KeyboardInterrupt

        def release(self) -> None:
            raise AssertionError("it was not acquired")

    locks: list[Any] = [threading.RLock(), Interrupted()]
    asked = iter([locks])

    @holding(lambda: next(asked, []))
    def function() -> None:
        raise AssertionError("it must not be called")

    with pytest.raises(KeyboardInterrupt):
        function()
    assert free(locks[0])


def test_locks_that_an_interrupted_library_kept_are_released() -> None:
    """What this thread still holds is released, however often it was taken; another thread keeps its lock."""
    mine, others = LOCKS
    mine.acquire()
    mine.acquire()
    with held(others):
        release_locks(LOCKS)
        assert (free(mine), free(others)) == (True, False)


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Return what presses Ctrl-C, with Python's own handler for it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("swallowed", ["silently", "as an error"])
def test_a_ctrl_c_that_a_library_swallows_is_raised_again(ctrl_c: Callable[[], None], swallowed: str) -> None:
    """The block ends by KeyboardInterrupt, whether the library goes on or raises an error of its own."""

    def library() -> None:
        try:
            ctrl_c()
        except KeyboardInterrupt:
            if swallowed == "as an error":
                raise RuntimeError("no answer") from None

    with pytest.raises(KeyboardInterrupt), keeping_ctrl_c():
        library()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_errors_pass_and_users_handlers_are_called(ctrl_c: Callable[[], None]) -> None:
    """Errors of the block pass if no KeyboardInterrupt was raised, as a handler of the program's may not."""
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))

    def library() -> None:
        ctrl_c()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), keeping_ctrl_c():
        library()
    assert pressed == [signal.SIGINT]


@pytest.mark.parametrize(("once", "presses"), [(False, 3), (True, 1)])
def test_ctrl_c_can_wait_for_the_end_of_a_block(ctrl_c: Callable[[], None], once: bool, presses: int) -> None:
    """It is raised after the block, however often it was pressed; or a second one is raised at once."""
    handler, inside = signal.getsignal(signal.SIGINT), []

    def block() -> None:
        for _ in range(3):
            ctrl_c()
            inside.append(signal.getsignal(signal.SIGINT))

    with pytest.raises(KeyboardInterrupt), delaying_ctrl_c(once=once):
        block()
    assert len(inside) == presses
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("block_of", [keeping_ctrl_c, delaying_ctrl_c])
def test_other_threads_handle_no_signals(block_of: Callable[[], AbstractContextManager[None]]) -> None:
    """In another thread the block changes nothing: only the main thread may set handlers."""
    handler, inside = signal.getsignal(signal.SIGINT), []

    def block() -> None:
        with block_of():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert inside == [handler]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_forked_children_reset_in_order() -> None:
    """A child calls what was registered, in that order, and its parent does not."""
    calls: list[str] = []
    after_fork_in_child(lambda: calls.append("first"))
    after_fork_in_child(lambda: calls.append("second"))

    def check() -> None:
        assert calls == ["first", "second"]

    assert in_fork(check) == 0
    assert calls == []


def terminate() -> None:
    """Send this process SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


TERMINATED = """
import contextlib, os, signal
from speedy_utils._interrupts import Terminated, ending_on_sigterm, keeping_ctrl_c

with ending_on_sigterm():
    try:
        with keeping_ctrl_c(), contextlib.suppress(BaseException):  # a library that swallows it
            os.kill(os.getpid(), signal.SIGTERM)
    except Terminated as error:
        print("cleaned up")
        raise ValueError from error  # as a library may
print("went on")
"""


def test_sigterm_ends_a_program_by_itself_after_the_cleanup(tmp_path: Path) -> None:
    """The exception passes the cleanup of the block, and then the program ends as it would without it."""
    done = run_program(tmp_path / "program.py", TERMINATED)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "cleaned up\n", "")


def test_a_program_that_catches_sigterm_goes_on(tmp_path: Path) -> None:
    """It is a KeyboardInterrupt, as Ctrl-C is."""
    caught = f"try:\n{indent(TERMINATED, '    ')}\nexcept KeyboardInterrupt:\n    print('caught')"
    done = run_program(tmp_path / "program.py", caught)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\ncaught\n", "")


def test_a_child_that_is_forked_in_the_block_ends_at_once() -> None:
    """A child has no run to clean up after."""

    def child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as above
        with ending_on_sigterm():
            assert in_fork(terminate) == -signal.SIGTERM

    assert in_fork(child) == 0


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "handled"])
def test_a_handler_of_the_program_is_respected(handler: Any) -> None:
    """A program that ignores or handles SIGTERM goes on as it would, also if it sets that in the block."""

    def child() -> None:
        signal.signal(signal.SIGTERM, handler)
        with ending_on_sigterm():
            terminate()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with ending_on_sigterm():
            signal.signal(signal.SIGTERM, handler)
            terminate()
        assert signal.getsignal(signal.SIGTERM) is handler

    assert in_fork(child) == 0
