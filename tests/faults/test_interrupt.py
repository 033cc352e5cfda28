"""Ctrl-C: the run ends, leaves no worker, and closes its bar."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.backends import WITHOUT_RAY

RESET = "\x1b[0m"
"""The last word of a program that has imported Ray."""

SCRIPT = """
import os, pathlib, time
from speedy_utils import multi_process, report_progress
here = pathlib.Path(os.getcwd()) / "started"
here.mkdir()
def task(i):
    report_progress(5)
    (here / str(i)).touch()
    {work}
if __name__ == "__main__":
    multi_process(task, range(8), backend={backend!r}, num_workers=2, total_items=lambda i: 10,
                  poll_interval=0.05)
"""

WORK = {
    "a loop": "for _ in range(6000): time.sleep(0.01)",
    "one long call": "time.sleep(60)",
    "a stubborn loop": """
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
""",
}


def ends_well(program: Any, until: Callable[..., Any], within: float) -> None:
    """The program ends by Interrupted in time, its line is closed, and no process of it is left."""
    start = time.monotonic()
    code = program.wait()
    # With Ray imported an unhandled KeyboardInterrupt ends the program with 1.
    assert code in (-signal.SIGINT, 1), f"exit code {code}: {program.text[-1000:]}"
    assert time.monotonic() - start < within
    last = program.text.removesuffix(RESET).rstrip().splitlines()[-1]
    assert re.fullmatch(r"speedy_utils\.Interrupted: stopped: 0 of \d results? \w+ kept in .*", last), last
    # The line of the bar is closed before Python prints what it raises or has to ignore.
    _, _, after = program.text.rpartition("Processing")
    line, end, _ = after.partition("\n")
    assert end, program.text
    assert not re.search("Traceback|Exception", line), program.text
    assert "100%" not in program.text
    until(lambda: not program.processes(), start + within - time.monotonic())


def workers_are_busy(program: Any, folder: Path, shown: str) -> Callable[[], bool]:
    """Whether tasks have started, and the bar has shown what they reported."""
    return lambda: len(list((folder / "started").glob("*"))) > 0 and shown in program.text


@pytest.mark.parametrize("work", ["a loop", "one long call"])
@pytest.mark.parametrize("name", WITHOUT_RAY)  # on Ray see below, and test_dataset_kills.py
def test_ctrl_c_ends_a_run(
    terminal: Callable[[str], Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
    name: str,
    work: str,
) -> None:
    """One Ctrl-C stops the tasks, and the program ends by Interrupted with the bar closed."""
    program = terminal(SCRIPT.format(backend=name, work=WORK[work]))
    until(workers_are_busy(program, tmp_path, "5/80" if name == "seq" else "10/80"))
    program.press_ctrl_c()
    ends_well(program, until, within=here(10))
    if (name, work) == ("threads", "one long call"):
        assert "2 threads are busy in calls that can't be interrupted" in program.text
    last = [line for line in re.split(r"[\r\n]+", program.text) if "/80 [" in line][-1]
    assert ("5/80" if name == "seq" else "10/80") in last
    assert len(list((tmp_path / "started").iterdir())) == (1 if name == "seq" else 2)


@pytest.mark.ray
def test_a_second_ctrl_c_does_not_wait(
    terminal: Callable[[str], Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
) -> None:
    """A second Ctrl-C kills the workers of tasks that do not stop, at once."""
    program = terminal(SCRIPT.format(backend="ray", work=WORK["a stubborn loop"]))
    until(workers_are_busy(program, tmp_path, "10/80"))
    program.press_ctrl_c()
    threading.Event().wait(0.3)  # an impatient user
    program.press_ctrl_c()
    ends_well(program, until, within=here(8))


@pytest.mark.ray
def test_stubborn_tasks_are_killed(
    terminal: Callable[[str], Any],
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
) -> None:
    """A task in a Ray worker that ignores its interruption is killed after a moment."""
    program = terminal(SCRIPT.format(backend="ray", work=WORK["a stubborn loop"]))
    until(workers_are_busy(program, tmp_path, "10/80"))
    program.press_ctrl_c()
    ends_well(program, until, within=here(12))


@pytest.mark.ray
def test_ctrl_c_while_ray_starts(
    terminal: Callable[[str], Any], until: Callable[..., Any], here: Callable[[float], float]
) -> None:
    """Ctrl-C while Ray starts ends the program, and nothing that was started is left."""
    program = terminal(SCRIPT.format(backend="ray", work="pass"))
    until(lambda: "starting Ray" in program.text and len(program.processes()) > 2)
    program.press_ctrl_c()
    ends_well(program, until, within=here(15))


@pytest.mark.parametrize(
    ("pressed_at", "call"),
    [
        ("ray._private.worker", "multi_process(abs, [1], num_workers=1, backend='ray', progress=False)"),
        ("datasets.features", "multi_process_dataset('nowhere', print, 'out', backend='seq')"),
    ],
)
def test_ctrl_c_waits_for_an_import(driver: Callable[..., Any], pressed_at: str, call: str) -> None:
    """A package that a call imports is whole after a Ctrl-C: half of it could not be imported again."""
    done = driver(
        f"""
import importlib, os, signal, sys
from speedy_utils import multi_process, multi_process_dataset

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {pressed_at!r}:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
try:
    {call}
except KeyboardInterrupt:
    sys.meta_path.pop(0)
    package = importlib.import_module({pressed_at!r}.partition(".")[0])
    print(hasattr(package, "init") or hasattr(package, "Dataset"))
"""
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
