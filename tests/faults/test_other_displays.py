"""Live displays of other packages on the same terminal, around a run and in the middle of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from support.emulator import Emulator

RUN = """
import threading
from rich.console import Console
from rich.progress import Progress
from alive_progress import alive_bar
from speedy_utils import multi_process, track

def work(n):
    for _ in track(range(20)):
        threading.Event().wait(0.01)

def run(work=work):
    multi_process(work, range(4), backend="threads", num_workers=2, total_items=lambda _: 20, desc="Run",
                  poll_interval=0.02)
"""

AROUND = {
    "Progress of rich": """
with Progress() as progress:
    outer = progress.add_task("outer", total=2)
    for _ in range(2):
        run()
        progress.advance(outer)
""",
    "Status of rich": """
with Console().status("outer"):
    run()
    run()
""",
    "alive_progress": """
with alive_bar(2, title="outer") as advance:
    for _ in range(2):
        run()
        advance()
""",
}


@pytest.mark.parametrize("name", AROUND)
def test_a_run_gives_others_lines_that_they_can_place(terminal: Callable[..., Any], name: str) -> None:
    """A run inside another display leaves its log lines, and no row for each time that it is drawn."""
    program = terminal(RUN + AROUND[name], size=(100, 24))
    assert program.wait() == 0, program.text[-2000:]
    emulator = Emulator(100, 24)
    emulator.feed(program.text)
    lines = [line for line in emulator.lines() if not line.lstrip().startswith(("outer", "|"))]
    # alive_progress says at which of its own steps a line was printed.
    said = [re.sub(r"^(on \d:|     ) ", "", line) for line in lines if line]
    assert all(re.match(r"\d\d:\d\d:\d\d Run: ", line) for line in said), emulator.rows
    assert sum("80/80" in line for line in said) == 2
    assert len(said) <= 6


IN_THE_MIDDLE = """
def speak(n):
    if n == 1:
        with Console().status("inner"):
            threading.Event().wait(0.2)
            print("said in it")
    work(n)

run(speak)
"""


def test_the_lines_of_a_run_are_away_while_another_display_is_there(terminal: Callable[..., Any]) -> None:
    """A display that begins in a task has the terminal alone, and the lines of the run come back after it."""
    program = terminal(RUN + IN_THE_MIDDLE, size=(100, 24))
    assert program.wait() == 0, program.text[-2000:]
    emulator = Emulator(100, 24)
    emulator.feed(program.text)
    said, bar = [line for line in emulator.lines() if line]
    assert said == "said in it"
    assert re.match(r"Run: 100%.* 80/80 ", bar)
