"""Streams that are closed, and readers that go away: the work finishes, with one warning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.programs import environment

SCRIPT = """
import json, pathlib, time
from speedy_utils import multi_process, track

def work(i):
    for _ in track(range(50)):
        time.sleep(0.002)
    return i

if __name__ == "__main__":
    results = multi_process(work, range(8), backend="@backend@", num_workers=2, total_items=lambda i: 50,
                            poll_interval=0.02)
    pathlib.Path("results").write_text(json.dumps(results))
"""


def run(shell: str, folder: Path, backend: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a shell."""
    (folder / "driver.py").write_text(SCRIPT.replace("@backend@", backend))
    return subprocess.run(
        ["bash", "-c", shell.replace("@program@", f"{sys.executable} driver.py")],
        cwd=folder,
        env=environment({"SPEEDY_UTILS_LOG_EVERY": "0.01"}),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


CASES = {
    "stderr closed": "@program@ 2>&-",
    "all closed": "@program@ <&- >&- 2>&-",
    "broken pipe": "@program@ 2>&1 | head -n 1",
    "stderr full": "@program@ 2>/dev/full",
}


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *((name, case) for name in ("threads", "seq") for case in CASES),
        pytest.param("ray", "all closed", marks=pytest.mark.ray),
    ],
)
def test_work_finishes_whatever_becomes_of_the_streams(name: str, case: str, tmp_path: Path) -> None:
    """If the progress has no reader, or nothing can be written, all results are there at the end."""
    done = run(CASES[case], tmp_path, name)
    assert (tmp_path / "results").read_text() == "[0, 1, 2, 3, 4, 5, 6, 7]", done
    assert "Traceback" not in done.stdout + done.stderr


def test_a_terminal_that_goes_away_stops_no_work(
    terminal: Callable[[str], Any], tmp_path: Path, until: Callable[..., Any]
) -> None:
    """A program that ignores the hang-up, as under ``nohup``, finishes without its terminal."""
    ignoring = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    program = terminal(ignoring + SCRIPT.replace("@backend@", "threads").replace("0.002", "0.01"))
    until(lambda: "Processing 400 items" in program.text)
    program.hang_up()
    program.wait()
    assert (tmp_path / "results").read_text() == "[0, 1, 2, 3, 4, 5, 6, 7]"
