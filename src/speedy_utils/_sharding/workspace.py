"""The folder of an unfinished dataset run, ``<output_path>.partial``.

All work of a run happens there, beside the place where its output will appear::

    out.partial/lock            held while a run is at work; a dead run holds nothing
    out.partial/holder.json     who holds it, for the error message of the second run
    out.partial/manifest.json   what the run works on, and how it is cut
    out.partial/published       the output has its place; what is left here is rubbish
    out.partial/shards/00003/   a shard, finished or not
    out.partial/merged/         the output while it is put together
    out.partial/old/            the former output while it is replaced

The lock lives in the folder, so that nothing is left beside the output. It is the first file there
and the last to go, while it is still held: whoever waits for a lock that was deleted meanwhile
notices (the lock then has no name any more), starts afresh and finds the output in place.

A folder without a manifest of ours is never touched, and of one that is ours only the entries
above are ever deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import BusyError
from .files import write_json
from .shard_worker import ShardRecord
from .shards import ShardSpec

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK, HOLDER, MANIFEST, PUBLISHED = "lock", "holder.json", "manifest.json", "published"


SHARDS, MERGED, OLD = "shards", "merged", "old"


FOLDERS = (SHARDS, MERGED, OLD)


# What may lie in the folder while there is no manifest, at the very start and at the very end.
EARLY = frozenset({LOCK, HOLDER, PUBLISHED, f"{HOLDER}.tmp", f"{MANIFEST}.tmp"})


@dataclass
class Workspace:
    """An unfinished run that this process has locked; a context manager that lets go of the lock.

    Attributes:
        output_path: Where the output will appear.
        folder: ``<output_path>.partial``.
        plan: All shards of the run.
        finished: The records of those that are finished, by index.
        overwrite: Whether the output may replace a dataset that is there already.
        published: Whether the output has its place.
    """

    output_path: Path
    folder: Path
    plan: list[ShardSpec]
    finished: dict[int, ShardRecord]
    overwrite: bool
    _lock: BaseFileLock = field(repr=False)
    published: bool = False

    @property
    def missing(self) -> list[ShardSpec]:
        """The shards that are still to be done."""
        return [spec for spec in self.plan if spec.index not in self.finished]

    @property
    def merged(self) -> Path:
        """Where the output is put together."""
        return self.folder / MERGED

    @property
    def old(self) -> Path:
        """Where the former output waits while it is replaced."""
        return self.folder / OLD

    def shard_dir(self, spec: ShardSpec) -> Path:
        """The folder of a shard."""
        return self.folder / SHARDS / f"{spec.index:05d}"

    def add(self, record: ShardRecord) -> None:
        """Note that a shard is finished."""
        self.finished[record.spec.index] = record

    def remove(self) -> None:
        """Delete the folder, once the output is in its place.

        It stays where something in it is not the run's own, and where a file can't be deleted yet; that is no
        failure of the run.
        """
        # First of all, so that nobody takes a folder that is half deleted for an unfinished run.
        with contextlib.suppress(OSError):  # a full disk gets room from what is deleted next
            (self.folder / PUBLISHED).touch()
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if not any(os.path.lexists(self.folder / name) for name in FOLDERS):
            # The manifest before the lock, and after the folders: see the top of this module.
            with contextlib.suppress(OSError):
                for name in (MANIFEST, PUBLISHED, HOLDER, LOCK):
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
        self.close()

    def close(self) -> None:
        """Let go of the lock; the folder stays."""
        self._lock.release()

    def __enter__(self) -> Workspace:
        """Return the run itself: it is locked already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock."""
        self.close()


def lock_folder(folder: Path) -> BaseFileLock:
    """Make the folder and lock it, without waiting.

    Raises:
        BusyError: If another run holds the lock.
    """
    from filelock import FileLock, Timeout

    for _ in range(10):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder / LOCK))
        try:
            lock.acquire(timeout=0)
        except FileNotFoundError:
            continue  # a run that ended just now took the folder with it
        except Timeout as error:
            raise BusyError(
                f"Another run is at work on {str(folder.with_suffix(''))!r}{_holder(folder)}. Wait for it to "
                "end, or choose another output_path."
            ) from error
        if (folder / LOCK).exists():
            with contextlib.ExitStack() as undo:  # the disk may be full
                undo.callback(unlock_folder, folder, lock)
                write_json(folder / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
                undo.pop_all()
            return lock
        lock.release()
    raise BusyError(f"{str(folder)!r} is deleted again and again by other runs; choose another output_path.")


def unlock_folder(folder: Path, lock: BaseFileLock) -> None:
    """Undo the locking of a folder, and its making if nothing else came into it."""
    if set(os.listdir(folder)) <= EARLY:
        for name in (*(EARLY - {LOCK}), LOCK):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
    lock.release()


def _holder(folder: Path) -> str:
    """Who holds the lock, as far as they have said."""
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f" (process {holder['pid']} on {holder['host']})"
    except (OSError, ValueError, LookupError, TypeError):
        return ""
