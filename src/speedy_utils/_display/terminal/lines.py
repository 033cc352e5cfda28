"""Printed text: streams that pass it on, lines that have no end yet, and cutting to a width."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Protocol, TextIO

import tqdm.utils
import wrapt
from tqdm.utils import disp_len, disp_trim

# A tqdm bar moves the cursor from row to row, which is no text to be cut into lines. tqdm offers no way to
# tell such writes from others; but it wraps the file of a bar, and so they all come from this module.
_TQDM_GLOBALS = vars(tqdm.utils)


def called_by_tqdm() -> bool:
    """Return whether a bar of tqdm has called the function that asks."""
    try:
        return sys._getframe(2).f_globals is _TQDM_GLOBALS
    except ValueError:  # called from C, as at the end of the interpreter: there is no frame
        return False


def _called_by_logging() -> bool:
    """Return whether a handler of ``logging`` has called the function that asks."""
    try:
        return sys._getframe(2).f_globals is vars(logging)
    except ValueError:  # as above
        return False


output_filter: ContextVar[Callable[[], bool] | None] = ContextVar("speedy_utils_output_filter", default=None)
"""Returns whether what is printed in this context is shown."""


class StreamWriter(Protocol):
    """Where printed texts go."""

    def write_above(self, stream: StreamProxy, text: str, *, alone: bool = False) -> int:
        """Write a printed text; or whole lines alone, which don't continue what this thread has printed."""
        ...

    def flush_partial(self, stream: StreamProxy) -> None:
        """Show what this thread has printed, also if its line has no end yet."""
        ...

    def write_bar(self, stream: StreamProxy, text: str) -> int:
        """Write what a tqdm bar draws."""
        ...


class StreamProxy(wrapt.ObjectProxy):  # type: ignore[type-arg]  # it is generic in the stubs only
    """A stream whose texts go to a writer, or to the wrapped stream; all else is the wrapped stream's.

    Args:
        wrapped: The stream that it stands for.
    """

    def __init__(self, wrapped: TextIO) -> None:
        super().__init__(wrapped)
        self._self_writer: StreamWriter | None = None
        self._self_shared = False
        self._self_beginnings: dict[int, list[str]] | None = None

    @property
    def wrapped(self) -> TextIO:
        """The stream that it stands for."""
        stream: TextIO = self.__wrapped__
        return stream

    @property
    def writer(self) -> StreamWriter | None:
        """Where the texts go; None if they go to the wrapped stream."""
        return self._self_writer

    @property
    def shared(self) -> bool:
        """Whether the writer may write what it draws itself to the wrapped stream too."""
        return self._self_shared

    def attach(self, writer: StreamWriter | None, *, shared: bool) -> None:
        """Let the texts go to a writer from now on; to the wrapped stream if it is None."""
        self._self_writer, self._self_shared = writer, shared

    def join_lines(self) -> None:
        r"""Without a writer, pass on the texts of each thread up to ``\n`` or ``\r`` from now on. Idempotent.

        ``print("a", "b")`` writes four texts, and other threads may print in between.
        """
        if self._self_beginnings is None:
            self._self_beginnings = {}

    def release_lines(self) -> dict[int, list[str]]:
        """Pass on each text at once from now on. Idempotent.

        Returns:
            The beginnings of lines, by thread, for ``write_beginnings``.
        """
        beginnings, self._self_beginnings = self._self_beginnings, None
        return beginnings or {}

    def write_beginnings(self, beginnings: dict[int, list[str]]) -> None:
        """Write beginnings of lines, each on its own; the program may go on with the last one."""
        texts = [*filter(None, ("".join(beginnings.pop(thread, ())) for thread in list(beginnings)))]
        if texts:
            with suppress(Exception):  # the stream may be closed, or a pipe that nothing reads
                self.write("\n".join(texts))

    def write(self, text: Any) -> int:
        """Pass on a text, unless it is filtered out."""
        is_shown = output_filter.get()
        if is_shown is not None and not is_shown():
            return len(text)
        writer, beginnings = self._self_writer, self._self_beginnings
        if not isinstance(text, str):
            return self.wrapped.write(text)  # which raises the right error
        if called_by_tqdm():
            return self.wrapped.write(text) if writer is None else writer.write_bar(self, text)
        alone = text.endswith("\n") and _called_by_logging()
        if writer is not None:
            begun = "" if alone or not beginnings else "".join(beginnings.pop(get_ident(), ()))
            writer.write_above(self, begun + text, alone=alone)
            return len(text)
        if beginnings is None or alone:
            return self.wrapped.write(text)
        return self._join(beginnings, text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Pass on several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Show this thread's text, also if its line has no end yet."""
        writer, beginnings = self._self_writer, self._self_beginnings
        if writer is not None and not called_by_tqdm():
            writer.flush_partial(self)
            return
        pieces = beginnings.pop(get_ident(), ()) if beginnings and not called_by_tqdm() else ()
        if pieces:
            self.wrapped.write("".join(pieces))
        self.wrapped.flush()

    def _join(self, beginnings: dict[int, list[str]], text: str) -> int:
        """Write the lines that are complete with a text; keep the rest until it is."""
        thread = get_ident()
        end = max(text.rfind("\n"), text.rfind("\r")) + 1
        pieces = beginnings.pop(thread, [])
        if end:
            self.wrapped.write("".join([*pieces, text[:end]]))
            pieces = []
        if end < len(text):
            pieces.append(text[end:])
        if pieces:
            beginnings[thread] = pieces
        if self._self_beginnings is not beginnings:  # released meanwhile
            self.write_beginnings(beginnings)
        return len(text)


def last_state(line: str) -> str:
    r"""Return what a line shows in the end, if it overwrites itself: ``"100%"`` of ``"50%\r100%"``."""
    if "\r" not in line:
        return line
    return line.rstrip("\r").rpartition("\r")[2]


class _PartialLine:
    """The beginning of a line."""

    __slots__ = ("flushed", "pieces", "shown", "stream")

    def __init__(self, stream: StreamProxy) -> None:
        self.stream = stream
        self.pieces: list[str] = []
        self.shown = False  # whether it was flushed once
        self.flushed = False  # whether all of it was

    def add(self, text: str) -> None:
        self.flushed = False
        self.pieces.append(text)
        if "\r" in text:
            # What was overwritten is gone; a return at the very end overwrites nothing yet.
            whole = "".join(self.pieces)
            self.pieces = [last_state(whole) + "\r" * whole.endswith("\r")]

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    def tail(self, length: int) -> str:
        """Return its last characters: joining all of a long line for each dot of it would be expensive."""
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
    """The lines that have no end yet, one a stream and thread.

    ``print`` writes a line and its end one after the other, and other threads may print in between.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[int, int], _PartialLine] = {}

    def add(self, stream: StreamProxy, text: str) -> str:
        """Add a text, and return the lines that are complete with it, each with its end."""
        key = id(stream), get_ident()
        whole, end, rest = text.rpartition("\n")
        known = self._lines.get(key)
        if end and known is not None:
            whole = known.text + whole
            del self._lines[key]
            known = None
        if rest:
            if known is None:
                known = self._lines[key] = _PartialLine(stream)
            known.add(rest)
        if "\r" in whole:
            whole = "\n".join(map(last_state, whole.split("\n")))
        return whole + end

    def flush(self, stream: StreamProxy) -> bool:
        """Show the beginning of this thread's line from now on, and return whether it has become longer.

        A bar that is drawn flushes the streams too: without new text, nothing is to be drawn again.
        """
        line = self._lines.get((id(stream), get_ident()))
        if line is None or line.flushed:
            return False
        line.shown = line.flushed = True
        return True

    def shown(self, length: int) -> list[str]:
        """Return the beginnings that are to be shown, as plain text of about that length or less."""
        texts = [strip_ansi(line.tail(length)) for line in [*self._lines.values()] if line.shown]
        return [text for text in texts if text.strip()]

    def pop_all(self) -> list[tuple[TextIO, str]]:
        """Remove all lines, and return each with its wrapped stream."""
        # A finalizer may print at any moment, also in the middle of this.
        lines = [(line.stream.wrapped, last_state(line.text)) for line in [*self._lines.values()]]
        self._lines.clear()
        return [(file, text) for file, text in lines if text.strip()]

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]]?)")
_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)))  # all but tabs
_CONTROLS_BUT_ESCAPE = {code: None for code in _CONTROLS if code != 27}


def strip_ansi(text: str) -> str:
    """Return a text without what would move the cursor, colour or ring."""
    return _ESCAPES.sub("", text).translate(_CONTROLS).expandtabs()


def truncate(line: str, width: int, encoding: str) -> str:
    """Return a line without what would move the cursor or ring, cut to a width; colours stay.

    Args:
        line: The line.
        width: How many columns it may take.
        encoding: Which characters there are; others become question marks.
    """
    if not line.isprintable():
        line = _ESCAPES.sub(_keep_colour, line).translate(_CONTROLS_BUT_ESCAPE).expandtabs()
    if not line.isascii():
        line = line.encode(encoding, "replace").decode(encoding)
    cut: str = disp_trim(line, width)
    return cut


def _keep_colour(escape: re.Match[str]) -> str:
    return escape[0] if escape[0].startswith("\x1b[") and escape[0].endswith("m") else ""


def truncate_left(text: str, width: int) -> str:
    """Return a text or, if it is wider, its end behind a ``…``."""
    if disp_len(text) <= width:
        return text
    text = text[-width:]
    while disp_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"
