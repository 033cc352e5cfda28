"""Count in user loops: ``report_progress`` and ``track``. They never draw."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import suppress
from importlib import import_module
from itertools import chain, compress, islice, repeat
from operator import length_hint
from types import GeneratorType
from typing import Any, Literal, TypeVar

from .._interrupts import interruptible
from .._state.ledger import Stage
from .._validation import (
    checked_amount,
    checked_choice,
    checked_count,
    checked_items,
    checked_name,
    checked_total,
    shorten,
)
from .._worker import context, joining  # noqa: F401 - joining looks whether this process counts for a run
from .._worker.code.left_out import checked_for
from .._worker.context import current, tally_here
from .._worker.tally import Tally
from .batches import (
    Batches,
    batches_counted_in_rows,
    counted_tables,
    is_dataset,
    is_empty,
    may_be_all,
    proportion,
    rows_in,
)
from .rows.bad_rows import CANNOT_FAIL, BadRows
from .rows.dataset_rows import row_batches

T = TypeVar("T")

if context.process_tally is not None:  # bars of tqdm count here, also before anything else does
    import_module("speedy_utils._instrument.tqdm.capture")

_here = current.get


def report_progress(n: int = 1, *, desc: str | None = None, **counters: float) -> None:
    """Add finished items to the run that this code works for. Outside a run it does nothing.

    It adds two numbers and returns; another thread sends what was counted.

    A number that can't be counted, such as NaN or half an item, never ends the work of a run: it is left out,
    and the run warns of it once, with the line of code. Outside a run it is an error, so that tests find it.

    Args:
        n: How many items: a whole number. If it is negative, that many of what the task has counted are taken
            back, to zero at the least, as for a download that begins again.
        desc: The stage that they went through; None for the run's own line.
        **counters: What to count beside the items, such as ``tokens=51_200``: finite numbers. They are
            summed over all workers and shown at the end of the line.

    Raises:
        TypeError: ``desc`` is no string; or outside a run ``n`` or a counter is no number.
        ValueError: Outside a run: ``n`` is no whole number, a counter is not finite, or its name is no
            identifier.

    Example:
        >>> from speedy_utils import report_progress
        >>> for batch in [["one", "bar"], ["whole"]]:
        ...     report_progress(len(batch), letters=sum(map(len, batch)))
    """
    tally = _here() or tally_here()
    if desc is None and type(n) is int and n > 0 and not counters:
        if tally is not None:
            tally.n += n
        return
    stage = checked_name(desc)
    items = n if type(n) is int else checked_for(tally, checked_items, n, "n") or 0
    amounts = {}
    for name, amount in counters.items():
        if (checked := checked_for(tally, checked_amount, amount, name)) is not None:
            amounts[name] = checked
    if tally is not None:
        tally = tally.within(stage)
        if items >= 0:
            tally.n += items
        else:
            tally.take_back(-items)
        if amounts:
            tally.add_to_counters(amounts)
        elif not items and stage is None:
            tally.reporter.reported_none = True
        tally.reporter.mark_moved(tally.stage)


report_progress.__module__ = "speedy_utils"


def track(
    iterable: Iterable[T],
    every: int = 100,
    *,
    total: int | None = None,
    desc: str | None = None,
    size: Callable[[T], int] | None = None,
    on_bad_row: Literal["raise", "skip"] = "raise",
) -> Iterator[T]:
    """Iterate, and count each item once the loop comes back for the next one.

    The items pass unchanged, one by one, and none is read ahead of the loop. After a ``break`` or an
    exception, the items that were finished stay counted. Outside a run it only iterates. The rows of a
    Hugging Face ``Dataset`` are fetched in batches, which is several times as fast.

    Args:
        iterable: What to iterate.
        every: Accepted for compatibility; has no effect. It bounds how many items the count may be behind,
            and the count is never behind by more than the item in hand.
        total: Items that this loop adds to the total of its stage. If it is None the length of a sized
            ``iterable`` is added; without ``desc`` only in a run that does not know its items.
        desc: The stage that the items go through; None for the run's own line.
        size: How many items an element stands for, if it is a batch. Called before the loop sees it. What it
            returns and ``total`` are checked as ``report_progress`` checks numbers: a bad one is left out.
        on_bad_row: What to do about an element that can't be fetched, such as a row with a broken image.
            ``"skip"`` goes on with the next one, and counts it as finished and as a bad row. In
            ``multi_process_dataset`` it is listed in ``bad_rows.jsonl`` in the output's folder; elsewhere
            the loop logs a warning at its end. Exceptions of the loop's body are raised, and those of a
            generator, which can't go on.

    Returns:
        An iterator over the same items.

    Raises:
        TypeError: ``iterable`` can't be iterated, or an argument has the wrong type.
        ValueError: ``every`` is below 1, or ``on_bad_row`` is not one of its values; or outside a run
            ``total`` is negative, or no whole number.

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
        total = checked_for(tally_here(), checked_total, total, "total")
    if size is not None and not callable(size):
        raise TypeError(f"size must be a function of one element, not {shorten(size)}")
    checked_choice(on_bad_row, "on_bad_row", ("raise", "skip"))
    desc = checked_name(desc)
    tally = None if desc is not None or size is not None else tally_here()
    only_in = tally if tally is not None and may_be_all(tally) else None
    skips = on_bad_row == "skip"
    return chain.from_iterable(_passes(iterable, total, desc, size, only_in, skips=skips))


track.__module__ = "speedy_utils"


def _passes(
    iterable: Iterable[T],
    total: int | None,
    desc: Stage,
    size: Callable[[T], int] | None,
    only_in: Tally | None,
    *,
    skips: bool,
) -> Generator[Iterable[T], None, None]:
    """Yield what ``chain`` goes through for a loop: one iterable, or one for each batch of rows.

    The generator is resumed when an iterable is exhausted, and closed when the loop is given up or has
    failed. That tells one from the other.

    Args:
        iterable: As of :func:`track`.
        total: As of :func:`track`.
        desc: As of :func:`track`.
        size: As of :func:`track`.
        only_in: The tally for which the loop may be all that there is to count.
        skips: Whether elements that can't be fetched are skipped.
    """
    tally = tally_here()
    bad = BadRows(iterable, tally) if skips else None
    batches = row_batches(iterable) if size is None and bad is None else None
    if tally is None:
        try:
            yield from [bad.others()] if bad is not None else [iterable] if batches is None else batches
        finally:
            if bad is not None:
                bad.log()
        return
    declares = desc is not None or tally.reporter.declares_lengths
    if total is None and size is None and declares and isinstance(iterable, Sized):
        with suppress(Exception):  # it is the user's code, and may fail: torch's loaders over a stream do
            total = len(iterable)
    tally = _begin(tally, desc, total)
    if tally.stage is None and not is_empty(iterable):
        tally.reporter.note_another_loop(tally.before_loop())
    if size is not None:
        yield _sized(iterable if bad is None else bad.others(), size, tally)
        return
    loop = _Loop(batches_counted_in_rows(iterable, tally))
    if bad is not None:
        bad.loop = loop
    rows = tally.reporter.input
    place = None if rows is None else rows.enter(iterable, loop, sys._getframe().f_back)
    if tally is only_in:
        loop.total, loop.whole = _own_total(iterable, total, loop.batches, tally), tally.limit or 0
    # These are rows, so fewer of them are no batches.
    if loop.batches is not None or (tally.reporter.total_is_rows and is_dataset(iterable)):
        tally.reporter.note_part()
    tally.open(loop)
    try:
        if batches is not None:
            yield from _counted_batches(batches, loop)
        elif bad is not None:
            yield from _counted(bad.others(), loop)
        elif loop.batches is None and _may_yield_tables(iterable, tally):
            yield from _after_first_element(iter(iterable), loop)
        else:
            yield from _counted(iterable, loop)
    except BaseException as error:  # the loop is left
        if isinstance(error, GeneratorExit):
            tally.reporter.note_part()
        if place is not None:
            place.leave(sys._getframe().f_back)
        raise
    finally:
        tally.close(loop, loop.read())
        tally.reporter.mark_moved(tally.stage)
        if place is not None:
            place.close()
        if bad is not None:
            bad.log()


def _own_total(iterable: object, total: int | None, batches: Batches | None, tally: Tally) -> int | None:
    """Return how many items a loop has, if they are not those of its task, and if that is known."""
    limit = tally.limit or 0
    if batches is not None:
        total = batches.total
    elif total is None and isinstance(iterable, Sized):
        with suppress(Exception):  # as above
            total = len(iterable)
    rows = batches is not None or (tally.reporter.total_is_rows and is_dataset(iterable))
    # Rows count for themselves, as long as they are no more than there are.
    return None if total is None or total == limit or (rows and total < limit) else total


def _begin(outer: Tally, desc: Stage, total: int | None) -> Tally:
    """Return the tally for a loop that begins now, and declare the loop's total."""
    tally = outer.within(desc)
    # A loop inside a call of the same stage is a part of that call, which has declared the total.
    if tally is outer.reporter.stage(tally.stage):
        outer.reporter.declare(desc, total)
    outer.reporter.mark_started(tally.stage)
    return tally


_TICKS = sys.maxsize
"""More than any loop has items."""


class _Loop:
    """The position of a running loop, which may be read from any thread at any time.

    Each item uses up one of ``ticks``, in the C code of an iterator around the loop's own. ``length_hint``
    says how many are left. So counting costs the loop no Python bytecode. A tick is used either after an item
    is fetched, or before it::

        compress(iterable, ticks)      fetch a  tick  [body]  fetch b  tick  [body]  fetch (end)
          ticks used                            1                      2
          items finished               0                      1                      2

        map({}.pop, ticks, iterable)   tick  fetch a  [body]  tick  fetch b  [body]  tick  fetch (end)
          ticks used                   1                      2                      3
          items finished               0                      1                      2

    In the body both have used one tick more than items are finished. They differ once the loop has come back
    for an item and there is none, be it that the iterator ends or that it fails.

    Args:
        batches: How many rows each element counts for; None if an element is an item.

    Attributes:
        total: How many items it has, if they are not those of its task, and if that is known.
        whole: How many items its task has.
    """

    __slots__ = ("batches", "generator", "held", "ticks", "total", "whole", "without_ticks")

    def __init__(self, batches: Batches | None) -> None:
        self.batches = batches
        self.total: int | None = None
        self.whole = 0
        self.generator: GeneratorType[Any, Any, Any] | None = None  # if it is one that the loop goes through
        self.ticks = repeat(True, _TICKS)
        self.held = 1  # ticks used for items that are not finished
        self.without_ticks = 0  # items finished for which no tick was used

    def add(self, items: int) -> None:
        """Count items that were finished, and used no tick."""
        self.without_ticks += items

    def position(self) -> int:
        """Return how many elements are finished: the position of the one in hand, from 0."""
        used = _TICKS - length_hint(self.ticks)
        ended = self.generator is not None and self.generator.gi_frame is None  # exhausted, or it failed
        return self.without_ticks + (used if ended else max(used - self.held, 0))

    def read(self) -> int:
        """Return the items finished so far."""
        done = self.position()
        if self.batches is not None:
            done = self.batches.rows(done)
        # Of more items than the task has, each is a part of one.
        return proportion(done, self.total, self.whole) if self.total and self.total > self.whole else done

    def share(self, whole: int) -> int:
        """Return how many of ``whole`` items are finished if the loop goes through all of them."""
        return proportion(self.read(), self.total, whole) if self.total and self.total < whole else 0


def _counted(iterable: Iterable[T], loop: _Loop) -> Iterator[Iterator[T]]:
    """Yield an iterator over a whole iterable, or over what is left of it."""
    loop.generator = iterable if isinstance(iterable, GeneratorType) else None
    if type(iterable) in CANNOT_FAIL or loop.generator is not None:
        yield _tick_after_fetch(iterable, loop)
        loop.held = 0
    else:
        yield _tick_before_fetch(iterable, loop)


def _tick_after_fetch(iterable: Iterable[T], loop: _Loop) -> Iterator[T]:
    """Iterate, and use a tick for each item that was fetched.

    Only for loops of which it can be seen that they have ended, as the last item is finished then: their
    iterator can't fail, or is a generator, which has no frame once it has ended or failed.
    """
    return compress(iterable, loop.ticks)


def _tick_before_fetch(iterable: Iterable[T], loop: _Loop) -> Iterator[T]:
    """Iterate, and use a tick before each item is fetched.

    For iterators that may fail: however they end, all items are finished for which a tick was used, but one.

    ``{}.pop`` returns its second argument, the item, without looking anything up, as the dict is empty. Of
    the functions that could do so it is the cheapest.
    """
    return map({}.pop, loop.ticks, iterable)  # type: ignore[arg-type]  # {} has no item type


def _counted_batches(batches: Iterator[Iterable[T]], loop: _Loop) -> Iterator[Iterator[T]]:
    """Yield an iterator over each batch of a dataset's rows. Between two of them no row is in hand."""
    for rows in batches:
        loop.held = 1
        counted = _tick_after_fetch(rows, loop)
        del rows  # frees them before the next are fetched
        yield counted
        loop.held = 0


def _may_yield_tables(iterable: object, tally: Tally) -> bool:
    """Return whether tables and data frames that a loop gets count for their rows: it is not known yet."""
    if tally.stage is not None or not tally.reporter.total_is_rows:
        return False
    return type(iterable) not in CANNOT_FAIL and not is_dataset(iterable)


def _after_first_element(iterator: Iterator[T], loop: _Loop) -> Iterator[Iterator[T]]:
    """Yield an iterator over the first element and, once its type is known, one over the others."""
    first: dict[str, T] = {}
    # setdefault() returns the element, and keeps it. Nothing else is fetched from the iterator.
    yield map(first.setdefault, repeat("it"), _tick_after_fetch(islice(iterator, 1), loop))
    rows = None
    if first:
        rows = rows_in(first.pop("it"))
        loop.ticks = repeat(True, _TICKS)
        loop.add(1 if rows is None else rows)
    # If there was none, the iterator has ended, or failed and may go on.
    yield from _counted(iterator, loop) if rows is None else [counted_tables(iterator, loop.add)]


class _Sum:
    """The items of a loop whose elements stand for several each."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n = 0

    def read(self) -> int:
        """Return the items finished so far."""
        return self.n

    def share(self, whole: int) -> int:  # noqa: ARG002 - as of all parts
        """Return 0: what the elements stand for are items of the task."""
        return 0


@interruptible
def _sized(iterable: Iterable[T], size: Callable[[T], int], tally: Tally) -> Iterator[T]:
    """Iterate, and count each element as its ``size`` says."""
    done = _Sum()
    tally.open(done)
    try:
        for element in iterable:
            n = checked_for(tally, checked_total, size(element), "size(element)")
            yield element
            done.n += n or 0
    finally:
        tally.close(done, done.n)
        tally.reporter.mark_moved(tally.stage)
