"""The channel of state files: each process that works for a run keeps its counts in one small file.

The file is replaced in one step, so a reader finds a whole state, an older one or none::

    4711-1f2e3d4c.json  {"written": 1764450000.5, "timings": [[null, 3.5, 0.25]],
                         "reports": [[7, 1, [[null, 0, "", 60]], 12, ["node-1", 4711], ""]]}

Each report has the fields of a ``Report``; its counts are lists of stage, metric, label and amount.
What a task has counted is a state and no difference, so a late, torn or lost file costs freshness alone.
Nothing in a file is trusted: it is JSON, of limited size, and what is no report is left out with a warning.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..._interrupts import after_fork_in_child
from ..._state.ledger import Count, Key, Location, Metric, Report
from ..._state.timings import StageTimings

logger = logging.getLogger("speedy_utils")

WRITE_INTERVAL_S = 0.1
"""Seconds between two writes of a process. One takes some 0.1 ms."""

MAX_FILE_BYTES = 4_000_000
"""Bytes of a state file that are read at most: fifty stages of a task take some 10 kB."""

_RUN, _NEW = "run-", "new-"
"""What the names of folders begin with: once their driver holds the lock, and before."""

_SUFFIX = ".json"

_OWNER = "owner"
"""The file that the driver of a run holds locked, so that the folders of dead drivers can be known."""


class FolderSink:
    """Keeps the state of this process in a file of the run's folder.

    Args:
        folder: The run's folder.

    Attributes:
        interval: Seconds between two calls of :meth:`send`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.interval = WRITE_INTERVAL_S
        self._folder = Path(folder)
        self._location = socket.gethostname(), os.getpid()

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:  # noqa: ARG002 - a state is replaced whole, the last one too
        """Write the state of some tasks; see :class:`~speedy_utils._worker.channel.flusher.Sink`.

        Raises:
            OSError: The file can't be written.
        """
        state = {
            "written": time.time(),
            "reports": [
                [
                    *(report.task, report.attempt, [[*key, count] for key, count in report.counts.items()]),
                    *(report.reading, self._location, report.stack),
                ]
                for report in reports
            ],
            "timings": [[stage, *times] for stage, times in timings.items()],
        }
        name = f"{os.getpid()}-{_process_id}"
        unfinished = self._folder / f"{name}.new"
        unfinished.write_text(json.dumps(state))
        os.replace(unfinished, self._folder / f"{name}{_SUFFIX}")
        return True

    def lost(self) -> bool:
        """Return False: what was written stays."""
        return False

    def settled(self) -> bool:
        """Return True: what was written is there to be read."""
        return True


_process_id = uuid.uuid4().hex[:8]
"""Tells this process from an earlier one with the same number, and from one of another machine."""


def _note_fork() -> None:
    global _process_id
    _process_id = uuid.uuid4().hex[:8]


after_fork_in_child(_note_fork)


class FolderReader:
    """Reads what has changed in a run's folder.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = str(folder)
        self._seen: dict[str, tuple[int, int]] = {}  # by file: its inode and when it was changed
        self._warned = False

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return the reports of the files that were replaced since the last call, and the stages' timings."""
        reports: list[Report] = []
        timings: dict[str | None, tuple[float, float]] = {}
        for path in self._changed():
            try:
                state = _read(path)
            except FileNotFoundError:  # replaced, or removed with its process
                continue
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                self._warn(path, error)
                continue
            reports += state[0]
            for stage, times in state[1].items():
                known = timings.get(stage, times)
                timings[stage] = max(known[0], times[0]), min(known[1], times[1])
        return reports, timings

    def _changed(self) -> Iterator[str]:
        seen: dict[str, tuple[int, int]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(_SUFFIX):
                        with suppress(OSError):  # it is gone
                            status = entry.stat(follow_symlinks=False)
                            seen[entry.name] = status.st_ino, status.st_mtime_ns
        except OSError as error:
            self._warn(self._folder, error)
            return
        before, self._seen = self._seen, seen
        for name, state in seen.items():
            if before.get(name) != state:
                yield os.path.join(self._folder, name)

    def _warn(self, path: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "counts in %s can't be read (%s: %s) and are left out: the bar may lag, the work goes on and "
                "the final count stays exact; this warning comes only once",
                path,
                type(error).__name__,
                error,
            )


def _read(path: str) -> tuple[list[Report], dict[str | None, tuple[float, float]]]:
    """Return the reports and the timings of a state file.

    Raises:
        OSError: It can't be read.
        ValueError: It is no state file of this user.
        TypeError: As above.
        KeyError: As above.
    """
    # Neither waits for the writer of a named pipe nor follows a link.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a plain file")
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            raise ValueError("it belongs to another user")
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(f"it has {status.st_size:,} bytes")
        text = os.read(file, status.st_size)
    finally:
        os.close(file)
    state = json.loads(text)
    reports = [_report(*each) for each in state["reports"]]
    age = max(0.0, time.time() - _number(state["written"]))
    timings = {_stage(stage): (_number(a) + age, _number(b) + age) for stage, a, b in state["timings"]}
    return reports, timings


def _report(task: Any, attempt: Any, counts: Any, reading: Any, location: Any, stack: Any) -> Report:
    if type(task) not in (int, str) or type(attempt) is not int or type(reading) is not int:
        raise ValueError("it holds no report")
    found: Mapping[Key, Count] = {
        Key(_stage(stage), Metric(metric), _text(label)): _number(count)
        for stage, metric, label, count in counts
    }
    if location is not None:
        node, pid = location
        location = Location(_text(node), int(_number(pid)))
    return Report(task, attempt, found, reading, location, _text(stack))


def _stage(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("it holds a name that is no text")
    return value


_MOST = 10**30
"""An amount that nothing reaches. JSON has numbers of any length."""


def _number(value: Any) -> Count:
    if type(value) not in (int, float) or not abs(value) < _MOST:
        raise ValueError("it holds an amount that is no number")
    number: Count = value
    return number


class RunFolder:
    """The folder of a run, for the state files of its processes. It goes with :meth:`close`.

    It is made in ``XDG_RUNTIME_DIR``, in ``/dev/shm`` or in the temporary folder, the first that takes it,
    and only its user can read it. What drivers that were killed have left there is removed.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        base = _base_folder()
        _remove_abandoned(base)
        self.path = Path(tempfile.mkdtemp(prefix=_NEW, dir=base))
        from filelock import FileLock  # takes 20 ms to import

        self._owner = FileLock(str(self.path / _OWNER), thread_local=False)
        self._owner.acquire(timeout=0)
        # Another driver that starts at this moment must not find it without its lock.
        named = base / f"{_RUN}{self.path.name.removeprefix(_NEW)}"
        with suppress(OSError):  # Windows does not rename what holds an open file
            self.path = self.path.rename(named)

    def close(self) -> None:
        """Remove the folder. Idempotent."""
        self._owner.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _base_folder() -> Path:
    """Return this user's folder for the folders of runs; it is made if need be."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm", tempfile.gettempdir()):  # noqa: S108 - a folder of the user's own is made there
        if not parent or not os.path.isdir(parent):
            continue
        folder = Path(parent, f"speedy_utils-{user}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        private = status.st_uid == user and stat.S_IMODE(status.st_mode) == 0o700
        if stat.S_ISDIR(status.st_mode) and private and os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="speedy_utils-"))


def _remove_abandoned(base: Path) -> None:
    """Remove the folders whose driver is gone: the system has released its lock."""
    from filelock import FileLock, Timeout

    for folder in [*base.glob(f"{_RUN}*"), *base.glob(f"{_NEW}*")]:
        owner = folder / _OWNER
        with suppress(OSError, Timeout):
            made = folder.name.startswith(_RUN) and owner.exists()
            # Else it is just being made, or half removed.
            if not made and time.time() - folder.stat().st_mtime <= _ABANDONED_AFTER_S:
                continue
            with FileLock(str(owner)).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


_ABANDONED_AFTER_S = 60.0
"""Seconds after which a folder that its driver has not made ready is taken for abandoned."""
