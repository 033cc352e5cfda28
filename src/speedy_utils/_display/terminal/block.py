"""The rows at the bottom of a terminal, and the text that draws them. Nothing here writes to a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from .lines import PartialLines, truncate, truncate_left

Render = Callable[[int], list[str]]
"""Returns lines for a number of columns."""

_ERASE_AFTER = "\x1b[K\x1b[C\x1b[J"
"""Erases what comes after the cursor: the rest of its row, and the rows below.

The cursor steps one column to the right in between: in the top left corner tmux keeps what ``\\x1b[J``
erases, and each redraw of a block on the top row would push a screen into the scrollback.
"""

ERASE = f"\r{_ERASE_AFTER}\r"
"""Erases the row of the cursor and all below it."""

ERASE_AFTER = f"\x1b7{_ERASE_AFTER}\x1b8"
"""Erases what comes after the cursor, which stays where it is."""

ERASE_BELOW = f"\x1b7\x1b[B\r{_ERASE_AFTER}\x1b8"
"""Erases all below the row of the cursor, which stays where it is."""


class _OwnedLines:
    """The lines of an owner, at a width."""

    __slots__ = ("columns", "lines", "owner", "render")

    def __init__(self, owner: object, render: Render, lines: list[str], columns: int) -> None:
        self.owner = owner  # keeps its id() from being given to another object
        self.render, self.lines, self.columns = render, lines, columns


class Block:
    r"""The lines of several owners, below the printed lines that have no end yet.

    Attributes:
        encoding: That of the terminal; a character that it lacks becomes a question mark.
        partial_lines: The printed lines that have no end yet.

    Example:
        >>> block = Block()
        >>> block.put("run", lambda columns: ["=" * columns, "-" * columns], ["==", "--"], 2)
        >>> block.rows(3, 24)  # another width, so the lines are made anew
        ['===', '---']
        >>> block.draw(3, 24)
        '\x1b[K\x1bD\x1bD\x1b[2A\x1b7\x1b[1B\r===\x1b[K\n---\x1b[K\x1b[C\x1b[J\x1b8'
    """

    def __init__(self) -> None:
        self.encoding = "utf-8"
        self.partial_lines = PartialLines()
        self._owners: dict[int, _OwnedLines] = {}  # in the order in which they came

    @property
    def empty(self) -> bool:
        """Whether it has no owner."""
        return not self._owners

    def fit(self, lines: Iterable[str], columns: int) -> list[str]:
        """Return lines, each cut to a width and without what would move the cursor."""
        return [truncate(line, columns, self.encoding) for line in lines]

    def put(self, owner: object, render: Render, lines: list[str], columns: int) -> None:
        """Set the lines of an owner; a new one's come below the others.

        Args:
            owner: Any object, known by its identity.
            render: Makes the lines anew when the width has changed.
            lines: What it returned for ``columns``, cut to that width.
            columns: The width.
        """
        known = self._owners.setdefault(id(owner), _OwnedLines(owner, render, lines, columns))
        known.render, known.lines, known.columns = render, lines, columns

    def remove(self, owner: object) -> None:
        """Forget an owner and its lines. Idempotent."""
        self._owners.pop(id(owner), None)

    def remove_all(self) -> None:
        """Forget all owners and their lines."""
        self._owners.clear()

    def clear(self) -> None:
        """Forget all owners and all text."""
        self.remove_all()
        self.partial_lines.clear()

    def lines(self, columns: int) -> list[str]:
        """Return the lines of all owners, at a width."""
        lines: list[str] = []
        for each in self._owners.values():
            if each.columns != columns:
                # If this fails the old lines are cut; the owner gets the error at its own next show().
                with suppress(Exception):
                    each.lines = each.render(columns)
                each.lines = self.fit(each.lines, columns)
                each.columns = columns
            lines += each.lines
        return lines

    def rows(self, columns: int, height: int) -> list[str]:
        """Return at most ``height`` rows, from top to bottom; the last may say how many are left out."""
        rows = self.fit(
            [truncate_left(text, columns) for text in self.partial_lines.shown(4 * columns)], columns
        )
        rows += self.lines(columns)
        if len(rows) > height:
            rows[height - 1 :] = self.fit([f"… and {len(rows) - height + 1} more lines"], columns)
        return rows

    def draw(self, columns: int, height: int, rows_above: int = 1) -> str:
        """Return the text that draws the rows below that of the cursor, and leaves the cursor where it was.

        Args:
            columns: The width of the rows.
            height: How many rows the terminal has.
            rows_above: How many rows the first one is below the cursor: 1, or those of tqdm bars.
        """
        height = max(height, 2)
        above = min(rows_above, height - 1)
        rows = self.rows(columns, height - above)
        down = above + max(len(rows) - 1, 0)
        # What is right of the cursor is of a former block, if a program has ended its line by itself.
        make_room = "\x1b[K" + "\x1bD" * down + f"\x1b[{down}A"
        # Text first and then erase: a terminal that shows what it has so far never shows an empty row.
        text = "\x1b[K\n".join(rows) + _ERASE_AFTER
        return f"{make_room}\x1b7\x1b[{above}B\r{text}\x1b8"
