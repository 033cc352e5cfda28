"""Programs in a terminal of their own, so that all bars draw as they would for a user."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from .measure import Cost, Watched, end_tree

HOME = Path(__file__).parent.parent

_LOOK_EVERY = 0.25
"""Seconds between two looks at a program's processes: each look costs some milliseconds."""


class ProgramFailed(RuntimeError):
    """A program failed, or took too long.

    Attributes:
        why: The last line that it wrote, or how long it was given.
    """

    def __init__(self, program: str, text: str = "", limit: float | None = None) -> None:
        lines = [line.strip() for line in plain(text).splitlines() if line.strip()]
        if limit is not None:
            self.why = f"not finished in {limit:.0f} s"
        else:
            self.why = lines[-1][:200] if lines else "failed without a word"
        super().__init__(f"{program}: {self.why}\n{text[-4000:]}")


class Shown(NamedTuple):
    """A program that has run.

    Attributes:
        text: All that it wrote, ANSI sequences included.
        cost: Seconds that it took, and CPU seconds of it and all that it started.
        memory: The most memory that they had at once, in megabytes.
        marks: The cost so far each time that the program wrote the mark.
    """

    text: str
    cost: Cost
    memory: float
    marks: Sequence[Cost]


def run_in_terminal(
    arguments: Sequence[str],
    *,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seen: Callable[[float, str], None] | None = None,
    mark: str | None = None,
    timeout: float = 120,
) -> Shown:
    """Run a Python program in a pseudo-terminal of 100 columns.

    Args:
        arguments: Those of the interpreter.
        python: The interpreter.
        env: Added to the environment.
        cwd: Where it runs; in the root of the repository, if not given.
        seen: Called with the time and each piece of text as it appears.
        mark: What the program writes where its cost so far is wanted.
        timeout: Seconds after which it is killed, with all that it has started.

    Returns:
        What it showed and took.

    Raises:
        ProgramFailed: It failed, or took too long.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    unwanted = ("RAY_ADDRESS", "TQDM_DISABLE")
    clean = {name: value for name, value in os.environ.items() if name not in unwanted}
    path = {"PYTHONPATH": str(HOME)}
    began = time.perf_counter()
    program = subprocess.Popen(
        [python, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**clean, **path, **(env or {})},
        cwd=cwd or HOME,
        start_new_session=True,
    )
    os.close(slave)
    watched = Watched(program.pid)
    output, marks = bytearray(), list[Cost]()
    until, look_at = time.monotonic() + timeout, 0.0
    try:
        while program.poll() is None:
            if select.select([master], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):  # no process has the terminal open any more
                    piece = os.read(master, 1 << 16)
                    output += piece
                    if seen is not None:
                        seen(time.monotonic(), piece.decode(errors="replace"))
                    if mark is not None and (more := output.count(mark.encode()) - len(marks)):
                        wall = time.perf_counter() - began
                        watched.look()
                        marks += [Cost(wall, watched.cpu)] * more
            now = time.monotonic()
            if now >= look_at:
                watched.look()
                look_at = now + _LOOK_EVERY
            if now > until:
                raise ProgramFailed(" ".join(arguments), output.decode(errors="replace"), timeout)
        cost = Cost(time.perf_counter() - began, watched.cpu)
        with contextlib.suppress(OSError):
            while select.select([master], [], [], 0)[0] and (rest := os.read(master, 1 << 16)):
                output += rest
    finally:
        if program.poll() is None:
            end_tree(program.pid)
            program.wait()
        os.close(master)
    text = output.decode(errors="replace")
    if program.returncode:
        raise ProgramFailed(" ".join(arguments), text)
    return Shown(text, cost, watched.memory, marks)


def read_terminal() -> TextIO:
    """A terminal whose other end is read, for what draws in this process."""
    ours, theirs = pty.openpty()

    def drain() -> None:
        with contextlib.suppress(OSError):  # no process has the terminal open any more
            while os.read(ours, 1 << 16):
                pass

    threading.Thread(target=drain, daemon=True).start()
    return os.fdopen(theirs, "w", encoding="utf-8")


_COUNT = re.compile(r"([\d,]+)/([\d,]+)[ \]]")


def last_count(text: str, total: int) -> str:
    """What a bar of `total` items showed last, as ``done/total``; empty if none showed.

    The bar with which a dataset is saved is left out.
    """
    shown = ""
    for line in re.split(r"[\r\n]+", plain(text)):
        for done, of in _COUNT.findall(line):
            if of.replace(",", "") == str(total) and "Saving" not in line:
                shown = f"{int(done.replace(',', '')):,}/{total:,}"
    return shown


def plain(text: str) -> str:
    """A text without ANSI sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
