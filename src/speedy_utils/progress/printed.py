"""Streams in place of ``sys.stdout`` and ``sys.stderr`` that hand on what a program prints in whole lines.

They only cut texts into lines, for each thread by itself; where the lines go is up to their :class:`Desk`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Protocol, TextIO

import tqdm.utils
import wrapt

from .fit import plain

# A tqdm bar wraps the file it draws on, and tqdm offers no way to tell what comes from a bar. So the caller
# of a write tells: a bar moves the cursor from row to row, and that is no text to be cut into lines.
_TQDM = vars(tqdm.utils)


gate: ContextVar[Callable[[], bool] | None] = ContextVar("speedy_utils_gate", default=None)
"""Tells whether what is printed in this context is shown."""


class Desk(Protocol):
    """Where printed texts go."""

    def take(self, stream: Printed, text: str) -> int:
        """Take a text that somebody prints."""
        ...

    def take_flush(self, stream: Printed) -> None:
        """Show what this thread has printed, also where its line has no end yet."""
        ...

    def take_bar(self, stream: Printed, text: str) -> int:
        """Take what a tqdm bar draws."""
        ...


class Printed(wrapt.ObjectProxy):  # type: ignore[type-arg]  # it is generic in the stubs only
    """A stream whose texts go to a desk, if it has one; in all else it is the real one.

    Args:
        real: The stream that it stands for.
    """

    def __init__(self, real: TextIO) -> None:
        super().__init__(real)
        self._self_desk: Desk | None = None
        self._self_shared = False

    @property
    def real(self) -> TextIO:
        """The stream that it stands for."""
        stream: TextIO = self.__wrapped__
        return stream

    @property
    def desk(self) -> Desk | None:
        """Where the texts go; None where they go straight on."""
        return self._self_desk

    @property
    def shared(self) -> bool:
        """Whether the desk may write what it draws itself to ``real`` too."""
        return self._self_shared

    def lead_to(self, desk: Desk | None, *, shared: bool) -> None:
        """Let the texts go to a desk from now on, or straight on."""
        self._self_desk, self._self_shared = desk, shared

    def write(self, text: Any) -> int:
        """Hand on a text."""
        shows = gate.get()
        if shows is not None and not shows():
            return len(text)
        desk = self._self_desk
        if desk is None or not isinstance(text, str):
            return self.real.write(text)  # which raises what is right where it is no text
        if sys._getframe(1).f_globals is _TQDM:
            return desk.take_bar(self, text)
        return desk.take(self, text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Hand on several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Show this thread's text, also where its line has no end yet."""
        desk = self._self_desk
        if desk is None or sys._getframe(1).f_globals is _TQDM:
            self.real.flush()
        else:
            desk.take_flush(self)


def last_state(line: str) -> str:
    """What a line shows at last, where it overwrites itself from its start."""
    if "\r" not in line:
        return line
    return line.rstrip("\r").rpartition("\r")[2]


class _Rest:
    """The beginning of a line."""

    __slots__ = ("pieces", "shown", "stream")

    def __init__(self, stream: Printed) -> None:
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


class Rests:
    """The lines that have no end yet, one a stream and thread."""

    def __init__(self) -> None:
        # print() writes a line and its end one after the other, so other threads may come between.
        self._rests: dict[tuple[int, int], _Rest] = {}

    def add(self, stream: Printed, text: str) -> str:
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
                known = self._rests[key] = _Rest(stream)
            known.add(rest)
        if "\r" in whole:
            whole = "\n".join(map(last_state, whole.split("\n")))
        return whole + end

    def flush(self, stream: Printed) -> bool:
        """Let the beginning of this thread's line be shown from now on, and tell whether there is one."""
        rest = self._rests.get((id(stream), get_ident()))
        if rest is None:
            return False
        rest.shown = True
        return True

    def shown(self, length: int) -> list[str]:
        """The beginnings that are to be shown, as plain text of about that length or less."""
        texts = [plain(rest.tail(length)) for rest in self._rests.values() if rest.shown]
        return [text for text in texts if text.strip()]

    def pop_all(self) -> list[tuple[TextIO, str]]:
        """Take out what is left, each with its terminal."""
        left = [(rest.stream.real, last_state(rest.text)) for rest in self._rests.values()]
        self._rests.clear()
        return [(real, text) for real, text in left if text.strip()]

    def clear(self) -> None:
        """Forget all."""
        self._rests.clear()
