"""How many CPUs this process may use: those of the machine, less what its container was not given.

``docker run --cpus=2``, and a pod with ``limits.cpu: 2``, let a process see all CPUs of the host and stop it
once it has used up its time on them, its quota. Linux keeps the quota in control groups, in one of two ways::

    cgroup v2   cpu.max                               "200000 100000", or "max 100000" for none
    cgroup v1   cpu.cfs_quota_us, cpu.cfs_period_us   "200000", "100000", or "-1" for none

That is 0.2 s of computing in each 0.1 s, so two CPUs. Groups are nested, and each limits all that are in it:
the smallest quota on the way up counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

PERIOD_US = 100_000
"""The period of a quota for which none is given, in microseconds."""


_limit = 0
"""How many a worker has to itself; 0 for no limit."""


def limit_cpus(number: int) -> None:
    """Let :func:`cpus` return no more from now on, as other workers use the rest."""
    global _limit
    _limit = number


def cpus(root: Path = Path("/")) -> int:
    """Return how many CPUs this process may use, at least 1; a part of a CPU counts as a whole one.

    In a worker these are the ones that it has to itself, so that a run in a task starts no more.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_quotas(root), _limit or allowed]))


def _quotas(root: Path) -> Iterator[int]:
    """Yield the CPUs of each quota that this process is under, rounded up."""
    for folder in _groups(root):
        quota, period = "", ""
        with suppress(OSError, ValueError):  # there is no such file, or none that can be read
            quota, period = [*(folder / "cpu.max").read_text().split(), str(PERIOD_US)][:2]
        with suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota.isdigit() and period.isdigit() and int(period):  # not "max", nor "-1"
            yield -(-int(quota) // int(period))


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, each with those around it."""
    own = {}
    for line in _lines(root / "proc/self/cgroup"):  # such as "3:cpu,cpuacct:/docker/1f2e" or "0::/user.slice"
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "cpu" in controllers.split(","):
            own["cgroup" if controllers else "cgroup2"] = PurePosixPath(path)
    for line in _lines(root / "proc/self/mountinfo"):
        # Such as "31 23 0:28 /docker/1f2e /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct".
        place, _, kind = line.partition(" - ")
        kinds, places = kind.split(), place.split()
        if len(places) < 5 or len(kinds) < 3 or kinds[0] not in own:
            continue
        if kinds[0] == "cgroup" and "cpu" not in kinds[2].split(","):
            continue
        mounted, top = PurePosixPath(places[3]), root / places[4].lstrip("/")
        group = own[kinds[0]]
        # A container may see the path of its group on the host, and its own group as the top of the tree.
        inside = group.relative_to(mounted) if group.is_relative_to(mounted) else PurePosixPath()
        yield from (top / part for part in (inside, *inside.parents))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError):  # not Linux, or it can't be read
        return []
