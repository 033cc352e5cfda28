"""What a worker notes of the task that it runs, where others of its machine can read it.

A worker that is stopped, or in C code that holds the interpreter, can't answer. Its note still says which
task it is in, and since when::

    24 1 7 81234.52    task 24 is the first of its chunk, at its first attempt; the one at place 7 runs

Where it stands is written behind that, at a signal, by `faulthandler`: its handler in C needs no interpreter.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from ..._interrupts import after_fork_in_child
from ..._worker.code.stacks import dumped_stack
from .time_limit import GRACE_S

KILL_GRACE_S = GRACE_S + 0.5
"""Seconds after the limit of a task in which its worker may end it, before it is killed."""

STACK_SIGNAL: int | None = signal.SIGRTMAX - 1 if hasattr(signal, "SIGRTMAX") else None
"""Lets a worker write where it stands; None where that is not possible. Programs and libraries that handle
signals by themselves take others."""

STACK_TIMEOUT_S = 0.25
"""Seconds to wait for that. A stopped process does not do it."""

_STACK_INTERVAL_S = 0.02
"""Seconds between two looks whether it has been written."""


class TaskNote(NamedTuple):
    """The task that a worker runs.

    Attributes:
        task: The first task of its chunk.
        attempt: The number of the attempts.
        place: The place of the task in the chunk.
        seconds: How long ago it has begun.
    """

    task: int
    attempt: int
    place: int
    seconds: float


class NoteFile:
    """Holds the note of a worker.

    Args:
        file: A file of its own, which is written without a buffer.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        if STACK_SIGNAL is not None:
            faulthandler.register(STACK_SIGNAL, file, all_threads=True)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [STACK_SIGNAL])

    def begin(self, task: int | str, attempt: int, place: int) -> None:
        """Note that a task begins now; the arguments are those of :class:`TaskNote`."""
        self._file.seek(0)
        # What may be left of a longer note comes after the last space.
        self._file.write(f"{task} {attempt} {place} {time.monotonic()} ".encode())

    def clear(self) -> None:
        """Note that none runs."""
        self._file.seek(0)
        self._file.write(b"none ")  # and keep what a signal may just have added: it may have ended the task

    def close(self) -> None:
        """Close the file. Idempotent."""
        _unregister()
        self._file.close()


def _unregister() -> None:
    if STACK_SIGNAL is not None:
        faulthandler.unregister(STACK_SIGNAL)


after_fork_in_child(_unregister)  # else children of a worker would write into its file


def read_note(text: str) -> TaskNote | None:
    """Return what a note says; None if that is nothing.

    Example:
        >>> read_note("24 1 7 0.5 ").place
        7
        >>> read_note("") is None
        True
    """
    with suppress(ValueError):
        task, attempt, place, begun, *_ = text.split(" ")
        return TaskNote(int(task), int(attempt), int(place), time.monotonic() - float(begun))
    return None


def stacks_of(notes: Mapping[int, Path]) -> dict[int, str]:
    """Return where workers stand that don't answer and will be killed, as lines of a traceback.

    Args:
        notes: Their processes, and where the note of each can be read.

    Returns:
        The stacks, by the processes; without those that are not known, as the process is stopped.
    """
    if STACK_SIGNAL is None:
        return {}
    for process in notes:
        with suppress(OSError):  # it has ended
            os.kill(process, STACK_SIGNAL)
    deadline = time.monotonic() + STACK_TIMEOUT_S
    texts: dict[int, str] = {}
    while True:
        before, texts = texts, {process: _read(path) for process, path in notes.items()}
        stacks = {process: stack for process, text in texts.items() if (stack := dumped_stack(text))}
        # The main thread, whose stack it is, is written last.
        if (texts == before and len(stacks) == len(notes)) or time.monotonic() >= deadline:
            return stacks
        time.sleep(_STACK_INTERVAL_S)


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""
