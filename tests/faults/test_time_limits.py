"""Tasks that no exception reaches, with a time limit: in C code that holds the interpreter, or stopped."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import multi_process


def hang_in_c() -> None:
    """Never give the interpreter back."""
    ctypes.PyDLL(None).sleep(600)


def wait_in_c() -> None:
    """Wait in a library that tries again after each signal."""
    libc = ctypes.CDLL(None)
    while libc.sleep(600):
        pass


def hang_in_loop() -> Awaitable[None]:
    """Never give the interpreter back, in a coroutine."""

    async def hang() -> None:
        hang_in_c()

    return hang()


def stop() -> None:
    """Be stopped, as by a debugger."""
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


@pytest.mark.parametrize(
    ("backend", "hang"),
    [
        ("processes", hang_in_c),
        ("processes", hang_in_loop),
        ("processes", wait_in_c),
        ("processes", stop),
        pytest.param("ray", hang_in_c, marks=pytest.mark.ray),
        pytest.param("ray", wait_in_c, marks=pytest.mark.ray),
        pytest.param("ray", stop, marks=pytest.mark.ray),
    ],
    indirect=["backend"],
)
def test_a_process_that_can_not_be_interrupted_is_killed(
    backend: str, recorder: Recorder, here: Callable[[float], float], hang: Callable[[], Any]
) -> None:
    """Its task fails with a TimeoutError within seconds, which says where it stood unless it was stopped.

    The tasks that travelled with it run again.
    """

    def call(item: int) -> Any:
        return hang() if item == 4 else item

    begun = time.monotonic()
    results = multi_process(
        call,
        range(12),
        backend=backend,
        num_workers=2,
        on_error="continue",
        task_timeout=2,
        progress=recorder,
    )
    assert time.monotonic() - begun < here(12)
    error = results.pop(4)
    assert type(error.__cause__) is TimeoutError
    known = f'and stood in File "{__file__}", line ' if hang is not stop else "where it stood is not known"
    assert known in str(error.__cause__)
    assert results == [*range(4), *range(5, 12)]
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (11, 1)
