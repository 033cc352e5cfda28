"""A thread pool in this process: for functions that wait, or that leave the interpreter."""

from __future__ import annotations

import ctypes
import logging
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ...progress.run import LocalFeed, Run
from ..task import Call, Cancelled, Outcome, perform
from . import Work

logger = logging.getLogger(__name__)

_GRACE = 2.0
"""Seconds in which a cancelled thread may end."""


class ThreadEngine:
    """Runs calls in as many threads as there are workers."""

    def __init__(self, work: Work, run: Run) -> None:
        self._work = work
        self._feed = run.feed = LocalFeed()
        self._pool = ThreadPoolExecutor(work.workers, thread_name_prefix="speedy_utils-worker")
        self._calls: dict[Future[Outcome], Call] = {}
        self._busy: set[int] = set()
        self._lock = threading.Lock()

    def submit(self, call: Call, item: Any) -> None:
        """Hand the call to a thread."""
        self._calls[self._pool.submit(self._perform, call, item)] = call

    def wait(self) -> list[tuple[Call, Outcome]]:
        """Wait for the next call to end."""
        ended, _ = wait(self._calls, return_when=FIRST_COMPLETED)
        return [(self._calls.pop(future), future.result()) for future in ended]

    def cancel(self) -> None:
        """Raise :class:`~speedy_utils.multi_worker.task.Cancelled` in the threads.

        Python can't stop a thread that is inside a long C call. Such a thread is told about after two
        seconds, and left to end by itself.
        """
        for future in self._calls:
            future.cancel()
        with self._lock:
            for thread in self._busy:
                # The one way into another thread that Python has; see PyThreadState_SetAsyncExc in its C API.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(Cancelled)
                )
        _, running = wait(self._calls, timeout=_GRACE)
        if running:
            logger.warning(
                "%d threads are busy in calls that can't be interrupted; they end by themselves", len(running)
            )

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _perform(self, call: Call, item: Any) -> Outcome:
        thread = threading.get_ident()
        reporter = call.reporter()
        self._feed.add(reporter)
        self._busy.add(thread)
        try:
            return perform(self._work.function, item, self._work.kwargs, reporter)
        finally:
            with self._lock:
                self._busy.discard(thread)
            self._feed.remove(reporter)
