"""What fault tests share: drivers in a terminal of their own, and the progress actors of a test's runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MARK = "SPEEDY_UTILS_TEST_RUN"

START = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # makes Ctrl-C in the terminal a signal to the process
signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs would ignore
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A program that runs in a pseudo-terminal, as a user would start it.

    Args:
        script: The program.
        env: Its environment.
        size: Its columns and rows.
    """

    def __init__(self, script: Path, env: dict[str, str], size: tuple[int, int]) -> None:
        self.mark = uuid.uuid4().hex
        self._master: int | None
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(script)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env | {MARK: self.mark, "PYTHON_COLORS": "0"},  # in tracebacks, from Python 3.13 on
            cwd=script.parent,
            start_new_session=True,
        )
        os.close(slave)
        self._family: dict[int, str] = {}  # of all that were seen: when each was started
        self._output = bytearray()
        self._wake, self._woken = os.pipe()[::-1]
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone once nobody has it open
            while self._woken not in select.select([self._master, self._woken], [], [])[0]:
                self._output += os.read(self._master, 65536)

    @property
    def text(self) -> str:
        """What was written to the terminal so far."""
        return self._output.decode(errors="replace")

    def press_ctrl_c(self) -> None:
        """Send what the key sends."""
        self.processes()
        os.write(self._master, b"\x03")

    def kill(self) -> None:
        """Kill the program alone, and none of the processes that it has started."""
        self.processes()
        self._process.kill()

    def send(self, number: signal.Signals) -> None:
        """Send the program alone a signal."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask the program alone to end, as ``kill`` and job schedulers do."""
        self.processes()
        self._process.terminate()

    def hang_up(self) -> None:
        """Close the terminal's window."""
        self.processes()
        if self._master is not None:
            os.write(self._wake, b"x")
            self._reader.join()  # the terminal is closed by the last who has it open
            os.close(self._master)
            self._master = None

    def wait(self, seconds: float) -> int:
        """Wait for the program to end and its last words to be read, and return its exit code."""
        code = self._process.wait(seconds)
        # Its end is known here at once, its text once the reader has had its turn. That one ends by itself,
        # unless what the program has started has the terminal open for longer.
        self._reader.join(0.5)
        return code

    def processes(self) -> list[int]:
        """The program and all processes that it has started, also those that it let go.

        They have the program's mark in their environment. Ray's workers write their title over that: they are
        known as children of the others, and remembered, as they lose their parents when those are killed.
        """
        there = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                stat = (path / "stat").read_text().rpartition(")")[2].split()
                if stat[0] not in "ZX":
                    there[int(path.name)] = int(stat[1]), stat[19]
                    if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                        self._family[int(path.name)] = stat[19]
        while news := {
            pid: born
            for pid, (parent, born) in there.items()
            if pid not in self._family and parent in self._family and self._family[parent] == there[parent][1]
        }:
            self._family |= news
        return [pid for pid, (_, born) in there.items() if self._family.get(pid) == born]

    def workers(self) -> list[int]:
        """Those of them that are Ray's workers, or actors."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                    found.append(pid)
        return found

    def close(self) -> None:
        """End whatever is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self.hang_up()
        os.close(self._wake)
        os.close(self._woken)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start a program in a terminal."""
    started: list[Terminal] = []

    def start(code: str, size: tuple[int, int] = (100, 24)) -> Terminal:
        env = {
            name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "TQDM_DISABLE")
        }
        script = tmp_path / "driver.py"
        script.write_text(code)
        started.append(Terminal(script, env, size))
        return started[-1]

    yield start
    for each in started:
        each.close()
        print(each.text[-3000:])  # pytest shows it where the test has failed


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The progress actors of the runs of a test."""
    from speedy_utils._ray import engine

    made: list[Any] = []
    create = engine.start_actor

    def create_and_note(*args: Any) -> Any:
        made.append(create(*args))
        return made[-1]

    monkeypatch.setattr(engine, "start_actor", create_and_note)
    return made
