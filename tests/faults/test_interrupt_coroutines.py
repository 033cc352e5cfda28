"""Ctrl-C while coroutines run: they are cancelled, and may clean up."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.backends import BACKENDS, WITHOUT_RAY

SCRIPT = """
import asyncio, os, pathlib, time, warnings
warnings.simplefilter("error")
from speedy_utils import multi_process, report_progress
here = pathlib.Path(os.getcwd()) / "seen"
here.mkdir()
async def task(i):
    report_progress(5)
    (here / f"started {{i}}").touch()
    try:
        {work}
    except asyncio.CancelledError:
        (here / f"cancelled {{i}}").touch()
        raise
    finally:
        await asyncio.sleep(0.01)
        (here / f"ended {{i}}").touch()
if __name__ == "__main__":
    multi_process(task, range(8), backend={backend!r}, num_workers=2, total_items=lambda i: 10,
                  poll_interval=0.05)
"""

STUBBORN = """
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                (here / f"swallowed {i}").touch()
"""


BLOCKING = """
        try:
            for _ in range(60_000):
                time.sleep(0.01)
        finally:
            (here / f"interrupted {i}").touch()
"""


def seen(folder: Path, what: str) -> int:
    """Return how many tasks have come so far."""
    return len(list((folder / "seen").glob(f"{what} *")))


def ended(program: Any) -> str:
    """Return what a program has written that has ended by KeyboardInterrupt."""
    code = program.wait()
    text: str = program.text
    assert code in (-signal.SIGINT, 1), f"exit code {code}: {text[-1000:]}"  # 1 with Ray, as for functions
    assert "speedy_utils.Interrupted: stopped: " in text
    for word in ("never awaited", "was destroyed", "Exception ignored", "100%"):
        assert word not in text, text[-3000:]
    return text


@pytest.mark.parametrize("name", BACKENDS)
def test_ctrl_c_cancels_coroutines(
    terminal: Callable[[str], Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
    name: str,
) -> None:
    """One Ctrl-C cancels the coroutines that run, waits for their cleanup, and starts no others."""
    program = terminal(SCRIPT.format(backend=name, work="await asyncio.sleep(600)"))
    running = 1 if name == "seq" else 2
    until(lambda: seen(tmp_path, "started") == running and f"{5 * running}/80" in program.text)
    start = time.monotonic()
    program.press_ctrl_c()
    ended(program)
    assert time.monotonic() - start < here(10)
    for what in ("started", "cancelled", "ended"):
        assert seen(tmp_path, what) == running


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("name", WITHOUT_RAY)  # on Ray workers are killed, see test_interrupt.py
def test_a_coroutine_that_swallows_ctrl_c_holds_nothing_up(
    terminal: Callable[[str], Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
    name: str,
    presses: int,
) -> None:
    """A coroutine that swallows its cancellation is left after a moment, and at once by a second Ctrl-C."""
    program = terminal(SCRIPT.format(backend=name, work=STUBBORN))
    running = 1 if name == "seq" else 2
    until(lambda: seen(tmp_path, "started") == running and f"{5 * running}/80" in program.text)
    start = time.monotonic()
    program.press_ctrl_c()
    if presses == 2:
        until(lambda: seen(tmp_path, "swallowed"))
        threading.Event().wait(0.1)  # an impatient user
        program.press_ctrl_c()
    text = ended(program)
    assert time.monotonic() - start < here(12)
    if presses == 1 and name in {"threads", "seq"}:  # elsewhere the worker is killed
        assert "by itself, or with the program" in text or "by themselves, or with the program" in text
    assert not seen(tmp_path, "ended")


@pytest.mark.parametrize("name", ["threads", "seq"])
def test_a_coroutine_that_blocks_its_loop_is_interrupted(
    terminal: Callable[[str], Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
    name: str,
) -> None:
    """A coroutine that never lets its loop run ends all the same, and so do those that wait for it."""
    program = terminal(SCRIPT.format(backend=name, work=BLOCKING))
    until(lambda: seen(tmp_path, "started") == 1 and "5/80" in program.text)
    start = time.monotonic()
    program.press_ctrl_c()
    text = ended(program)
    assert time.monotonic() - start < here(10)
    assert seen(tmp_path, "interrupted") >= 1
    assert "with the program" not in text
