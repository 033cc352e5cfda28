"""Bars in a terminal: one line a stage, drawn as a block by the screen."""

from __future__ import annotations

import sys
from typing import TextIO

from .._state.snapshot import Snapshot
from .format import SmoothedRate, bar_line, counters, remarks, summary
from .terminal.screen import Screen, shared_screen


class BarDisplay:
    """One line a stage, on stderr, below all that is printed.

    Args:
        screen: Where to draw; the terminal of this process where None.
        leave: Whether the lines stay when the run is over.
    """

    def __init__(self, screen: Screen | None = None, *, leave: bool = True) -> None:
        self._screen = shared_screen() if screen is None else screen
        self._leave = leave
        self._paces: dict[tuple[bool, str], SmoothedRate] = {}
        self._last: tuple[Snapshot, list[float]] | None = None  # in one piece: other threads draw it too
        self._ascii = not _can_write("█▏…", sys.stderr)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the lines as they are now."""
        rates = [
            # Two lines may have the same name: the run's own, and a stage that is called like it.
            self._paces.setdefault((stage is snapshot.own, stage.name), SmoothedRate()).rate(
                stage, final=snapshot.final
            )
            for stage in snapshot.lines
        ]
        self._last = snapshot, rates
        self._screen.show(self, self._render)

    def close(self) -> None:
        """Leave the lines as they are, or take them away."""
        self._screen.finish(self, self._render_last if self._leave and self._last else None)

    def _render(self, width: int) -> list[str]:
        if self._last is None:
            return []
        snapshot, rates = self._last
        lines = []
        said = remarks(snapshot)
        for stage, rate in zip(snapshot.lines, rates, strict=True):
            if beside := counters(stage):
                said = [*said, " ".join(beside)]
            lines.append(bar_line(stage, said, rate, width, ascii_only=self._ascii))
            said = []  # what there is to say of the run stands behind its first line
        return lines

    def _render_last(self, width: int) -> list[str]:
        lines = self._render(width)
        if self._last is not None and not self._last[0].whole:
            lines.append(summary(self._last[0]))
        return lines


def _can_write(text: str, file: TextIO | None) -> bool:
    try:
        text.encode(getattr(file, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
