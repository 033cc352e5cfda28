"""Ctrl-C and SIGTERM in a loop over results: in its code, and while it waits for the tasks that run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import os, pathlib, time
from itertools import count
from speedy_utils import multi_process_iter
here = pathlib.Path(os.getcwd())
def task(i):
    if i == 3:
        (here / "hangs").touch()
        time.sleep(600)
    while i == 2 and not (here / "hangs").exists():
        time.sleep(0.01)
    return i
def loop():
    for i in multi_process_iter(task, count(), backend={backend!r}, num_workers=2, chunksize=1):
        if i == 2:
            (here / "looped").touch()
            {does}
if __name__ == "__main__":
    try:
        loop()
        time.sleep(600)
    except KeyboardInterrupt as error:
        print("caught", type(error).__name__, flush=True)
"""


@pytest.mark.parametrize(
    ("backend", "does", "number"),
    [
        ("processes", "time.sleep(600)", signal.SIGINT),
        ("processes", "time.sleep(600)", signal.SIGTERM),
        ("processes", "break", signal.SIGINT),
        ("processes", "break", signal.SIGTERM),
        ("threads", "break", signal.SIGINT),
        pytest.param("ray", "time.sleep(600)", signal.SIGINT, marks=pytest.mark.ray),
    ],
)
def test_an_interrupt_cancels_the_tasks_and_reaches_the_program(
    terminal: Callable[..., Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
    backend: str,
    does: str,
    number: signal.Signals,
) -> None:
    """The task that hangs is not waited for, the program gets the exception, and no process is left."""
    program = terminal(SCRIPT.format(backend=backend, does=does))
    for name in ("hangs", "looped"):
        until((tmp_path / name).exists, 60)
    pressed = time.monotonic()
    program.press_ctrl_c() if number == signal.SIGINT else program.terminate()
    code = program.wait()
    assert time.monotonic() - pressed < here(15)
    if does == "break" and number == signal.SIGTERM:  # the run no longer handles it
        assert code == -signal.SIGTERM
    else:
        assert ("caught" in program.text, code) == (True, 0), program.text[-2000:]
    assert "Exception ignored" not in program.text
    assert "Traceback" not in program.text
    until(lambda: not program.processes(), 10)
