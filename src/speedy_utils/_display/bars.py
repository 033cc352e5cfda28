"""Bars in a terminal: one line a stage, drawn as a block by the screen."""

from __future__ import annotations

import sys
from typing import TextIO

from .._state.snapshot import Snapshot
from .format import LineView, format_bar, format_last, format_last_summary, format_lines
from .terminal.screen import Screen, shared_screen
from .waiting import first_that_fits, format_waiting


class BarDisplay:
    """One line a stage, on stderr, below all that is printed.

    Args:
        screen: Where to draw; the terminal of this process if None.
        leave: Whether the lines stay when the run is over.
    """

    def __init__(self, screen: Screen | None = None, *, leave: bool = True) -> None:
        self._screen = shared_screen() if screen is None else screen
        self._leave = leave
        self._last: tuple[Snapshot, list[LineView]] | None = None  # read by other threads, so one reference
        self._ascii = not _can_write("█▏…", sys.stderr)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the lines as they are now."""
        self._last = snapshot, format_lines(snapshot)
        self._screen.show(self, self._render)

    def close(self) -> None:
        """Leave the lines as they are, or remove them."""
        self._screen.finish(self, self._render_last if self._leave and self._last else None)

    def _render(self, width: int) -> list[str]:
        return [] if self._last is None else rows_of(*self._last, width, ascii_only=self._ascii)

    def _render_last(self, width: int) -> list[str]:
        return [] if self._last is None else last_rows_of(*self._last, width, ascii_only=self._ascii)


def rows_of(snapshot: Snapshot, views: list[LineView], width: int, *, ascii_only: bool = False) -> list[str]:
    """Return the rows of a run that goes on, each of at most ``width`` columns."""
    rows = [format_bar(view, width, ascii_only=ascii_only) for view in views]
    return rows + first_that_fits(format_waiting(snapshot), width)


def last_rows_of(
    snapshot: Snapshot, views: list[LineView], width: int, *, ascii_only: bool = False
) -> list[str]:
    """Return the rows that stay of a run, each of at most ``width`` columns, with its summary."""
    rows = [row for view in views for row in format_last(view, width, ascii_only=ascii_only)]
    return rows if snapshot.show_run_line else rows + format_last_summary(snapshot, width)


def _can_write(text: str, file: TextIO | None) -> bool:
    """Return whether the encoding of a file has all characters of a text."""
    try:
        text.encode(getattr(file, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
