"""One after another, in the caller's thread: for debuggers, profilers and tests."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from .._run.run import PREPARING, LocalFeed
from .._worker.event_loop import EventLoop, shared_loop
from .._worker.reporter import Reporter
from .base import WorkSpec
from .cpus import cpus
from .per_worker import close_instance, make_instance, maker_of
from .task import Attempt, Outcome, run_attempt
from .worker_logs import ThreadLogs


class SequentialEngine(LocalFeed):
    """Runs an attempt when it is waited for; coroutines in one event loop, each to its end."""

    def __init__(self, work: WorkSpec) -> None:
        super().__init__()
        self.workers = 1  # an attempt that was submitted runs
        self._work = work
        self._logs = ThreadLogs(work.worker_logs)
        self._event_loop = EventLoop()
        self._waiting: list[tuple[Attempt, Any]] = []
        self.phase = PREPARING if maker_of(work.function, work.kwargs) else ""

    @classmethod
    def default_workers(cls, *, awaits: bool = False) -> int:  # noqa: ARG003 - it makes no difference
        """Return the number of CPUs: shards are cut for as many workers as elsewhere."""
        return cpus()

    def start(self) -> None:
        """Take over the streams if not all that is printed is shown."""
        self._logs.open()

    def submit(self, attempt: Attempt, item: Any) -> None:
        """Let the attempt wait."""
        self._waiting.append((attempt, item))

    def wait(self) -> list[tuple[Attempt, Outcome]]:
        """Run the attempt that has waited longest."""
        attempt, item = self._waiting.pop(0)
        make_instance(self._work.function, self._work.kwargs)
        reporter = attempt.reporter()
        self.add(reporter)
        try:
            # In a context of its own, as in a thread: what Ctrl-C leaves bound there does not matter.
            return [(attempt, copy_context().run(self._run, attempt, item, reporter))]
        finally:
            self.remove(reporter)

    def _run(self, attempt: Attempt, item: Any, reporter: Reporter) -> Outcome:
        shared_loop.set(self._event_loop)
        with self._logs.of(self):
            return run_attempt(
                self._work.function,
                item,
                self._work.kwargs,
                reporter,
                adopt_tqdm=attempt.adopt_tqdm,
                in_caller=True,
            )

    def cancel(self) -> None:
        """Do nothing: no attempt runs while the driver's thread is here."""

    def close(self) -> None:
        """End what coroutines have left, and restore the streams."""
        try:
            close_instance(self._work.function, self._work.kwargs)
            self._event_loop.close()
        finally:
            self._logs.close()
