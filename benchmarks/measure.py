"""Clocks, rounds and medians: how everything here is measured.

Variants take turns, so that what else the machine does hits all of them; a ratio is the median of the
ratios of single rounds.
"""

from __future__ import annotations

import functools
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

import psutil

T = TypeVar("T")
K = TypeVar("K")

Loop = Callable[[int], object]
"""Does something a number of times."""

_MOST = 1_000_000
"""Turns of a loop that costs next to nothing."""


class Cost(NamedTuple):
    """What something took, in seconds."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """CPU time of this process with all its threads, and of its children that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def timed(run: Callable[[], object]) -> Cost:
    """What a call takes."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    run()
    return Cost(time.perf_counter() - wall, cpu_seconds() - cpu)


def in_turns(variants: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Run all variants once, then all of them again, and so on.

    Args:
        variants: What to run, by name.
        rounds: How often.

    Returns:
        What each returned in each round.
    """
    took: dict[K, list[T]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            took[name].append(run())
    return took


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The median of the ratios of single rounds."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def per_turn(floor: str, variants: Mapping[str, Loop], rounds: int, seconds: float) -> dict[str, list[Cost]]:
    """What one turn of each loop costs over one of the floor's, round by round.

    Args:
        floor: Which variant does nothing but loop.
        variants: The loops.
        rounds: How often each is run.
        seconds: How long about; each gets as many turns as fit.

    Returns:
        Seconds a turn of all variants but the floor.
    """
    sizes = {name: _fitting(loop, seconds) for name, loop in variants.items()}
    runs = {
        name: functools.partial(timed, functools.partial(loop, sizes[name]))
        for name, loop in variants.items()
    }
    took = {
        name: [Cost(*(value / sizes[name] for value in cost)) for cost in costs]
        for name, costs in in_turns(runs, rounds).items()
    }
    bare = took.pop(floor)
    return {
        name: [Cost(a.wall - b.wall, a.cpu - b.cpu) for a, b in zip(costs, bare, strict=True)]
        for name, costs in took.items()
    }


def _fitting(loop: Loop, seconds: float) -> int:
    """How many turns take so long, apart from what the loop takes to start and end."""
    turns, before = 100, timed(functools.partial(loop, 100)).wall
    while turns < _MOST:
        turns *= 4
        took = timed(functools.partial(loop, turns)).wall
        if took - before > seconds / 4:
            return max(1, min(_MOST, round(turns * 0.75 * seconds / (took - before))))
        before = took
    return _MOST


def find_process(title: str) -> psutil.Process:
    """The newest process whose command line starts so, such as that of a Ray actor."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "create_time"])
        if process.info["cmdline"] and process.info["cmdline"][0].startswith(title)
    ]
    if not found:
        raise LookupError(f"no process is called {title}…")
    return max(found, key=lambda process: process.info["create_time"])


def end_tree(pid: int) -> None:
    """Kill a process and all that it has started, such as a Ray."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process."""
    times = process.cpu_times()
    return float(times.user + times.system)


class Watched:
    """CPU time and memory of a process and all that it starts, sampled while it runs.

    Attributes:
        memory: The most that all of them had at once in megabytes, without mapped and shared files.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[tuple[int, float], float] = {}
        self.memory = 0.0

    @property
    def cpu(self) -> float:
        """CPU seconds of all of them, as last seen."""
        return sum(self._cpu.values())

    def look(self) -> None:
        """Take a sample."""
        memory = 0.0
        with suppress(psutil.NoSuchProcess):  # it may end at any moment, and so may each of the others
            for process in [self._root, *self._root.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                    self._cpu[process.pid, process.create_time()] = cpu_of(process)
                    info = process.memory_info()
                    memory += (info.rss - info.shared) / 1e6
        self.memory = max(self.memory, memory)
