"""One after another, in the caller's thread: for debuggers, profilers and tests."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from .._run.run import LocalFeed, Run
from .._worker.reporter import Reporter
from .base import WorkSpec
from .task import Attempt, Outcome, run_attempt
from .worker_logs import ThreadLogs


class SequentialEngine:
    """Runs a call when it is waited for."""

    def __init__(self, work: WorkSpec, run: Run) -> None:
        self._work = work
        self._feed = run.feed = LocalFeed()
        self._logs = ThreadLogs(work.worker_logs)
        self._waiting: list[tuple[Attempt, Any]] = []

    def submit(self, call: Attempt, item: Any) -> None:
        """Let the call wait."""
        self._waiting.append((call, item))

    def wait(self) -> list[tuple[Attempt, Outcome]]:
        """Run the call that has waited longest."""
        call, item = self._waiting.pop(0)
        reporter = call.reporter()
        self._feed.add(reporter)
        try:
            # In a context of its own, as in a thread: nothing that Ctrl-C leaves bound stays.
            return [(call, copy_context().run(self._perform, call, item, reporter))]
        finally:
            self._feed.remove(reporter)

    def _perform(self, call: Attempt, item: Any, reporter: Reporter) -> Outcome:
        with self._logs.of(self):
            return run_attempt(
                self._work.function, item, self._work.kwargs, reporter, adopt_tqdm=call.adopt_tqdm
            )

    def cancel(self) -> None:
        """Do nothing: no call runs while the driver's thread is here."""

    def close(self) -> None:
        """Let the streams go."""
        self._logs.close()
