"""The tasks of a run that are still to start: new ones, those handed back, and those that run again."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from itertools import islice
from typing import Any

from .chunk_sizes import ChunkSizes
from .limits.failure import Failure
from .payload.refs import is_ref
from .payload.shipment import is_plain
from .task import Chunk

READING_S = 0.05
"""Seconds after which no more items are read for a chunk."""

PARTS = 16
"""Into how many chunks a lost one is split: after two or three losses the task that ends workers is alone."""


_NEW = Chunk(0, 1, ())
"""What chunks of new tasks are like."""


class Tasks:
    """The tasks that were not started yet, or are to start again.

    Args:
        items: The items of all tasks.
        totals: The numbers of their items.
        sizes: How many travel together.
    """

    def __init__(self, items: Iterable[Any], totals: Sequence[int] | None, sizes: ChunkSizes) -> None:
        self.sizes = sizes
        # A sequence may have its own notion of iterating, which need not even end.
        self._items: Iterator[Any]
        if isinstance(items, Sequence):
            fixed = type(items) in (tuple, range)  # a task may shorten a list, which raises below
            self._items = iter(items) if fixed else map(items.__getitem__, range(len(items)))
        else:
            self._items = iter(items)
        self._totals = totals
        self._read = 0
        self._left = len(items) if isinstance(items, Sized) else None
        self._again: list[tuple[Chunk, Failure | None]] = []
        self._later: list[tuple[float, int, Chunk]] = []  # a heap, by when they are due
        self._order = itertools.count()
        # What was read, or handed back: a chunk that is like it, and the items that have not been started
        # with the number of their first task.
        self._waiting: list[tuple[Chunk, int, deque[Any]]] = []

    def next(self, workers: int) -> tuple[Chunk, Failure | None] | None:
        """Return the next chunk to start, with the failure after which it starts again; None for none.

        Args:
            workers: How many workers there are.
        """
        if self._again:
            return self._again.pop()
        if self._later and self._later[0][0] <= time.monotonic():
            return heapq.heappop(self._later)[2], None
        size = self.sizes.next(self._left, workers)
        if not self._waiting:
            items = self._read_items(size)
            if not items:
                return None
            self._waiting.append((_NEW, self._read, items))
            self._read += len(items)
        like, first, items = self._waiting.pop()
        # The value of a reference comes with the task, as an argument of its own.
        if not is_plain(islice(items, size)):
            size = next((at for at, item in enumerate(islice(items, size)) if is_ref(item)), size) or 1
        if size >= len(items):
            taken = [*items]
        else:
            taken = [items.popleft() for _ in range(size)]
            self._waiting.append((like, first + size, items))
        if self._left is not None:
            self._left -= len(taken)
        return self._chunk(like, first, taken), None

    def _read_items(self, size: int) -> deque[Any]:
        """Read the items of a chunk; fewer if that takes long, as it may read files and workers wait."""
        if self.sizes.most_seconds is None:  # as many as were asked for
            return deque(islice(self._items, size))
        items, until = deque(islice(self._items, 1)), time.monotonic() + READING_S
        while len(items) < size and time.monotonic() < until:
            more = [*islice(self._items, min(len(items), size - len(items)))]
            if not more:
                break
            items += more
        return items

    def start_again(self, chunk: Chunk, place: int, failure: Failure) -> None:
        """Let one task of a chunk start again, by itself, before new ones, or once it is due."""
        again = replace(
            chunk, attempt=chunk.attempt + 1, uncounted=chunk.uncounted + bool(failure.unsuited_node)
        )
        alone = self._chunk(again, chunk.task + place, chunk.items[place : place + 1])
        if failure.retry_in is None:
            self._again.append((alone, failure))
        else:
            due = time.monotonic() + failure.retry_in
            heapq.heappush(self._later, (due, next(self._order), alone))

    def waiting(self) -> int:
        """Return how many tasks wait until they are due."""
        return len(self._later)

    def due_in(self) -> float | None:
        """Return the seconds until the next of them is due; None if there are none."""
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def split(self, chunk: Chunk, place: int = 0) -> None:
        """Let the tasks of a lost chunk start again from a place on, in smaller chunks.

        Which of them has ended the worker is not known, so the attempt counts for none of them.
        """
        again = replace(chunk, attempt=chunk.attempt + 1, uncounted=chunk.uncounted + 1)
        items = chunk.items[place:]
        size = -(-len(items) // PARTS)
        for start in reversed(range(0, len(items), max(1, size))):
            part = self._chunk(again, chunk.task + place + start, items[start : start + size])
            self._again.append((part, None))

    def hand_back(self, chunk: Chunk, place: int) -> None:
        """Let the tasks of a chunk that have not begun be started next, from a place on."""
        self._waiting.append((chunk, chunk.task + place, deque(chunk.items[place:])))
        if self._left is not None:
            self._left += len(chunk.items) - place

    def part(self, chunk: Chunk, place: int, stop: int) -> Chunk:
        """Return the tasks of a chunk from a place to another."""
        return self._chunk(chunk, chunk.task + place, chunk.items[place:stop])

    def _chunk(self, like: Chunk, first: int, items: Sequence[Any]) -> Chunk:
        totals = None if self._totals is None else self._totals[first : first + len(items)]
        return Chunk(first, like.attempt, items, totals, like.uncounted)
