"""Writes the state of this process into its file in the folder of a run."""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..._interrupts import after_fork_in_child
from ..._state.ledger import Report, Task
from ..._state.timings import StageTimings
from .state_file import HOST, RUN, SUFFIX, UNFINISHED, encode_state

WRITE_INTERVAL_S = 0.1
"""Seconds between two writes of a process. One takes some 0.1 ms at most."""

MAX_KEPT = 200
"""How many finished tasks share a file."""

FINAL = 2**62
"""The reading of what a finished task has counted: the last one."""

MAX_APPENDED_BYTES = 8_000
"""Bytes up to which states are added to a file, which takes a third of the time that replacing it does."""

_OPEN = os.O_WRONLY | getattr(os, "O_BINARY", 0)
_NEW_FILE = _OPEN | os.O_CREAT | os.O_EXCL
_APPEND = _OPEN | os.O_APPEND


class FolderSink:
    """Keeps the state of this process in a file of the run's folder.

    A state is added to the file as a further line, in one write. Once it is long it is replaced in one step.

    Any thread may send. A process has one for a folder at a time, and a fork makes its own.

    Args:
        folder: The run's folder.
        run: The id of the run; empty to read it from the folder when something is sent.

    Attributes:
        interval: Seconds between two calls of :meth:`send`.
    """

    def __init__(self, folder: str | Path, run: str = "") -> None:
        self.interval = WRITE_INTERVAL_S
        self._folder, self._run = str(folder), run
        # A handler of SIGTERM may send what this thread is just sending.
        self._lock = threading.RLock()
        self._reports: dict[Task, Report] = {}
        self._timings: StageTimings = {}
        self._kept: list[Report] = []
        self._full = 0
        self._sizes: dict[str, int] = {}  # of the files that a state can be added to, in bytes

    @property
    def process_name(self) -> str:
        """The name of this process, unlike that of any other one: ``"node-1/4711-1f2e3d4c"``."""
        return f"{HOST}/{_name}"

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:  # noqa: ARG002 - each state is whole, the last one too
        """Write the state of some tasks; see :class:`~speedy_utils._worker.channel.flusher.Sink`.

        Tasks that were sent before stay as they are.

        Raises:
            FileNotFoundError: The run is not there.
            OSError: The file can't be written.
        """
        with self._lock:
            before = self._reports
            self._reports = before.copy()
            for report in reports:
                known = before.get(report.task)
                # Another thread may have read it before, and come later.
                if known is None or report.attempt != known.attempt or report.reading >= known.reading:
                    self._reports[report.task] = report
            self._timings = timings
            there = self._write("", self._reports.values())
        if not there:
            self._run_has_ended(before)
        return True

    def keep(self, report: Report) -> None:
        """Write what a task has counted in the end: a later attempt at it takes the place of that.

        Some share a file, which is not written any more once it is full: many tasks cost no more each.

        Args:
            report: The last report; its reading is :data:`FINAL`.

        Raises:
            FileNotFoundError: The run is not there.
            OSError: The file can't be written.
        """
        with self._lock:
            if len(self._kept) >= MAX_KEPT:
                self._kept, self._full = [], self._full + 1
            self._kept.append(report)
            self._write(f"-{self._full}", self._kept)  # first: where both are read, this one counts
            if self._reports.pop(report.task, None):
                self._write("", self._reports.values())

    def _write(self, part: str, reports: Iterable[Report]) -> bool:
        """Write a file; return False if the run has ended, as far as this sink is to see that."""
        self._run = self._run or read_run(self._folder)
        name = f"{self._folder}{os.sep}{_name}{part}"
        state = encode_state(self._run, reports, self._timings)
        # Unknown until it is written: a write that fails may leave a part of a line behind.
        size = self._sizes.pop(name, MAX_APPENDED_BYTES) + len(state)
        try:
            file = os.open(name + SUFFIX, _APPEND) if size <= MAX_APPENDED_BYTES else None
        except FileNotFoundError:  # it was removed
            file = None
        if file is not None:
            _write_all(file, state)
        elif self._is_open():
            size = len(state)
            _replace(name, state)
        else:
            return False
        self._sizes[name] = size
        return True

    def look_again(self) -> None:
        """Begin a new file with the next state: the folder may be another run's by now."""
        with self._lock:
            self._sizes.clear()

    def _is_open(self) -> bool:
        """Return whether the folder is still that of the run. Asked before each new file."""
        return True

    def _run_has_ended(self, before: Mapping[Task, Report]) -> None:
        """Note that it is not.

        Args:
            before: What was sent before.
        """

    def lost(self) -> bool:
        """Return False: what was written stays."""
        return False

    def settled(self) -> bool:
        """Return True: what was written is there to be read."""
        return True


def _replace(name: str, state: bytes) -> None:
    """Put a file with a state in the place of the one that there is."""
    unfinished = f"{name}-{next(_numbers)}{UNFINISHED}"
    _write_all(os.open(unfinished, _NEW_FILE, 0o600), state)
    os.replace(unfinished, name + SUFFIX)


def _write_all(file: int, state: bytes) -> None:
    """Write into a file, and close it."""
    try:
        while state:  # also a file takes a part, of a disk that is nearly full
            state = state[os.write(file, state) :]
    finally:
        os.close(file)


def _read_run(folder: str) -> str:
    """Return the id of the run that a folder belongs to.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Another file is there.
    """
    run = json.loads(Path(folder, RUN).read_bytes())["run"]
    return str(run)


read_run = functools.lru_cache(maxsize=8)(_read_run)
"""The same, for folders that no other run will have."""


def is_open(folder: str, run: str) -> bool:
    """Return whether a folder is that of a run, as far as can be seen."""
    try:
        return _read_run(folder) == run
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, TypeError, KeyError):
        return True


_numbers = itertools.count()
"""Number the files that are written, as a handler of a signal may write another one meanwhile."""

_name = ""
"""Names this process, apart from earlier ones with its number and those elsewhere: ``4711-1f2e3d4c``."""


def _name_process() -> None:
    global _name
    _name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"


_name_process()
after_fork_in_child(_name_process)
