"""Bars in a Jupyter notebook: a row of ipywidgets a stage, and text where there are no widgets."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets
from IPython.display import DisplayHandle

from .._state.snapshot import Snapshot
from .format import LineView, format_lines, format_summary
from .waiting import format_waiting


class NotebookDisplay:
    """One row a stage, in the output of the cell that made it.

    A notebook that is read without its widgets, such as on a web page, shows the last lines as text.

    Args:
        leave: Whether the rows stay when the run is over.
    """

    def __init__(self, *, leave: bool = True) -> None:
        self._leave = leave
        self._rows: dict[str | None, _Row] = {}
        self._below = ipywidgets.HTML()
        self._text = ""
        self._box = ipywidgets.VBox()
        # Taken now: a widget that was closed has no representation any more.
        self._view = self._box._repr_mimebundle_()
        # Displayed by the thread that runs the cell: from the poller's thread the output might appear in a
        # later cell.
        self._output = DisplayHandle()
        self._output.display(self._bundle("Progress is shown by widgets."), raw=True)

    def show(self, snapshot: Snapshot) -> None:
        """Move the bars."""
        rows, texts = [], []
        for line in format_lines(snapshot):
            if line.key not in self._rows:  # not setdefault(): each widget that is made is saved
                self._rows[line.key] = _Row()
            row = self._rows[line.key]
            texts.append(row.show(line, final=snapshot.final))
            rows.append(row.box)
        below = format_waiting(snapshot)[:1]
        if snapshot.final and not snapshot.show_run_line:
            below = [format_summary(snapshot)]
        for text in below:
            texts.append(text)
            self._below.value = escape(text)
            rows.append(self._below)
        self._text = "\n".join(texts)
        if list(self._box.children) != rows:
            self._box.children = rows

    def close(self) -> None:
        """Leave the rows as they are, with their text for readers without widgets, or remove them."""
        shown = self._box.children if self._leave else ()
        for row in self._rows.values():
            if row.box not in shown:  # an open widget is saved with the notebook, shown or not
                row.close()
        if self._below not in shown:
            self._below.close()
        if self._leave:
            self._output.update(self._bundle(self._text), raw=True)
        else:
            self._output.update({"text/plain": ""}, raw=True)
            self._box.close()

    def _bundle(self, text: str) -> dict[str, Any]:
        return {**self._view, "text/plain": text}


class _Row:
    """A line: its name and percentage, a bar, and the rest as text."""

    def __init__(self) -> None:
        self.name, self.rest = ipywidgets.HTML(), ipywidgets.HTML()
        self.bar = ipywidgets.FloatProgress(min=0.0, max=1.0)
        self.box = ipywidgets.HBox([self.name, self.bar, self.rest])

    def show(self, line: LineView, *, final: bool) -> str:
        """Show a line, and return it as text."""
        name = f"{line.stage.name}: {line.percent}".strip()
        rest = f"{line.count} [{', '.join([line.clock, line.rate, *line.extras])}]"
        self.name.value, self.rest.value = escape(name), escape(rest)
        self.bar.value = line.fraction
        if line.stage.finished:
            self.bar.bar_style = "success"
        elif final and (line.percent or line.stage.total is not None):
            self.bar.bar_style = "danger"
        else:
            self.bar.bar_style = "" if line.percent else "info"  # pale, as tqdm's without a total
        return f"{name} {rest}"

    def close(self) -> None:
        for widget in (self.box, *self.box.children):
            widget.close()
