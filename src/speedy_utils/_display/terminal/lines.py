"""Streams in place of ``sys.stdout`` and ``sys.stderr`` that hand on what a program prints in whole lines.

They only cut texts into lines, for each thread by itself; where the lines go is up to their
:class:`StreamWriter`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Protocol, TextIO

import tqdm.utils
import wrapt
from tqdm.utils import disp_len, disp_trim

# A tqdm bar wraps the file it draws on, and tqdm offers no way to tell what comes from a bar. So the caller
# of a write tells: a bar moves the cursor from row to row, and that is no text to be cut into lines.
_TQDM = vars(tqdm.utils)


output_filter: ContextVar[Callable[[], bool] | None] = ContextVar("speedy_utils_gate", default=None)
"""Tells whether what is printed in this context is shown."""


class StreamWriter(Protocol):
    """Where printed texts go."""

    def take(self, stream: StreamProxy, text: str) -> int:
        """Take a text that somebody prints."""
        ...

    def take_flush(self, stream: StreamProxy) -> None:
        """Show what this thread has printed, also where its line has no end yet."""
        ...

    def take_bar(self, stream: StreamProxy, text: str) -> int:
        """Take what a tqdm bar draws."""
        ...


class StreamProxy(wrapt.ObjectProxy):  # type: ignore[type-arg]  # it is generic in the stubs only
    """A stream whose texts go to a writer, if it has one; in all else it is the real one.

    Args:
        real: The stream that it stands for.
    """

    def __init__(self, real: TextIO) -> None:
        super().__init__(real)
        self._self_writer: StreamWriter | None = None
        self._self_shared = False

    @property
    def real(self) -> TextIO:
        """The stream that it stands for."""
        stream: TextIO = self.__wrapped__
        return stream

    @property
    def writer(self) -> StreamWriter | None:
        """Where the texts go; None where they go straight on."""
        return self._self_writer

    @property
    def shared(self) -> bool:
        """Whether the writer may write what it draws itself to ``real`` too."""
        return self._self_shared

    def attach(self, writer: StreamWriter | None, *, shared: bool) -> None:
        """Let the texts go to a writer from now on, or straight on."""
        self._self_writer, self._self_shared = writer, shared

    def write(self, text: Any) -> int:
        """Hand on a text."""
        shows = output_filter.get()
        if shows is not None and not shows():
            return len(text)
        writer = self._self_writer
        if writer is None or not isinstance(text, str):
            return self.real.write(text)  # which raises what is right where it is no text
        if sys._getframe(1).f_globals is _TQDM:
            return writer.take_bar(self, text)
        return writer.take(self, text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Hand on several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Show this thread's text, also where its line has no end yet."""
        writer = self._self_writer
        if writer is None or sys._getframe(1).f_globals is _TQDM:
            self.real.flush()
        else:
            writer.take_flush(self)


def last_state(line: str) -> str:
    """What a line shows at last, where it overwrites itself from its start."""
    if "\r" not in line:
        return line
    return line.rstrip("\r").rpartition("\r")[2]


class _PartialLine:
    """The beginning of a line."""

    __slots__ = ("pieces", "shown", "stream")

    def __init__(self, stream: StreamProxy) -> None:
        self.stream = stream
        self.pieces: list[str] = []
        self.shown = False

    def add(self, text: str) -> None:
        self.pieces.append(text)
        if "\r" in text:
            # What was overwritten is gone; a return at the very end overwrites nothing yet.
            whole = "".join(self.pieces)
            self.pieces = [last_state(whole) + "\r" * whole.endswith("\r")]

    @property
    def text(self) -> str:
        """The text."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def tail(self, length: int) -> str:
        """Its last characters: joining all of a long line for each dot of it would be dear."""
        if len(self.pieces[-1]) >= length:
            return last_state(self.pieces[-1])[-length:]
        found: list[str] = []
        for piece in reversed(self.pieces):
            found.append(piece)
            length -= len(piece)
            if length <= 0:
                break
        return last_state("".join(reversed(found)))


class PartialLines:
    """The lines that have no end yet, one a stream and thread."""

    def __init__(self) -> None:
        # print() writes a line and its end one after the other, so other threads may come between.
        self._rests: dict[tuple[int, int], _PartialLine] = {}

    def add(self, stream: StreamProxy, text: str) -> str:
        """Add a text, and get the lines that are complete with it, each with its end."""
        key = id(stream), get_ident()
        whole, end, rest = text.rpartition("\n")
        known = self._rests.get(key)
        if end and known is not None:
            whole = known.text + whole
            del self._rests[key]
            known = None
        if rest:
            if known is None:
                known = self._rests[key] = _PartialLine(stream)
            known.add(rest)
        if "\r" in whole:
            whole = "\n".join(map(last_state, whole.split("\n")))
        return whole + end

    def flush(self, stream: StreamProxy) -> bool:
        """Let the beginning of this thread's line be shown from now on, and tell whether there is one."""
        rest = self._rests.get((id(stream), get_ident()))
        if rest is None:
            return False
        rest.shown = True
        return True

    def shown(self, length: int) -> list[str]:
        """The beginnings that are to be shown, as plain text of about that length or less."""
        texts = [strip_ansi(rest.tail(length)) for rest in self._rests.values() if rest.shown]
        return [text for text in texts if text.strip()]

    def pop_all(self) -> list[tuple[TextIO, str]]:
        """Take out what is left, each with its terminal."""
        left = [(rest.stream.real, last_state(rest.text)) for rest in self._rests.values()]
        self._rests.clear()
        return [(real, text) for real, text in left if text.strip()]

    def clear(self) -> None:
        """Forget all."""
        self._rests.clear()


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]]?)")


_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)))  # all but tabs


_MOVING = {code: None for code in _CONTROLS if code != 27}  # an escape that is left is a colour


def terminal_size(file: TextIO) -> tuple[int, int]:
    """The columns and rows of a terminal, each 0 where it does not say."""
    try:
        return os.get_terminal_size(file.fileno())
    except (AttributeError, OSError, ValueError):  # it is no terminal, or closed
        return 0, 0


def strip_ansi(text: str) -> str:
    """A text without what would move the cursor, colour or ring."""
    return _ESCAPES.sub("", text).translate(_CONTROLS).expandtabs()


def truncate(line: str, width: int, encoding: str) -> str:
    """A line without what would move the cursor or ring, cut to a width; colours stay.

    Args:
        line: The line.
        width: How many columns it may take.
        encoding: Which characters there are; others become question marks.
    """
    if not line.isprintable():
        line = _ESCAPES.sub(_colour, line).translate(_MOVING).expandtabs()
    if not line.isascii():
        line = line.encode(encoding, "replace").decode(encoding)
    cut: str = disp_trim(line, width)
    return cut


def _colour(escape: re.Match[str]) -> str:
    return escape[0] if escape[0].startswith("\x1b[") and escape[0].endswith("m") else ""


def truncate_left(text: str, width: int) -> str:
    """A text, or its end where it is wider than that."""
    if disp_len(text) <= width:
        return text
    text = text[-width:]
    while disp_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"
