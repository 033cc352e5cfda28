"""Worker processes that die at a bad moment: what they leave behind concerns no other worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import TaskError, multi_process, track

MEGABYTE = 1_000_000


def die_while_sending() -> None:
    """Die once the main thread of this process is writing to its driver."""
    main = threading.main_thread().ident or 0
    while sys._current_frames()[main].f_code.co_name != "_send":
        pass
    os.kill(os.getpid(), signal.SIGKILL)


class DiesWhileSent:
    """A result whose worker dies once a part of it was sent, the first time."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        data = bytes(100 * MEGABYTE)
        if not self.marker.exists():
            self.marker.touch()
            threading.Thread(target=die_while_sending).start()
        return bytes, (data,)


def test_a_worker_that_dies_while_it_sends_its_result(recorder: Recorder, tmp_path: Path) -> None:
    """Its task runs again, and the other workers send theirs meanwhile."""

    def task(number: int) -> Any:
        for _ in track(range(10)):
            pass
        return DiesWhileSent(tmp_path / "marker") if number == 1 else bytes(MEGABYTE)

    results = multi_process(
        task,
        range(8),
        backend="processes",
        num_workers=3,
        total_items=lambda _: 10,
        progress=recorder,
    )
    assert [len(each) for each in results] == [100 * MEGABYTE if i == 1 else MEGABYTE for i in range(8)]
    assert (recorder.last.done, recorder.last.total, recorder.last.retries) == (80, 80, 1)


STOPPED = """
import os, signal, time
from speedy_utils import multi_process, report_progress
def task(i):
    report_progress(1)
    while i == 0:
        if os.path.exists("shown"):
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.01)
    time.sleep(60)
multi_process(task, range(4), backend="processes", num_workers=2, total_items=lambda _: 2, poll_interval=0.05)
"""


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped a process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    return False


def test_ctrl_c_ends_a_stopped_worker(
    terminal: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    """A worker that SIGSTOP has stopped does not hold up the end, and is not left."""
    program = terminal(STOPPED)
    until(lambda: "2/8" in program.text)
    (tmp_path / "shown").touch()
    until(lambda: any(is_stopped(pid) for pid in program.processes()))
    program.press_ctrl_c()
    assert program.wait() in (-signal.SIGINT, 1)
    until(lambda: not program.processes())


GRANDCHILD = """
import os, subprocess, sys
from speedy_utils import multi_process
def task(i):
    if i == 0 and not os.path.exists("tried"):
        open("tried", "w").close()
        if os.fork() == 0:  # goes on when its parent is gone, and has its pipes open
            import time
            time.sleep(60)
            os._exit(0)
        os.kill(os.getpid(), 9)
    return i
print(multi_process(task, range(4), backend="processes", num_workers=2, progress=False))
"""


def test_processes_that_a_lost_worker_has_forked_hide_nothing(driver: Callable[..., Any]) -> None:
    """The loss of a worker is noticed at once, though a process that it has forked lives on."""
    done = driver(GRANDCHILD)
    assert done.stdout.split("\n")[0] == "[0, 1, 2, 3]", done.stderr
    assert "was killed by SIGKILL" in done.stderr


LAST_WORDS = """
import multiprocessing, os
from speedy_utils import multi_process
multiprocessing.set_start_method({!r})
def task(i):
    os.chdir("/")
    print(f"part {{i}}", end="")
folder = os.getcwd()
def where(i):
    found = os.getcwd()
    os.chdir("/")
    return found == folder
options = {{"backend": "processes", "num_workers": 2, "progress": False}}
print(multi_process(where, range(6), **options))
multi_process(task, range(2), **options)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_last_words_of_a_worker_are_shown(method: str, driver: Callable[..., Any]) -> None:
    """Also without a line end; and each task begins in the program's folder."""
    done = driver(LAST_WORDS.format(method))
    places, *words = done.stdout.splitlines()
    assert places == str([True] * 6)
    # One worker may have run both tasks.
    assert sorted("\n".join(words).replace("part", "\npart").split("\n"))[-2:] == ["part 0", "part 1"]


LEAVES_PROGRAMS = """
import os, signal, subprocess, time
from speedy_utils import multi_process
def task(i):
    subprocess.Popen(["sleep", "600"])
    open(f"started {i}", "w").close()
    time.sleep(600)
multi_process(task, range(2), backend="processes", num_workers=2)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_programs_that_tasks_have_started_end_with_the_driver(
    number: signal.Signals, terminal: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    """Whatever ends the driver, nothing is left."""
    program = terminal(LEAVES_PROGRAMS)
    until(lambda: all((tmp_path / f"started {i}").exists() for i in range(2)))
    program.processes()  # notes those that lose their parents
    program.send(number)
    program.wait()
    until(lambda: not program.processes())


def test_a_worker_that_closes_its_connection() -> None:
    """Its task runs again, and what is said does not blame the memory."""

    def task(number: int) -> int:
        if number == 1:
            os.closerange(3, 256)
        return number

    with pytest.raises(TaskError) as raised:
        multi_process(task, range(4), backend="processes", num_workers=2, max_retries=0, progress=False)
    assert "the worker was lost: process" in str(raised.value)
    assert "memory" not in str(raised.value)
