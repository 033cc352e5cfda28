"""The driver's thread that reads snapshots and moves the display; nobody else touches the bar."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol, TypeVar

from .._display.base import Display
from .._interrupts import release_locks
from .._state.snapshot import Snapshot
from .._validation import checked_interval

logger = logging.getLogger("speedy_utils")


_PATIENCE = 3.0
"""Seconds to wait for the last reading after Ctrl-C."""


class Source(Protocol):
    """Whatever can be read."""

    def snapshot(self) -> Snapshot:
        """The state now."""
        ...


P = TypeVar("P", bound="Poller")


class Poller:
    """Reads progress every so often, in a thread of its own, and shows it.

    Args:
        source: What is read.
        display: What shows it.
        poll_interval: Seconds between two readings.

    Raises:
        TypeError: ``poll_interval`` is no number.
        ValueError: ``poll_interval`` is not above 0.
    """

    def __init__(self, source: Source, display: Display, poll_interval: float = 0.3) -> None:
        self._source, self._display = source, display
        self._interval = checked_interval(poll_interval)
        # They take no lock in Python, where Ctrl-C may strike.
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._shown: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="speedy_utils-poller", daemon=True)
        self._silent = False
        self._failed: set[str] = set()

    def start(self: P, patience: float = 0) -> P:
        """Start the thread.

        Args:
            patience: Seconds to wait until it has read and shown for the first time.

        Returns:
            The poller itself.
        """
        try:
            self._thread.start()
            if patience:
                with suppress(Empty):
                    self._shown.get(timeout=patience)
        except BaseException as error:  # Ctrl-C may strike once it runs
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def stop(self, patience: float | None = None) -> None:
        """End the thread after one last reading. To do so twice does no harm.

        Args:
            patience: Seconds to wait for that; None for as long as it takes.
        """
        self._stop.put(None)
        if self._thread.is_alive():
            self._thread.join(patience)

    def poll(self) -> None:
        """Read and show once. The thread calls it; a test may."""
        try:
            snapshot = self._source.snapshot()
        except Exception as error:  # progress must not end the work it tells of
            self._tell("read", error)
            return
        if not self._silent:
            # The last reading may have been under way when the run ended: none after it tells more.
            self._silent = snapshot.final
            try:
                self._display.show(snapshot)
            except Exception as error:  # the same: a display may raise anything
                self._silent = True
                self._tell("shown", error)

    def _run(self) -> None:
        self.poll()
        self._shown.put(None)
        while not self._stopped():
            self.poll()
        self.poll()
        try:
            self._display.close()
        except Exception as error:  # the same
            self._tell("shown", error)

    def _stopped(self) -> bool:
        """Wait until the next reading, or until there is no more than one."""
        try:
            self._stop.get(timeout=self._interval)
        except Empty:
            return False
        return True

    def _tell(self, what: str, error: Exception) -> None:
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
            self.stop(patience_after(kind))
        finally:  # also where Ctrl-C has struck that
            self._stop.put(None)


def patience_after(kind: type[BaseException] | None) -> float | None:
    """How long to wait for a last reading after an exception, or none.

    Ctrl-C may have struck this thread where it had taken a lock, of tqdm or of logging, for which the poller
    waits.
    """
    if kind is None or not issubclass(kind, KeyboardInterrupt):
        return None
    release_locks()
    return _PATIENCE
