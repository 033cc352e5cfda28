"""The driver's thread that reads snapshots and moves the display; nobody else touches the bar."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Any, Protocol

from ..checks import checked_interval
from .display import Display, GivenBar
from .snapshot import Snapshot, StageSnapshot

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Whatever can be read."""

    def snapshot(self) -> Snapshot:
        """The state now."""
        ...


class ProgressPoller:
    """Reads progress every so often, in a thread of its own, and shows it.

    Args:
        source: The handle of a progress actor, a :class:`ProgressActor` of this process, or anything with
            a ``snapshot()``.
        display: A ``tqdm`` bar, which stays yours to close, or a display.
        poll_interval: Seconds between two readings.

    Raises:
        TypeError: ``poll_interval`` is no number.
        ValueError: ``poll_interval`` is not above 0.

    Example:
        >>> from tqdm import tqdm
        >>> from speedy_utils import ProgressActor, ProgressPoller
        >>> actor = ProgressActor(total=10)
        >>> with tqdm(total=10, disable=True) as bar, ProgressPoller(actor, bar):
        ...     _ = actor.update(10)
    """

    def __init__(self, source: Any, display: Any, poll_interval: float = 0.3) -> None:
        self._source: Source = source if hasattr(source, "snapshot") else _ActorSource(source)
        self._display: Display = display if hasattr(display, "show") else GivenBar(display)
        self._interval = checked_interval(poll_interval)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speedy_utils-poller", daemon=True)
        self._silent = False
        self._failed: set[str] = set()

    def start(self) -> ProgressPoller:
        """Start the thread.

        Returns:
            The poller itself.
        """
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread after one last reading. Only the first call does anything."""
        if self._thread.is_alive():
            self._stop.set()
            self._thread.join()

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
        while not self._stop.wait(self._interval):
            self.poll()
        self.poll()
        try:
            self._display.close()
        except Exception as error:  # the same
            self._tell("shown", error)

    def _tell(self, what: str, error: Exception) -> None:
        if what not in self._failed:
            self._failed.add(what)
            logger.warning(
                "the progress can't be %s (%s: %s); the work goes on", what, type(error).__name__, error
            )

    def __enter__(self) -> ProgressPoller:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _ActorSource:
    """Reads a progress actor that a user drives."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def snapshot(self) -> Snapshot:
        from .actor import read_progress

        state = read_progress(self._actor)
        stages = tuple(StageSnapshot(name, done, None) for name, done in state["stages"].items())
        own = StageSnapshot(
            state["desc"],
            state["processed"],
            state["total"],
            elapsed=state["elapsed"],
            counters=state["counters"],
        )
        return Snapshot(own, stages)
