"""What a worker notes of the task that it runs, where others of its machine can read it.

A worker that is stopped, or in C code that holds the interpreter, can't answer. Its note still says which
task it is in, and since when::

    24 1 7 81234.52    task 24 is the first of its chunk, at its first attempt; the one at place 7 runs
"""

from __future__ import annotations

import time
from contextlib import suppress
from io import FileIO
from typing import NamedTuple


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

    def begin(self, task: int | str, attempt: int, place: int) -> None:
        """Note that a task begins now; the arguments are those of :class:`TaskNote`."""
        self._file.seek(0)
        # What may be left of a longer note comes after the last space.
        self._file.write(f"{task} {attempt} {place} {time.monotonic()} ".encode())

    def clear(self) -> None:
        """Note that none runs."""
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


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
