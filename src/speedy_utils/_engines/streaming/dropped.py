"""What ends when a loop over results ends early: by ``break``, or by Ctrl-C in the code of the loop.

Both drop the iterator, and look alike to a generator: it is closed. After ``break`` it waits for the tasks
that run; after Ctrl-C, or SIGTERM, it cancels them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from ..._interrupts import Terminated, terminated

RAISE_AGAIN_AFTER_S = 0.02
"""Seconds after which an interrupt comes again that was raised where Python only prints it."""


class ResultIterator(Iterator[Any]):
    """Yields the results of a run, and ends the run when it is closed or dropped.

    In place of the generator: a Ctrl-C while that waits for tasks, as it is dropped, would only be printed,
    and the program go on.
    """

    def __init__(self, results: Generator[Any, None, None]) -> None:
        self._results = results

    def __next__(self) -> Any:
        return next(self._results)

    def close(self) -> None:
        """End the run, and wait for the tasks that are under way. Idempotent."""
        self._results.close()

    def __del__(self) -> None:
        try:
            self.close()
        except KeyboardInterrupt as error:
            _raise_again(error)


def _raise_again(error: KeyboardInterrupt) -> None:
    """Let the main thread be interrupted once more, when it has left the ``__del__`` that it is in."""
    number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT

    def send() -> None:
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            signal.raise_signal(number)

    timer = threading.Timer(RAISE_AGAIN_AFTER_S, send)
    timer.daemon = True
    timer.start()


class Interrupts:
    """Counts what interrupts the program; see :func:`counting_interrupts`."""

    def __init__(self) -> None:
        self.pressed = 0

    @property
    def count(self) -> int:
        """How many Ctrl-C, and SIGTERM that a run handles, have come."""
        return self.pressed + terminated()


@contextmanager
def counting_interrupts() -> Iterator[Interrupts]:
    """Let each Ctrl-C in the block be counted, besides what else it does; the block gets the count."""
    interrupts, handler = Interrupts(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield interrupts
        return

    def count(number: int, frame: FrameType | None) -> None:
        interrupts.pressed += 1
        handler(number, frame)

    signal.signal(signal.SIGINT, count)
    try:
        yield interrupts
    finally:
        if signal.getsignal(signal.SIGINT) is count:  # the program has not set one meanwhile
            with suppress(ValueError):  # another thread, which can't, has closed what the block is in
                signal.signal(signal.SIGINT, handler)
