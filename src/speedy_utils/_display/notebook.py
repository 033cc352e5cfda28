"""Bars in a Jupyter notebook: a widget while the run goes on, with its text for readers without widgets."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any

from IPython.display import DisplayHandle

from .._state.snapshot import Snapshot
from .bars import last_rows_of, rows_of
from .format import LineView, format_lines
from .waiting import format_waiting

try:
    import ipywidgets
except ImportError:
    ipywidgets = None

TEXT_WIDTH = 100
"""Columns of the text: what fits beside the prompts of a cell."""

TEXT_EVERY_S = 10.0
"""Seconds between two texts beside a widget. Each changes the file, and makes the page draw the cell anew."""

TEXT_ALONE_EVERY_S = 1.0
"""Seconds between two texts where there is no widget."""

INSTALL = "For bars in this notebook: %pip install ipywidgets, and restart the kernel."


class NotebookDisplay:
    """One row a stage, in the output of the cell that made it.

    A widget shows them while the run goes on. Beside it stands their text, as in a terminal: the notebook's
    file holds it, and so it is what a page that is loaded again finds, or a reader without widgets. The text
    of the end stays; the widget goes to the next run.

    Args:
        leave: Whether the rows stay when the run is over.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, *, leave: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._leave = leave
        self._clock = clock
        self._next_text = clock()
        self._last: tuple[Snapshot, list[LineView]] | None = None
        self._widget = None if ipywidgets is None else _take_widget()
        # Taken now: should the program close the widget, it has no representation any more.
        self._view: dict[str, Any] = {} if self._widget is None else self._widget._repr_mimebundle_()
        # Displayed by the thread that runs the cell: from the poller's thread the output might appear in a
        # later cell.
        self._output = DisplayHandle()
        self._output.display(self._bundle([]), raw=True)

    @property
    def html(self) -> str:
        """What the widget shows; empty if there is none."""
        return "" if self._widget is None else str(self._widget.value)

    def show(self, snapshot: Snapshot) -> None:
        """Move the bars, and bring the text up to date if it is time to."""
        views = format_lines(snapshot)
        self._last = snapshot, views
        if self._widget is not None:
            waiting = (f"<div>{escape(text)}</div>" for text in format_waiting(snapshot)[:1])
            self._widget.value = "".join([*map(_row, views), *waiting])
        now = self._clock()
        if now >= self._next_text:
            self._next_text = now + (TEXT_ALONE_EVERY_S if self._widget is None else TEXT_EVERY_S)
            self._output.update(self._bundle(rows_of(snapshot, views, TEXT_WIDTH)), raw=True)

    def close(self) -> None:
        """Leave the text of the rows as they are, or remove them."""
        rows = last_rows_of(*self._last, TEXT_WIDTH) if self._leave and self._last else []
        self._view = {}
        self._output.update(self._bundle(rows) if rows else {"text/plain": ""}, raw=True)
        if self._widget is not None:
            _idle.append(self._widget)

    def _bundle(self, rows: list[str]) -> dict[str, Any]:
        first = [INSTALL] if ipywidgets is None else []
        return {**self._view, "text/plain": "\n".join([*first, *rows])}


_idle: list[Any] = []
"""The widgets of runs that are over, for the next ones. All that are made are in the notebook's file: some
that write it keep those that were closed, too."""


def _take_widget() -> Any:
    """Return a widget that no run uses, and that the program has not closed."""
    with suppress(IndexError):
        while (widget := _idle.pop()).comm is None:
            pass
        widget.value = ""
        return widget
    return ipywidgets.HTML()


def _row(line: LineView) -> str:
    """Return a line as HTML; a bar without a total moves by itself, and one at its total is green."""
    name = f"{line.stage.name}: {line.percent}".strip()
    rest = f"{line.count} [{', '.join([line.clock, line.rate, *line.extras])}]"
    value = f' value="{line.fraction:.4f}"' if line.percent else ""
    colour = ' style="accent-color: green"' if line.stage.finished else ""
    return f"<div>{escape(name)} <progress{value}{colour}></progress> {escape(rest)}</div>"
