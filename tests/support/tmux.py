"""A tmux of its own for each program that a test starts in it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from support.programs import environment
from support.waiting import wait_until

MISSING = "" if shutil.which("tmux") else "tmux is not installed"
"""Why there can be no tests in a tmux; empty if there can."""


class Tmux:
    """A program in a window of tmux, which has nothing else in it.

    Args:
        script: The program.
        columns: The width of the window.
        rows: Its height.
    """

    def __init__(self, script: Path, columns: int = 100, rows: int = 24) -> None:
        self._name = f"test-{uuid.uuid4().hex}"
        self._ended = script.with_suffix(".ended")
        program = f"{shlex.join([sys.executable, str(script)])}; echo $? >{shlex.quote(str(self._ended))}"
        size = ("-x", str(columns), "-y", str(rows))
        # No prompt and no "[exited]": the window shows the program alone, also when that has ended.
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, f"{program}; exec sleep 600")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-L", self._name, *words]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout

    def wait(self) -> int:
        """Wait for the program to end, and return its exit code."""
        wait_until(lambda: self._ended.exists() and self._ended.read_text().strip())
        return int(self._ended.read_text())

    @property
    def history(self) -> int:
        """How many rows have left the screen at its top."""
        return int(self._tmux("display-message", "-p", "#{history_size}"))

    @property
    def rows(self) -> list[str]:
        """What it shows, without the empty rows at the end."""
        return self._tmux("capture-pane", "-p").rstrip().split("\n")

    def close(self) -> None:
        """End it, and the program."""
        self._tmux("kill-server")
