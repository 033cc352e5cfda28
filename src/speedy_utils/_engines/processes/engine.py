"""The engine of worker processes: one chunk at a time in each, and each with a connection of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ..._run.feed import PREPARING
from ..._state.ledger import Report, Task
from ..._state.timings import StageTimings
from ..._worker.channel.folder import RunFolder
from ..._worker.channel.reader import FolderReader
from ..base import WorkSpec
from ..cpus import cpus
from ..environment.surroundings import Surroundings
from ..environment.thread_limits import ThreadLimits
from ..limits.failure import Failure, failure_of, timeout_failure
from ..limits.task_note import KILL_GRACE_S, TaskNote, read_note, stacks_of
from ..payload.refs import ValueLostError, fetched_arguments, is_ref, resolve
from ..payload.results import unpack_outcome
from ..payload.shipment import Packed, Shipment, is_plain, pack_item
from ..payload.unsent import sending, unsent_item
from ..per_worker import CLOSE_TIMEOUT_S, maker_of
from ..task import Chunk, ChunkOutcome, Outcome
from .data import inherited_places, pickle_mapped
from .fork_server import ForkServer
from .output import WorkerOutput
from .pool import EXIT_TIMEOUT_S, Worker, start_process, wait_for_end
from .starting import allow_files, no_more_workers, start_context, start_method
from .worker import Ends, Order, ProcessPickler, Shared, note_path

CANCEL_GRACE_S = 1.5
"""Seconds in which a cancelled attempt may end before its worker is killed."""


class ProcessEngine:
    """Runs each chunk in a process of this machine.

    Where the program may be forked, a fork server and the first workers start when the engine is made, which
    is before the run has threads; see ``starting``. Others start as they are needed.
    """

    ahead = 0
    trouble = ""
    answered = True

    def __init__(self, work: WorkSpec) -> None:
        self.workers = work.workers
        self._work = work
        self._method = start_method()
        allow_files(work.workers)
        self._start_process: Callable[[Ends], Any] | None = None
        self._folder = RunFolder()
        self._reader = FolderReader(self._folder.path, self._folder.run)
        self._own_reader = FolderReader(self._folder.path, self._folder.run)
        self._output = WorkerOutput(work.worker_logs)
        self._workers: list[Worker] = []
        self._shipment = Shipment(ProcessPickler)
        self._definitions: tuple[Packed, ...] = ()
        self._shared: Shared | None = None
        self._chunks: dict[Worker, Chunk] = {}
        self._due: dict[Worker, float] = {}  # when to look whether they are over the time limit of a task
        self._refused: list[tuple[Chunk, ChunkOutcome]] = []
        self._unusable: Failure | None = None
        self._closed = False
        self._makes = maker_of(work.function, work.kwargs) is not None
        self.phase = PREPARING if self._makes else ""
        self._fork_server: ForkServer | None = None
        if self._method == "fork":
            self._shared = self._inherited()
            try:
                self._fork_server = ForkServer(self._shared)
                self._start_process = self._fork_server.start
                for _ in range(self.workers):
                    self._start_worker()
            except BaseException:  # there is no run yet that would close the engine
                self.close()
                raise

    @classmethod
    def default_workers(cls, *, awaits: bool = False) -> int:  # noqa: ARG003 - each needs a process
        """Return the number of CPUs."""
        return cpus()

    def start(self) -> None:
        """Pack what all tasks share, if it is not inherited.

        Raises:
            TypeError: The function or its arguments can't be pickled.
        """
        if self._shared is None:
            try:
                kwargs = fetched_arguments(self._work.kwargs)
            except Exception as error:  # that of the user's code which should have made a value
                self._unusable = failure_of(error)
            else:
                self._shared = self._packed(kwargs)
        self._output.start()

    def submit(self, chunk: Chunk) -> None:
        """Hand the chunk to a worker that waits; one is started if there is none.

        Raises:
            UnsentItemError: One of its items can't be pickled.
        """
        failure, sent = self._unusable, chunk
        if failure is None and is_ref(chunk.items[0]):  # it is alone
            try:
                sent = replace(chunk, items=[resolve(chunk.items[0])])
            except ValueLostError as error:
                failure = Failure(str(error), error=error, worker_lost=True)
            except Exception as error:  # that of the user's code which should have made the value
                failure = failure_of(error)
        if failure is not None:
            others = {place: Outcome(failure, {}) for place in range(len(chunk.items))}
            self._refused.append((chunk, ChunkOutcome([None] * len(chunk.items), others)))
            return
        order = self._order(sent)
        worker = next((each for each in self._workers if each not in self._chunks), None)
        worker = worker or self._start_worker()
        self._chunks[worker] = chunk
        if self._work.settings.task_timeout is not None:
            self._due[worker] = time.monotonic() + self._limit()
        worker.submit(order)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for a chunk to end."""
        if not self._refused:
            self._ready(self._until_overdue(timeout))

    def _until_overdue(self, timeout: float | None) -> float | None:
        """Return how long to wait: not longer than until a chunk is overdue."""
        if not self._due:
            return timeout
        left = max(0.0, min(self._due.values()) - time.monotonic())
        return left if timeout is None else min(left, timeout)

    def _limit(self) -> float:
        """Return how long a task may take, and its worker to end it."""
        return (self._work.settings.task_timeout or inf) + KILL_GRACE_S

    def _end_overdue(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Kill the workers whose tasks did not end at their limit: stopped, or in a call without an end."""
        overdue: dict[Worker, TaskNote] = {}
        now, limit = time.monotonic(), self._limit()
        for worker in [each for each, due in self._due.items() if now >= due]:
            chunk, note = self._chunks[worker], self._note_of(worker)
            if (
                note is None
                or note.seconds < limit
                or (note.task, note.attempt) != (chunk.task, chunk.attempt)
            ):
                self._due[worker] = now + limit - (0.0 if note is None else min(note.seconds, limit))
            else:
                overdue[worker] = note
        if not overdue:
            return []
        stacks = stacks_of({worker.pid: self._note_path(worker) for worker in overdue})
        ended, timeout = [], self._work.settings.task_timeout or 0.0
        for worker, note in overdue.items():
            chunk, stack = self._chunks.pop(worker), stacks.get(worker.pid, "")
            self._lost(worker, kill=True)
            failure = timeout_failure(timeout, stack, self._work.retries, chunk.attempt)
            ended.append((chunk, ChunkOutcome(failure=failure, stuck=note.place)))
        return ended

    def _note_of(self, worker: Worker) -> TaskNote | None:
        with suppress(OSError):
            return read_note(self._note_path(worker).read_text())
        return None

    def _note_path(self, worker: Worker) -> Path:
        return Path(note_path(str(self._folder.path), worker.pid))

    def _reap(self, worker: Worker) -> None:
        """Forget a process that is gone, and what it has noted."""
        worker.reap()
        with suppress(OSError):  # it has noted nothing
            self._note_path(worker).unlink()

    def _ready(self, timeout: float | None) -> set[Any]:
        return set(wait([end for each in self._chunks for end in (each.connection, each.death)], timeout))

    def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Return the chunks that have ended."""
        ended, self._refused = self._refused, []
        ready = self._ready(0)
        for worker in [*self._chunks]:
            if not ready & {worker.connection, worker.death}:
                continue
            # What it had sent before it died counts.
            sent = worker.receive() if worker.connection in ready or worker.connection.poll() else None
            chunk = self._chunks.pop(worker)
            self._due.pop(worker, None)
            if sent is not None and sent.ends_worker:
                self._lost(worker)
            if sent is None:
                outcome = ChunkOutcome(failure=Failure(self._lost(worker), worker_lost=True))
            else:
                outcome = unpack_outcome(sent)
            ended.append((chunk, outcome))
        return ended + self._end_overdue()

    def handed_back(self) -> Mapping[tuple[Task, int], int]:
        """Return how many tasks late chunks keep, from what has changed in the state files."""
        reports, _ = self._own_reader.collect()  # the other is the poller's
        return {(each.task, each.attempt): each.kept for each in reports if each.kept}

    def cancel(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Raise KeyboardInterrupt in the tasks, and kill the workers of those that go on.

        Returns:
            The chunks that were under way, with what they have sent.
        """
        busy = [*self._chunks]
        try:
            for worker in busy:
                worker.interrupt()
            wait_for_end(busy, CANCEL_GRACE_S)
        finally:  # also after a second Ctrl-C
            for worker in busy:
                worker.kill()
        return self._refused + [
            (self._chunks[worker], unpack_outcome(sent))
            for worker in busy
            if worker.connection.poll() and (sent := worker.receive()) is not None
        ]

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return what has changed in the state files; nothing once the engine is closed."""
        return ((), {}) if self._closed else self._reader.collect()

    def forget(self, task: Task) -> None:
        """Do nothing: a state file holds the attempt that runs."""

    def close(self) -> None:
        """End the workers, and show what they have printed last."""
        self._closed = True
        try:
            for worker in self._workers:
                worker.release()
            for worker in wait_for_end(self._workers, CLOSE_TIMEOUT_S if self._makes else EXIT_TIMEOUT_S):
                worker.kill()
        finally:
            for worker in self._workers:
                self._reap(worker)
            self._workers = []
            if self._fork_server is not None:
                self._fork_server.close()
            self._output.close()
            self._folder.close()

    def _start_worker(self) -> Worker:
        if self._start_process is None:
            if self._shared is None:
                raise RuntimeError("the engine has not been started")
            # With the first items it is known what workers need.
            context = start_context(self._method, self._shipment.modules)
            self._start_process = partial(start_process, context, self._shared)
        try:
            worker = Worker(self._start_process, self._output)
        except OSError as error:
            raise no_more_workers(error, len(self._workers), self.workers) from error
        self._workers.append(worker)
        return worker

    def _lost(self, worker: Worker, *, kill: bool = False) -> str:
        """Forget a worker that is gone, or to be killed, and return what happened to it."""
        self._due.pop(worker, None)
        closed = not kill and wait_for_end([worker], EXIT_TIMEOUT_S)  # it lives on, without its connection
        worker.kill()
        self._workers.remove(worker)
        reason = worker.how_it_ended()
        if closed:
            reason = f"process {worker.pid} closed its connection to the program"
        worker.release()
        self._reap(worker)
        return f"the worker was lost: {reason}"

    def _order(self, chunk: Chunk) -> Order:
        order, items = Order(chunk.task, chunk.attempt, chunk.totals), list(chunk.items)
        if is_plain(items):
            return order._replace(items=items)
        pack = self._pack
        if self._shared is not None and self._shared.inherited is not None:
            places = inherited_places(chunk.task, items) if self._shared.items else {}
            pack = partial(pack_item, partial(ProcessPickler, places=places))
        try:
            packed = pack(items)
        except Exception as error:  # pickling is code of the user's classes, and may raise anything
            raise unsent_item(items, pack, error, ProcessPickler) from None
        return order._replace(packed=packed, definitions=self._definitions)

    def _pack(self, value: Any) -> Packed:
        """Pack items, and let these and later ones have what they need."""
        packed, definitions = self._shipment.name(value)
        if definitions is not None:
            self._definitions = (*self._definitions, definitions)
        return packed

    def _inherited(self) -> Shared:
        work = self._work
        shared = str(self._folder.path), work.settings, self._surroundings()
        return Shared(*shared, (work.function, work.kwargs, work.retries), work.items)

    def _surroundings(self) -> Surroundings:
        return Surroundings.of_program(ThreadLimits.of_workers(self.workers))

    def _packed(self, arguments: Mapping[str, Any]) -> Shared:
        with sending("func", self._work.function, ProcessPickler):
            function = self._shipment.define(self._work.function)
        with sending("the keyword arguments", arguments, ProcessPickler):
            kwargs = self._shipment.define(arguments)
        with sending("retry_on or retry_wait", self._work.retries, ProcessPickler):
            retries = self._shipment.define(self._work.retries)
        packed = pickle_mapped((function, kwargs, retries), self._folder.path / "shared")
        return Shared(*(str(self._folder.path), self._work.settings, self._surroundings()), packed=packed)
