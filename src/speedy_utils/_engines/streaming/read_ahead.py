"""Reads the items of a run in a thread, some way ahead of the tasks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from ..._interrupts import interruptible

MAX_WAIT_S = 0.5
"""Seconds after which a wait is over, so that it can be interrupted."""


class ReadAhead:
    """Yields the items that have been read, and never waits for more.

    As an iterator it ends where no item is there yet, or where no more may be taken, and goes on later.

    Args:
        items: The items; read in a thread of its own, which starts with :meth:`start`.

    Attributes:
        most: How many items may be taken in all; as many are read, at the most. It grows.

    Example:
        >>> source = ReadAhead(iter("abc"))
        >>> source.start()
        >>> source.allow(2)
        >>> taken = []
        >>> while len(taken) < 2:
        ...     source.wait()
        ...     taken += source
        >>> taken
        ['a', 'b']
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._read_items: deque[Any] = deque()
        self._taken = self._read = 0
        self.most = 0
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._news: SimpleQueue[None] = SimpleQueue()  # for what waits for items
        self._room: SimpleQueue[None] = SimpleQueue()  # for what reads them

    def start(self) -> None:
        """Start to read."""
        threading.Thread(target=self._run, name="speedy_utils-reader", daemon=True).start()

    def close(self) -> None:
        """Read no more. What reads an item at this moment is not waited for."""
        self._closed = True
        self._room.put(None)

    def allow(self, most: int) -> None:
        """Let more items be taken, and read."""
        if most > self.most:
            self.most = most
            if self._room.empty():
                self._room.put(None)

    @property
    def exhausted(self) -> bool:
        """Whether all items were taken."""
        return self._ended and not self._read_items

    def raise_error(self) -> None:
        """Raise what reading has raised, if anything."""
        if self._error is not None:
            raise self._error

    @property
    def full(self) -> bool:
        """Whether no more items may be taken for now."""
        return self._taken >= self.most

    @interruptible  # a run in a thread of another run
    def wait(self) -> None:
        """Wait for an item to be there, for a moment."""
        if not self._read_items and not self._ended:
            with suppress(Empty):
                self._news.get(timeout=MAX_WAIT_S)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._taken >= self.most or not self._read_items:
            raise StopIteration
        self._taken += 1
        return self._read_items.popleft()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._read_items.append(item)
                self._read += 1
                if self._news.empty():
                    self._news.put(None)
                while self._read >= self.most and not self._closed:
                    self._room.get()
                if self._closed:
                    break
        except BaseException as error:  # user code may raise anything: the run raises it
            self._error = error
        self._ended = True
        self._news.put(None)
