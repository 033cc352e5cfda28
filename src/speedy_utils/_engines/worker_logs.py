"""Which workers' printed lines a run shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Any, Literal, get_args

from .._display.terminal.lines import output_filter
from .._display.terminal.redirect import redirect_streams, restore_streams
from .._validation import checked_choice

WorkerLogs = Literal["all", "first", "none"]


FIRST_WORKER_SILENCE_S = 60.0
"""Seconds without a line, after which the first worker may have ended: the next that prints replaces it."""


def checked_worker_logs(worker_logs: Any) -> WorkerLogs:
    """Return a choice of ``worker_logs``.

    Raises:
        ValueError: There is no such choice.
    """
    checked_choice(worker_logs, "worker_logs", get_args(WorkerLogs))
    choice: WorkerLogs = worker_logs
    return choice


class LogFilter:
    """Decides which workers' lines are shown.

    Args:
        choice: All of them, one at a time, or none. The one is the first that prints and, once it has been
            silent for a minute, the next that does.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, choice: WorkerLogs, clock: Callable[[], float] = time.monotonic) -> None:
        self._choice = choice
        self._clock = clock
        self._first: Hashable = None
        self._heard = -inf
        self._lock = threading.Lock()

    def allows(self, worker: Hashable) -> bool:
        """Return whether a line of a worker is shown. Called for each line: the first caller is the first."""
        if self._choice != "first":
            return self._choice == "all"
        with self._lock:
            now = self._clock()
            if now - self._heard > FIRST_WORKER_SILENCE_S:
                self._first = worker
            if self._first != worker:
                return False
            self._heard = now
            return True


class ThreadLogs:
    """What the tasks of a run print in threads of this process.

    Args:
        choice: Whose lines are shown.
        several: Whether several threads print at once: each line is to stand whole.
    """

    def __init__(self, choice: WorkerLogs, *, several: bool = False) -> None:
        self._choice = choice
        self._several = several
        self._log_filter = LogFilter(choice)
        self._outer = output_filter.get()  # that of the task which started the run

    def open(self) -> ThreadLogs:
        """Take over the streams if not all lines are shown, or if several threads print.

        Returns:
            The same object.
        """
        if self._several or self._choice != "all":
            redirect_streams(self)
        return self

    @contextmanager
    def of(self, worker: Hashable) -> Iterator[None]:
        """Attribute what is printed in this context, until the block ends, to a worker."""
        outer, shows = self._outer, partial(self._log_filter.allows, worker)
        token = output_filter.set(shows if outer is None else lambda: outer() and shows())
        try:
            yield
        finally:
            output_filter.reset(token)

    def close(self) -> None:
        """Restore the streams. Idempotent."""
        restore_streams(self)
