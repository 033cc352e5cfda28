"""Bars in a notebook: what the widget and its text hold, in a real kernel and after it."""

from __future__ import annotations

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


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_row_says_what_a_line_says(output: Output) -> None:
    """A row has name and share, a bar, and count, clock, time left, rate, tasks and counters in words."""
    display = NotebookDisplay()
    display.show(run(stage("Read <b>", 5, counters={"tokens": 3e6}), tasks_total=4, tasks_done=1))
    rest = "5/10 [00:02&lt;00:02, 2.50 items/s, 1/4 tasks, tokens=3.00M (1.50M/s)]"
    bar = '<progress value="0.5000"></progress>'
    assert display.html == f"<div>Read &lt;b&gt;: 50% {bar} {rest}</div>"
    display.close()


@pytest.mark.parametrize(
    ("of", "bar"),
    [
        (stage("x", 5), ' value="0.5000"'),
        (stage("x", 10), ' value="1.0000" style="accent-color: green"'),
        (stage("x", 10, pending=True), ' value="0.9900"'),
        (stage("x", 10, growing=True), ""),
        (stage("x", 5, None), ""),
    ],
)
def test_a_bar_is_green_at_its_total(output: Output, of: StageSnapshot, bar: str) -> None:
    """A bar is green where all is counted and saved; without a total to measure by it has no value."""
    display = NotebookDisplay()
    display.show(run(of))
    assert f"<progress{bar}></progress>" in display.html
    display.close()


def test_the_text_beside_the_widget_is_refreshed_at_a_bounded_rate(output: Output) -> None:
    """The first numbers are there at once, and then those of the last ten seconds, as in a terminal."""
    clock = Clock()
    display = NotebookDisplay(clock=clock)
    model = output.data[VIEW]["model_id"]
    for done in range(1, 10):
        display.show(run(stage("Read", done), stage("Write", 1)))
        assert output.lines[0].startswith(f"Read:  {10 if done < 8 else 80}%|")
        assert output.lines[1].endswith("| 1/10 [00:02<00:18, 2.00 s/item]")
        assert output.data[VIEW]["model_id"] == model
        clock.now += 1.5
    assert output.updates == 2
    display.close()


def test_the_text_of_the_end_stands_in_place_of_the_widget(output: Output) -> None:
    """What stays is text that needs no widget: the last rows, and the summary."""
    display = NotebookDisplay()
    stages = stage("Read <b>", 10), stage("Write", 4)
    display.show(run(stage("Run", 4), *stages, show_run_line=False, tasks_failed=1, final=True))
    display.close()
    assert list(output.data) == ["text/plain"]
    read, write, summary = output.lines
    assert (read[:15], read[-45:]) == ("Read <b>: 100%|", "| 10/10 [00:02<00:00, 5.00 items/s, 1 failed]")
    assert (write[:11], write[-28:]) == ("Write:  40%", "| 4/10 [00:02, 2.00 items/s]")
    assert summary == "4/10 items in 00:02, 2.00 items/s, 1 failed"


def test_without_widgets_the_first_line_says_what_to_install(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below it stand the rows as text, which changes once a second."""
    monkeypatch.setattr(notebook, "ipywidgets", None)
    clock = Clock()
    display = NotebookDisplay(clock=clock)
    for done in (1, 2, 3):
        display.show(run(stage("Read", done)))
        clock.now += 0.6
    assert output.updates == 2
    hint, row = output.lines
    assert "pip install ipywidgets" in hint
    assert row.startswith("Read:  30%|")
    display.close()
    assert list(output.data) == ["text/plain"]


def alive() -> set[str]:
    """Return the widgets that are open in this process, and so in a notebook's file."""
    return set(ipywidgets.Widget.get_manager_state()["state"])


@pytest.mark.parametrize("leave", [True, False])
def test_runs_use_the_widgets_of_runs_that_are_over(output: Output, leave: bool) -> None:
    """However many runs there were, there are as many widgets as runs at once."""
    NotebookDisplay().close()
    before = alive()
    for _ in range(3):
        del output.data
        display = NotebookDisplay(leave=leave)
        assert display.html == ""
        display.show(run(stage("Run", 10), stage("Read", 10), final=True))
        display.close()
        assert alive() == before
        assert (output.lines == []) is not leave


def test_a_run_goes_on_whatever_becomes_of_its_widget(output: Output) -> None:
    """If a program closes all widgets the text goes on, the next run has a new one; an empty run no text."""
    display = NotebookDisplay()
    display.show(run(stage("Run", 5)))
    ipywidgets.Widget.close_all()
    display.show(run(stage("Run", 10), stage("Read", 10), final=True))
    display.close()
    assert output.lines[0].startswith("Run: 100%|")
    former = output.data
    del output.data
    display = NotebookDisplay()
    assert output.data[VIEW]["model_id"] in alive()
    display.close()
    assert (output.lines, len(former)) == ([], 1)


CELL = """
import threading
from speedy_utils import multi_process, track
def work(words):
    for _ in track(words, desc="Read"):
        pass
    for word in track(words, desc="Write"):
        if len(words) == stop and word == 7:
            raise ValueError(stop)
lists = [list(range(n)) for n in (100, 200, 300)]
def start(function=work, **options):
    options |= {"backend": "threads", "num_workers": 3, "total_items": len, "poll_interval": 0.02}
    multi_process(function, lists, **options)
together = threading.Barrier(3)
class Words:
    def __str__(self):
        together.wait(60)  # all threads are in the middle of a line
        return "words"
def say(words):
    print("took", len(words), Words())
"""


class Client(NotebookClient):
    """Executes a notebook, and notes each text that takes the place of another."""

    def process_message(self, msg: Any, *rest: Any) -> Any:
        """Note it."""
        if msg["msg_type"] == "update_display_data":
            texts.append(msg["content"]["data"]["text/plain"])
        return super().process_message(msg, *rest)


texts: list[str] = []


def execute(*cells: str) -> Any:
    """Execute cells in a real kernel, and return the notebook as it is saved."""
    texts.clear()
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    Client(book, timeout=60, kernel_name="python3", store_widget_state=True).execute()
    return book


def test_a_notebook_keeps_its_rows_as_text() -> None:
    """In a real kernel each run has one output, with numbers from the start, which are exact in the end.

    Lines of threads stand whole. The file holds one widget, whatever the number of runs.
    """
    book = execute(
        CELL,
        "stop = 0\nstart()",
        'start(leave=False)\nprint("gone")',
        'stop = 300\nstart(on_error="continue")',
        "start(say, total_items=None)",
    )
    (done,) = book.cells[1]["outputs"]
    assert "0/600" in texts[0]
    assert texts.index(done["data"]["text/plain"]) > 0
    read, write, summary = done["data"]["text/plain"].splitlines()
    assert "| 600/600 [" in read
    assert "| 600/600 [" in write
    assert summary.startswith("600 items in ")

    empty, printed = book.cells[2]["outputs"]
    assert (empty["data"], printed["text"]) == ({"text/plain": ""}, "gone\n")

    failed, logged = book.cells[3]["outputs"]
    assert logged["text"].startswith("task ")  # (item ...) failed after 1 attempt: ...
    write, read, summary = failed["data"]["text/plain"].splitlines()  # what was to go on stands first
    assert "| 307/600 [" in write
    assert "1 failed" in summary

    said = [output for output in book.cells[4]["outputs"] if output.output_type == "stream"]
    lines = "".join(output["text"] for output in said).splitlines()
    assert sorted(lines) == [f"took {number} words" for number in (100, 200, 300)]

    models = book["metadata"]["widgets"][STATE]["state"].values()
    assert [model["model_name"] for model in models].count("HTMLModel") == 1
    assert len(models) == 3  # with its layout and its style


def test_a_notebook_without_ipywidgets_shows_rows_as_text() -> None:
    """In a real kernel the first line says what to install, and numbers stand below it from the start."""
    book = execute("import sys\nsys.modules['ipywidgets'] = None", CELL, "stop = 0\nstart()")
    (done,) = book.cells[2]["outputs"]
    assert list(done["data"]) == ["text/plain"]
    for text, count in ((texts[0], "0/600"), (done["data"]["text/plain"], "600/600")):
        hint, row, *_ = text.splitlines()
        assert "pip install ipywidgets" in hint
        assert f" {count} " in row
