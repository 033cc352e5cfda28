"""A driver that is ended from outside: nothing stays behind, and the same call goes on.

SIGKILL and a single Ctrl-C are in test_dataset_kills.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from support.programs import environment

from speedy_utils._sharding.saved_dataset import silence_datasets

SHARDS, ROWS = 8, 40

SCRIPT = """
import os, pathlib, time
from datasets import Dataset
from speedy_utils import multi_process_dataset, track

here = pathlib.Path(__file__).parent

def process(dataset, output_path):
    rows = []
    for row in track(dataset):
        time.sleep(float(os.environ.get("PAUSE", "0.02")))
        rows.append({"id": row["id"]})
    Dataset.from_list(rows).save_to_disk(output_path)
    return output_path

if __name__ == "__main__":
    multi_process_dataset(here / "data", process, here / "out", num_workers=2, num_shards=8,
                          backend="@backend@", poll_interval=0.05, ray_options={"num_cpus": 1})
"""


def finished(folder: Path) -> list[str]:
    """The shards of an interrupted run that are finished."""
    return [record.parent.name for record in (folder / "out.partial" / "shards").glob("*/record.json")]


def hang_up(program: Any) -> None:
    """Close the terminal."""
    program.hang_up()


def terminate(program: Any) -> None:
    """Send SIGTERM."""
    program.terminate()


def interrupt_twice(program: Any) -> None:
    """Press Ctrl-C, and once more, as fast as one can."""
    program.press_ctrl_c()
    program.press_ctrl_c()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with what the driver works on."""
    with silence_datasets():
        Dataset.from_dict({"id": list(range(SHARDS * ROWS))}).save_to_disk(str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "end"),
    [
        *(
            pytest.param("ray", end, marks=[pytest.mark.ray, pytest.mark.slow])
            for end in (hang_up, terminate)
        ),
        # On Ray a second Ctrl-C is pressed in test_interrupt.py.
        *((name, end) for name in ("processes", "threads") for end in (hang_up, terminate, interrupt_twice)),
    ],
)
def test_an_ended_driver_leaves_nothing_behind(
    name: str,
    end: Callable[[Any], None],
    terminal: Callable[[str], Any],
    prepared: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However the driver ends, no process stays, nothing is under the final name, and the call goes on."""
    script = SCRIPT.replace("@backend@", name)
    program = terminal(script)
    until(lambda: len(finished(prepared)) >= 2)
    assert bool(program.workers()) == (name == "ray")
    end(program)
    until(lambda: not program.processes(), here(10))
    # Which code it ends with is up to Ray too: it aborts a driver that goes on for 3 s after SIGTERM.
    assert program.wait(1) != 0, program.text[-2000:]
    assert not os.path.lexists(prepared / "out")
    kept = finished(prepared)
    assert len(kept) < SHARDS
    if end is terminate:
        assert "8 shards" in program.text.rpartition("Processing 320 items")[2]  # the last line
        said = re.findall(r"stopped: (\d+) of 8 shards are finished, and kept in", program.text)
        assert said
        assert int(said[-1]) <= len(kept)  # a shard may end while its run is stopped
    # Whatever backend goes on: with threads that takes no Ray to start.
    monkeypatch.setenv("PAUSE", "0.001")
    again = terminal(SCRIPT.replace("@backend@", "threads"))
    assert again.wait() == 0, again.text[-2000:]
    drawn = [line for line in re.split(r"[\r\n]+", again.text) if "Processing" in line]
    assert f"{len(kept) * ROWS}/320" in drawn[0]
    assert "320/320" in drawn[-1]
    assert list(load_from_disk(str(prepared / "out"))["id"]) == list(range(SHARDS * ROWS))
    with contextlib.suppress(FileNotFoundError):
        assert os.listdir(prepared / "out.partial") == []


TERMINATED = """
import os, signal, threading
from speedy_utils import multi_process, track

def work(n):
    for i in track(range(10)):
        threading.Event().wait(0.001)
        if (n, i) == (1, 5):
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait({pause})

multi_process(work, range(3), backend="seq", total_items=lambda _: 10, desc="Run")
print("over")
"""

LAST_LINE = r"Run: \d+% \d+/30 in \d+:\d+, .*1/3 tasks"


@pytest.mark.parametrize("first", [False, True], ids=["a process", "the first of a container"])
def test_sigterm_has_the_last_line_and_the_usual_end(tmp_path: Path, first: bool) -> None:
    """A program ends by the signal; the first process of a container, which it can't end, with its code."""
    script = tmp_path / "driver.py"
    script.write_text(TERMINATED.format(pause=60))
    program = [sys.executable, str(script)]
    if first:
        unshare = ["unshare", "--pid", "--fork", "--kill-child"]
        if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
            pytest.skip("this system makes no process namespaces")
        program = [*unshare, *program]
    done = subprocess.run(
        program, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == (128 + signal.SIGTERM if first else -signal.SIGTERM), done
    assert re.search(LAST_LINE, done.stderr, re.MULTILINE), done.stderr
    assert done.stdout == ""


def test_a_handler_of_the_program_decides_what_sigterm_does(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A program that handles SIGTERM goes on, and the run with it."""
    handling = "import signal; signal.signal(signal.SIGTERM, lambda number, frame: print('handled'))\n"
    done = driver(handling + TERMINATED.format(pause=0))
    assert (done.returncode, done.stdout) == (0, "handled\nover\n"), done
