"""Threads are interrupted in user code, and not where that would leave a lock taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from speedy_utils._interrupts import raise_in_thread


class Stop(BaseException):
    """What is raised in the threads."""


def function_of(module: str, name: str, body: str) -> Callable[..., Any]:
    """A function as a module could have it."""
    scope: dict[str, Any] = {"__name__": module}
    exec(f"def {name}(go, inside, call=None):\n    {body}", scope)
    function: Callable[..., Any] = scope[name]
    return function


SPIN = "inside.set()\n    while not go: pass"
CALL = "call(go, inside)"


@contextmanager
def thread_in(*functions: Callable[..., Any]) -> Iterator[tuple[int, list[str]]]:
    """A thread that is in the last of some functions, each called by the one before, and what it tells."""
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
        ("speedy_utils._instrument.tqdm_capture", "_init"),
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
    """It holds tqdm's lock while it writes to a stream, which may be user code."""
    with thread_in(function_of("tqdm.std", "refresh", CALL), USER) as (thread, story):
        assert not raise_in_thread(thread, Stop)
    assert story == ["left", "stopped"]


@pytest.mark.parametrize(
    "around",
    [("mine.tasks", "work"), ("tqdm.pandas", "inner"), ("speedy_utils._instrument.dataset_rows", "rows")],
)
def test_user_code_is_stopped_where_it_stands(around: tuple[str, str], until: Callable[..., Any]) -> None:
    """So is user code that the packages have called."""
    with thread_in(function_of(*around, CALL), USER) as (thread, story):
        assert raise_in_thread(thread, Stop)
        until(lambda: story)  # from Python 3.13 on a thread that waits for its turn has a step more
    assert story == ["stopped"]


@pytest.mark.parametrize(
    "where",
    [
        ("tqdm.std", "__iter__"),
        ("speedy_utils._instrument.loops", "_sized"),
        ("speedy_utils._engines.threads", "wait"),
    ],
)
def test_what_waits_for_user_code_is_stopped(where: tuple[str, str], until: Callable[..., Any]) -> None:
    """A bar over what threads bring, and a run in a task, may last for ever."""
    with thread_in(function_of(*where, SPIN)) as (thread, story):
        assert raise_in_thread(thread, Stop)
        until(lambda: story)
    assert story == ["stopped"]


def test_a_thread_that_waits_is_stopped_once_it_wakes() -> None:
    """Waiting for another thread is user code's: it may last for ever."""
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
    """Its ident leads nowhere."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert not raise_in_thread(thread.ident or 0, Stop)
