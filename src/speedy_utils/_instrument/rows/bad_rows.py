"""Iterate past elements that can't be fetched: the rows with a broken image, the files that are gone.

What survives an exception goes on with the next element: a dataset and a sequence by its position, an
iterator that is no generator by being asked again.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import CO_GENERATOR
from itertools import chain
from types import GeneratorType
from typing import Any, Protocol

from ..._interrupts import interruptible
from ..._worker.input_rows import BAD_ROWS, describe_bad_rows, reason_of
from ..._worker.tally import Tally
from .dataset_rows import row_batches

logger = logging.getLogger("speedy_utils")

CANNOT_FAIL = (list, tuple, range, dict, set, frozenset, str, bytes, deque)
"""Their iterators fail only if the loop itself changes them."""

_AFTER_BAD_ROW = 1000
"""Rows of a dataset that are fetched one by one after one that can't be, as bad rows often are neighbours."""

_MAX_FAILURES = 1000
"""An iterator that has failed so often, without an element in between, is not expected to go on."""

_END = object()
"""What is fetched from an iterator that has no more elements."""

_MAX_LOGGED = 10
"""How many of a loop's bad rows are named in the log."""


class Loop(Protocol):
    """What counts the elements that a loop has finished."""

    def add(self, items: int) -> None:
        """Count more of them."""
        ...


class BadRows:
    """The elements of a loop that can't be fetched.

    Args:
        iterable: What the loop goes through.
        tally: What counts here; None outside a run.

    Attributes:
        loop: The position of the loop, if it has one.
    """

    def __init__(self, iterable: Iterable[Any], tally: Tally | None) -> None:
        self._iterable = iterable
        self._reporter = None if tally is None else tally.reporter
        self._input = None if self._reporter is None else self._reporter.input
        self._first = None if self._input is None else self._input.first_row(iterable)
        self.loop: Loop | None = None
        self._unlisted = 0
        self._some: list[tuple[int, str]] = []

    def others(self) -> Iterator[Any]:
        """Return an iterator over the other elements."""
        return _readable(self._iterable, self._skip)

    def _skip(self, position: int, error: Exception) -> None:
        if self.loop is not None:
            self.loop.add(1)
        if self._input is None:
            self._unlisted += 1
            if len(self._some) < _MAX_LOGGED:
                self._some.append((position, reason_of(error)))
        elif not self._input.list_bad_row(position, self._first, error):
            return
        if self._reporter is not None:
            self._reporter.own.add_to_counters({BAD_ROWS: 1})

    def log(self) -> None:
        """Log what is listed in no file."""
        if self._unlisted:
            logger.warning(describe_bad_rows(self._unlisted, self._some))


def _readable(iterable: Any, skipped: Callable[[int, Exception], object]) -> Iterator[Any]:
    """Iterate, past elements that can't be fetched, as far as the iterator survives its exceptions.

    Args:
        iterable: A dataset, a sequence, or another iterable.
        skipped: Called with the position and the error of each element that can't be fetched.
    """
    dataset = getattr(sys.modules.get("datasets"), "Dataset", None)
    kind = type(iterable)
    if dataset is not None and isinstance(iterable, dataset):
        return _readable_rows(iterable, skipped)
    if kind in CANNOT_FAIL:
        return iter(iterable)
    if isinstance(iterable, Sequence) or not hasattr(kind, "__iter__"):
        return _readable_items(iterable, skipped)
    return _readable_elements(iterable, skipped)


@interruptible
def _readable_rows(dataset: Any, skipped: Callable[[int, Exception], object]) -> Iterator[Any]:
    """Iterate over a dataset, whose iterator is a generator: after an error it is begun anew."""
    at, end = 0, len(dataset)
    while at < end:
        rest = dataset.select(range(at, end)) if at else dataset
        batches = row_batches(rest)
        rows = iter(rest) if batches is None else chain.from_iterable(batches)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except MemoryError:
                raise
            except Exception as error:
                skipped(at, error)
                at += 1
                break
            at += 1
            yield row
            del row  # before the next is fetched
        for i in range(at, min(at + _AFTER_BAD_ROW, end)):
            at = i + 1
            try:
                row = dataset[i]
            except MemoryError:
                raise
            except Exception as error:
                skipped(i, error)
                continue
            yield row
            del row


@interruptible
def _readable_items(items: Any, skipped: Callable[[int, Exception], object]) -> Iterator[Any]:
    """Iterate over a sequence by its indices."""
    i = 0
    while True:
        try:
            item = items[i]
        except IndexError as error:
            if not hasattr(type(items), "__len__") or i >= len(items):
                return
            skipped(i, error)
        except MemoryError:
            raise
        except Exception as error:
            if not hasattr(type(items), "__len__"):  # there may be no end
                raise
            skipped(i, error)
        else:
            yield item
            del item
        i += 1


@interruptible
def _readable_elements(iterable: Any, skipped: Callable[[int, Exception], object]) -> Iterator[Any]:
    """Iterate over anything else, until it ends, or fails for good."""
    iterator = iter(iterable)
    position = failures = 0
    failed: Exception | None = None  # with the last element
    while True:
        error: Exception | None = None
        try:
            element = next(iterator, _END)
        except MemoryError:
            raise
        except Exception as raised:
            failures += 1
            if isinstance(iterator, GeneratorType) or failures > _MAX_FAILURES:
                raise
            error = raised
        else:
            failures = 0
            if element is _END and failed is not None and _raised_in_generator(failed):
                # It is not the end: a generator inside is dead after it raised.
                raise failed
        if failed is not None:
            skipped(position - 1, failed)
        failed = error
        if error is None:
            if element is _END:
                return
            yield element
            del element  # before the next is fetched
        position += 1


def _raised_in_generator(error: Exception) -> bool:
    """Return whether a generator was iterated when an error was raised, other than the one here."""
    trace = error.__traceback__
    trace = None if trace is None else trace.tb_next
    while trace is not None:
        if trace.tb_frame.f_code.co_flags & CO_GENERATOR:
            return True
        trace = trace.tb_next
    return False
