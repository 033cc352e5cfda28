"""Where the code of a task is: the stack of the thread that works on it, or of its coroutine.

It is taken by another thread, so it tells of a task that sleeps, waits for a lock or for a dead file server.
Source lines are left out: to read them might wait for the same server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

_OURS = __name__.partition(".")[0]

_ABOVE_THE_TASK = f"{_OURS}._engines.task"
"""The module that calls the user's function."""

MAX_FRAMES = 20
"""How many calls are listed, at most: the outermost few, and the innermost."""

OUTERMOST = 4
"""How many of the outermost calls are listed if there are more."""

MAX_COLUMNS = 300
"""How long a line may be."""


def stack_of(thread: int) -> str:
    """Return the calls that a thread is in which works on a task, the innermost last.

    Args:
        thread: Its identifier.

    Returns:
        Lines as a traceback has, from the user's function on: ``File "/home/me/job.py", line 7, in work``.
        If the task awaits, those of its coroutine. Empty if there is no such thread.
    """
    from ..event_loop import call_of  # not above: it imports asyncio, which few programs use

    call = call_of(thread)
    if call is not None and call.task is not None:
        coroutine = call.task.get_coro()
        if not getattr(coroutine, "cr_running", False):
            return _format([_line(frame) for frame in _awaiting(call.task)])
        thread = call.thread  # its code blocks the loop: it has not come to an await
    frame = sys._current_frames().get(thread)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return _format([_line(each) for each in _of_user(frames[::-1])])


def _of_user(frames: list[FrameType]) -> list[FrameType]:
    """Return the frames from the user's function on, the outermost first."""
    # Of a run in a task the first. The thread of a loop begins with asyncio's own frames.
    above = (
        n for n, each in enumerate(frames) if _module(each) == _ABOVE_THE_TASK or _package(each) == "asyncio"
    )
    frames = frames[next(above, 0) :]
    users = (n for n, each in enumerate(frames) if _package(each) not in (_OURS, "asyncio"))
    return frames[next(users, 0) :]


def _awaiting(task: Any) -> Iterator[FrameType]:
    """Yield the frames of an asyncio task that waits, and of those tasks that it waits for."""
    for _ in range(MAX_FRAMES):
        waits: Any = task.get_coro()
        while waits is not None:
            frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
            if frame is not None and _package(frame) != _OURS:
                yield frame
            waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
        # Private to asyncio, and only for a better answer: what it waits for, and what a gather() does.
        waited = getattr(task, "_fut_waiter", None)
        task = next((each for each in getattr(waited, "_children", ()) if not each.done()), waited)
        if not hasattr(task, "get_coro"):
            return


def _line(frame: FrameType) -> str:
    line = f'File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_name}'
    return line if len(line) <= MAX_COLUMNS else f"{line[: MAX_COLUMNS - 1]}…"


def _format(lines: list[str]) -> str:
    if len(lines) > MAX_FRAMES:
        left_out = len(lines) - MAX_FRAMES
        lines[OUTERMOST : OUTERMOST + left_out] = [f"... {left_out} more"]
    return "\n".join(lines)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _package(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]
