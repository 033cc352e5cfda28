"""The driver's thread that reads snapshots and moves the display; no other thread touches the bar."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol, TypeVar

from .._display.base import Display
from .._interrupts import release_locks
from .._state.snapshot import Snapshot
from .._validation import checked_interval

logger = logging.getLogger("speedy_utils")


LAST_READ_TIMEOUT_S = 3.0
"""Seconds to wait for the last reading after Ctrl-C."""


READING_SHARE = 0.125
"""Part of a core that readings may take: with thousands of workers the next one waits for long enough."""


MAX_STRETCHED_S = 1.0
"""Seconds after which it comes in any case, so that the bar is no more than two behind."""


class Source(Protocol):
    """What a poller reads: a run, or a progress actor."""

    def snapshot(self) -> Snapshot:
        """Return the state now."""
        ...


P = TypeVar("P", bound="Poller")


class Poller:
    """Reads progress every so often, in a thread of its own, and shows it.

    Args:
        source: What is read.
        display: What shows it.
        poll_interval: Seconds between two readings; with thousands of workers there may be more.

    Raises:
        TypeError: ``poll_interval`` is no number.
        ValueError: ``poll_interval`` is not above 0.
    """

    def __init__(self, source: Source, display: Display, poll_interval: float = 0.3) -> None:
        self._source, self._display = source, display
        self._interval = checked_interval(poll_interval)
        # Queues that take no lock in Python, see _interrupts.
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._shown: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="speedy_utils-poller", daemon=True)
        self._took = 0.0  # seconds of CPU for the last reading
        self._silent = False
        self._failed: set[str] = set()

    def start(self: P, timeout: float = 0) -> P:
        """Start the thread.

        Args:
            timeout: Seconds to wait, at most, until it has read and shown for the first time.

        Returns:
            The poller itself.
        """
        try:
            self._thread.start()
            if timeout:
                with suppress(Empty):
                    self._shown.get(timeout=timeout)
        except BaseException as error:  # Ctrl-C, while the thread runs already
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def stop(self, timeout: float | None = None) -> None:
        """End the thread after one last reading. Idempotent.

        Args:
            timeout: Seconds to wait for that; None for as long as it takes.
        """
        self._stop.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def poll(self) -> None:
        """Read and show once. The thread calls it; a test may."""
        began = time.thread_time()
        self._read_and_show()
        self._took = time.thread_time() - began

    def next_interval(self) -> float:
        """Return the seconds between the last reading and the next one."""
        return max(self._interval, min(self._took / READING_SHARE, MAX_STRETCHED_S))

    def _read_and_show(self) -> None:
        try:
            snapshot = self._source.snapshot()
        except Exception as error:  # progress must not end the work
            self._warn("read", error)
            return
        if not self._silent:
            # The last reading may have been under way when the run ended: a later one shows no more.
            self._silent = snapshot.final
            try:
                self._display.show(snapshot)
            except Exception as error:  # the same: a display may raise anything
                self._silent = True
                self._warn("shown", error)

    def _run(self) -> None:
        self.poll()
        self._shown.put(None)
        while not self._stopped():
            self.poll()
        self.poll()
        try:
            self._display.close()
        except Exception as error:  # the same
            self._warn("shown", error)

    def _stopped(self) -> bool:
        """Wait until the next reading, and return whether it is the last one."""
        try:
            self._stop.get(timeout=self.next_interval())
        except Empty:
            return False
        return True

    def _warn(self, what: str, error: Exception) -> None:
        if what not in self._failed:
            self._failed.add(what)
            logger.warning(
                "the progress can't be %s (%s: %s); the work goes on", what, type(error).__name__, error
            )

    def __enter__(self: P) -> P:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop(last_read_timeout(kind))
        finally:  # once more, see _interrupts
            self._stop.put(None)


def last_read_timeout(kind: type[BaseException] | None) -> float | None:
    """Return how many seconds to wait for the last reading after an exception or none; None for no limit.

    Ctrl-C may have interrupted this thread while it held a lock that the poller needs. tqdm's is released;
    others, such as that of a handler of logging, stay held.
    """
    if kind is None or not issubclass(kind, KeyboardInterrupt):
        return None
    if "tqdm" in sys.modules:  # else no thread holds its lock
        from .._display.terminal.tqdm_bars import tqdm_locks

        release_locks(tqdm_locks())
    return LAST_READ_TIMEOUT_S
