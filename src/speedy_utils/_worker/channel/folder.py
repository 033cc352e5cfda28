"""The folder of a run: each process that works for the run keeps its counts there, in one small file.

run                      which run it is, and where its driver runs
lock                     held by the driver while the run goes on; a dead one holds nothing
4711-1f2e3d4c.json       the state of a process; see state_file.py
4711-1f2e3d4c-0.json     what tasks of that process have counted that won't change any more
4711-1f2e3d4c-17.new     a state that is being written
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._validation import refuse_too_long
from .lock import LEASE, LOCK, hold_folder
from .state_file import BEGINNING, HOST, RUN, STATE_NAME, UNFINISHED

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PREFIX = f"speedy_utils-{os.getuid() if hasattr(os, 'getuid') else 0}-"
"""What the names of folders begin with that no user has named."""

_RUN, _NEW = f"{_PREFIX}run-", f"{_PREFIX}new-"
"""And then: once their driver holds the lock, and before."""

_LONGEST = len("/0123456789-01234567-0123456789-0123456789.new")

_UNFINISHED_NAME = re.compile(rf"\d+-[0-9a-f]{{8}}(-\d+){{1,2}}{re.escape(UNFINISHED)}")
"""The names of state files that are being written."""

_ABANDONED_AFTER_S = 60.0
"""Seconds after which a folder that its driver has not made ready is taken for abandoned."""


class RunFolder:
    """The folder of a run, for the state files of its processes. It goes with :meth:`close`.

    Without a name it is made in ``XDG_RUNTIME_DIR``, in ``/dev/shm`` or in the temporary folder, the first
    that takes it, and only its user can read it. What drivers that were killed have left there is removed.

    Args:
        folder: A folder of the user's, on storage that the machines of the run share. What an earlier run
            has left in it is removed, and nothing else.
        settings: What processes have to know that have the name of the folder alone, as JSON takes it.

    Attributes:
        path: The folder.
        run: The id of the run. Files of an earlier one may still be written.

    Raises:
        BusyError: A run that goes on holds ``folder``.
        OSError: ``folder`` can't be written to, or holds other files under the names of a run's.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        self._settings = dict(settings or {})
        self.run = uuid.uuid4().hex[:8]
        self._given = folder is not None
        self._made = False
        if folder is None:
            self.path, self._lock = self._new_folder()
        else:
            self.path = Path(folder).absolute()
            refuse_too_long(self.path, "folder", _LONGEST)
            self._made = not self.path.exists()
            cure = "Wait for it to end, or give another folder."
            self._refuse_other_files()
            self._lock = hold_folder(self.path, RUN, what=f"folder={str(folder)!r}", cure=cure)
            try:
                self._remove_files()
                self._write_run(self.path)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Remove what is of the run, and the folder if the run has made it. Idempotent."""
        if not self._lock.is_locked:
            return
        if not self._given:
            self._lock.release()
            shutil.rmtree(self.path, ignore_errors=True)
            return
        self._remove_files()
        with suppress(OSError):  # the last to go: who has opened it meanwhile finds that it is gone
            (self.path / LOCK).unlink()
        self._lock.release()  # which deletes a lease
        if self._made:
            with suppress(OSError):  # something else has come into it
                self.path.rmdir()

    def __enter__(self) -> RunFolder:
        """Return the folder itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()

    def _refuse_other_files(self) -> None:
        for name in (RUN, LOCK):
            file = self.path / name
            if os.path.lexists(file) and not _is_of_run(file):
                raise FileExistsError(
                    f"folder={str(self.path)!r} holds {name!r}, which no run has made: give a folder that is "
                    "for runs alone, which need not exist"
                )

    def _new_folder(self) -> tuple[Path, BaseFileLock]:
        tried: list[Path] = []
        for parent in map(Path, _parents()):
            tried.append(parent)
            try:
                return self._make_in(parent)
            except OSError as error:
                failed = error
        raise OSError(
            failed.errno,
            f"there is no place for the counts of a run ({failed.strerror}): tried "
            f"{', '.join(map(str, tried))}. Make room, or name another folder by TMPDIR",
        )

    def _make_in(self, parent: Path) -> tuple[Path, BaseFileLock]:
        """Make a folder of this user's alone, and hold it.

        Raises:
            OSError: The place can't be written to, or is full.
        """
        made = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
        try:
            lock = hold_folder(made, RUN, what=str(made), cure="")
            self._write_run(made)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        # Another driver that starts at this moment must not find it without its lock.
        named = parent / f"{_RUN}{made.name.removeprefix(_NEW)}"
        with suppress(OSError):  # Windows does not rename what holds an open file
            made = made.rename(named)
        _remove_abandoned(parent)
        return made, lock

    def _write_run(self, path: Path) -> None:
        unfinished = path / f"{os.getpid()}-{self.run}-0{UNFINISHED}"
        unfinished.write_text(
            json.dumps({"run": self.run, "host": HOST, "pid": os.getpid(), **self._settings}), "ascii"
        )
        os.replace(unfinished, path / RUN)

    def _remove_files(self) -> None:
        with suppress(OSError):
            for name in os.listdir(self.path):
                named = name == RUN or STATE_NAME.fullmatch(name) or _UNFINISHED_NAME.fullmatch(name)
                if named and _is_of_run(self.path / name):
                    with suppress(OSError):
                        (self.path / name).unlink()


def _is_of_run(file: Path) -> bool:
    """Return whether a file is empty, or begins as those of runs do, and not just has a name like theirs."""
    with suppress(OSError):
        if stat.S_ISREG(file.lstat().st_mode):
            with file.open("rb") as opened:
                return BEGINNING.startswith(opened.read(len(BEGINNING)))
    return False


def _parents() -> Iterator[str]:
    """Yield the folders in which the folder of a run can be made."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):  # noqa: S108 - mkdtemp makes one there
        if parent and os.path.isdir(parent):
            yield parent
    yield tempfile.gettempdir()


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user's whose driver is gone: the system has released its lock."""
    from filelock import FileLock, Timeout

    for folder in [*parent.glob(f"{_RUN}*"), *parent.glob(f"{_NEW}*")]:
        lock = folder / LOCK
        with suppress(OSError, Timeout):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
                continue
            made = folder.name.startswith(_RUN) and lock.exists()
            # Else it is just being made, or half removed; or it has a lease, which is not touched then.
            if not made and time.time() - status.st_mtime <= _ABANDONED_AFTER_S:
                continue
            if (folder / LEASE).exists():
                continue
            with FileLock(str(lock)).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
