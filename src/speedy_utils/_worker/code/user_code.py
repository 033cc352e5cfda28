"""Where the user's code is that has called this package."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from types import CodeType, FrameType

_OURS = __name__.partition(".")[0]

_EVENT_LOOP = f"{_OURS}._worker.event_loop"


def calling_line() -> str:
    """Return the line that has called this package, ``/home/me/train.py:17``; empty if it is not known."""
    frame = _innermost()
    if frame is None or _package(frame) == "threading":  # a thread of this package
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def called_in_a_loop() -> bool:
    """Return whether the user's code may come back to the call that it is in now, within the same task.

    The first of several loops over parts of a task's items looks like the only loop, over batches of them::

        for start in range(0, 1000, 50):          for batch in track(batches):    # 20 batches
            for row in track(rows[start:][:50]):      ...
                ...

    All calls from the task's function down to this one are looked at. Of threads and asyncio tasks it is not
    known what else runs beside them, so for them it is True.
    """
    frame = _innermost()
    resumed = False  # whether the frame has not called the last one, but fetches from it
    while frame is not None and _package(frame) not in (_OURS, "asyncio"):
        if repeats(frame.f_code, frame.f_lasti, resumed):
            return True
        resumed = bool(frame.f_code.co_flags & inspect.CO_GENERATOR)
        frame = frame.f_back
    if frame is None:
        return True
    if _package(frame) == _OURS and frame.f_globals["__name__"] != _EVENT_LOOP:
        return False
    from ..event_loop import is_awaited_by_worker  # not above: it imports asyncio, which few programs use

    return not is_awaited_by_worker()


def _innermost() -> FrameType | None:
    frame: FrameType | None = sys._getframe()
    while frame is not None and _package(frame) in (_OURS, "tqdm"):
        frame = frame.f_back
    return frame


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


_ENDS = (
    "JUMP_FORWARD",
    "JUMP_ABSOLUTE",
    "JUMP_BACKWARD",
    "RETURN_VALUE",
    "RETURN_CONST",
    "RAISE_VARARGS",
    "RERAISE",
)
"""Instructions after which the next one is not reached."""

_AWAITS = "JUMP_BACKWARD_NO_INTERRUPT"
"""The jump of the loop that ``await`` compiles to."""


@functools.lru_cache(maxsize=256)
def repeats(code: CodeType, offset: int, fetches: bool) -> bool:
    """Return whether an instruction can be reached from itself, other than by an exception.

    Args:
        code: The code of a function.
        offset: Where the instruction is.
        fetches: Whether it fetches an item of a loop. That is then repeated if the whole loop is.
    """
    jumps = {*dis.hasjrel, *dis.hasjabs}
    instructions = list(dis.get_instructions(code))
    following: dict[int, list[int]] = {}
    for instruction, after in zip(instructions, [*instructions[1:], None], strict=True):
        targets = following[instruction.offset] = []
        if instruction.opname == _AWAITS:
            continue
        if after is not None and instruction.opname not in _ENDS:
            targets.append(after.offset)
        if instruction.opcode in jumps:
            targets.append(instruction.argval)
    # Python 3.11 and 3.12 may say the offset of a cache behind the instruction.
    offset = max(start for start in following if start <= offset)
    seen: set[int] = set()
    ahead = [*following[offset]]
    if fetches:
        (fetch,) = (instruction for instruction in instructions if instruction.offset == offset)
        ahead = [fetch.argval] if fetch.opname == "FOR_ITER" else ahead  # its target is the end of the loop
    while ahead:
        reached = ahead.pop()
        if reached == offset:
            return True
        if reached not in seen:
            seen.add(reached)
            ahead += following[reached]
    return False
