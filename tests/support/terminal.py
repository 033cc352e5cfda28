"""A pseudo-terminal of its own for each program that a test starts."""

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
from pathlib import Path

from support.programs import environment

MARK = "SPEEDY_UTILS_TEST_RUN"
"""A variable in the environment of all that a program starts."""

START = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # makes Ctrl-C in the terminal a signal to the process
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A program that runs in a pseudo-terminal, as a user would start it.

    Args:
        script: The program.
        size: Its columns and rows.
    """

    def __init__(self, script: Path, size: tuple[int, int]) -> None:
        self.mark = uuid.uuid4().hex
        self._master: int | None
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(script)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment({MARK: self.mark, "PYTHON_COLORS": "0"}),  # in tracebacks, from Python 3.13 on
            cwd=script.parent,
            start_new_session=True,
        )
        os.close(slave)
        self._family: dict[int, str] = {}  # when each process that was seen was started
        self._output = bytearray()
        self._wake, self._woken = os.pipe()[::-1]
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone once no process has it open
            while self._woken not in select.select([self._master, self._woken], [], [])[0]:
                self._output += os.read(self._master, 65536)

    @property
    def text(self) -> str:
        """What was written to the terminal so far."""
        return self._output.decode(errors="replace")

    def type(self, text: str) -> None:
        """Send what keys send."""
        assert self._master is not None
        os.write(self._master, text.encode())

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
            self._reader.join()  # the last process that has the terminal open closes it
            os.close(self._master)
            self._master = None

    def wait(self, seconds: float = 240) -> int:
        """Wait for the program to end and its output to be read, and return its exit code.

        Args:
            seconds: After how long it counts as hung.
        """
        code = self._process.wait(seconds)
        # The reader ends once all processes have closed the terminal. Its children may take longer.
        self._reader.join(0.5)
        return code

    def processes(self) -> list[int]:
        """Return the program and all processes that it has started, also those that have lost their parent.

        They have the program's mark in their environment. Ray's workers write their title over that: they are
        known as children of the others, and remembered, as they lose their parents when those are killed.
        """
        there = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
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
        """Return those of them that are Ray's workers, or actors."""
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
                    found.append(pid)
        return found

    def close(self) -> None:
        """Kill what is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self.hang_up()
        os.close(self._wake)
        os.close(self._woken)
