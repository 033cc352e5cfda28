"""What a run leaves in a terminal, and in a pipe."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support.backends import WITHOUT_RAY
from support.emulator import Emulator

SCRIPT = """
import time
from speedy_utils import multi_process, track
def count(words):
    for _ in track(words):
        time.sleep(0.001)
if __name__ == "__main__":
    multi_process(count, [range(100 * n) for n in range(1, 5)], backend={backend!r}, num_workers=2,
                  total_items=len, poll_interval=0.05)
"""


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_a_terminal_keeps_one_line(terminal: Callable[[str], Any], name: str) -> None:
    """In a terminal a run is one line, drawn again and again up to 100 % of its total.

    For one on Ray see test_dataset_kills.py.
    """
    program = terminal(SCRIPT.format(backend=name))
    assert program.wait() == 0, program.text[-1000:]
    text: str = program.text
    assert text.count("\n") == 1, text[-1000:]
    assert text.endswith("\n")
    drawn = [
        line for line in re.split(r"[\r\n]+", re.sub(r"\x1b([D78]|\[\d*[ABCJK])", "", text)) if line.strip()
    ]
    assert len(drawn) > 3
    # A line with many remarks leaves out the total in the name.
    assert all(re.match("Processing( 1,000 items)?: ", line) for line in drawn)
    assert "100%" in drawn[-1]
    assert "1,000/1,000" in drawn[-1]
    assert "items/s" in drawn[-1]
    assert "4/4 tasks" in drawn[-1]
    assert all(len(line) <= 100 for line in drawn)


@pytest.mark.parametrize("name", ["threads", "seq"])
def test_a_pipe_gets_log_lines(driver: Callable[..., subprocess.CompletedProcess[str]], name: str) -> None:
    """If stderr is no terminal there are plain log lines, and stdout stays the program's."""
    done = driver(SCRIPT.format(backend=name))
    assert (done.returncode, done.stdout) == (0, "")
    assert "\r" not in done.stderr
    first, line = done.stderr.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d Processing 1,000 items in 4 tasks, \d workers?", first)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d Processing 1,000 items: 100% 1,000/1,000 in \d\d:\d\d, .* items/s, 4/4 tasks", line
    )


PRINTING = """
import sys, time
from speedy_utils import multi_process, track
def talk(worker):
    for i in track(range(150)):
        time.sleep({pause})
        print(f"out {{worker}} {{i}}")
        print(f"err {{worker}} {{i}}", file=sys.stderr)
if __name__ == "__main__":
    multi_process(talk, range(4), backend={backend!r}, num_workers=4, total_items=lambda _: 150,
                  poll_interval=0.05, worker_logs={logs!r})
    print("after")
"""

PAUSES = {"processes": 0.01, "threads": 0.01, "seq": 0.002}
"""Seconds between two lines of a worker: in sequence the workers come one after another."""


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_printed_lines_stand_whole_above_the_bar(terminal: Callable[[str], Any], name: str) -> None:
    """What workers print on both streams appears in whole lines, each once, and there is one bar below.

    For those on Ray see test_screen.py.
    """
    program = terminal(PRINTING.format(backend=name, logs="all", pause=PAUSES[name]))
    assert program.wait() == 0, program.text[-1000:]
    emulator = Emulator(100, 24)
    emulator.feed(program.text)
    lines = [line for line in emulator.lines() if line.strip()]
    bars = [line for line in lines if line.startswith("Processing 600 items")]
    assert len(bars) == 1, bars
    assert "100%" in bars[0]
    expected = {
        f"{stream} {worker} {i}" for stream in ("out", "err") for worker in range(4) for i in range(150)
    }
    printed = [line for line in lines if line not in (bars[0], "after")]
    assert len(printed) == len(set(printed))
    assert set(printed) == expected


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_lines_that_are_not_wanted_leave_the_bar_alone(terminal: Callable[[str], Any], name: str) -> None:
    """With worker_logs="none" there is the bar, and what the driver itself prints."""
    program = terminal(PRINTING.format(backend=name, logs="none", pause=PAUSES[name]))
    assert program.wait() == 0, program.text[-1000:]
    emulator = Emulator(100, 24)
    emulator.feed(program.text)
    bar, after = emulator.lines()
    assert bar.startswith("Processing 600 items: 100%")
    assert after == "after"


DAEMON = """
import sys, threading, time
from speedy_utils import multi_process, track
begun = threading.Event()
def work(n):
    for _ in track(range(20)):
        time.sleep(0.002)
        begun.set()
run = lambda: multi_process(work, range(4_000), backend="threads", num_workers=2, poll_interval=0.02)
threading.Thread(target=run, daemon=True).start()
begun.wait()
sys.stdout.write("last words without flush\\n")
"""


def test_a_run_may_go_on_as_the_program_ends(terminal: Callable[[str], Any]) -> None:
    """A run in a daemon thread leaves its last lines in the terminal, and the exit code of the program."""
    program = terminal(DAEMON)
    assert program.wait() == 0, program.text[-1000:]
    emulator = Emulator(100, 24)
    emulator.feed(program.text)
    said, bar = emulator.lines()
    assert said == "last words without flush"
    assert re.match(r"Processing 4,000 tasks: .*/4,000", bar)
    assert emulator.cursor == (0, 2)
