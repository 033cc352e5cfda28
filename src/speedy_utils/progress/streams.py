"""What a program prints while bars are up goes above them, in whole lines.

While there are bars on a terminal, ``sys.stdout`` and ``sys.stderr`` are streams that take the bars away,
write, and draw them again. Ray looks both up each time it prints what its workers say, so that arrives here
too. A logging handler that kept the former stream writes past it.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from threading import get_ident
from typing import Any, Protocol, TextIO

from tqdm import tqdm


class Line(Protocol):
    """A line of the screen that is drawn again and again: a tqdm bar."""

    def clear(self, nolock: bool = False) -> None:
        """Take it off the screen."""
        ...

    def refresh(self, nolock: bool = False) -> Any:
        """Draw it."""
        ...


_lines: dict[Line, None] = {}


def _lock() -> AbstractContextManager[Any]:
    """The lock under which tqdm draws."""
    # The stubs of tqdm leave it untyped.
    lock: AbstractContextManager[Any] = tqdm.get_lock()  # type: ignore[no-untyped-call]
    return lock


class AboveBars:
    """A stream that writes whole lines above the bars; in all else it is the real one.

    Args:
        real: The terminal.
    """

    def __init__(self, real: TextIO) -> None:
        self.real = real
        self._rests: dict[int, str] = {}  # by thread: print() writes a line and its end one after the other

    def write(self, text: str) -> int:
        """Write the lines that are complete, and keep the rest until it is, or until it is flushed."""
        if not _lines:  # somebody kept this stream after the bars had gone
            return self.real.write(text)
        with _lock():
            whole, end, rest = (self._rests.pop(get_ident(), "") + text).rpartition("\n")
            if rest:
                self._rests[get_ident()] = rest
            self._put(whole + end)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Write this thread's rest too: a prompt has no line end."""
        with _lock():
            self._put(self._rests.pop(get_ident(), ""))
            self.real.flush()

    def finish(self) -> None:
        """Write all that is left."""
        with _lock():
            while self._rests:
                self._put(self._rests.popitem()[1])

    def _put(self, text: str) -> None:
        if not text:
            return
        lines = list(_lines)
        for line in lines:
            line.clear(nolock=True)
        self.real.write(text)
        self.real.flush()
        if text.endswith("\n"):
            for line in lines:
                line.refresh(nolock=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def real_stderr() -> TextIO:
    """The stream that bars are drawn on."""
    return sys.stderr.real if isinstance(sys.stderr, AboveBars) else sys.stderr


def keep_below(line: Line) -> None:
    """Keep a line below what is printed, until :func:`let_go`."""
    with _lock():
        _lines[line] = None
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, AboveBars) and stream.isatty():
                setattr(sys, name, AboveBars(stream))


def let_go(line: Line) -> None:
    """End what :func:`keep_below` began; after the last line the streams are the former ones again."""
    with _lock():
        _lines.pop(line, None)
        if _lines:
            return
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, AboveBars):
                setattr(sys, name, stream.real)
                stream.finish()


# A child has no bars, and may have been forked while a thread of its parent held the lock.
os.register_at_fork(after_in_child=_lines.clear)
