"""What would keep the output from its place after the last shard, found before the first one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# Linux: the request that reads a file's attributes, and those that forbid to rename and delete it.
_GET_FLAGS, _IMMUTABLE, _APPEND_ONLY = 0x80086601, 0x10, 0x20


def refuse_immovable(output: Path) -> None:
    """Raise FileExistsError if a folder can't be renamed, or something in it can't be deleted.

    Only what the system tells without a trial is found: mount points, permissions and Linux's attributes.

    Args:
        output: The folder.
    """
    reason = next(_reasons(output), None)
    if reason is not None:
        raise FileExistsError(
            f"output_path {str(output)!r} can't be replaced: {reason}. Choose another one, such as a folder "
            "in it, or remove the obstacle."
        )


def _reasons(output: Path) -> Iterator[str]:
    mounts = _mount_points()
    if os.path.ismount(output) or os.path.realpath(output) in mounts:
        yield "it is a mount point"
    for folder, folders, files in os.walk(output):
        if not os.access(folder, os.W_OK | os.X_OK):
            yield f"there is no permission to change {folder!r}"
        for name in folders:
            path = os.path.join(folder, name)
            if os.path.ismount(path) or os.path.realpath(path) in mounts:
                yield f"{path!r} is a mount point"
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            if _attributes(path) & (_IMMUTABLE | _APPEND_ONLY):
                yield f"{path!r} is immutable or append-only (see lsattr)"


def _mount_points() -> frozenset[str]:
    """Return the mount points of Linux: ``ismount`` sees none that is mounted in its own file system."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
        # A blank is written as \040.
        return frozenset(
            os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")) for line in lines
        )
    return frozenset()


def _attributes(path: str) -> int:
    """Return the attributes of a file or folder, 0 where they are unknown."""
    try:
        import fcntl
    except ImportError:  # Windows
        return 0
    flags = bytearray(8)
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.ioctl(descriptor, _GET_FLAGS, flags)
        finally:
            os.close(descriptor)
    return int.from_bytes(flags[:4], "little")
