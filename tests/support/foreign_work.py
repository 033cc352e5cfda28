"""What processes of engines that are not ours do in the tests: here, so that each start method finds it."""

from __future__ import annotations

from collections.abc import Iterator

from tqdm import tqdm

from speedy_utils import report_progress, track


def loop(n: int) -> int:
    """Track as many items as ``n`` says."""
    for _ in track(range(n)):
        pass
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


class Worker:
    """Counts in a method, as an actor does."""

    def work(self, n: int) -> int:
        """Count as :func:`mixed` does."""
        return mixed(n)
