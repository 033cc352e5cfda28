"""Drivers in a terminal of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MARK = "SPEEDY_UTILS_TEST_RUN"

START = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # makes Ctrl-C in the terminal a signal to the process
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A program that runs in a pseudo-terminal, as a user would start it.

    Args:
        script: The program.
        env: Its environment.
    """

    def __init__(self, script: Path, env: dict[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(script)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env | {MARK: self.mark},
            cwd=script.parent,
            start_new_session=True,
        )
        os.close(slave)
        self._output = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone once nobody has it open
            while data := os.read(self._master, 65536):
                self._output += data

    @property
    def text(self) -> str:
        """What was written to the terminal so far."""
        return self._output.decode(errors="replace")

    def press_ctrl_c(self) -> None:
        """Send what the key sends."""
        os.write(self._master, b"\x03")

    def kill(self) -> None:
        """Kill the program alone, and none of the processes that it has started."""
        self._process.kill()

    def wait(self, seconds: float) -> int:
        """Wait for the program to end, and return its exit code."""
        return self._process.wait(seconds)

    def processes(self) -> list[int]:
        """The program and all processes that it has started, also those that it let go."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                if f"{MARK}={self.mark}".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def close(self) -> None:
        """End whatever is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    """Start a program in a terminal."""
    started: list[Terminal] = []
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "TQDM_DISABLE")}

    def start(code: str) -> Terminal:
        script = tmp_path / "driver.py"
        script.write_text(code)
        started.append(Terminal(script, env))
        return started[-1]

    yield start
    for each in started:
        each.close()
