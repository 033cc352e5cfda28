"""Whose threads live in this process beside Python's: it shows in the code that each stands in.

Linux says where a thread that waits has its stack. That holds the addresses of the code that has called::

    /proc/self/task/18867/syscall     202 0x7f... 0x7ffc0a8  0x7f3a12     the last two: stack, position
    /proc/self/mem                    from 0x7ffc0a8 on: 0x7f3a12 0x7f51c0 ...
    /proc/self/maps                   7f5100-7f5900 r-xp ... /numpy.libs/libscipy_openblas64_-32a4b2a6.so
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress

STACK_BYTES = 2_048
"""Bytes that are read of each stack: the calls of a thread of a pool that waits take less."""

TIMEOUT_S = 0.2
"""Seconds in which threads must begin to wait: those of OpenBLAS spin for a while after a call."""

_HARMLESS = ("libarrow.", "openblas", "libmkl", "libzmq")
"""Parts of the names of libraries which end their threads before a fork and start them anew, and of that of
notebooks, whose threads only move messages of the program."""

_DEVICES = ("libcuda.", "libamdhip64", "libze_loader", "libtpu")
"""Parts of the names of libraries that drive devices: a fork can't use what the program has begun to use."""


def uses_devices() -> bool:
    """Return whether what drives a GPU, or the like, is loaded: libraries load it for its first use.

    Raises:
        OSError: It can't be known.
    """
    with open("/proc/self/maps") as file:
        return any(part in line for line in file for part in _DEVICES)


def are_harmless(threads: Iterable[int]) -> bool:
    """Return whether threads, by their native ids, are all known to allow a fork; False if not clear."""
    deadline = time.monotonic() + TIMEOUT_S
    waiting = [*threads]
    if not waiting:
        return True
    try:
        code = _Code()
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            while waiting:
                running = []
                for thread in waiting:
                    stack = _stack_of(thread)
                    if stack is None:
                        running.append(thread)
                    elif stack and not code.is_harmless(os.pread(memory.fileno(), STACK_BYTES, stack)):
                        return False
                waiting = running
                if waiting and time.monotonic() > deadline:
                    return False
                time.sleep(0.002 if waiting else 0)
    except (OSError, ValueError):  # not Linux, or one that says less
        return False
    return True


def _stack_of(thread: int) -> int | None:
    """Return the address of a thread's stack; None if it runs, and 0 if it has ended."""
    state = ""
    with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{thread}/syscall") as file:
        state = file.read()
    if not state:
        return 0
    fields = state.split()
    return None if fields == ["running"] else int(fields[-2], 16)


class _Code:
    """The code in memory, and what it belongs to."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._names: list[str] = []
        with open("/proc/self/maps") as file:
            for line in file:  # "7f5100-7f5900 r-xp 00012000 08:01 4711   /usr/lib/libc.so.6"
                place, mode, *_, path = line.split(maxsplit=5)
                if "x" in mode:
                    start, _, end = place.partition("-")
                    self._starts.append(int(start, 16))
                    self._ends.append(int(end, 16))
                    self._names.append(os.path.basename(path.strip()))

    def is_harmless(self, stack: bytes) -> bool:
        """Return whether a stack has code of a library that allows a fork, and none of Python's."""
        names = set()
        for address in memoryview(stack[: len(stack) // 8 * 8]).cast("Q"):
            place = bisect_right(self._starts, address) - 1
            if place >= 0 and address < self._ends[place]:
                names.add(self._names[place])
        return any(part in name for name in names for part in _HARMLESS) and not any(
            name.startswith(("libpython", "python")) for name in names
        )
