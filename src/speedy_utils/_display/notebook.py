"""Bars in a Jupyter notebook: a row of ipywidgets a stage, and text where there are no widgets."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets
from IPython.display import DisplayHandle
from tqdm.std import tqdm

from .._state.snapshot import Snapshot, StageSnapshot
from .format import SmoothedRate, count, counters, left, remarks, share, speed, summary


class NotebookDisplay:
    """One row a stage, in the output of the cell that made it.

    Where a notebook is read without its widgets, such as on a web page, it shows the last lines as text.

    Args:
        leave: Whether the rows stay when the run is over.
    """

    def __init__(self, *, leave: bool = True) -> None:
        self._leave = leave
        self._rows: dict[tuple[bool, str], _Row] = {}
        self._summary = ipywidgets.HTML()
        self._text = ""
        self._box = ipywidgets.VBox()
        # What a notebook asks of an object that it is to show. Once it is closed a widget has no answer.
        self._view = self._box._repr_mimebundle_()
        # Shown at once, by the thread that runs the cell: from the poller's the output might go to whichever
        # cell runs by then.
        self._output = DisplayHandle()
        self._output.display(self._bundle("Progress is shown by widgets."), raw=True)

    def show(self, snapshot: Snapshot) -> None:
        """Move the bars."""
        rows, texts = [], []
        said = remarks(snapshot)
        for stage in snapshot.lines:
            # Two lines may have the same name: the run's own, and a stage that is called like it.
            key = stage is snapshot.own, stage.name
            if key not in self._rows:  # a widget that is made is there, and is saved with the notebook
                self._rows[key] = _Row()
            row = self._rows[key]
            texts.append(row.show(stage, [*said, *counters(stage)], final=snapshot.final))
            rows.append(row.box)
            said = []
        if snapshot.final and not snapshot.whole:
            texts.append(summary(snapshot))
            self._summary.value = escape(texts[-1])
            rows.append(self._summary)
        self._text = "\n".join(texts)
        if list(self._box.children) != rows:
            self._box.children = rows

    def close(self) -> None:
        """Leave the rows as they are, with their text beside them, or take them away."""
        shown = self._box.children if self._leave else ()
        for row in self._rows.values():
            if row.box not in shown:  # a widget that is nowhere to be seen would be saved with the notebook
                row.close()
        if self._summary not in shown:
            self._summary.close()
        if self._leave:
            self._output.update(self._bundle(self._text), raw=True)
        else:
            self._output.update({"text/plain": ""}, raw=True)
            self._box.close()

    def _bundle(self, text: str) -> dict[str, Any]:
        return {**self._view, "text/plain": text}


class _Row:
    """A stage: its name and share, a bar, and the rest in words."""

    def __init__(self) -> None:
        self.name, self.rest = ipywidgets.HTML(), ipywidgets.HTML()
        self.bar = ipywidgets.FloatProgress(min=0.0, max=1.0)
        self.box = ipywidgets.HBox([self.name, self.bar, self.rest])
        self.pace = SmoothedRate()

    def show(self, stage: StageSnapshot, said: list[str], *, final: bool) -> str:
        """Show a stage, and get it in words."""
        percent, clock = share(stage), tqdm.format_interval(stage.elapsed)
        rate = self.pace.rate(stage, final=final)
        if percent:
            clock += f"<{left(stage, rate)}"
        name = f"{stage.name}: {percent}".strip()
        rest = f"{count(stage)} [{', '.join([clock, speed(rate, stage.unit), *said])}]"
        self.name.value, self.rest.value = escape(name), escape(rest)
        # Where there is no share to show the bar is full and pale, as tqdm has it.
        self.bar.value = stage.done / stage.total if percent and stage.total else 1.0
        if stage.finished:
            self.bar.bar_style = "success"
        elif final and stage.total is not None:
            self.bar.bar_style = "danger"
        else:
            self.bar.bar_style = "" if percent else "info"
        return f"{name} {rest}"

    def close(self) -> None:
        for widget in (self.box, *self.box.children):
            widget.close()
