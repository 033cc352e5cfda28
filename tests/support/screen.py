"""Files that lead to a terminal, for what draws in the process of a test."""

from __future__ import annotations

import io
import os
import pty
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

import pytest
from tqdm import tqdm

from speedy_utils._display.terminal.screen import Screen

from .emulator import Emulator


class FakeTerminal(io.StringIO):
    """A file that says it is a terminal, and keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """It is one."""
        return True


class EmulatedTerminal(FakeTerminal):
    """A terminal whose screen can be looked at.

    Args:
        columns: Its width.
        rows: Its height.
        reflows: Whether it wraps its rows anew when it is resized.

    Attributes:
        emulator: What shows the text.
        writes: The texts, one a call of ``write``.
        on_write: Called after each of them.
        gone: Set it to make each further write fail, as when the window is closed.
    """

    def __init__(self, columns: int = 40, rows: int = 12, *, reflows: bool = True) -> None:
        super().__init__()
        self.emulator = Emulator(columns, rows, reflows=reflows)
        self.lines, self.resize = self.emulator.lines, self.emulator.resize
        self.on_write: Callable[[], object] = lambda: None
        self.writes: list[str] = []
        self.gone = False

    def size(self) -> tuple[int, int]:
        """Return its columns and rows."""
        return self.emulator.size

    def write(self, text: str) -> int:
        """Show a text."""
        if self.gone:
            raise OSError(5, "the terminal is gone")
        self.writes.append(text)
        self.emulator.feed(text)
        self.on_write()
        return len(text)


class SecondFile(FakeTerminal):
    """Another file that leads to a terminal, as stdout does beside stderr."""

    def __init__(self, terminal: EmulatedTerminal) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, text: str) -> int:
        """Show a text."""
        return self._terminal.write(text)


@contextmanager
def a_terminal(*args: Any, **kwargs: Any) -> Iterator[tuple[EmulatedTerminal, Screen]]:
    """Let both streams lead to a terminal with a screen.

    No fixture, as pytest sets streams of its own for the test. tqdm bars that a failed test has left open are
    closed.
    """
    terminal = EmulatedTerminal(*args, **kwargs)
    try:
        with redirect_stdout(terminal), redirect_stderr(terminal):
            yield terminal, Screen(terminal, size=terminal.size)
    finally:
        for bar in list(tqdm._instances):
            bar.close()


class PseudoTerminal:
    """A terminal of the system, to which Python's own streams lead, with a screen that can be looked at.

    Attributes:
        stream: A text stream as Python's stdout and stderr are.
        descriptor: What it writes to.
    """

    def __init__(self) -> None:
        self._master, self.descriptor = pty.openpty()
        tty.setraw(self._master)  # or a line feed would be read as two characters
        os.set_blocking(self._master, False)
        self.stream: TextIO = open(self.descriptor, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._emulator = Emulator(60, 12)

    def write(self, text: str) -> None:
        """Write as C code and programs do."""
        os.write(self.descriptor, text.encode())

    @property
    def rows(self) -> list[str]:
        """The rows that it shows, without the empty ones."""
        while True:
            try:
                self._emulator.feed(os.read(self._master, 65536).decode())
            except BlockingIOError:
                return [row for row in self._emulator.rows if row]

    def close(self) -> None:
        """Close it."""
        self.stream.close()
        os.close(self._master)


@contextmanager
def a_pseudo_terminal() -> Iterator[tuple[PseudoTerminal, Screen]]:
    """Let both streams lead to a terminal of the system."""
    terminal = PseudoTerminal()
    try:
        with redirect_stdout(terminal.stream), redirect_stderr(terminal.stream):
            yield terminal, Screen(terminal.stream, size=lambda: (60, 12))
    finally:
        terminal.close()


def constant(*lines: str) -> Callable[[int], list[str]]:
    """Return a render function whose lines are the same in each width."""
    return lambda columns: list(lines)


def a_bar(terminal: Any, name: str, **kwargs: Any) -> Any:
    """Make a tqdm bar of the program's own."""
    return tqdm(
        total=3,
        desc=name,
        file=terminal,
        bar_format="{desc} {n_fmt}/{total_fmt}",
        ncols=30,
        nrows=20,
        **kwargs,
    )


def bars_drawn(capfd: pytest.CaptureFixture[str]) -> int:
    """Return how many bars of tqdm were drawn to their ends on stderr."""
    return capfd.readouterr().err.count("100%")
