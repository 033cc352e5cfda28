"""Where in its input a task is: which row an error comes from, and which rows can't be read.

A loop that fails is closed before its error arrives where the task's ends. What is left of it is the
instruction at which it was left::

    def f(shard):
        for row in track(shard):       # opened here
            parse(row)                 # raises: the loop is closed while f is at this instruction

The traceback of the error has the same instruction of the same frame. After a ``break`` no error has.
"""

from __future__ import annotations

import dis
import json
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Protocol

from .code.user_code import repeats

BAD_ROWS = "bad_rows"
"""The counter of rows that were skipped, as they can't be read."""

_MAX_LEFT = 8
"""How many loops are remembered that were left: those that one error leaves, each inside another."""


class Position(Protocol):
    """A running loop that knows which element is in hand."""

    def position(self) -> int:
        """Return the position of the element in hand, from 0."""
        ...


class _Loops:
    """The loops over the rows of an input that are open, and the last ones that were left."""

    def __init__(self) -> None:
        self.open: dict[LoopOverRows, None] = {}
        self.left: deque[LoopOverRows] = deque(maxlen=_MAX_LEFT)


class LoopOverRows:
    """A loop that goes through the rows of a task's input.

    Args:
        loops: The loops that it is one of.
        loop: Where it is.
        first: The position of its first row in the input.
        frame: What has begun to iterate.
    """

    __slots__ = ("_first", "_frame", "_left_at", "_loop", "_loops", "_opened_at", "_row_left")

    def __init__(self, loops: _Loops, loop: Position, first: int, frame: FrameType | None) -> None:
        self._loops = loops
        self._loop = loop
        self._first = first
        self._frame = id(frame)  # the frame itself would keep what its function holds
        self._opened_at = -1 if frame is None else frame.f_lasti
        self._left_at: tuple[int, int] | None = None
        self._row_left = first
        loops.open[self] = None

    def leave(self, frame: FrameType | None) -> None:
        """Note that the loop is left before its end, in a frame, and with which row in hand."""
        if frame is not None:
            self._row_left = self._first + self._loop.position()
            self._left_at = id(frame), frame.f_lasti
            self._loops.left.append(self)

    def close(self) -> None:
        """Note that the loop is over."""
        self._loops.open.pop(self, None)
        self._loop = _NOWHERE

    def was_left_by(self, frame: FrameType, instruction: int) -> int | None:
        """Return the row in hand if an error at this instruction has left the loop, or else None."""
        if self._left_at is None:
            # Its iterator is kept in a variable, so the loop is not closed yet, or was never one. What is not
            # repeated may come after a "break": compilers put it where that is.
            inside = self._has_inside(frame, instruction) and repeats(frame.f_code, instruction, False)
            return self._first + self._loop.position() if inside else None
        if self._left_at == (id(frame), instruction):
            return self._row_left
        # A "finally" in the loop has raised the error again.
        again = (
            self._left_at[0] == id(frame) and _instruction(frame.f_code, self._left_at[1]).opname == "RERAISE"
        )
        return self._row_left if again and self._has_inside(frame, instruction) else None

    def _has_inside(self, frame: FrameType, instruction: int) -> bool:
        """Return whether an instruction is one of the loop's, if the loop is a ``for`` statement."""
        if id(frame) != self._frame:
            return False
        opening = _instruction(frame.f_code, self._opened_at)
        return opening.opname == "FOR_ITER" and self._opened_at <= instruction < opening.argval


def _instruction(code: CodeType, offset: int) -> dis.Instruction:
    # Python 3.11 and 3.12 may say the offset of a cache behind the instruction.
    return [each for each in dis.get_instructions(code) if each.offset <= offset][-1]


class _Nowhere:
    def position(self) -> int:
        return 0


_NOWHERE = _Nowhere()
"""Stands for a loop that is over, so that nothing of it is kept."""


class InputRows:
    """The rows that a task works on: a shard of a dataset.

    Args:
        rows: The shard.
        shard: Which shard it is, from 0.
        start: The position of its first row in the input.
        bad_rows: The file that lists the rows which can't be read. It is made with the first of them.

    Attributes:
        bad: How many rows it lists.
    """

    def __init__(self, rows: Any, shard: int, start: int, bad_rows: Path) -> None:
        self._rows = rows
        self._shard = shard
        self._start = start
        self._file = bad_rows
        self._loops = _Loops()
        self._listed: set[int] = set()
        self._lock = threading.Lock()
        self.bad = 0

    def first_row(self, iterable: object) -> int | None:
        """Return the position of the first element in the input; None if the elements are not these rows."""
        return self._start if _has_same_rows(iterable, self._rows) else None

    def enter(self, iterable: object, loop: Position, frame: FrameType | None) -> LoopOverRows | None:
        """Note that a loop begins, as :class:`LoopOverRows` has it. None if it goes through other things."""
        first = self.first_row(iterable)
        return None if first is None else LoopOverRows(self._loops, loop, first, frame)

    def row_of(self, error: BaseException) -> int | None:
        """Return the row of the input that was in hand when an error left a loop; None if it left none."""
        loops = [*self._loops.left, *list(self._loops.open)]
        each: BaseException | None = error
        seen: set[int] = set()
        while each is not None and id(each) not in seen:
            seen.add(id(each))
            for frame, instruction in reversed(list(_raised_at(each.__traceback__))):
                for loop in reversed(loops):
                    row = loop.was_left_by(frame, instruction)
                    if row is not None:
                        return row
            each = each.__cause__
        return None

    def list_bad_row(self, position: int, first: int | None, error: Exception) -> bool:
        """Write down a row that can't be read.

        The line is::

            {"row": 45123, "shard": 3, "item": 123, "reason": "OSError: image file is truncated"}

        Args:
            position: The position of the row in what the loop goes through.
            first: What :meth:`first_row` returned for that. The row is null if it was None.
            error: Why it can't be read.

        Returns:
            Whether it was not listed yet, as a second loop over the same rows finds it again.
        """
        row = None if first is None else first + position
        line = {"row": row, "shard": self._shard, "item": position, "reason": reason_of(error)}
        with self._lock:
            if row is not None and row in self._listed:
                return False
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if row is not None:
                self._listed.add(row)
            self.bad += 1
        return True


def reason_of(error: BaseException) -> str:
    """Return an error in one short line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # it is user code
        text = ""
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text else name


def describe_bad_rows(number: int, some: list[tuple[int, str]]) -> str:
    """Return ``skipped 2 bad rows: row 3 (ValueError: no date), row 7 (OSError: truncated)``.

    Args:
        number: How many there were.
        some: The first of them: each position, and why it can't be read.
    """
    rows = ", ".join(f"row {position:,} ({reason})" for position, reason in some)
    more = f" and {number - len(some):,} more" if number > len(some) else ""
    return f"skipped {number:,} bad row{'s' if number != 1 else ''}: {rows}{more}"


def _raised_at(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lasti
        trace = trace.tb_next


def _has_same_rows(iterable: Any, rows: Any) -> bool:
    """Return whether an iterable has the rows of a dataset, be it in another format or with fewer columns."""
    if iterable is rows:
        return True
    try:
        if type(iterable) is not type(rows):
            # The column of a dataset, which is read when it is iterated.
            kind = type(iterable)
            is_column = (kind.__module__, kind.__name__) == ("datasets.arrow_dataset", "Column")
            return is_column and _has_same_rows(iterable.source, rows)
        if len(iterable) != len(rows) or not _same_indices(iterable._indices, rows._indices):
            return False
        return not _buffers(iterable.data).isdisjoint(_buffers(rows.data))
    except Exception:  # attributes of another library, some of them private, which may be missing
        return False


def _same_indices(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.table.equals(other.table))


def _buffers(table: Any) -> set[int]:
    """Return the addresses of a table's first values: it shares them with a table that has the same rows."""
    firsts = [column.chunk(0) for column in table.columns if column.num_chunks]
    return {buffer.address for first in firsts for buffer in first.buffers() if buffer is not None}
