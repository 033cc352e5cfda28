"""The lines of all runs, as one block at the bottom of the terminal; what is printed goes above it.

At rest the cursor stands in column 0 of the block's first row, so whatever becomes of the rows when the
terminal is resized, erasing from the cursor on takes them all away. Where the program has tqdm bars of its
own the cursor stands in the row of the first of these, and the block begins below the last.

While there is a block, ``sys.stdout`` and ``sys.stderr`` are :class:`StreamProxy`. All drawing happens under
tqdm's lock.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, TextIO

from tqdm import tqdm

from ..._interrupts import after_fork_in_child
from .lines import PartialLines, StreamProxy, terminal_size, truncate, truncate_left
from .redirect import give_streams_back, real_terminal, take_streams
from .tqdm_bars import Layout, holding_tqdm_lock, layout, redraw, rows_of, visible_tqdm_bars

Render = Callable[[int], list[str]]
"""Gives the lines for a width."""


_ERASE = "\r\x1b[J"
"""Erases from the row of the cursor on."""


_SHARE, _AT_ONCE = 0.05, 0.02
"""Drawing the block again below printed lines may take this part of the time, and so many seconds at once.

A program that prints thousands of lines a second, or a terminal that is slow, would spend its time on that.
The lines are written at once all the same.
"""


class Allowance:
    """A part of the time that passes, and so many seconds at once.

    Args:
        share: The part.
        most: Seconds that may be saved up, and as many that may be owed.
        clock: Seconds that only grow.

    Example:
        >>> from speedy_utils.testing import FakeClock
        >>> clock = FakeClock()
        >>> allowance = Allowance(0.1, 1.0, clock)
        >>> allowance.spend(1.5)
        >>> allowance.left()
        False
        >>> clock.advance(6)
        >>> allowance.left()
        True
    """

    def __init__(self, share: float, most: float, clock: Callable[[], float]) -> None:
        self._share, self._most, self._clock = share, most, clock
        self._seconds, self._at = most, clock()

    def left(self) -> bool:
        """Whether there is any time now."""
        now = self._clock()
        self._seconds = min(self._most, self._seconds + self._share * (now - self._at))
        self._at = now
        return self._seconds > 0

    def spend(self, seconds: float) -> None:
        """Note what was taken."""
        self._seconds = max(self._seconds - seconds, -self._most)


class _Owner:
    """Whose lines they are, and what they are at a width."""

    __slots__ = ("lines", "owner", "render", "width")

    def __init__(self, owner: object, render: Render, lines: list[str], width: int) -> None:
        self.owner = owner  # keeps its identity from being given to another object
        self.render, self.lines, self.width = render, lines, width


class Screen:
    """The bottom of a terminal.

    Args:
        file: The terminal; where None, what is the real ``sys.stderr`` when the first owner comes.
        size: Gives its columns and rows; where None the terminal is asked at each drawing.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        size: Callable[[], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._given = file
        self._file = real_terminal(file)
        self._ask_size = size
        self._clock = clock
        self._owners: dict[int, _Owner] = {}  # in the order in which they came
        self._rests = PartialLines()
        self._drawn = False  # there may be something on the terminal that has to be erased
        self._laid: Layout = ()  # the program's bars when the block was drawn
        self._time = Allowance(_SHARE, _AT_ONCE, clock)
        _screens.add(self)

    def show(self, owner: object, render: Render) -> None:
        """Draw an owner's lines, below those of owners that came before.

        Args:
            owner: Whose lines they are: an object, known by its identity.
            render: Gives the lines for a number of columns; the terminal's last column is left free. It may
                be called again, from any thread, until the next ``show`` or ``finish`` of this owner.

        Raises:
            OSError: The terminal is gone.
        """
        if not self._owners:
            self._file = real_terminal(self._given)
        width = self._size()[0]
        self._show(owner, render, self._cut(render(width), width), width)

    @holding_tqdm_lock
    def _show(self, owner: object, render: Render, lines: list[str], width: int) -> None:
        known = self._owners.setdefault(id(owner), _Owner(owner, render, lines, width))
        known.render, known.lines, known.width = render, lines, width
        take_streams(self, self._file)
        self._refresh()

    @holding_tqdm_lock
    def finish(self, owner: object, render: Render | None) -> None:
        """Turn an owner's lines into ordinary text above what is left of the block, and forget the owner.

        After the last owner ``sys.stdout`` and ``sys.stderr`` are the former ones again.

        Args:
            owner: The owner.
            render: Gives its last lines; where None, they vanish.

        Raises:
            OSError: The terminal is gone; the streams are given back all the same.
        """
        if not self._owners:
            self._file = real_terminal(self._given)
        self._owners.pop(id(owner), None)
        text = ""
        try:
            if render is not None:
                width = self._size()[0]
                text = "".join(f"{line}\n" for line in self._cut(render(width), width))
        finally:
            if self._owners:
                self._put(None, text, again=True)
            else:
                self._end(text)

    @holding_tqdm_lock
    def take(self, stream: StreamProxy, text: str) -> int:
        """Print the lines that are complete with a text above the block; keep the rest until it is."""
        if not self._owners:  # somebody kept this stream after the block had gone
            return stream.real.write(text)
        whole = self._rests.add(stream, text)
        if whole:
            self._put(stream, whole, again=self._time.left(), quiet=True)
        return len(text)

    @holding_tqdm_lock
    def take_flush(self, stream: StreamProxy) -> None:
        """Show the beginning of this thread's line as the block's first row."""
        if self._owners and self._rests.flush(stream) and self._time.left():
            with suppress(Exception):  # it is not the stream's
                self._put(None, "", again=True)
        stream.real.flush()

    @holding_tqdm_lock
    def take_bar(self, stream: StreamProxy, text: str) -> int:
        """Let a bar of the program draw in its row, and keep the block out of it."""
        if not self._owners:
            return stream.real.write(text)
        now = layout(visible_tqdm_bars())
        with suppress(Exception):  # the bar's loop has nothing to do with what befalls the block
            if self._drawn and not set(now) <= set(self._laid):  # it is new: make room
                self._put(None, "", again=True)
            elif self._drawn and not self._laid:  # it is closing, and its row was given to the block
                self._send(_ERASE)
                self._drawn = False
        stream.real.write(text)
        if text == "\n" and now != self._laid:  # it has closed
            stream.real.flush()
            with suppress(Exception):
                self._put(None, "", again=self._time.left())
        return len(text)

    def _size(self) -> tuple[int, int]:
        """The columns that lines may fill, and the rows."""
        columns, rows = terminal_size(self._file) if self._ask_size is None else self._ask_size()
        # A pseudo-terminal that nobody gave a size says 0. In its last column a terminal waits to see what
        # comes before it goes to the next row, or doesn't.
        return max((columns or 80) - 1, 1), rows or 24

    def _cut(self, lines: list[str], width: int) -> list[str]:
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        return [truncate(line, width, encoding) for line in lines]

    def _rows(self, width: int, height: int) -> list[str]:
        """The beginnings of printed lines, and the owners' lines, as many as there is room for."""
        rows = self._cut([truncate_left(text, width) for text in self._rests.shown(4 * width)], width)
        for each in self._owners.values():
            if each.width != width:
                # It could draw itself in another width; if it can't now, its own thread will hear of it.
                with suppress(Exception):
                    each.lines = each.render(width)
                each.lines = self._cut(each.lines, width)
                each.width = width
            rows += each.lines
        if len(rows) > height:
            rows[height - 1 :] = self._cut([f"… and {len(rows) - height + 1} more lines"], width)
        return rows

    def _block(self, bars: list[Any]) -> str:
        """What draws the block, with the cursor in the row where it rests, and brings it back there."""
        width, height = self._size()
        above = min(rows_of(bars), height - 1)
        rows = self._rows(width, height - above)
        up = above + max(len(rows) - 1, 0)
        return "\r" + "\n" * above + "\x1b[J" + "\n".join(rows) + (f"\x1b[{up}A" if up else "") + "\r"

    def _send(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def _refresh(self) -> None:
        """Draw the block where it is."""
        bars = visible_tqdm_bars()
        if bars and not (self._drawn and layout(bars) == self._laid):
            self._put(None, "", again=True)
        else:
            self._drawn = True
            self._send(self._block(bars))
            self._laid = layout(bars)

    def _put(self, stream: StreamProxy | None, text: str, *, again: bool, quiet: bool = False) -> None:
        """Write whole lines above the block, and draw it again or not.

        Args:
            stream: Where the lines go; None for the terminal of the block.
            text: The lines, each with its end.
            again: Whether the block is drawn; if not, the next show or print does it.
            quiet: Whether only an error of the stream itself is raised.
        """
        real = self._file if stream is None else stream.real
        bars = visible_tqdm_bars()
        erase = _ERASE if self._drawn or bars else ""
        begun = self._clock()
        # What is drawn must not raise in the thread of somebody who prints; their own stream may.
        careful = suppress(Exception) if quiet else nullcontext()
        if not bars and (stream is None or stream.shared):
            block = ""
            with careful:
                block = self._block(bars) if again else ""
            self._drawn = self._drawn or bool(block)
            real.write(erase + text + block)
            real.flush()
            self._drawn, self._laid = bool(block), ()
        else:
            with careful:
                self._send(erase)
                self._drawn = False
            real.write(text)
            real.flush()
            if again:
                with careful:
                    self._laid = layout(bars)
                    redraw(bars, self._size()[0])
                    self._drawn = True
                    self._send(self._block(bars))
        if again:
            self._time.spend(self._clock() - begun)

    def _end(self, text: str) -> None:
        """Give the terminal back."""
        bars = visible_tqdm_bars()
        try:
            self._send((_ERASE if self._drawn or bars else "") + text)
        finally:
            self._drawn = False
            rests = self._rests.pop_all()
            give_streams_back(self)
        for turn, (real, rest) in enumerate(rests, 1):
            # The last one may be continued, where no bar comes below.
            real.write(rest if turn == len(rests) and not bars else f"{rest}\n")
            real.flush()
        redraw(bars, self._size()[0])

    def forget(self) -> None:
        """Know of no owner and no text: this is a forked child, and they are its parent's."""
        self._owners.clear()
        self._rests.clear()
        self._drawn = False
        give_streams_back(self)


_screens: weakref.WeakSet[Screen] = weakref.WeakSet()


def _after_fork() -> None:
    """A child has no block, and may have been forked while a thread of its parent held the lock."""
    if any(screen._owners for screen in _screens):
        tqdm.set_lock(threading.RLock())
    for screen in _screens:
        screen.forget()


after_fork_in_child(_after_fork)


_shared = Screen()


def shared_screen() -> Screen:
    """The screen of this process, on the real ``sys.stderr``."""
    return _shared
