"""One run at a time in a folder: a lock, or a lease where the file system has no locks.

The system releases the lock of a process that has died. A lease is a file that names the process and the
host that hold it, and that they touch every few seconds; a lease that is not touched for a minute has
expired. With filelock 4.3 one of a process of this host that is gone need not expire.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BusyError

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger("speedy_utils")

LOCK, LEASE = "lock", "lease"

# Errors of flock() that mean that the file system can't lock at all.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EIO})

LEASE_S = 60.0


def hold_folder(folder: Path, holder_file: str, *, what: str, cure: str) -> BaseFileLock:
    """Make a folder, if it is not there, and lock it without waiting.

    Args:
        folder: The folder.
        holder_file: The file in it that says which process used it last, ``{"pid": 4711, "host": "node-2"}``.
        what: What it is for, for an error message.
        cure: What to do if another run is at work there, for an error message.

    Raises:
        BusyError: If another run holds it.
    """
    from filelock import Timeout

    for _ in range(10):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = take_lock(folder, _holder(folder / holder_file))
        except FileNotFoundError:
            continue  # a run that ended just now took the folder with it
        except Timeout as error:
            holder = _holder(folder / holder_file)
            by = f" (process {holder['pid']} on {holder['host']})" if {"pid", "host"} <= holder.keys() else ""
            lease = folder / LEASE
            if lease.exists():
                cure += f" If there is no such run any more, delete {str(lease)!r}."
            raise BusyError(f"Another run is at work on {what}{by}. {cure}") from error
        if Path(lock.lock_file).exists():
            return lock
        lock.release()
    raise BusyError(f"{str(folder)!r} is deleted again and again by other runs. {cure}")


def _holder(file: Path) -> dict[str, Any]:
    """Return who holds the lock, or held it last; {} if that is not known."""
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def take_lock(folder: Path, holder: Mapping[str, Any]) -> BaseFileLock:
    """Lock a folder without waiting; the lease of a process that may be gone is given the time to expire.

    Args:
        folder: The folder, which exists.
        holder: Which process used the folder last, ``{"pid": 4711, "host": "node-2"}``, as far as is known.

    Returns:
        What is to be released; its ``lock_file`` is ``LOCK`` or ``LEASE`` in the folder.

    Raises:
        filelock.Timeout: If another process holds it.
        FileNotFoundError: If the folder is gone.
    """
    from filelock import FileLock, Timeout

    reason = _why_no_locks(folder)
    if reason is None:
        lock: BaseFileLock = FileLock(str(folder / LOCK), thread_local=False)
        lock.acquire(timeout=0)
        return lock
    logger.warning(
        "%s is on a file system without locks (%s); a file with a heartbeat takes the place of one",
        folder,
        reason,
    )
    lock = _lease(folder / LEASE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        host = holder.get("host")
        if host == socket.gethostname() and may_run(holder.get("pid")):
            raise
        # Only by watching it can one see from here whether its process is alive.
        logger.warning("waiting %.0f s to see whether a run on %s is alive", LEASE_S, host or "another host")
        lock.acquire(timeout=LEASE_S * 1.2)
    return lock


def is_lost(lock: BaseFileLock) -> bool:
    """Return whether a lease has expired and was taken by another process, or deleted."""
    return getattr(lock, "compromise", None) is not None


def may_run(pid: object) -> bool:
    """Return whether a process of this host may be alive."""
    if not isinstance(pid, int) or pid <= 0 or os.name == "nt":  # there the call below would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _lease(path: Path) -> BaseFileLock:
    import filelock

    kind = getattr(filelock, "SoftFileLease", None)
    if kind is None:  # before filelock 3.30: without a heartbeat
        return filelock.SoftFileLock(str(path))
    lease: BaseFileLock = kind(str(path), lease_duration=LEASE_S, heartbeat_interval=LEASE_S / 6)
    return lease


def _why_no_locks(folder: Path) -> str | None:
    """Return why files in a folder can't be locked, or None if they can."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return error.strerror or str(error)
    return None
