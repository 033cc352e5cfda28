"""File operations that a crash can't leave half done."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
import zlib
from pathlib import Path

# Errors of link(): the other path is on another file system; the file system has no hard links (EINVAL
# on Windows), or no more of them for this file; the kernel protects a file of another owner.
_CANT_LINK = frozenset(
    {
        errno.EXDEV,
        errno.EPERM,
        errno.EOPNOTSUPP,
        errno.ENOTSUP,
        errno.ENOSYS,
        errno.EINVAL,
        errno.EMLINK,
    }
)

# Windows flushes only files that are open for writing.
_TO_SYNC = os.O_RDWR if os.name == "nt" else os.O_RDONLY


def write_json(path: Path, value: object, *, scratch: Path | None = None) -> None:
    """Write a JSON file that appears whole or not at all, and is on the disk when this returns.

    Args:
        path: The file.
        value: What to write; the order of keys is kept.
        scratch: Where to write it first, on the same file system; next to ``path`` by default.
    """
    scratch = scratch or path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(value, indent=1), encoding="utf-8")
    sync(scratch)
    os.replace(scratch, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, reach the disk.

    Windows can't open a folder, and keeps its names safe by itself.
    """
    try:
        descriptor = os.open(path, _TO_SYNC)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file's content: it shows damage, not intent."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            value = zlib.crc32(chunk, value)
    return value


def remove_path(path: Path) -> None:
    """Delete a file, or a folder with all it holds; a symbolic link goes, never what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path, rubbish: Path) -> None:
    """Delete a path or, where that can't be done yet, set it aside, so that its name is free.

    On NFS, a file that a process has open stays in its folder as ``.nfs0001``, and the folder with it. A file
    that is in use may refuse with EBUSY.

    Args:
        path: What is to go.
        rubbish: The folder where it waits until it is deleted later; on the same file system.
    """
    try:
        remove_path(path)
    except OSError:
        rubbish.mkdir(exist_ok=True)
        os.rename(path, rubbish / uuid.uuid4().hex)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it if the file system has no hard links.

    Args:
        source: The file; it stays.
        target: The new name, which does not exist yet.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _CANT_LINK:
            raise
        shutil.copyfile(source, target)
        sync(target)


def swap_in(new: Path, target: Path, aside: Path) -> None:
    """Put a folder in place of another one, which is deleted once the new one is there.

    No system call of the standard library swaps two folders at once, so there is a moment in which
    the target is missing. After a process was killed in that moment, ``undo_swap`` puts the old folder back.

    Args:
        new: The folder that is to be at ``target``; on the same file system.
        target: A folder that exists.
        aside: Where the old folder waits; what an earlier swap has left there is deleted.
    """
    remove_path(aside)
    with contextlib.ExitStack() as undo:
        os.rename(target, aside)
        undo.callback(os.rename, aside, target)
        os.rename(new, target)
        undo.pop_all()
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)  # what can't be deleted yet is no failure of the swap


def undo_swap(target: Path, aside: Path) -> None:
    """Put the old folder back if ``swap_in`` was killed before the new one had its place."""
    if not os.path.lexists(target) and aside.is_dir():
        os.rename(aside, target)
