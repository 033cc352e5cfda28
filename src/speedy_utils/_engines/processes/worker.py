"""The worker's side: a process that runs one chunk after another until its driver closes the connection."""

from __future__ import annotations

import functools
import io
import os
import signal
import socket
import sys
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import FileIO
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import cloudpickle

from ..._interrupts import delaying_ctrl_c, note_interrupts
from ..._worker.channel.children import Children
from ..._worker.channel.writer import FolderSink
from ..._worker.joining import children_counted
from ..environment.surroundings import Applied, Surroundings
from ..limits.failure import Failure
from ..limits.retries import RetryPolicy
from ..limits.task_note import NoteFile
from ..limits.time_limit import signalling_main_thread
from ..payload.pickling import Mode, ProjectPickler
from ..payload.rebuild import begin_run, program_main, take_differences
from ..payload.results import pack_outcome, sent_size, unread
from ..payload.shipment import Packed
from ..per_worker import close_instance, make_instance
from ..task import ChunkOutcome, TaskSettings, chunk_reporter, run_chunk
from .data import NOTHING, Mapped, Place, inherit, inherited, receive, reduce_slice, send

_reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]


def _with_filename(code: CodeType) -> tuple[Any, ...]:
    """Return how code is pickled with its file, which tracebacks show: cloudpickle 3.1 leaves it out."""
    make, arguments = _reduce_code(code)
    return make, tuple(code.co_filename if each == "<dynamic-code>" else each for each in arguments)


class ProcessPickler(ProjectPickler, cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles what travels between the processes of this machine.

    Args:
        mode: As for :class:`ProjectPickler`, and so are the options.
        places: Where the other side has data already, by the `id` of it here.
    """

    cloudpickle = cloudpickle
    # RUF012: pickle wants a plain attribute, which is never changed.
    dispatch_table = ChainMap(  # noqa: RUF012
        {CodeType: _with_filename}, cloudpickle.Pickler.dispatch_table
    )

    def __init__(self, mode: Mode, *, places: Mapping[int, Place] | None = None, **options: Any) -> None:
        super().__init__(mode, **options)
        self._places = places or {}

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled; see :class:`ProjectPickler`."""
        if place := self._places.get(id(obj)):
            return inherited, place
        if type(obj).__module__ == "pyarrow.lib" and (reduced := reduce_slice(obj)) is not None:
            return reduced
        return super().reducer_override(obj)


@dataclass(frozen=True, slots=True, eq=False)  # by identity: the function need not have a hash
class Shared:
    """What all tasks of a run share.

    Attributes:
        folder: The folder for the counts of this run.
        settings: What holds for all tasks.
        surroundings: The program's.
        inherited: The function, its arguments and which exceptions are retried, if the worker is forked and
            has all that the program has.
        items: The items of the tasks then, as far as the worker has them.
        packed: Else a pickle of the function and so on, packed.
    """

    folder: str
    settings: TaskSettings
    surroundings: Surroundings
    inherited: tuple[Callable[..., Any], Mapping[str, Any], RetryPolicy] | None = None
    items: Sequence[Any] = ()
    packed: Mapped = NOTHING


class Ends(NamedTuple):
    """A worker's ends of what connects it with its driver.

    Attributes:
        tasks: Brings chunks, and takes what they send back.
        lifeline: Ends with the driver; nothing ever comes from it.
        stdout: Takes what is printed.
        stderr: Takes what is printed there.
    """

    tasks: Connection
    lifeline: Connection
    stdout: Connection
    stderr: Connection


class Order(NamedTuple):
    """What a driver sends: a chunk to run.

    Attributes:
        task: Its first task.
        attempt: The number of the attempts.
        totals: The items of each task; None if these are not known.
        items: Its items if these are plain.
        packed: Else a list of them, packed.
        definitions: What the items' classes are, if the worker does not have them.
    """

    task: int
    attempt: int
    totals: Sequence[int] | None = None
    items: Sequence[Any] = ()
    packed: Packed | None = None
    definitions: tuple[Packed, ...] = ()


def run_worker(ends: Ends, shared: Shared) -> None:
    """Run chunks until the driver closes the connection, or is gone.

    Args:
        ends: This worker's ends.
        shared: What all tasks share.
    """
    try:
        leave_terminal()
        _print_to(ends)
        threading.Thread(target=_end_with_driver, args=(ends.lifeline,), daemon=True).start()
        if hasattr(os, "register_at_fork"):  # else a process that a task has forked would keep it open
            os.register_at_fork(after_in_child=ends.tasks.close)
        if shared.inherited is not None:
            _seed_numpy()
            inherit(shared.items)
        else:
            begin_run()
        # It imports modules, in which an interrupt would be printed.
        children = Children.if_possible(Path(shared.folder, f"children-{os.getpid()}"))
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        try:
            for order in _orders(ends.tasks):
                if _run(order, shared, ends.tasks, children):
                    break
        finally:
            if _loaded.cache_info().currsize:
                with _as_program(shared):
                    close_instance(*_loaded(shared)[:2])
    except (KeyboardInterrupt, EOFError, OSError):  # cancelled, or the driver is gone
        pass


def address() -> str:
    """Return where this process runs, for an error message: ``"host-1, process 4711"``."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def _orders(tasks: Connection) -> Iterator[Order]:
    while True:
        yield receive(tasks)


def _run(order: Order, shared: Shared, tasks: Connection, children: Children | None) -> bool:
    """Run a chunk, and send its outcome; return whether this process is to end."""
    what, outcome = "func or what it needs", ChunkOutcome()
    with _as_program(shared) as renew, children_counted(children):
        try:
            function, kwargs, retries = _loaded(shared)
            what = "its item"
            for each in order.definitions:
                each.load()
            items = order.items if order.packed is None else order.packed.load()
        except Exception as error:  # loading a pickle imports modules and calls code of the user's
            send(tasks, unread(what, error))
            return False
        make_instance(function, kwargs)  # before there is a reporter: it is no part of the attempt
        settings, began = shared.settings, time.monotonic()
        reporter = chunk_reporter(order.task, order.attempt, len(items), order.totals, settings, children)
        interrupted, limited = False, settings.task_timeout is not None
        sink = FolderSink(shared.folder)
        try:
            with signalling_main_thread() if limited else nullcontext():
                run_chunk(
                    *(function, items, kwargs, reporter, settings, sink, outcome),
                    renew=renew,
                    retries=retries,
                    note=_note_file(shared.folder) if limited else None,
                )
        except KeyboardInterrupt:  # cancelled: what has ended is kept
            interrupted = True
            outcome.failure = Failure("the worker was interrupted", worker_lost=True)
        with delaying_ctrl_c():
            sent = pack_outcome(ProcessPickler, outcome, address())
            sent.outcome.seconds = time.monotonic() - began
            sent.outcome.size = sent_size(order.items, order.packed) + sent.size()
            send(tasks, sent._replace(differences=take_differences(), ends_worker=interrupted))
        return interrupted


@contextmanager
def _as_program(shared: Shared) -> Iterator[Callable[[], None]]:
    """Let the user's code find what the program has around it."""
    with _surroundings(shared) as renew, nullcontext() if shared.inherited else program_main():
        yield renew


@functools.cache
def _surroundings(shared: Shared) -> Applied:
    """Return what lets the program's surroundings hold for a chunk."""
    return shared.surroundings.applied()


@functools.lru_cache(maxsize=1)
def _note_file(folder: str) -> NoteFile:
    return NoteFile(FileIO(note_path(folder, os.getpid()), "w"))


def note_path(folder: str, pid: int) -> str:
    """Return where a worker notes which task it runs, if these have a time limit."""
    return os.path.join(folder, f"task-{pid}")


@functools.cache
def _loaded(shared: Shared) -> tuple[Any, Any, RetryPolicy]:
    """Return the function, its arguments and which exceptions are retried, read when first needed."""
    if shared.inherited is not None:
        return shared.inherited
    function, kwargs, retries = shared.packed.load()
    return function.load(), kwargs.load(), retries.load()


def leave_terminal() -> None:
    """Let a Ctrl-C in the terminal reach the driver alone, which cancels what has to be cancelled."""
    if hasattr(signal, "pthread_sigmask"):  # until it can end without a traceback
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    if hasattr(os, "setsid"):
        os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    note_interrupts()


def _seed_numpy() -> None:
    """Let forks draw other random numbers than their siblings; ``random`` does so by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _print_to(ends: Ends) -> None:
    """Lead what this process and those that it starts print to the driver."""
    for number, name, end in ((1, "stdout", ends.stdout), (2, "stderr", ends.stderr)):
        os.dup2(end.fileno(), number)
        end.close()
        stream = io.TextIOWrapper(
            os.fdopen(number, "wb", closefd=False),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        _replaced.append(getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


_replaced: list[Any] = []
"""The program's streams: if they were freed here, they would write what they have buffered once more."""


def _end_with_driver(lifeline: Connection) -> None:
    """End this process, and what its tasks have started, once the driver is gone."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
