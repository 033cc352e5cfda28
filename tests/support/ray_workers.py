"""Ray workers that die."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def is_ray_worker(pid: int) -> bool:
    """Return whether a process is a Ray worker: its number may have been given to another one."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    return False


def kill_worker(pids: Iterable[int], random_: random.Random) -> list[int]:
    """Kill one of the Ray workers among some processes, and return it, if there is one."""
    alive = sorted(filter(is_ray_worker, pids))
    for pid in random_.sample(alive, min(1, len(alive))):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return [pid]
    return []
