"""Threads of this process: for functions that wait, or that leave the interpreter."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from .._interrupts import interruptible, raise_in_thread
from .._run.run import LocalFeed
from .base import WorkSpec, cpus
from .task import Attempt, Cancelled, Outcome, run_attempt
from .worker_logs import ThreadLogs

logger = logging.getLogger("speedy_utils")


_GRACE = 2.0
"""Seconds in which a cancelled thread may end."""


_LOOK = 0.005
"""Seconds between two looks at whether a thread may be cancelled now."""


class ThreadEngine(LocalFeed):
    """Runs attempts in as many threads as there are workers.

    They are daemons, unlike those of ``concurrent.futures``: a program that was interrupted would wait at its
    end for threads that can't be.
    """

    def __init__(self, work: WorkSpec) -> None:
        super().__init__()
        self._work = work
        self._logs = ThreadLogs(work.worker_logs)
        self._waiting: SimpleQueue[tuple[Attempt, Any] | None] = SimpleQueue()
        self._ended: SimpleQueue[tuple[Attempt, Outcome | BaseException]] = SimpleQueue()
        self._busy: set[int] = set()
        self._struck: set[int] = set()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"speedy_utils-worker-{n}", daemon=True)
            for n in range(work.workers)
        ]

    @classmethod
    def default_workers(cls) -> int:
        """Return the number of CPUs."""
        return cpus()

    def start(self) -> None:
        """Start the threads.

        Raises:
            RuntimeError: The system gives this process no more threads.
        """
        self._logs.open()
        for thread in self._threads:
            thread.start()

    def submit(self, attempt: Attempt, item: Any) -> None:
        """Hand the attempt to a thread."""
        self._waiting.put((attempt, item))

    @interruptible  # a run in a thread of another run
    def wait(self) -> list[tuple[Attempt, Outcome]]:
        """Wait for the next attempts to end."""
        ended = [self._ended.get()]
        with suppress(Empty):
            while True:
                ended.append(self._ended.get_nowait())
        outcomes = []
        for attempt, outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append((attempt, outcome))
        return outcomes

    def cancel(self) -> None:
        """Raise :class:`~speedy_utils._engines.task.Cancelled` in the threads.

        One that may hold a lock of tqdm or logging is asked again in a moment. Python can't stop a thread
        that is inside a long C call. Such a thread is told about after two seconds, and left to end by
        itself.
        """
        self._let_end()
        deadline = time.monotonic() + _GRACE
        try:
            self._strike()
            while (running := self._running()) and time.monotonic() < deadline:
                running[0].join(_LOOK)
                self._strike()
        except KeyboardInterrupt:  # a second Ctrl-C: no more patience
            self._strike()
            raise
        if running:
            logger.warning(
                "%d threads are busy in calls that can't be interrupted; they end by themselves, or with the "
                "program",
                len(running),
            )

    def close(self) -> None:
        """Let the threads end, and the streams go."""
        try:
            self._let_end()
            self._strike()  # nobody is busy any more, unless a second Ctrl-C came before the first was heard
        finally:
            self._logs.close()

    def _running(self) -> list[threading.Thread]:
        return [each for each in self._threads if each.is_alive()]

    def _strike(self) -> None:
        """Cancel the threads that are busy, each once, as far as they may be struck where they are."""
        with self._lock:  # a thread that leaves the user's function waits here
            self._struck |= {
                thread for thread in self._busy - self._struck if raise_in_thread(thread, Cancelled)
            }

    def _let_end(self) -> None:
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)

    def _run(self) -> None:
        while (task := self._waiting.get()) is not None:
            attempt, item = task
            try:
                outcome: Outcome | BaseException = self._run_attempt(attempt, item)
            except Cancelled:
                return
            # A KeyboardInterrupt that the function itself has raised: signals go to the main thread.
            except BaseException as error:  # whatever it is, the driver waits for news
                outcome = error
            self._ended.put((attempt, outcome))
        self._waiting.put(None)  # for the next thread

    def _run_attempt(self, attempt: Attempt, item: Any) -> Outcome:
        thread = threading.get_ident()
        reporter = attempt.reporter()
        self.add(reporter)
        with self._lock:
            self._busy.add(thread)
        try:
            with self._logs.of(thread):
                return run_attempt(
                    self._work.function, item, self._work.kwargs, reporter, adopt_tqdm=attempt.adopt_tqdm
                )
        finally:
            with self._lock:
                self._busy.discard(thread)
            self.remove(reporter)
