"""One after another, in the caller's thread: for debuggers, profilers and tests."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from contextvars import copy_context

from ..._run.feed import PREPARING, LocalFeed
from ..._worker.channel.children import Children
from ..._worker.chunk_reporter import ChunkReporter
from ..._worker.event_loop import EventLoop, shared_loop
from ..._worker.joining import children_counted, in_one_thread
from ..base import WorkSpec
from ..cpus import cpus
from ..limits.time_limit import TimeLimit, signalling_main_thread
from ..per_worker import close_instance, make_instance, maker_of
from ..task import Chunk, ChunkOutcome, run_chunk
from ..worker_logs import ThreadLogs

logger = logging.getLogger("speedy_utils")


class SequentialEngine(LocalFeed):
    """Runs a chunk when it is waited for; coroutines in one event loop, each to its end."""

    ahead = 0

    def __init__(self, work: WorkSpec) -> None:
        super().__init__()
        self.workers = 1  # a chunk that was submitted runs
        self._work = work
        self._logs = ThreadLogs(work.worker_logs)
        self._event_loop = EventLoop()
        self._children: Children | None = None
        self._waiting: list[tuple[Chunk, ChunkOutcome]] = []
        self.phase = PREPARING if maker_of(work.function, work.kwargs) else ""

    @classmethod
    def default_workers(cls, *, awaits: bool = False) -> int:  # noqa: ARG003 - it makes no difference
        """Return the number of CPUs: shards are cut for as many workers as elsewhere."""
        return cpus()

    def start(self) -> None:
        """Take over the streams if not all that is printed is shown."""
        self._logs.open()
        if in_one_thread():
            self._children = Children.if_possible()

    def submit(self, chunk: Chunk) -> None:
        """Let the chunk wait."""
        self._waiting.append((chunk, ChunkOutcome()))

    def wait(self, timeout: float | None = None) -> None:  # noqa: ARG002 - it does not wait
        """Run the chunk that has waited longest."""
        chunk, outcome = self._waiting[0]
        make_instance(self._work.function, self._work.kwargs)
        reporter = chunk.reporter(self._work.settings, self._children)
        self.add(reporter)
        try:
            # In a context of its own, as in a thread: what Ctrl-C leaves bound there does not matter.
            copy_context().run(self._run, chunk, outcome, reporter)
        finally:
            self.remove(reporter)

    def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Return the chunk that was run."""
        return [self._waiting.pop(0)]

    def _run(self, chunk: Chunk, outcome: ChunkOutcome, reporter: ChunkReporter) -> None:
        shared_loop.set(self._event_loop)
        work = self._work
        limited = work.settings.task_timeout is not None
        limit = signalling_main_thread() if limited else nullcontext()
        with self._logs.of(self), children_counted(self._children), limit:
            run_chunk(
                *(work.function, chunk.items, work.kwargs, reporter, work.settings),
                outcome=outcome,
                in_caller=True,
                retries=work.retries,
                on_stuck=_warn_of_stuck,
            )

    def cancel(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Return what the interrupted chunk has done: none runs while the driver's thread is here."""
        return self._waiting

    def close(self) -> None:
        """End what coroutines have left, and restore the streams."""
        try:
            close_instance(self._work.function, self._work.kwargs)
            self._event_loop.close()
        finally:
            self._logs.close()
            if self._children is not None:
                self._children.close()


def _warn_of_stuck(limit: TimeLimit) -> bool:
    logger.warning("%s, in a call that can't be interrupted here: it is waited for", limit.error())
    return False
