"""The folder of an unfinished dataset run, ``<output_path>.partial``.

All work of a run happens there, beside the place where its output will appear::

    out.partial/lock            held while a run is at work; a dead run holds nothing
    out.partial/lease           in place of it, where the file system has no locks
    out.partial/holder.json     who holds it, for the error message of the second run
    out.partial/manifest.json   what the run works on, and how it is cut
    out.partial/published       the output has its place; what is left here is rubbish
    out.partial/shards/00003/   a shard, finished or not
    out.partial/shards/00003/counts.json    what it counted, for the lines of a resumed run
    out.partial/merged/         the output while it is put together
    out.partial/old/            the former output while it is replaced
    out.partial/rubbish/        what could not be deleted yet

The lock lives in the folder, so that nothing is left beside the output. It is the first file there
and the last to go, while it is still held: a run that opened the lock's file before it was deleted
notices (the file has no name any more), starts afresh and finds the output in place.

A folder without a manifest of ours is never touched, and of one that is ours only the entries
above are ever deleted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from .. import __version__
from .._display.format import format_time_of_day
from .._state.ledger import Count, Key, Metric
from .._validation import refuse_too_long, shorten
from .._worker.channel.lock import LEASE, LOCK, hold_folder, is_lost
from ..errors import BusyError, ResumeError
from .disk.obstacles import refuse_immovable
from .files import discard, swap_in, sync, undo_swap, write_json
from .fingerprint import Fingerprint
from .resume import Fresh, Manifest, Refuse, decide
from .saved_dataset import holds_dataset
from .shard_worker import ShardRecord, read_record
from .shards import ShardSpec

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger("speedy_utils")

_HOLDER, _MANIFEST, _PUBLISHED = "holder.json", "manifest.json", "published"
_SHARDS, _MERGED, _OLD, _RUBBISH = "shards", "merged", "old", "rubbish"
_COUNTS = "counts.json"
_LONGEST = len("/shards/00000/01234567/output/data-00000-of-00001.arrow") + 64  # with names of the user's
_FOLDERS = (_SHARDS, _MERGED, _OLD, _RUBBISH)

# What may lie in the folder while there is no manifest, at the very start and at the very end.
_EARLY = frozenset({LOCK, LEASE, _HOLDER, _PUBLISHED, f"{_HOLDER}.tmp", f"{_MANIFEST}.tmp"})


@dataclass
class ShardPlan:
    """The shards of a run, and what is known of the finished ones.

    Attributes:
        specs: All shards, in the order of their rows.
        finished: The records of those that are finished, by index.
    """

    specs: list[ShardSpec]
    finished: dict[int, ShardRecord]

    @property
    def missing(self) -> list[ShardSpec]:
        """The shards that are still to be done."""
        return [spec for spec in self.specs if spec.index not in self.finished]

    def add(self, record: ShardRecord) -> None:
        """Note that a shard is finished."""
        self.finished[record.spec.index] = record


@dataclass
class Workspace:
    """The folder of a run, locked by this process; a context manager that releases the lock.

    Made by :meth:`open`, before the input is loaded; :meth:`resume` then finds out which shards are to be
    done, and :meth:`publish` brings the merged output to its place.

    Attributes:
        output_path: Where the output will appear.
        folder: ``<output_path>.partial``.
        overwrite: Whether a dataset at ``output_path`` may be replaced, and an interrupted run that differs
            from this one be given up.
        published: Whether the output has its place.
    """

    output_path: Path
    folder: Path
    overwrite: bool
    _lock: BaseFileLock = field(repr=False)
    _new_parents: list[Path] = field(repr=False)
    published: bool = False

    @classmethod
    def open(cls, output_path: str | os.PathLike[str], *, overwrite: bool = False) -> Workspace:
        """Lock the folder for an output, which is made if need be, and check that the output may be written.

        An output whose replacement was killed midway is put back first: it may be the input of this run.
        Nothing else that exists is changed.

        Args:
            output_path: Where the output is to appear.
            overwrite: As the attribute.

        Raises:
            FileExistsError: If there is something at ``output_path`` that may not, or can't, be replaced.
            BusyError: If another run is at work on ``output_path``.
            ResumeError: If ``<output_path>.partial`` is something that no run has made.
            TypeError: If ``output_path`` is no path.
            ValueError: If ``output_path`` names no folder that could be made, holds the current folder, or is
                too long.
        """
        output = checked_output(output_path)
        folder = output.with_name(f"{output.name}.partial")
        refuse_too_long(folder, "output_path", _LONGEST, output)
        _refuse_foreign(folder)
        new_parents = [parent for parent in folder.parents if not parent.exists()]
        cure = "Wait for it to end, or choose another output_path."
        lock = hold_folder(folder, _HOLDER, what=repr(str(output)), cure=cure)
        workspace = cls(output, folder, overwrite, lock, new_parents)
        with contextlib.ExitStack() as undo:
            undo.callback(workspace.close)
            # The disk may be full.
            write_json(folder / _HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
            if not (folder / _PUBLISHED).exists():  # then it is rubbish, and may be half deleted
                undo_swap(output, folder / _OLD)
            _refuse_existing(output, overwrite=overwrite)
            if output.exists():
                refuse_immovable(output)
            undo.pop_all()
        return workspace

    def resume(
        self,
        fingerprint: Fingerprint,
        *,
        num_shards: int | None,
        default_shards: int,
        resume: bool | Literal["trust"] = True,
    ) -> ShardPlan:
        """Begin a run, or resume the interrupted one; nothing is changed before it is clear which.

        Args:
            fingerprint: What the run works on and with.
            num_shards: As for :func:`.resume.decide`, like the other arguments.
            default_shards: How many shards to cut if neither the user nor an interrupted run says.
            resume: Whether the finished shards of an interrupted run are kept.

        Returns:
            The shards, with the records of those that are finished.

        Raises:
            ResumeError: If an interrupted run differs from this one.
        """
        published = (self.folder / _PUBLISHED).exists()
        manifest = _read_manifest(self.folder) if resume and not published else None
        specs = [] if manifest is None else manifest.specs
        records = [read_record(self.shard_dir(spec), spec) for spec in specs]
        finished = {record.spec.index: record for record in records if record is not None}
        decision = decide(
            manifest,
            finished,
            fingerprint,
            num_shards=num_shards,
            default_shards=default_shards,
            resume=resume,
            overwrite=self.overwrite,
        )
        if isinstance(decision, Refuse):
            raise ResumeError(f"{str(self.folder)!r} holds {decision.why}")
        if isinstance(decision, Fresh):
            # The manifest comes first: a folder with shards and without one would count as another program's.
            for name in (_SHARDS, _MERGED, _PUBLISHED):
                self.discard(self.folder / name)
            self._write_manifest(fingerprint, len(decision.specs))
            (self.folder / _SHARDS).mkdir()
            return ShardPlan(decision.specs, {})
        plan = ShardPlan(decision.specs, decision.finished)
        for spec in plan.missing:
            self.discard(self.shard_dir(spec))
        self._write_manifest(fingerprint, len(plan.specs))
        return plan

    def _write_manifest(self, fingerprint: Fingerprint, num_shards: int) -> None:
        write_json(self.folder / _MANIFEST, Manifest(fingerprint, num_shards, __version__).to_json())

    @property
    def merged(self) -> Path:
        """Where the output is put together."""
        return self.folder / _MERGED

    def shard_dir(self, spec: ShardSpec) -> Path:
        """Return the folder of a shard."""
        return self.folder / _SHARDS / f"{spec.index:05d}"

    def discard(self, path: Path) -> None:
        """Delete something in the folder, or set it aside until it can be deleted."""
        discard(path, self.folder / _RUBBISH)

    def keep_counts(self, spec: ShardSpec, counts: Mapping[Key, Count]) -> None:
        """Note what a finished shard has counted: ``[["Tokenize", 2, "tokens", 512], ...]``."""
        text = json.dumps([[*key, amount] for key, amount in counts.items()])
        with contextlib.suppress(OSError):  # such as a full disk: it changes the lines of a resumed run only
            (self.shard_dir(spec) / _COUNTS).write_text(text, encoding="utf-8")

    def kept_counts(self, spec: ShardSpec) -> dict[Key, Count] | None:
        """Return what a finished shard has counted; None if that is unknown."""
        try:
            raw = json.loads((self.shard_dir(spec) / _COUNTS).read_text(encoding="utf-8"))
            return {Key(stage, Metric(metric), label): amount for stage, metric, label, amount in raw}
        except (OSError, ValueError, TypeError):
            return None

    def kept_from(self, plan: ShardPlan) -> str:
        """Return when the last of the finished shards was finished: ``09:35``, or ``2026-11-28 09:35``."""
        times = [
            (self.shard_dir(record.spec) / "record.json").stat().st_mtime for record in plan.finished.values()
        ]
        return format_time_of_day(max(times))

    def publish(self) -> None:
        """Bring the merged output to ``output_path``, then delete the folder and release the lock.

        Raises:
            BusyError: If another run has taken the folder, because the lease of this one has expired.
            FileExistsError: If something has appeared at ``output_path`` that may not be replaced.
        """
        if is_lost(self._lock):
            raise BusyError(
                f"This run was not heard of for so long that another one has taken {str(self.folder)!r}, and "
                "goes on there with the finished shards."
            )
        _refuse_existing(self.output_path, overwrite=self.overwrite)
        with contextlib.suppress(OSError):  # of a folder, only an empty one goes
            self.output_path.rmdir()
        if os.path.lexists(self.output_path):
            self.discard(self.folder / _OLD)
            swap_in(self.merged, self.output_path, self.folder / _OLD)
        else:
            os.rename(self.merged, self.output_path)
            sync(self.output_path.parent)
        self.published = True
        self._remove()

    def _remove(self) -> None:
        """Delete the folder, once the output is in its place.

        It stays if something in it is not the run's own, or if a file can't be deleted yet; that is no
        failure of the run. The next one deletes it.
        """
        # First of all, so that no run takes a folder that is half deleted for an unfinished one.
        with contextlib.suppress(OSError):  # a full disk gets room from what is deleted next
            (self.folder / _PUBLISHED).touch()
        for name in _FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if any(os.path.lexists(self.folder / name) for name in _FOLDERS):
            logger.warning(
                "%s is complete, but %s can't be deleted yet; nothing in it is needed, and the next call "
                "with this output_path deletes it",
                self.output_path,
                self.folder,
            )
        else:
            # The manifest before the lock, and after the folders: see the top of this module.
            with contextlib.suppress(OSError):
                (self.folder / _MANIFEST).unlink(missing_ok=True)
                self._remove_early()
        self._lock.release()

    def _remove_early(self) -> None:
        """Delete what lies in the folder beside a manifest, the lock last, and the folder if it is empty."""
        for name in (*sorted(_EARLY - {LOCK, LEASE}), LOCK):
            (self.folder / name).unlink(missing_ok=True)
        self._lock.release()  # which deletes a lease; NFS deletes no file that is open
        self.folder.rmdir()

    def close(self) -> None:
        """Release the lock. A folder that nothing but the lock has come into is deleted. Idempotent."""
        if not self._lock.is_locked:
            return
        # Windows deletes no file that is open, such as the lock: an empty folder is left there.
        with contextlib.suppress(OSError):
            if _is_early(self.folder):
                self._remove_early()
                for parent in self._new_parents:
                    parent.rmdir()
        self._lock.release()

    def __enter__(self) -> Workspace:
        """Return the workspace itself: it is locked already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        self.close()


def checked_output(output_path: str | os.PathLike[str], name: str = "output_path") -> Path:
    """Return the output's path, independent of the current folder.

    Args:
        output_path: The path.
        name: The name of the argument.

    Raises:
        TypeError: If it is no path.
        ValueError: If it names no folder that could be made, or the current folder or one above it.
    """
    text = os.fspath(output_path) if isinstance(output_path, os.PathLike) else output_path
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or a path, not {shorten(output_path)}")
    if "://" in text:
        raise ValueError(f"{name} must be a folder of a mounted file system, not {text!r}")
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if not text or "\0" in text or not path.name:
        raise ValueError(f"{name} must name a folder to be made, not {text!r}")
    with contextlib.suppress(FileNotFoundError):  # the current folder was deleted
        current, real = Path.cwd(), Path(os.path.realpath(path))
        if real == current or real in current.parents:
            raise ValueError(
                f"{name} {text!r} is the current folder or holds it. Name a new folder, such as "
                f"{os.path.join(text, 'out')!r}."
            )
    return path


def _refuse_existing(output: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError if something at the output's path stands in the way.

    Args:
        output: The path.
        overwrite: Whether a saved dataset there may be replaced. Nothing else ever is, but an empty folder.
    """
    if not os.path.lexists(output):
        return
    if output.is_symlink():
        raise FileExistsError(f"output_path {str(output)!r} is a symbolic link; pass the path it leads to.")
    if output.is_dir() and not os.listdir(output):
        return
    if not overwrite:
        raise FileExistsError(
            f"output_path {str(output)!r} exists. Choose another one, or pass overwrite=True: the old data "
            "is then replaced once the new is whole."
        )
    if not output.is_dir() or not holds_dataset(output):
        raise FileExistsError(
            f"output_path {str(output)!r} exists and is no saved dataset, so overwrite=True does not replace "
            "it. Choose another one, or delete it yourself."
        )


def _refuse_foreign(folder: Path) -> None:
    """Raise if ``<output_path>.partial`` is something that no run of ours has made."""
    if not os.path.lexists(folder):
        return
    ours = folder.is_dir() and not folder.is_symlink()
    if ours and not _is_early(folder):
        ours = _read_manifest(folder) is not None
    if not ours:
        raise ResumeError(
            f"{str(folder)!r}, where the work would happen, exists and holds no manifest of an interrupted "
            "run. It is left as it is: move or delete it, or choose another output_path."
        )


def _is_early(folder: Path) -> bool:
    """Whether a folder holds only what may be there without a manifest.

    NFS keeps a file that was deleted while it is open, as ``.nfs0001``.
    """
    return all(name in _EARLY or name.startswith(".nfs") for name in os.listdir(folder))


def _read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest, or None if there is none of ours."""
    try:
        return Manifest.from_json(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
