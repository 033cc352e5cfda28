"""Threads of this process: for functions that wait, or that release the interpreter's lock."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

from ..._interrupts import Cancelled, interruptible, raise_in_thread
from ..._run.feed import PREPARING, LocalFeed
from ..._worker.chunk_reporter import ChunkReporter
from ..._worker.event_loop import EventLoop, shared_loop
from ..._worker.joining import in_one_thread, name_run, unname_run
from ..base import WorkSpec
from ..cpus import cpus
from ..limits.failure import timeout_failure
from ..limits.time_limit import TimeLimit
from ..per_worker import CLOSE_TIMEOUT_S, close_instance, make_instance, maker_of
from ..task import Chunk, ChunkOutcome, Outcome, run_chunk
from ..worker_logs import ThreadLogs

logger = logging.getLogger("speedy_utils")

COROUTINES = 32
"""How many coroutines run at once by default."""

CANCEL_GRACE_S = 2.0
"""Seconds in which the cancelled threads may end before a run goes on without them."""

CANCEL_RETRY_S = 0.005
"""Seconds between two attempts to cancel the threads that could not be interrupted where they were."""

_Ended = tuple[Chunk, ChunkOutcome]


class ThreadEngine(LocalFeed):
    """Runs chunks in as many threads as there are workers, and their coroutines in one event loop.

    The threads are daemons, unlike those of ``concurrent.futures``: an interrupted program would else wait at
    its end for those that can't be interrupted.
    """

    ahead = 0

    def __init__(self, work: WorkSpec) -> None:
        super().__init__()
        self.workers = work.workers
        self._work = work
        self._logs = ThreadLogs(work.worker_logs, several=True)
        self._event_loop = EventLoop(on_start=self._expect_coroutines)
        self._waiting: SimpleQueue[Chunk | None] = SimpleQueue()
        self._ended: SimpleQueue[_Ended | BaseException | None] = SimpleQueue()
        self._got: _Ended | BaseException | None = None
        self._under_way: dict[int, _Ended] = {}  # by the first task
        self._busy: set[int] = set()
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.phase = PREPARING if maker_of(work.function, work.kwargs) else ""

    @classmethod
    def default_workers(cls, *, awaits: bool = False) -> int:
        """Return the number of CPUs, which tasks that wait don't need."""
        return COROUTINES if awaits else cpus()

    def start(self) -> None:
        """Take over the streams, so that the lines of the threads stand whole."""
        self._logs.open()
        if in_one_thread():
            name_run("")  # processes of the tasks can't know for which; nor do they count for a block around

    def submit(self, chunk: Chunk) -> None:
        """Hand the chunk to a thread, which is started unless there are as many as workers.

        Raises:
            RuntimeError: The system gives this process no more threads.
        """
        if len(self._threads) < self.workers:
            name = f"speedy_utils-worker-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._waiting.put(chunk)

    @interruptible  # a run in a thread of another run
    def wait(self, timeout: float | None = None) -> None:
        """Wait for the next chunk to end, or for the number of workers to grow."""
        with suppress(Empty):
            # If it is interrupted, what it got is still under way.
            self._got = self._ended.get(timeout=timeout)

    def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Return the chunks that have ended.

        Raises:
            BaseException: What a thread was ended by.
        """
        ended, self._got = [self._got], None
        with suppress(Empty):
            while True:
                ended.append(self._ended.get_nowait())
        outcomes = []
        for each in ended:
            if isinstance(each, BaseException):
                raise each
            if each is not None:
                del self._under_way[each[0].task]
                outcomes.append(each)
        return outcomes

    def cancel(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Raise :class:`~speedy_utils._engines.task.Cancelled` in the threads, and wait for them to end.

        A thread where that must not be raised (see ``_interrupts``) is tried again. One that is inside a long
        C call can't be interrupted: after two seconds a warning says so, and it is left to end by itself.
        Coroutines get a CancelledError.

        Returns:
            The chunks that were under way, with what they have done.
        """
        self._end_idle_threads()
        self._event_loop.cancel()
        deadline = time.monotonic() + CANCEL_GRACE_S
        try:
            self._cancel_busy_threads()
            while (running := self._running()) and time.monotonic() < deadline:
                running[0].join(CANCEL_RETRY_S)
                self._cancel_busy_threads()
        except KeyboardInterrupt:  # a second Ctrl-C ends the waiting
            self._cancel_busy_threads()
            raise
        if running:
            logger.warning(
                "%d threads are busy in calls that can't be interrupted; they end by themselves, or with the "
                "program",
                len(running),
            )
            self._read_counts()
        return [*self._under_way.values()]

    def _read_counts(self) -> None:
        """Note what the chunks that go on have done, and counted, until now."""
        for reporter in [*self._reporters]:
            if isinstance(reporter, ChunkReporter) and (known := self._under_way.get(int(reporter.task))):
                chunk, outcome = known
                so_far = replace(outcome, values=[*outcome.values], others={**outcome.others})
                so_far.items, so_far.seconds = reporter.plain_items, reporter.seconds()
                self._under_way[chunk.task] = chunk, so_far

    def close(self) -> None:
        """Let the threads end, end what coroutines have left, and restore the streams."""
        try:
            self._end_idle_threads()
            self._cancel_busy_threads()  # there are some only if a second Ctrl-C came before cancel() began
            if self.phase:
                self._close_instances()
            self._event_loop.close()
        finally:
            self._logs.close()
            unname_run("")

    def _expect_coroutines(self) -> None:
        """Let more tasks run at once, as they only wait."""
        if self._work.may_grow and self.workers < COROUTINES:
            self.workers = COROUTINES
            self._ended.put(None)

    def _close_instances(self) -> None:
        """Wait until the threads that have no attempt have closed what they had made."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for thread in self._running():
            thread.join(0 if thread.ident in self._busy else max(0.0, deadline - time.monotonic()))

    def _running(self) -> list[threading.Thread]:
        return [each for each in self._threads if each.is_alive()]

    def _cancel_busy_threads(self) -> None:
        """Interrupt the threads that run a chunk, each once, if they are where that is allowed."""
        with self._lock:  # a thread that leaves the user's function waits for it
            self._cancelled |= {
                thread for thread in self._busy - self._cancelled if raise_in_thread(thread, Cancelled)
            }
        self._event_loop.interrupt()

    def _end_idle_threads(self) -> None:
        """Forget the chunks that no thread has taken, and let each thread end once it has none."""
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)

    def _run(self) -> None:
        shared_loop.set(self._event_loop)
        try:
            self._run_chunks()
        finally:
            close_instance(self._work.function, self._work.kwargs)

    def _run_chunks(self) -> None:
        while (chunk := self._waiting.get()) is not None:
            under_way = chunk, ChunkOutcome()
            self._under_way[chunk.task] = under_way
            ended: _Ended | BaseException = under_way
            try:
                self._run_chunk(*under_way)
            except Cancelled:
                return
            except BaseException as error:  # the driver waits for an outcome and raises it
                ended = error
            self._ended.put(ended)
        self._waiting.put(None)  # for the next thread

    def _give_up(
        self, chunk: Chunk, outcome: ChunkOutcome, reporter: ChunkReporter, limit: TimeLimit
    ) -> bool:
        """Go on without a thread whose task can't be ended: its task fails, and another thread starts."""
        place, current, work = len(outcome.values), reporter.current, self._work
        failure = timeout_failure(limit.seconds, limit.stack, work.retries, chunk.attempt)
        text = (
            f"task {chunk.task + place} can't be ended: {limit.error()}. Its thread goes on without its run"
        )
        given_up = ChunkOutcome(
            values=[*outcome.values, None],
            others={**outcome.others, place: Outcome(failure, current.capped_counts(), current.timings())},
            items=reporter.plain_items,
            seconds=reporter.seconds(),
            warnings=(text,),
        )
        with self._lock:
            self._busy.discard(limit.thread)
            self._threads = [each for each in self._threads if each.ident != limit.thread]
        self.remove(reporter)
        self._ended.put((chunk, given_up))
        return True

    def _run_chunk(self, chunk: Chunk, outcome: ChunkOutcome) -> None:
        thread, work = threading.get_ident(), self._work
        reporter: ChunkReporter | None = None
        with self._lock:
            self._busy.add(thread)
        try:
            with self._logs.of(thread):
                make_instance(work.function, work.kwargs)
                reporter = chunk.reporter(work.settings, None)
                self.add(reporter)
                run_chunk(
                    *(work.function, chunk.items, work.kwargs, reporter, work.settings),
                    outcome=outcome,
                    retries=work.retries,
                    on_stuck=partial(self._give_up, chunk, outcome, reporter),
                )
        finally:
            with self._lock:
                self._busy.discard(thread)
            if reporter is not None:
                self.remove(reporter)
