"""Reads what the processes of a run have written into its folder."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..._state.ledger import Report, Stage
from ..._state.timings import StageTimings
from .state_file import RUN, STATE_NAME, decode_state

logger = logging.getLogger("speedy_utils")

MAX_FILE_BYTES = 4_000_000
"""Bytes of a state file that are read at most: fifty stages of a task take some 10 kB."""

_READ_BYTES = 1 << 16


class FolderReader:
    """Reads what has changed in a run's folder.

    Args:
        folder: The run's folder.
        run: The id of the run.
    """

    def __init__(self, folder: str | Path, run: str) -> None:
        self._folder, self._run = str(folder), run
        self._owner = _owner_of(self._folder)
        self._seen: dict[str, tuple[int, int, int]] = {}  # by file: its inode, its size, when it was changed
        self._warned = False

    @property
    def has_files(self) -> bool:
        """Whether there was any state file at the last look."""
        return bool(self._seen)

    def processes(self) -> set[int]:
        """Return the numbers of the processes that have a file now, on whatever machine."""
        with suppress(OSError):
            names = os.listdir(self._folder)
            return {int(name.partition("-")[0]) for name in names if STATE_NAME.fullmatch(name)}
        return set()

    def collect(self, *, everything: bool = False) -> tuple[Iterable[Report], StageTimings]:
        """Return the reports of the files that have changed since the last call, and the stages' timings.

        Args:
            everything: Whether to read each file, also one that seems to be unchanged: the last reading of
                counts that come on no other way. A network's file system tells late what has changed.
        """
        reports: list[Report] = []
        timings: dict[Stage, tuple[float, float]] = {}
        for name, status in self._changed(everything=everything):
            path = f"{self._folder}{os.sep}{name}"
            try:
                self._check(status)
                found, times = decode_state(_read(path, status.st_size), self._run)
            except FileNotFoundError:  # it was removed
                continue
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                self._warn(path, error)
                continue
            reports += found
            for stage, (started, moved) in times.items():
                known = timings.get(stage)
                if known is None:
                    timings[stage] = started, moved
                elif started > known[0] or moved < known[1]:
                    timings[stage] = max(known[0], started), min(known[1], moved)
        return reports, timings

    def _changed(self, *, everything: bool) -> Iterable[tuple[str, os.stat_result]]:
        """Return the names of the files to read, each with what it is."""
        before, changed = self._seen, []
        seen: dict[str, tuple[int, int, int]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    name = entry.name
                    if not STATE_NAME.fullmatch(name):
                        continue
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        seen[name] = state = status.st_ino, status.st_size, status.st_mtime_ns
                        if everything or before.get(name) != state:
                            changed.append((name, status))
        except FileNotFoundError:  # the run has ended
            return []
        except OSError as error:
            self._warn(self._folder, error)
            return []
        self._seen = seen
        return changed

    def _check(self, status: os.stat_result) -> None:
        """Raise a ValueError if a file is not one that a process of the run can have written."""
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a plain file")
        if status.st_uid != self._owner:
            raise ValueError("it belongs to another user")
        if status.st_size > MAX_FILE_BYTES:
            raise ValueError(f"it has {status.st_size:,} bytes")

    def _warn(self, path: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "counts in %s can't be read (%s: %s) and are left out until they can; the work goes on, "
                "and this warning comes only once",
                path,
                type(error).__name__,
                error,
            )


def _read(path: str, size: int) -> bytes:
    """Return what is in a file.

    Args:
        path: The file.
        size: How many bytes it had; it may have been replaced since.
    """
    # Neither waits for the writer of a named pipe nor follows a link, which may have come in its place.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        text = part = os.read(file, max(size, _READ_BYTES))
        while len(part) >= _READ_BYTES and len(text) <= MAX_FILE_BYTES:
            part = os.read(file, _READ_BYTES)
            text += part
        return text
    finally:
        os.close(file)


def _owner_of(folder: str) -> int:
    """Return whom the files of a run belong to: its driver, by whatever name a file server knows that."""
    try:
        return os.lstat(os.path.join(folder, RUN)).st_uid
    except OSError:
        return os.getuid() if hasattr(os, "getuid") else 0
