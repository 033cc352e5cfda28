"""What users write in their loops: ``report_progress`` and ``track``. They count, and never draw."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import suppress
from itertools import chain, compress, repeat
from operator import length_hint
from types import GeneratorType
from typing import TypeVar

from .._state.ledger import Stage
from .._validation import checked_amount, checked_count, checked_name, shorten
from .._worker.context import current, tally_here
from .._worker.reporter import Tally
from .dataset_rows import row_batches

T = TypeVar("T")


_here = current.get


def report_progress(n: int = 1, *, desc: str | None = None, **counters: float) -> None:
    """Add finished items to the run that this code works for; outside a run it does nothing.

    It adds two numbers and returns: what it counted is sent by another thread.

    Args:
        n: How many items, 0 or more.
        desc: The stage that they went through; None for the run's own line.
        **counters: What to count beside the items, such as ``tokens=51_200``: numbers, 0 or more. They are
            summed over all workers and shown behind the line.

    Raises:
        TypeError: ``n`` is no integer, ``desc`` no string, or a counter no number.
        ValueError: ``n`` or a counter is negative, a counter is not finite, or its name is no identifier.

    Example:
        >>> from speedy_utils import report_progress
        >>> for batch in [["one", "bar"], ["whole"]]:
        ...     report_progress(len(batch), letters=sum(map(len, batch)))
    """
    tally = _here() or tally_here()
    if desc is None and type(n) is int and n >= 0 and not counters:
        if tally is not None:
            tally.n += n
        return
    n, stage = checked_count(n), checked_name(desc)
    checked = {name: checked_amount(amount, name) for name, amount in counters.items()}
    if tally is not None:
        tally = tally.within(stage)
        tally.n += n
        tally.add_to_counters(checked)


report_progress.__module__ = "speedy_utils"


def track(
    iterable: Iterable[T],
    every: int = 100,
    *,
    total: int | None = None,
    desc: str | None = None,
    size: Callable[[T], int] | None = None,
) -> Iterator[T]:
    """Iterate, and count each item once the loop comes back for the next one.

    The items pass unchanged, one by one, and none is read ahead of the loop. A ``break``, an exception or
    an iterator that is given up leave counted what was finished. Outside a run it only iterates. Over a
    Hugging Face ``Dataset`` the rows are fetched in batches, which is several times as fast.

    Args:
        iterable: What to iterate.
        every: The most items by which the count may be behind the loop. Loops are read from outside, at
            the moment of sending, so they are never behind by more than the item in hand.
        total: Items that this loop adds to the total of its stage. Sized input declares its length
            by itself where ``desc`` is given.
        desc: The stage that the items go through; None for the run's own line.
        size: How many items an element stands for, where it is a batch. Called before the loop sees it.

    Returns:
        An iterator over the same items.

    Raises:
        TypeError: ``iterable`` can't be iterated, or an argument has the wrong type.
        ValueError: ``every`` is below 1, or ``total`` negative.

    Example:
        >>> from speedy_utils import track
        >>> [word.upper() for word in track(["one", "bar"])]
        ['ONE', 'BAR']
    """
    kind = type(iterable)
    if not hasattr(kind, "__iter__") and not hasattr(kind, "__getitem__"):
        hint = "; count an async loop with report_progress()" if hasattr(iterable, "__aiter__") else ""
        raise TypeError(
            f"track() needs something to iterate, not {shorten(iterable)} ({kind.__name__}){hint}"
        )
    checked_count(every, "every", least=1)
    if total is not None:
        total = checked_count(total, "total")
    if size is not None and not callable(size):
        raise TypeError(f"size must be a function of one element, not {shorten(size)}")
    return chain.from_iterable(_passes(iterable, total, checked_name(desc), size))


track.__module__ = "speedy_utils"


_MANY = sys.maxsize


class _Loop:
    """The position of a running loop.

    ``ticks`` is used up by one an item, and its ``length_hint`` may be read from any thread at any time:
    counting costs the loop no Python bytecode.
    """

    __slots__ = ("generator", "held", "ticks")

    def __init__(self, iterable: object) -> None:
        self.generator = iterable if isinstance(iterable, GeneratorType) else None
        self.ticks = repeat(True, _MANY)
        self.held = 1  # the item that the loop is busy with is not finished

    def read(self) -> int:
        used = _MANY - length_hint(self.ticks)
        over = self.generator is not None and self.generator.gi_frame is None  # exhausted, or it failed
        return used if over else max(used - self.held, 0)


class _Sum:
    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0

    def read(self) -> int:
        return self.n


# Their iterators only fail where the loop itself changes them.
_SOUND = (list, tuple, range, dict, set, frozenset, str, bytes, deque)


def _passes(
    iterable: Iterable[T], total: int | None, desc: Stage, size: Callable[[T], int] | None
) -> Generator[Iterable[T], None, None]:
    """What ``chain`` goes through for a loop: one pass, or one a batch of rows.

    The generator resumes when a pass is exhausted, and is closed when the loop is given up: that tells
    one from the other.
    """
    tally = tally_here()
    batches = row_batches(iterable) if size is None else None
    if tally is None:
        yield from [iterable] if batches is None else batches
        return
    reporter, outer = tally.reporter, tally
    tally = outer.within(desc)
    if total is None and size is None and desc is not None and isinstance(iterable, Sized):
        with suppress(Exception):  # it is the user's code, and may fail: torch's loaders over a stream do
            total = len(iterable)
    # A loop inside a call of the same stage is a part of that call, and the call has told its total.
    if tally is not outer or outer.stage is None:
        reporter.declare(desc, total)
    reporter.mark_started(tally.stage)
    if size is not None:
        yield _sized(iterable, size, tally)
        return
    loop = _Loop(iterable)
    tally.open(loop)
    try:
        if batches is not None:
            for rows in batches:
                loop.held = 1
                counted = compress(rows, loop.ticks)
                del rows  # so that they are gone before the next are fetched
                yield counted
                loop.held = 0
        elif type(iterable) in _SOUND or loop.generator is not None:
            yield compress(iterable, loop.ticks)
            loop.held = 0
        else:
            # Such an iterator may fail by itself, and then every item it gave is finished. So here a tick is
            # used up before an item is fetched, not after: ticks less one is right however the loop ends.
            # pop returns its second argument, the item, as the dict is empty: nothing is even looked up.
            # Of the functions that could do so it is the cheapest. Its stub knows no default of another type.
            yield map({}.pop, loop.ticks, iterable)  # type: ignore[arg-type]
    finally:
        tally.close(loop, loop.read())
        reporter.mark_moved(tally.stage)


def _sized(iterable: Iterable[T], size: Callable[[T], int], tally: Tally) -> Iterator[T]:
    done = _Sum()
    tally.open(done)
    try:
        for element in iterable:
            n = checked_count(size(element), "size(element)")
            yield element
            done.n += n
    finally:
        tally.close(done, done.n)
        tally.reporter.mark_moved(tally.stage)
