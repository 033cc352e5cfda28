"""The folder of a checkpoint: what a call of ``multi_process`` has finished, and whether this is that call.

::

    answers/lock             held while a run is at work; a dead run holds nothing
    answers/lease            in place of it, where the file system has no locks
    answers/holder.json      who holds it, for the error message of the second run
    answers/manifest.json    the function, its arguments and the items
    answers/items            the key of each item, one after the other
    answers/results-00001    results, see .records

The folder stays when the run is over: the same call then returns what it holds. Results are pickles, so a
folder is as trustworthy as a program. A folder that holds something else is never touched, and only
``resume=False`` deletes results.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cloudpickle

from .. import __version__
from .._display.format import format_time_of_day
from .._engines.identity.parts import parts_of
from .._sharding.files import sync, write_json
from .._sharding.fingerprint import Fingerprint, Part, full_name, function_differences, hash_value
from .._sharding.resume import checked_resume
from .._sharding.workspace import checked_output
from .._state.ledger import Count, Key, Metric
from .._validation import refuse_too_long, shorten
from .._worker.channel.lock import LEASE, LOCK, hold_folder, is_lost
from ..errors import BusyError, ResumeError
from .item_keys import item_keys, tell_difference
from .records import KEY_BYTES, RecordWriter, pack_record, read_records, record_files

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger("speedy_utils")

_KIND, _VERSION = "speedy_utils.multi_process", 1
_MANIFEST, _ITEMS, _HOLDER = "manifest.json", "items", "holder.json"
_LONGEST = len("/results-00001") + 64  # with names that file systems make
_EARLY = frozenset({LOCK, LEASE, _HOLDER, f"{_HOLDER}.tmp", f"{_MANIFEST}.tmp", _ITEMS, f"{_ITEMS}.tmp"})


class Kept(NamedTuple):
    """What an earlier run has kept of a task.

    Attributes:
        value: What the function returned.
        counts: What it had counted.
    """

    value: Any
    counts: dict[Key, Count]


class Checkpoint:
    """A folder that this process has locked; a context manager that writes what waits and releases the lock.

    Made by :meth:`open`.

    Attributes:
        folder: The folder.
        kept: What earlier runs have kept of the tasks of this one, by the position of the item.
        kept_from: When the last of that was kept: ``09:35``; empty if there is none.
    """

    def __init__(self, folder: Path, lock: BaseFileLock) -> None:
        self.folder = folder
        self.kept: dict[int, Kept] = {}
        self.kept_from = ""
        self._lock = lock
        self._keys: list[bytes] = []
        self._writer: RecordWriter | None = None

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        func: Callable[..., Any],
        kwargs: Mapping[str, Any],
        items: Sequence[Any],
        resume: bool | Literal["trust"],
    ) -> Checkpoint:
        """Lock a folder, which is made if need be, and read what it holds for a call.

        Args:
            folder: Its path.
            func: The function of the call.
            kwargs: Its arguments besides the item.
            items: The items.
            resume: True refuses the results of a call that differs; ``"trust"`` keeps those of the same
                items; False deletes them.

        Raises:
            BusyError: Another run is at work there.
            ResumeError: The folder holds something else, results of a call that differs, or results that
                can't be read.
            TypeError: It is no path, or an item can't be recognised.
            ValueError: It names no folder that could be made.
        """
        path, resume = checked_output(folder, "checkpoint"), checked_resume(resume)
        refuse_too_long(path, "checkpoint", _LONGEST)
        _refuse_foreign(path)
        now, keys = _identify(func, kwargs, items)
        what, cure = f"the checkpoint {str(path)!r}", "Wait for it to end, or choose another folder."
        checkpoint = cls(path, hold_folder(path, _HOLDER, what=what, cure=cure))
        try:
            write_json(path / _HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
            checkpoint._keys = keys
            checkpoint._resume(now, items, resume)
        except BaseException:
            checkpoint.close()
            raise
        return checkpoint

    def _resume(self, now: Fingerprint, items: Sequence[Any], resume: bool | Literal["trust"]) -> None:
        files = record_files(self.folder)
        if not resume:
            for file in files:
                file.unlink()
            files = []
        pickled = {key: value for file in files for key, value in read_records(file)}
        was = _read_manifest(self.folder)
        if pickled and was is not None:
            positions = {key: position for position, key in enumerate(self._keys)}
            found = _differences(was, now, self.folder, self._keys, items)
            known = sum(key in positions for key in pickled)
            if found and (resume != "trust" or not known):
                raise ResumeError(_refusal(self.folder, len(pickled), known, found))
            self.kept = {
                positions[key]: self._load(value, items[positions[key]])
                for key, value in pickled.items()
                if key in positions
            }
        if self.kept:
            self.kept_from = format_time_of_day(max(file.stat().st_mtime for file in files))
        self._write_manifest(now)

    def _load(self, pickled: bytes, item: Any) -> Kept:
        try:
            value, counts = pickle.loads(pickled)  # noqa: S301 - see the top of this module
            return Kept(value, {Key(stage, Metric(metric), label): n for stage, metric, label, n in counts})
        except Exception as error:  # it is code of the user's classes
            raise ResumeError(
                f"{str(self.folder)!r} holds a result of item {shorten(item, 80)} that can't be read: "
                f"{type(error).__name__}: {error}. Nothing was changed: make the code that the result needs "
                "importable as it was, or start over with resume=False, which gives all results up."
            ) from error

    def _write_manifest(self, now: Fingerprint) -> None:
        scratch = self.folder / f"{_ITEMS}.tmp"
        scratch.write_bytes(b"".join(self._keys))
        sync(scratch)
        os.replace(scratch, self.folder / _ITEMS)
        write_json(
            self.folder / _MANIFEST,
            {
                "kind": _KIND,
                "version": _VERSION,
                "written_by": __version__,
                "function": now.function,
                "parts": now.parts,
                "items": now.dataset,
                "num_items": now.num_rows,
            },
        )

    def keep(self, task: int, value: Any, counts: Mapping[Key, Count]) -> None:
        """Write down what a task has returned and counted; that it is on the disk is known at the end.

        Raises:
            TypeError: It can't be pickled.
            OSError: What was to be written before can't be, as the disk is full.
            BusyError: Another run has taken the folder.
        """
        self._raise_if_unwritten()
        try:
            pickled = _pickle((value, [(*key, amount) for key, amount in counts.items()]))
        except Exception as error:  # it is code of the user's classes
            raise TypeError(
                f"the result {shorten(value, 80)} ({type(value).__name__}) can't be pickled, so the"
                f" checkpoint can't keep it ({type(error).__name__}: {error}): return its data in place of it"
            ) from error
        if self._writer is None:
            self._writer = RecordWriter(self.folder, self._refuse_lost)
        self._writer.put(pack_record(self._keys[task], pickled))

    def flush(self) -> None:
        """Wait until all results are on the disk.

        Raises:
            OSError: As :meth:`keep`.
            BusyError: As :meth:`keep`.
        """
        if self._writer is not None:
            self._writer.close()
            self._raise_if_unwritten()

    @property
    def num_kept(self) -> int:
        """How many results of this call are on the disk."""
        return len(self.kept) + (0 if self._writer is None else self._writer.written)

    def close(self) -> None:
        """Write what waits, and release the lock. Idempotent."""
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            self._lock.release()

    def _refuse_lost(self) -> None:
        if is_lost(self._lock):
            raise BusyError(
                f"This run was not heard of for so long that another one has taken {str(self.folder)!r}."
            )

    def _raise_if_unwritten(self) -> None:
        error = None if self._writer is None else self._writer.error
        if error is None:
            return
        if isinstance(error, OSError):
            raise type(error)(
                error.errno,
                f"results can't be written to the checkpoint {str(self.folder)!r} ({error.strerror}); "
                f"{self.num_kept:,} of {len(self._keys):,} are kept there; this call runs only the others",
            ) from error
        raise error

    def __enter__(self) -> Checkpoint:
        """Return the checkpoint itself: it is locked already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits, and release the lock."""
        self.close()


def _pickle(value: Any) -> bytes:
    """Return a value as a pickle, in which what can be imported, or stands in the main program, goes by name.

    With ``cloudpickle`` an instance of the main program's class would come back as one of another class, so
    that takes only what has no name.
    """
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:  # a lambda, a class in a function: the module documents no type of error
        return bytes(cloudpickle.dumps(value))


def _identify(
    func: Callable[..., Any], kwargs: Mapping[str, Any], items: Sequence[Any]
) -> tuple[Fingerprint, list[bytes]]:
    """Return by what a call is recognised, and the keys of its items."""
    keys = item_keys(items)
    digest = hashlib.sha256(b"".join(keys)).hexdigest()[:16]
    parts = {name: Part(*part) for name, part in parts_of(func, kwargs, _hash_value, "func").items()}
    return Fingerprint(digest, len(items), full_name(func), parts), keys


def _hash_value(value: Any) -> tuple[str | None, list[Any]]:
    """Return the fingerprint of a value; one that can't be pickled, such as a client, counts by its type."""
    fingerprint, definitions = hash_value(value)
    if fingerprint is None:
        fingerprint = f"type:{type(value).__module__}.{type(value).__qualname__}"
    return fingerprint, definitions


def _differences(
    was: Fingerprint, now: Fingerprint, folder: Path, keys: Sequence[bytes], items: Sequence[Any]
) -> list[str]:
    found = function_differences(was, now, "func")
    if was.dataset != now.dataset:
        raw = (folder / _ITEMS).read_bytes()
        before = [raw[start : start + KEY_BYTES] for start in range(0, len(raw), KEY_BYTES)]
        found.insert(0, tell_difference(before, keys, items))
    return found


def _refusal(folder: Path, results: int, known: int, found: Sequence[str]) -> str:
    """Say why a call does not go on with results, and what to do."""
    lines = "".join(f"\n  - {sentence}" for sentence in found)
    if known:
        ways = (
            f'To go on, pass resume="trust": the {known:,} results of items that are the same stay, and only '
            "the other items run, with what has changed. Or undo the change, or choose another folder, or"
            " start over with resume=False, which gives the results up."
        )
    else:
        ways = (
            "None of the results is of an item of this call. Call as before to keep them, or choose another "
            "folder; or start over with resume=False, which gives them up."
        )
    return f"{str(folder)!r} holds {results:,} results of a call that differs from this one:{lines}\n{ways}"


def _refuse_foreign(folder: Path) -> None:
    """Raise if there is something at the path of a folder that no checkpoint has made."""
    if not os.path.lexists(folder):
        return
    ours = folder.is_dir() and (
        _read_manifest(folder) is not None
        or all(name in _EARLY or name.startswith(".nfs") for name in os.listdir(folder))
    )
    if not ours:
        raise ResumeError(
            f"checkpoint {str(folder)!r} exists and is no checkpoint of multi_process. It is left as it is: "
            "choose another folder."
        )


def _read_manifest(folder: Path) -> Fingerprint | None:
    """Return by what the call of a folder is recognised, or None if there is no manifest of ours.

    Raises:
        ResumeError: Another version of the package has written it, in another form.
    """
    try:
        raw = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if raw["kind"] != _KIND:
            return None
        if raw["version"] != _VERSION:
            raise ResumeError(
                f"{str(folder)!r} was written by speedy_utils {raw['written_by']}, in another form: go on"
                " with that version, or choose another folder."
            )
        parts = {name: Part(*part) for name, part in raw["parts"].items()}
        return Fingerprint(raw["items"], raw["num_items"], raw["function"], parts)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
