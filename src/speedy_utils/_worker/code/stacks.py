"""Where the code of a task is: the stack of the thread that works on it, or of its coroutine.

It is taken by another thread, so it tells of a task that sleeps, waits for a lock or for a dead file server.
While C code holds the interpreter no thread can take it; what `faulthandler` then writes is read by
:func:`dumped_stack`. Source lines are left out: to read them might wait for the same server.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any, NamedTuple

_OURS = __name__.partition(".")[0]

_ABOVE_THE_TASK = f"{_OURS}._engines.task"
"""The module that calls the user's function."""

_EVENT_LOOP = f"{_OURS}._worker.event_loop"
"""The module in which a worker's thread waits for a coroutine, and another runs that."""

_KNOWN_FOLDERS = (PurePath(__file__).parents[2], PurePath(os.__file__).parent / "asyncio")
"""The folders of the packages that call the user's code."""

MAX_FRAMES = 20
"""How many calls are listed, at most: the outermost few, and the innermost."""

OUTERMOST = 4
"""How many of the outermost calls are listed if there are more."""

MAX_COLUMNS = 300
"""How long a line may be."""


class _Call(NamedTuple):
    """A call that a thread is in.

    Attributes:
        module: The module of its code.
        line: The line of a traceback.
    """

    module: str
    line: str


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
    calls = []
    while frame is not None:
        calls.append(_Call(_module(frame), _line(frame)))
        frame = frame.f_back
    return _format(_of_user(calls[::-1]))


_DUMPED_CALL = re.compile(r'^ +File "(.*)", line (\d+) in (.*)$', re.MULTILINE)

_ESCAPED = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
"""How it writes a character that is not ASCII."""


def dumped_stack(text: str) -> str:
    """Return the calls of the task that the main thread works on, from what a signal has let it write.

    Args:
        text: What `faulthandler` writes of all threads, each with its innermost call first.

    Returns:
        Lines as those of :func:`stack_of`; empty if it has not written all.

    Example:
        >>> print(dumped_stack('''Thread 0x00007f162f0f56c0 (most recent call first):
        ...   File "/usr/lib/python3.11/threading.py", line 1002 in _bootstrap
        ...
        ... Current thread 0x00007f162fc63740 (most recent call first):
        ...   File "/usr/lib/python3.11/re/__init__.py", line 166 in match
        ...   File "/home/me/job.py", line 7 in work
        ... '''))
        File "/home/me/job.py", line 7, in work
        File "/usr/lib/python3.11/re/__init__.py", line 166, in match
    """
    others, begins, main = text.rpartition("Current thread ")  # it comes last
    calls = _dumped_calls(main) if begins else []
    if calls and calls[-1].module == _EVENT_LOOP:  # it waits for a coroutine
        for each in map(_dumped_calls, others.split("\n\n")):
            if any(call.module == _EVENT_LOOP for call in each):
                calls = each
    return _format(_of_user(calls))


def _dumped_calls(text: str) -> list[_Call]:
    """Return the calls of a thread as `faulthandler` has written them, the outermost first."""
    calls = []
    for file, line, name in _DUMPED_CALL.findall(_ESCAPED.sub(_unescaped, text)):
        path, module = PurePath(file).with_suffix(""), ""
        for folder in _KNOWN_FOLDERS:
            if path.is_relative_to(folder):
                module = ".".join(path.relative_to(folder.parent).parts)
        calls.append(_Call(module, _call_line(file, line, name)))
    return calls[::-1]


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[0][2:], 16))


def _of_user(calls: list[_Call]) -> list[str]:
    """Return the lines of the calls from the user's function on; the outermost comes first."""
    # Of a run in a task the first. The thread of a loop begins with asyncio's own code.
    above = (
        n
        for n, each in enumerate(calls)
        if each.module == _ABOVE_THE_TASK or _package(each.module) == "asyncio"
    )
    calls = calls[next(above, 0) :]
    users = (n for n, each in enumerate(calls) if _package(each.module) not in (_OURS, "asyncio"))
    return [each.line for each in calls[next(users, 0) :]]


def _awaiting(task: Any) -> Iterator[FrameType]:
    """Yield the frames of an asyncio task that waits, and of those tasks that it waits for."""
    for _ in range(MAX_FRAMES):
        waits: Any = task.get_coro()
        while waits is not None:
            frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
            if frame is not None and _package(_module(frame)) != _OURS:
                yield frame
            waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
        # Private to asyncio, and only for a better answer: what it waits for, and what a gather() does.
        waited = getattr(task, "_fut_waiter", None)
        task = next((each for each in getattr(waited, "_children", ()) if not each.done()), waited)
        if not hasattr(task, "get_coro"):
            return


def _line(frame: FrameType) -> str:
    return _call_line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def _call_line(file: str, number: int | str, name: str) -> str:
    line = f'File "{file}", line {number}, in {name}'
    return line if len(line) <= MAX_COLUMNS else f"{line[: MAX_COLUMNS - 1]}…"


def _format(lines: list[str]) -> str:
    if len(lines) > MAX_FRAMES:
        left_out = len(lines) - MAX_FRAMES
        lines[OUTERMOST : OUTERMOST + left_out] = [f"... {left_out} more"]
    return "\n".join(lines)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _package(module: str) -> str:
    return module.partition(".")[0]
