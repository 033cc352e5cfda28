"""File systems that refuse."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any


def busy(unlink: Callable[..., None]) -> Callable[..., None]:
    """Return an ``os.unlink`` that refuses NFS's names of deleted files, as NFS does while they are open."""

    def refuse(path: Any, *args: Any, **options: Any) -> None:
        if os.path.basename(os.fspath(path)).startswith(".nfs"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), os.fspath(path))
        unlink(path, *args, **options)

    return refuse
