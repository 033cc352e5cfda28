"""A block of rows at the bottom of the terminal; what is printed meanwhile goes above it.

At rest the cursor is in an empty row above the block. That row is for what does not come this way: C code,
programs that are started, prompts, and the keys that are typed. Drawing the block leaves it alone. Whatever
becomes of the rows when the terminal is resized, erasing downwards from the cursor removes them all. If the
program has tqdm bars of its own the cursor is in the row of the first of these, and the block begins below
the last.

While there is a block, ``sys.stdout`` and ``sys.stderr`` are :class:`StreamProxy`. All drawing happens under
tqdm's lock. While other code reads from the terminal, or draws on it, nothing is drawn.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, TextIO

from tqdm import tqdm

from ..._interrupts import after_fork_in_child
from .block import ERASE, ERASE_AFTER, ERASE_BELOW, Block, Render
from .lines import StreamProxy
from .reading import Readers
from .redirect import redirect_streams, restore_streams, unwrap, write_directly
from .tqdm_bars import Positions, bar_positions, holding_tqdm_lock, redraw_bars, rows_of, visible_tqdm_bars

MAX_REDRAWS, REDRAW_PERIOD_S = 100, 0.2
"""How often printed lines may draw the block again in a period.

A program that prints thousands of lines a second would spend its time on that, and a slow terminal too. Lines
beyond that are written at once all the same; the block is missing until the next show, or the next period.
"""


class Screen:
    """The bottom of a terminal.

    Args:
        file: The terminal; if None, what is the unwrapped ``sys.stderr`` when the first owner comes.
        size: Returns its columns and rows; if None the terminal is asked at each drawing.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        size: Callable[[], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = file
        self._file = unwrap(file)
        self._ask_size = size
        self._clock = clock
        self._block = Block()
        self._block_visible = False  # also if it may be there in part
        self._bar_positions: Positions = ()  # of the program's bars when the block was drawn
        self._period_start, self._redraws = clock(), 0
        self._readers = Readers()
        self._closed = False  # at the end of the program
        _screens.add(self)

    def show(self, owner: object, render: Render) -> None:
        """Draw an owner's lines, below those of owners that came before.

        Args:
            owner: Any object, known by its identity.
            render: Returns the lines for a number of columns; the terminal's last column is left free. It
                may be called again, from any thread, until the next ``show`` or ``finish`` of this owner.

        Raises:
            OSError: The terminal is gone.
        """
        self._find_terminal()
        columns, _ = self._size()
        self._show(owner, render, self._block.fit(render(columns), columns), columns)

    @holding_tqdm_lock
    def _show(self, owner: object, render: Render, lines: list[str], columns: int) -> None:
        if self._closed:
            return
        self._block.put(owner, render, lines, columns)
        redirect_streams(self, writer=self, terminal=self._file)
        self._readers.start(self._file, self._step_aside)
        self._readers.look(self._file)
        if self._is_aside():
            return
        bars = visible_tqdm_bars()
        if bars and not (self._block_visible and bar_positions(bars) == self._bar_positions):
            self._write("")
        else:
            self._draw(bars)

    @holding_tqdm_lock
    def finish(self, owner: object, render: Render | None) -> None:
        """Turn an owner's lines into ordinary text above the rest of the block, and forget the owner.

        After the last owner ``sys.stdout`` and ``sys.stderr`` are the former ones again.

        Args:
            owner: The owner.
            render: Returns its last lines; if None, they vanish.

        Raises:
            OSError: The terminal is gone; the streams are restored all the same.
        """
        if self._closed:
            return
        self._find_terminal()
        self._block.remove(owner)
        text = ""
        try:
            if render is not None:
                columns, _ = self._size()
                text = "".join(f"{line}\n" for line in self._block.fit(render(columns), columns))
        finally:
            if self._block.empty:
                self._close(text)
            else:
                self._write(text)

    @holding_tqdm_lock
    def write_above(self, stream: StreamProxy, text: str, *, alone: bool = False) -> int:
        """Write the lines that are complete with a text above the block; keep the rest until it is.

        Args:
            stream: Where it is printed.
            text: The text.
            alone: Whether it is whole lines that don't continue what this thread has printed.
        """
        aside, prompt = self._is_aside(), self._readers.prompt
        if self._block.empty or (aside and prompt is None):  # empty: the program has kept the stream
            write_directly(stream.wrapped, text)
            return len(text)
        lines = text if alone else self._block.partial_lines.add(stream, text)
        if lines and aside:
            write_directly(stream.wrapped, f"\r\x1b[K{lines}{prompt}")
        elif lines:
            self._write(lines, stream, redraw=self._may_redraw(), suppress_errors=True)
        return len(text)

    @holding_tqdm_lock
    def flush_partial(self, stream: StreamProxy) -> None:
        """Show the beginning of this thread's line as the block's first row."""
        if not self._block.empty and not self._is_aside() and self._block.partial_lines.flush(stream):
            with suppress(Exception):  # an error of the block is none of the stream
                if self._may_redraw():
                    self._write("")
        stream.wrapped.flush()

    @holding_tqdm_lock
    def write_bar(self, stream: StreamProxy, text: str) -> int:
        """Let a bar of the program draw in its row, and keep the block out of it."""
        if self._block.empty or self._is_aside():
            write_directly(stream.wrapped, text)
            return len(text)
        positions = bar_positions(visible_tqdm_bars())
        with suppress(Exception):  # an error of the block is none of the bar's loop
            if self._block_visible and not set(positions) <= set(self._bar_positions):
                self._write("")  # a new bar: make room for it
            elif self._block_visible and not self._bar_positions:
                # The bar is closing, and the block was drawn in its row meanwhile.
                self._send(ERASE)
                self._block_visible = False
        write_directly(stream.wrapped, text)
        if text == "\n" and positions != self._bar_positions:  # the bar has closed
            with suppress(Exception):
                self._write("", redraw=self._may_redraw())
        return len(text)

    def _find_terminal(self) -> None:
        if self._block.empty:
            self._file = unwrap(self._given)
            self._block.encoding = getattr(self._file, "encoding", None) or "utf-8"

    def _size(self) -> tuple[int, int]:
        """Return the columns that lines may fill, and the rows."""
        columns, rows = _terminal_size(self._file) if self._ask_size is None else self._ask_size()
        # A pseudo-terminal without a size says 0. The last column is left free: terminals differ in whether
        # a character there moves the cursor to the next row.
        return max((columns or 80) - 1, 1), rows or 24

    def _may_redraw(self) -> bool:
        """Return whether printed lines may draw the block again now, and count it."""
        now = self._clock()
        if now - self._period_start >= REDRAW_PERIOD_S:
            self._period_start, self._redraws = now, 0
            self._readers.look(self._file)
        self._redraws += 1
        return self._redraws <= MAX_REDRAWS

    def _send(self, text: str) -> None:
        write_directly(self._file, text)

    def _is_aside(self) -> bool:
        """Return whether others have the terminal; then the block has left it."""
        if not self._readers.there:
            return False
        if self._block_visible:
            with suppress(Exception):  # an error of the block is none of what is printed
                self._leave(ERASE_BELOW)
        return True

    @holding_tqdm_lock
    def _step_aside(self) -> None:
        """Leave the terminal to code that is about to read from it."""
        if self._block_visible:
            with suppress(Exception):  # the same
                self._leave(ERASE)

    def _leave(self, erase: str) -> None:
        """Erase the block, and write the beginnings of lines: they may be what is asked."""
        self._block_visible = False
        self._send(erase)
        _write_partial_lines(self._block.partial_lines.pop_all())

    def _draw(self, bars: list[Any]) -> None:
        """Draw the block where it is, or erase from there on and draw it."""
        self._block_visible = True
        self._send(self._block.draw(*self._size(), rows_above=rows_of(bars) or 1))
        self._bar_positions = bar_positions(bars)

    def _write(
        self,
        text: str,
        stream: StreamProxy | None = None,
        *,
        redraw: bool = True,
        suppress_errors: bool = False,
    ) -> None:
        """Erase the block, write whole lines, draw the program's bars and the block again below them.

        Args:
            text: The lines, each with its end.
            stream: Where the lines go; the terminal of the block if None.
            redraw: Whether bars and block are drawn again; if not, the next show or print does it.
            suppress_errors: Whether only an error of the stream is raised: code that prints has nothing to
                do with one of the block.
        """
        file = self._file if stream is None else stream.wrapped
        if self._is_aside():
            # The last line of a run comes below what is asked.
            write_directly(file, f"\n{text}" if text and stream is None else text)
            return
        bars = visible_tqdm_bars()
        # What C code or a program has written without an end goes on with what is printed next.
        erase = ERASE if bars or stream is None else ERASE_AFTER
        erase = erase if self._block_visible or bars else ""
        suppressed = suppress(Exception) if suppress_errors else nullcontext()
        if not bars and (stream is None or stream.shared):  # one write, so that the block is never missing
            block = ""
            if redraw:
                with suppressed:
                    block = self._block.draw(*self._size())
            self._block_visible = self._block_visible or bool(block)  # should the write fail midway
            write_directly(file, erase + text + block)
            self._block_visible, self._bar_positions = bool(block), ()
            return
        with suppressed:
            self._send(erase)
            self._block_visible = False
        write_directly(file, text)
        if redraw:
            with suppressed:
                self._bar_positions = bar_positions(bars)
                redraw_bars(bars, self._size()[0])
                self._draw(bars)

    def _close(self, text: str) -> None:
        """Erase the block, write the last lines, and restore the streams."""
        aside = self._is_aside()
        bars = visible_tqdm_bars()
        erase = ERASE if self._block_visible or (bars and not aside) else ""
        try:
            self._send(("\n" if aside and text else erase) + text)
        finally:
            self._block_visible = False
            partial_lines = self._block.partial_lines.pop_all()
            self._readers.stop()
            restore_streams(self)
        _write_partial_lines(partial_lines, "\n" if bars else "")
        if not aside:
            redraw_bars(bars, self._size()[0])

    @holding_tqdm_lock
    def close(self) -> None:
        """Turn all lines into ordinary text, and draw no more. Called at the end of the program.

        Threads of the program may go on until the interpreter stops them, perhaps while one holds a lock.
        """
        rows = [] if self._block.empty else self._block.lines(self._size()[0])
        self._closed = True
        if not self._block.empty:
            self._block.remove_all()
            self._close("".join(f"{row}\n" for row in rows))

    def _forget_parent(self) -> bool:
        """Drop the parent's block in a forked child, and return whether there was one."""
        drawing = not self._block.empty
        self._block.clear()
        self._block_visible = False
        self._readers.stop()
        restore_streams(self)
        return drawing


def _write_partial_lines(lines: list[tuple[TextIO, str]], end: str = "") -> None:
    """Write the beginnings of lines, each on its own; the program may go on with the last one."""
    for turn, (file, line) in enumerate(lines, 1):
        write_directly(file, line + (end if turn == len(lines) else "\n"))


def _terminal_size(file: TextIO) -> tuple[int, int]:
    """Return the columns and rows of a terminal, each 0 if it does not say."""
    try:
        return os.get_terminal_size(file.fileno())
    except (AttributeError, OSError, ValueError):  # it is no terminal, or closed
        return 0, 0


_screens: weakref.WeakSet[Screen] = weakref.WeakSet()


def _after_fork() -> None:
    drawing = [screen for screen in _screens if screen._forget_parent()]
    if drawing:
        tqdm.set_lock(threading.RLock())  # a thread of the parent may have held the former one


after_fork_in_child(_after_fork)


def _at_exit() -> None:
    for screen in [*_screens]:
        with suppress(Exception):  # the terminal may be gone
            screen.close()


atexit.register(_at_exit)

_shared = Screen()


def shared_screen() -> Screen:
    """Return the screen of this process, on the unwrapped ``sys.stderr``."""
    return _shared
