"""Bars in a notebook: what the widgets hold, in a real kernel and after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient
from support.lines import steady

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display import notebook
from speedy_utils._display.notebook import NotebookDisplay

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


class Output:
    """The output of a cell, in place of a kernel's."""

    data: dict[str, Any]
    updates = 0

    def display(self, data: dict[str, Any], *, raw: bool) -> None:
        """Show something; once."""
        assert raw
        assert not hasattr(self, "data")
        self.data = data

    def update(self, data: dict[str, Any], *, raw: bool) -> None:
        """Show something else in its place."""
        assert raw
        self.data = data
        self.updates += 1

    @property
    def lines(self) -> list[str]:
        """What it shows where there are no widgets."""
        return list(self.data["text/plain"].splitlines())


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Return where the next display shows itself."""
    output = Output()
    monkeypatch.setattr(notebook, "DisplayHandle", lambda: output)
    return output


def stage(name: str, done: int, total: int | None = 10, **more: Any) -> StageSnapshot:
    """A stage."""
    return steady(StageSnapshot(name, done, total, elapsed=2.0, **more))


def run(run_line: StageSnapshot, *stages: StageSnapshot, **more: Any) -> Snapshot:
    """A reading."""
    return Snapshot(run_line, stages, **more)


def rows(display: NotebookDisplay) -> list[tuple[str, float, str, str]]:
    """What the rows show: name, bar, its style, and the rest."""
    return [
        (name.value, bar.value, bar.bar_style, rest.value)
        for name, bar, rest in (row.children for row in display._box.children if row.children)
    ]


def test_a_row_says_what_a_line_says(output: Output) -> None:
    """A row has name and share, a bar, and count, clock, time left, rate, tasks and counters in words."""
    display = NotebookDisplay()
    display.show(run(stage("Read <b>", 5, counters={"tokens": 3e6}), tasks_total=4, tasks_done=1))
    rest = "5/10 [00:02&lt;00:02, 2.50 items/s, 1/4 tasks, tokens=3.00M (1.50M/s)]"
    assert rows(display) == [("Read &lt;b&gt;: 50%", 0.5, "", rest)]


def test_a_row_a_stage_in_the_order_of_the_snapshot(output: Output) -> None:
    """Stages keep their rows while others come and go, and the run's own row may vanish."""
    display = NotebookDisplay()
    run_line, read, write = stage("Run", 0), stage("Read", 1), stage("Write", 2)
    display.show(run(run_line, write))
    kept = display._box.children[1]
    display.show(run(run_line, read, write, show_run_line=False))
    assert [row[0] for row in rows(display)] == ["Read: 10%", "Write: 20%"]
    assert display._box.children[1] is kept
    display.show(run(replace(run_line, name="Read"), read))
    assert [row[0] for row in rows(display)] == ["Read: 0%", "Read: 10%"]


@pytest.mark.parametrize(
    ("of", "final", "bar", "style"),
    [
        (stage("x", 5), False, 0.5, ""),
        (stage("x", 10), False, 1.0, "success"),
        (stage("x", 10), True, 1.0, "success"),
        (stage("x", 5), True, 0.5, "danger"),
        (stage("x", 10, pending=True), False, 0.99, ""),
        (stage("x", 10, pending=True), True, 0.99, "danger"),
        (stage("x", 0, 0), True, 1.0, "success"),
        (stage("x", 10, growing=True), False, 1.0, "info"),
        (stage("x", 10, growing=True), True, 1.0, "danger"),
        (stage("x", 5, None), False, 1.0, "info"),
        (stage("x", 5, None), True, 1.0, "info"),
    ],
)
def test_a_bar_is_green_at_its_total_and_red_if_it_ends_short(
    output: Output, of: StageSnapshot, final: bool, bar: float, style: str
) -> None:
    """A bar ends as success or danger, and not before; without a total to measure by it is full and pale."""
    display = NotebookDisplay()
    display.show(run(of, final=final))
    ((_, value, shown, _),) = rows(display)
    assert (value, shown) == (bar, style)


def test_the_text_of_the_end_stands_beside_the_widgets(output: Output) -> None:
    """The output is there at once; where widgets can't be shown it has the last lines, and the summary."""
    display = NotebookDisplay()
    assert (output.data[VIEW]["model_id"], output.lines) == (
        display._box.model_id,
        ["Progress is shown by widgets."],
    )
    stages = stage("Read <b>", 10), stage("Write", 4)
    display.show(run(stage("Run", 4), *stages, show_run_line=False))
    display.show(run(stage("Run", 4), *stages, show_run_line=False, tasks_failed=1, final=True))
    assert output.updates == 0
    display.close()
    assert output.data[VIEW]["model_id"] == display._box.model_id
    assert output.lines == [
        "Read <b>: 100% 10/10 [00:02<00:00, 5.00 items/s, 1 failed]",
        "Write: 40% 4/10 [00:02, 2.00 items/s]",
        "4/10 items in 00:02, 2.00 items/s, 1 failed",
    ]


def alive() -> dict[str, str]:
    """Return the kinds of the widgets that are open in this process, by their names."""
    widgets = ipywidgets.Widget.get_manager_state()["state"]
    return {name: model["model_name"] for name, model in widgets.items()}


def test_rows_that_do_not_stay_leave_nothing(output: Output) -> None:
    """With ``leave=False`` the output is empty at the end, and every widget is closed."""
    before = alive()
    display = NotebookDisplay(leave=False)
    display.show(run(stage("Run", 10), stage("Read", 10), show_run_line=False, final=True))
    assert alive().keys() > before.keys()
    display.close()
    assert output.data == {"text/plain": ""}
    # ipywidgets keeps what a widget looks like, which nothing shows by itself.
    left = {kind for name, kind in alive().items() if name not in before}
    assert left <= {"LayoutModel", "HTMLStyleModel", "ProgressStyleModel"}


def test_widgets_out_of_sight_are_closed(output: Output) -> None:
    """A row keeps its widgets while it moves; one that has vanished is closed, and those in sight stay."""
    display = NotebookDisplay()
    display.show(run(stage("Run", 0)))
    before = alive()
    display.show(run(stage("Run", 1)))
    assert alive() == before
    run_line = display._box.children[0]
    display.show(run(stage("Run", 10), stage("Read", 10), show_run_line=False, final=True))
    parts = {run_line.model_id, *(part.model_id for part in run_line.children)}
    display.close()
    assert not alive().keys() & parts
    assert {row.model_id for row in display._box.children} <= alive().keys()
    assert len(display._box.children) == 2


def test_a_run_goes_on_whatever_becomes_of_its_widgets(output: Output) -> None:
    """If a program closes all widgets the run's text comes at the end; one without a reading has none."""
    display = NotebookDisplay()
    display.show(run(stage("Run", 5)))
    (row,) = display._box.children
    for widget in (*row.children, row, display._box):
        widget.close()
    display.show(run(stage("Run", 10), stage("Read", 10), final=True))
    display.close()
    assert output.lines[0] == "Run: 100% 10/10 [00:02<00:00, 5.00 items/s]"
    del output.data
    NotebookDisplay().close()
    assert output.lines == []


CELL = """
from speedy_utils import multi_process, track
def work(words):
    for _ in track(words, desc="Read"):
        pass
    for word in track(words, desc="Write"):
        if len(words) == stop and word == 7:
            raise ValueError(stop)
lists = [list(range(n)) for n in (100, 200, 300)]
def start(**options):
    options |= {"backend": "threads", "num_workers": 2, "total_items": len, "poll_interval": 0.02}
    multi_process(work, lists, **options)
"""


def test_a_notebook_keeps_its_rows_and_their_text() -> None:
    """In a real kernel each run has one output, with a row a stage, which is exact and saved as such."""
    cells = [
        CELL,
        "stop = 0\nstart()",
        'start(leave=False)\nprint("gone")',
        'stop = 300\nstart(on_error="continue")',
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=60, kernel_name="python3", store_widget_state=True).execute()
    state = book["metadata"]["widgets"][STATE]["state"]

    def children(model: str) -> list[str]:
        return [child.removeprefix("IPY_MODEL_") for child in state[model]["state"]["children"]]

    def shown(output: Any) -> list[Any]:
        """Each row as its values, from left to right; a summary is one value."""
        return [
            [state[part]["state"]["value"] for part in children(row)]
            if "children" in state[row]["state"]
            else state[row]["state"]["value"]
            for row in children(output["data"][VIEW]["model_id"])
        ]

    (done,) = book.cells[1]["outputs"]
    read, write, summary = shown(done)
    for name, row in {"Read": read, "Write": write}.items():
        assert row[:2] == [f"{name}: 100%", 1.0]
        assert row[2].startswith("600/600 [")
    assert read[2].endswith(" items/s, 3/3 tasks]")
    assert summary.startswith("600 items in ")
    texts = [text.split(" [")[0] for text in done["data"]["text/plain"].splitlines()]
    assert texts == ["Read: 100% 600/600", "Write: 100% 600/600", summary]

    empty, printed = book.cells[2]["outputs"]
    assert (empty["data"], printed["text"]) == ({"text/plain": ""}, "gone\n")

    (failed,) = book.cells[3]["outputs"]
    write, read, summary = shown(failed)  # what was to go on stands above what was done
    assert (read[0], write[0]) == ("Read: 100%", "Write: 51%")
    assert write[2].startswith("307/600 [")
    assert "1 failed" in summary
    assert summary in failed["data"]["text/plain"]
