"""What processes of engines that are not ours do in the tests: here, so that each start method finds it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from speedy_utils import report_progress, track


def loop(n: int) -> int:
    """Track as many items as ``n`` says."""
    for _ in track(range(n)):
        pass
    return n


def loop_in_threads(n: int) -> int:
    """Track the items in each of eight threads at once."""
    together = threading.Barrier(8)
    threads = [threading.Thread(target=lambda: (together.wait(), loop(n))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return n


def report(n: int) -> int:
    """Report the items at once, after a stage of its own."""
    for _ in track(range(2), desc="Look"):
        pass
    report_progress(n, letters=2)
    return n


def bar(n: int) -> int:
    """Go through them with a bar of tqdm."""
    for _ in tqdm(range(n)):
        pass
    return n


def nothing(n: int) -> int:
    """Report nothing."""
    return n


def mixed(n: int) -> int:
    """Count in another way for each ``n``: 1 to 8 are 28 items, as a call without a report is one."""
    return (loop, report, bar, nothing)[n % 4](n)


def fail_at_three(n: int) -> int:
    """Report the items, and raise if there are three."""
    report_progress(n)
    if n == 3:
        raise ValueError("three")
    return n


async def await_loop(n: int) -> int:
    """Track items in a coroutine."""
    return loop(n)


def generate(n: int) -> Iterator[int]:
    """Yield tracked items."""
    yield from track(range(n))


class Counter:
    """Counts by its calls and methods.

    Args:
        more: Items besides those of a call.
    """

    def __init__(self, more: int = 0) -> None:
        self.more = more

    def __call__(self, n: int) -> int:
        """Report the items."""
        report_progress(n + self.more)
        return n

    def method(self, n: int) -> int:
        """Report the items."""
        return self(n)

    @staticmethod
    def of_none(n: int) -> int:
        """Report the items."""
        report_progress(n)
        return n

    @classmethod
    def of_class(cls, n: int) -> type:
        """Report nothing."""
        return cls


class Worker:
    """Counts in a method, as an actor does."""

    def work(self, n: int) -> int:
        """Count as :func:`mixed` does."""
        return mixed(n)


@dataclass(frozen=True)
class Call:
    """What a call does that :func:`play` plays.

    Attributes:
        style: How it counts: "loop", "report", "bar", "stage" or "nothing".
        n: How much.
        pause: Seconds that it waits when it has counted half of that.
        end: What it does then: "return" after the other half, "raise", "die" or "die once".
        mark: A file that is there once it has died.
    """

    style: str
    n: int
    pause: float
    end: str
    mark: str

    def reported(self) -> int:
        """Return what it reports, for the run or for its stage."""
        half = {"raise": self.n // 2}.get(self.end, self.n)
        return 0 if self.style == "nothing" else half

    def items(self, *, bound: bool = True) -> int:
        """Return what it counts for."""
        if bound and self.end != "raise" and not self.reported():
            return 1
        return 0 if self.style == "stage" else self.reported()


def play(call: Call) -> int:
    """Count as a call says, and return, raise or die."""
    _count(call.style, call.n // 2)
    time.sleep(call.pause)
    if call.end == "raise":
        raise ValueError("planned")
    if call.end == "die" or (call.end == "die once" and not os.path.exists(call.mark)):
        Path(call.mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    _count(call.style, call.n - call.n // 2)
    return call.n


def _count(style: str, n: int) -> None:
    if style == "stage":
        for _ in track(range(n), desc="Stage"):
            pass
    elif style == "report":
        report_progress(n)
    elif style != "nothing":
        (loop if style == "loop" else bar)(n)


def caught(function: Callable[[Call], int], call: Call) -> int | None:
    """Return what a function returns; None if it raises."""
    try:
        return function(call)
    except ValueError:
        return None


def in_pool(calls: list[Call]) -> list[int | None]:
    """Let processes of a task play calls."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(partial(caught, play), calls)
