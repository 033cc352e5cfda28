"""Whether a dataset run begins anew, takes up an interrupted one, or is refused.

The manifest in ``<output_path>.partial`` says what the interrupted run worked on and how it was cut.
It is JSON, and is replaced in one step.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from .._validation import shorten
from ..errors import ResumeError
from .files import checked_output, refuse_existing, remove_path, undo_swap, write_json
from .fingerprint import Fingerprint, differences
from .shard_worker import read_record
from .shards import plan_shards
from .workspace import EARLY, MANIFEST, MERGED, OLD, PUBLISHED, SHARDS, Workspace, lock_folder, unlock_folder

_KIND = "speedy_utils.multi_process_dataset"


_VERSION = 1


@dataclass(frozen=True)
class _Manifest:
    """What an interrupted run worked on, and how it was cut."""

    version: int
    written_by: str
    num_shards: int
    identity: Fingerprint


def open_workspace(
    output_path: str | os.PathLike[str],
    identity: Fingerprint,
    *,
    num_shards: int | None,
    default_shards: int,
    resume: bool | Literal["trust"] = True,
    overwrite: bool = False,
) -> Workspace:
    """Begin a run, or take up one that was interrupted.

    Nothing that exists is changed before it is clear that the run may go on.

    Args:
        output_path: Where the output is to appear.
        identity: What the run works on and with.
        num_shards: How many shards the user asked for. None leaves it to the interrupted run, so that
            it can be taken up with another number of workers.
        default_shards: How many shards to cut where neither the user nor an interrupted run says.
        resume: True takes up an interrupted run of the same dataset, function and arguments; "trust"
            keeps its finished shards although these differ; False starts over.
        overwrite: Whether a dataset at ``output_path`` may be replaced, and an interrupted run that
            differs from this one be given up.

    Returns:
        The run, locked.

    Raises:
        FileExistsError: If there is something at ``output_path`` that may not be replaced.
        BusyError: If another run is at work on ``output_path``.
        ResumeError: If an interrupted run differs from this one, or ``<output_path>.partial`` is
            something else altogether.
        ValueError: If an argument is out of range.
    """
    if resume not in (True, False, "trust"):
        raise ValueError(f'resume must be True, False or "trust", got {shorten(resume)}')
    fresh = plan_shards(identity.num_rows, default_shards if num_shards is None else num_shards)
    output = checked_output(output_path)
    folder = _partial_of(output)
    refuse_existing(output, overwrite=overwrite)
    _refuse_foreign(folder)
    lock = lock_folder(folder)
    with contextlib.ExitStack() as undo:
        undo.callback(unlock_folder, folder, lock)
        undo_swap(output, folder / OLD)
        refuse_existing(output, overwrite=overwrite)
        partial = Workspace(output, folder, fresh, {}, overwrite, lock)
        _resume(partial, identity, num_shards, resume)
        undo.pop_all()
    return partial


def restore_replaced_output(output_path: str | os.PathLike[str]) -> None:
    """Put an output back whose replacement was killed midway: the next call may have it for its input.

    Args:
        output_path: Where the output was.

    Raises:
        BusyError: If another run is at work on ``output_path``.
    """
    output = checked_output(output_path)
    folder = _partial_of(output)
    if os.path.lexists(output) or not (folder / OLD).is_dir():
        return
    _refuse_foreign(folder)
    lock = lock_folder(folder)
    try:
        undo_swap(output, folder / OLD)
    finally:
        unlock_folder(folder, lock)


def _resume(
    partial: Workspace, identity: Fingerprint, num_shards: int | None, resume: bool | Literal["trust"]
) -> None:
    """Adopt the finished shards of an interrupted run, or clear it away and begin anew."""
    folder = partial.folder
    manifest = None if (folder / PUBLISHED).exists() else _read_manifest(folder)
    if resume and manifest is not None:
        plan = plan_shards(manifest.identity.num_rows, manifest.num_shards)
        records = ((spec.index, read_record(partial.shard_dir(spec), spec)) for spec in plan)
        finished = {index: record for index, record in records if record is not None}
        found, keepable = _compare(manifest, identity, num_shards, len(partial.plan))
        keep = not found or (resume == "trust" and keepable)
        if finished and keep:
            partial.plan, partial.finished = plan, finished
            for spec in partial.missing:
                remove_path(partial.shard_dir(spec))
            _write_manifest(folder, identity, len(plan))
            return
        if finished and not partial.overwrite:
            raise ResumeError(_refusal(folder, f"{len(finished)} of {len(plan)}", found, keepable))
    # The manifest comes first: a folder with shards and without one would count as somebody else's.
    for name in (SHARDS, MERGED, PUBLISHED):
        remove_path(folder / name)
    _write_manifest(folder, identity, len(partial.plan))
    (folder / SHARDS).mkdir()


def _compare(
    manifest: _Manifest, identity: Fingerprint, num_shards: int | None, now_shards: int
) -> tuple[list[str], bool]:
    """Say how a call differs from an interrupted run, and whether the finished shards fit it still."""
    found = differences(manifest.identity, identity)
    keepable = manifest.identity.num_rows == identity.num_rows
    if manifest.version != _VERSION:
        found.append(f"it was written by speedy_utils {manifest.written_by}, in another form")
        keepable = False
    # The number of shards follows from the rows where the user leaves it open.
    if keepable and num_shards is not None and now_shards != manifest.num_shards:
        found.append(f"num_shards is {now_shards}; it was {manifest.num_shards}")
        keepable = False
    return found, keepable


def _refusal(folder: Path, finished: str, found: list[str], keepable: bool) -> str:
    """Say why an interrupted run is not taken up, and what to do."""
    lines = "".join(f"\n  - {sentence}" for sentence in found)
    if keepable:
        trust = 'resume="trust" keeps them all the same.'
    else:
        trust = "resume=\"trust\" can't keep them, because they don't fit the shards of this call."
    return (
        f"{str(folder)!r} holds an interrupted run with {finished} shards finished, and this call differs "
        f"from it:{lines}\nTo give up the finished shards and start over, pass overwrite=True; {trust}"
    )


def _partial_of(output: Path) -> Path:
    """Where the work for an output happens."""
    return output.with_name(f"{output.name}.partial")


def _refuse_foreign(folder: Path) -> None:
    """Raise if ``<output_path>.partial`` is something that no run of ours has made."""
    if not os.path.lexists(folder):
        return
    ours = folder.is_dir() and not folder.is_symlink()
    if ours and not set(os.listdir(folder)) <= EARLY:
        ours = _read_manifest(folder) is not None
    if not ours:
        raise ResumeError(
            f"{str(folder)!r}, where the work would happen, exists and holds no manifest of an interrupted "
            "run. It is left as it is: move or delete it, or choose another output_path."
        )


def _read_manifest(folder: Path) -> _Manifest | None:
    """The manifest, or None if there is none of ours."""
    try:
        raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if raw.pop("kind") == _KIND:
            return _Manifest(**{**raw, "identity": Fingerprint(**raw["identity"])})
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        pass
    return None


def _write_manifest(folder: Path, identity: Fingerprint, num_shards: int) -> None:
    """Write the manifest."""
    try:
        written_by = metadata.version("speedy_utils")
    except metadata.PackageNotFoundError:  # run from a source folder that is not installed
        written_by = "unknown"
    manifest = _Manifest(_VERSION, written_by, num_shards, identity)
    write_json(folder / MANIFEST, {"kind": _KIND, **asdict(manifest)})
