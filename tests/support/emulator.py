"""A terminal emulator for tests: what a screen shows, and has shown, after the bytes of a program."""

from __future__ import annotations

from typing import Any

import pyte
from pyte.modes import LNM
from pyte.screens import StaticDefaultDict


class _Rows(pyte.HistoryScreen):
    """A screen that knows which of its rows a terminal has wrapped by itself."""

    drawing = False

    def draw(self, data: str) -> None:
        """Note that a line feed in here is the terminal's own."""
        self.drawing = True
        super().draw(data)
        self.drawing = False

    def linefeed(self) -> None:
        """Note the row that goes on in the next one."""
        self.buffer[self.cursor.y].wrapped = self.drawing
        super().linefeed()

    def erase_in_display(self, how: int = 0, *args: Any, **kwargs: Any) -> None:
        """Forget that of the rows that go."""
        for y in range(self.cursor.y, self.lines):
            self.buffer[y].wrapped = False
        super().erase_in_display(how, *args, **kwargs)


class Emulator:
    """A terminal.

    Args:
        columns: Its width.
        rows: Its height.
        reflows: Whether it wraps its rows anew when it is resized; otherwise it cuts them.
    """

    def __init__(self, columns: int, rows: int, *, reflows: bool = True) -> None:
        self._reflows = reflows
        self._screen = self._new(columns, rows)
        self._stream = pyte.Stream(self._screen)

    @staticmethod
    def _new(columns: int, rows: int) -> _Rows:
        screen = _Rows(columns, rows, history=100_000, ratio=1.0)
        screen.set_mode(LNM)  # as a tty does with "\n"
        return screen

    @property
    def size(self) -> tuple[int, int]:
        """Its columns and rows."""
        return self._screen.columns, self._screen.lines

    @property
    def cursor(self) -> tuple[int, int]:
        """The column and the row of the cursor."""
        return self._screen.cursor.x, self._screen.cursor.y

    @property
    def rows(self) -> list[str]:
        """The rows that it shows."""
        return [row.rstrip() for row in self._screen.display]

    def feed(self, text: str) -> None:
        """Show a text."""
        self._stream.feed(text)

    def lines(self, *, history: bool = True) -> list[str]:
        """The lines, however many rows each takes, without the empty ones at the end and that of the cursor.

        Args:
            history: Whether those that have left the screen at its top count too.
        """
        lines, start = [], ""
        cursor = self._screen.buffer[self._screen.cursor.y]
        for row in self._all(history):
            if row is cursor and not start and not self._text(row).rstrip():
                continue
            text = start + self._text(row)
            start = text if getattr(row, "wrapped", False) else ""
            if not start:
                lines.append(text.rstrip())
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size; the cursor stays with the character that it is on."""
        old, past = self._all(history=True), len(self._screen.history.top)
        cursor = past + self._screen.cursor.y
        top, at, text = 0, 0, ""
        cut: list[tuple[str, bool]] = []
        for index, row in enumerate(old):
            if index == past:
                top = len(cut)
            if index == cursor:
                at = len(cut) + len(text) // columns
            text += self._text(row)
            if self._reflows and getattr(row, "wrapped", False):
                continue
            text = text.rstrip()
            parts = [text[n : n + columns] for n in range(0, len(text), columns)] or [""]
            parts = parts if self._reflows else parts[:1]
            cut += [(part, number < len(parts)) for number, part in enumerate(parts, 1)]
            text = ""
        top = max(top, at - rows + 1)
        screen = self._new(columns, rows)
        for index, (part, wrapped) in enumerate(cut[: top + rows]):
            if index < top:
                screen.history.top.append(StaticDefaultDict(screen.default_char))
                line = screen.history.top[-1]
            else:
                line = screen.buffer[index - top]
            for x, char in enumerate(part):
                line[x] = screen.default_char._replace(data=char)
            line.wrapped = wrapped
        screen.cursor.y = at - top
        self._screen = screen
        self._stream = pyte.Stream(screen)

    def _all(self, history: bool) -> list[Any]:
        screen = self._screen
        return [*(screen.history.top if history else ()), *(screen.buffer[y] for y in range(screen.lines))]

    def _text(self, row: Any) -> str:
        return "".join(row[x].data for x in range(self._screen.columns))
