"""How a process finds a run that did not start it: by its environment, by a fork, or by a bound call.

An environment variable names the folder of the run, so processes that are started inside a ``tracking()``
block find it. A forked child finds the block that was open at the fork. What such a process counts is written
to the folder; see ``channel.folder``. Nothing is done before the first count.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from .._interrupts import after_fork_in_child, call_in_main_thread
from .._state.ledger import Report, Task
from .._validation import shorten
from . import context
from .channel.calls import ProcessCounts
from .channel.children import Children
from .channel.flusher import Sink
from .channel.state_file import RUN
from .channel.writer import FolderSink, is_open
from .process import in_ray_worker, is_users_handler, repeat_signal
from .reporter import Reporter
from .tally import Tally

logger = logging.getLogger("speedy_utils")

END_TIMEOUT_S = 1.0
"""Seconds that a process which SIGTERM ends has to write its last state."""

MAX_IDLE = 16
"""Tasks of another engine that are kept open in a process after their last bound call has ended."""


class RunAddress(NamedTuple):
    """Where a run is found, and how to count for it.

    Attributes:
        folder: Its folder.
        run: Its id.
        actor: The name of its actor on Ray, for machines that don't see the folder; empty if it has none.
        adopt_tqdm: Whether tqdm bars count.
        stack_after: Seconds without a movement after which reports say where the code is; None for never.
        counts_runs: Whether runs that are started there count.
    """

    folder: str
    run: str
    actor: str = ""
    adopt_tqdm: bool = True
    stack_after: float | None = None
    counts_runs: bool = True

    def reporter(self, *, total: int | None = None, of_process: bool = False) -> Reporter:
        """Return a reporter for a call, or for the code of a process outside all calls.

        Args:
            total: The items of the call; None if that is not known.
            of_process: Whether it is for such code.
        """
        reporter = Reporter("", total=total, declare_lengths=False, stack_after=self.stack_after)
        reporter.counts_runs, reporter.of_process = self.counts_runs, of_process
        return reporter

    @classmethod
    def read(cls, folder: str) -> RunAddress | None:
        """Return the address of the run that has a folder; None if there is none."""
        try:
            settings = json.loads(Path(folder, RUN).read_bytes())
            run, adopt_tqdm, stack_after = (settings[name] for name in ("run", "adopt_tqdm", "stack_after"))
            return cls(folder, run, "", adopt_tqdm, stack_after, settings.get("counts_runs", True))
        except (OSError, ValueError, TypeError, KeyError):
            return None


class _JoinedSink(FolderSink):
    """A folder that may go before this process does, or become that of another run."""

    def _is_open(self) -> bool:
        return is_open(self._folder, self._run)

    def _run_has_ended(self, before: Mapping[Task, Report]) -> None:
        now = self._reports
        if any(task not in before or now[task].counts != before[task].counts for task in now):
            warn_once(
                f"the run at {self._folder} has ended: what this process counts from now on is not shown. In "
                "processes that live longer than a tracking() block, call run.bind(function) of the block "
                "that is open"
            )
        _forget_run(self._run)


def _forget_run(run: str) -> None:
    """Send no more to a run that has ended, where nothing counts for it."""
    with _process.lock:
        joined = [key for key in _process.joined if key[0] == run]
        ended = [_process.joined.pop(key) for key in joined if _process.joined[key].is_idle]
        if len(ended) == len(joined):
            _process.sinks.pop(run, None)
    for counts in ended:
        context.flusher.remove(counts)


ActorSinks = Callable[[str], Sink]
"""Makes a sink to the actor of a run on Ray, of its name."""


class _Block(NamedTuple):
    """A block that is open in this process.

    Attributes:
        counts: What the process counts for it.
        own: The reporter of its code.
        actor: Returns the name of its actor on Ray, which is started if need be; empty without Ray.
    """

    counts: ProcessCounts
    own: Reporter
    actor: Callable[[], str]


class _Process:
    """What this process knows of runs.

    Attributes:
        blocks: The blocks that are open in it, by folder, the innermost last.
        joined: What it counts for other runs, by run and task; the task is empty for the process itself.
        sinks: The way to each of these, by run.
        named: The folder of the run that code without a bound call counts for; empty if there is none.
        names: The folders that this process has named in its environment, the newest last, and the threads
            whose blocks these are; None for what is no block.
        before: What the environment named before the first of them.
        own: What code without a bound call counts for; None before it has, or if that run can't be reached.
        joins: Whether it has begun to count for that run.
        said: What was said already.
        lock: Held while something is done once.
    """

    def __init__(self) -> None:
        self.blocks: dict[str, _Block] = {}
        self.joined: dict[tuple[str, str], ProcessCounts] = {}
        self.sinks: dict[str, Sink] = {}
        self.named = _named_folder()
        self.names: dict[str, int | None] = {}
        self.before: str | None = None
        self.own: Tally | None = None
        self.joins = False
        self.said: set[str] = set()
        self.lock = threading.RLock()


def _named_folder() -> str:
    """Return the folder that the environment names; empty if there is none. The program may go elsewhere."""
    folder = os.environ.get(context.VARIABLE, "")
    with suppress(OSError):  # the current folder was deleted
        return folder and os.path.join(os.getcwd(), folder)
    return folder


_process = _Process()


def open_block(folder: str, counts: ProcessCounts, own: Reporter, actor: Callable[[], str]) -> None:
    """Let calls and threads of this process find a run that is open in it.

    Args:
        folder: The folder of the run.
        counts: What the process counts for it.
        own: The reporter of the block's code.
        actor: Returns the name of its actor on Ray, which is started if need be; empty without Ray.
    """
    _process.blocks[folder] = _Block(counts, own, actor)
    _count_for_block()
    name_run(folder, own.thread)
    if _threads_of_blocks() > 1:
        warn_once(
            "tracking() blocks of several threads are open: processes that are started now can't know which "
            "of them to count for, and count only in calls of run.bind(function)"
        )


def close_block(folder: str) -> None:
    """Undo :func:`open_block`. Idempotent."""
    _process.blocks.pop(folder, None)
    _count_for_block()
    unname_run(folder)


def _count_for_block() -> None:
    """Let threads without a context count for the innermost block, if all blocks are open in one thread."""
    blocks = [*_process.blocks.values()]
    if not blocks:
        _expect_run()
        return
    tally = blocks[-1].own.own if _threads_of_blocks() == 1 else None
    context.process_tally = lambda: tally


def _threads_of_blocks() -> int:
    return len({block.own.thread for block in _process.blocks.values()})


def name_run(folder: str, thread: int | None = None) -> None:
    """Let the environment name the folder of a run to processes that are started, until :func:`unname_run`.

    The newest is named; none while blocks of several threads are open, as the environment is the process's.

    Args:
        folder: The folder; empty to let them count for none.
        thread: The thread whose block it is; None if it is no block.
    """
    if not _process.names:
        _process.before = os.environ.get(context.VARIABLE)
    _process.names[folder] = thread
    _set_variable()


@contextmanager
def children_counted(children: Children | None) -> Iterator[None]:
    """Let processes that tasks start in the block count for these, where there is a folder for it."""
    if children is None:
        yield
        return
    try:
        name_run(children.path)
        yield
    finally:
        unname_run(children.path)


def unname_run(folder: str) -> None:
    """Undo :func:`name_run`. Idempotent."""
    if folder in _process.names:
        del _process.names[folder]
        _set_variable()


def _set_variable() -> None:
    names = _process.names
    name = [*names][-1] if names else _process.before
    if len({*names.values()} - {None}) > 1:
        name = None
    if name is None:
        os.environ.pop(context.VARIABLE, None)
    else:
        os.environ[context.VARIABLE] = name


def in_one_thread() -> bool:
    """Return whether no block is open in another thread of this process, which has one environment."""
    return all(block.own.thread == threading.get_ident() for block in _process.blocks.values())


def enclosing_tally() -> Tally | None:
    """Return what a run counts for that starts here; None if it is on its own.

    A block that is open in another thread of this process does not enclose it.
    """
    tally = context.tally_here()
    if tally is not None and context.current.get() is None and tally.reporter.of_process and _process.blocks:
        return None
    return tally


def on_actor(run: RunAddress) -> RunAddress:
    """Return the address of a run for another process, with the name of its actor if it needs one."""
    block = _process.blocks.get(run.folder)
    return run if block is None else run._replace(actor=block.actor())


def counts_for(
    run: RunAddress, task: str = "", attempt: int = 1, *, actor_sink: ActorSinks | None = None
) -> ProcessCounts | None:
    """Return what counts for a run here; None if it can't be reached, which is said once.

    Args:
        run: The run.
        task: The task of another engine that this code works for, if that may be run again under the same
            name; empty for this process.
        attempt: The number of the attempt at the task.
        actor_sink: Makes a sink to an actor, where there is a Ray.
    """
    if not task and (block := _process.blocks.get(run.folder)) is not None:
        return block.counts
    key = (run.run, f"{task} {attempt}" if task else "")
    if (known := _process.joined.get(key)) is not None:
        return known
    with _process.lock:
        if (known := _process.joined.get(key)) is not None:
            return known
        sink = _process.sinks.get(run.run) or _sink_to(run, actor_sink)
        if sink is None:
            return None
        _process.sinks[run.run] = sink
        name = task or (sink.process_name if isinstance(sink, FolderSink) else f"process {os.getpid()}")
        counts = _process.joined[key] = ProcessCounts(name, sink, attempt)
        idle = [key for key, each in _process.joined.items() if key[1] and each.is_idle]
        left = [_process.joined.pop(key) for key in idle[:-MAX_IDLE]]
    context.flusher.add(counts, sink)
    for each in left:  # they have ended long ago
        context.flusher.remove(each)
        if not each.failed:
            each.close()
    return counts


def _sink_to(run: RunAddress, actor_sink: ActorSinks | None) -> Sink | None:
    if is_open(run.folder, run.run):
        for other in _process.sinks.values():
            if isinstance(other, _JoinedSink):  # perhaps of a run that had the folder before
                other.look_again()
        return _JoinedSink(run.folder, run.run)
    if run.actor and actor_sink is not None:
        return actor_sink(run.actor)
    warn_once(
        f"the run at {run.folder} has ended, or can't be reached from here: what this process counts is not "
        "shown, and its work goes on. On several machines, name a folder that all of them share: "
        "tracking(folder=...)"
    )
    return None


def _tally_of_process() -> Tally | None:
    """Return what counts here for the run that the environment names, or that was open at the fork."""
    process = _process
    with process.lock:  # another thread, which counts at the same moment, waits for this one
        if context.process_tally is _tally_of_process and not process.joins:
            process.joins = True  # what is called here counts nothing
            process.own = _join()
            context.process_tally = lambda: process.own
        return process.own


def _join() -> Tally | None:
    folder = _process.named
    run = None if in_ray_worker() else RunAddress.read(folder)
    if run is None:
        if not in_ray_worker():
            warn_once(
                f"{context.VARIABLE}={shorten(folder)} names no run that is open: what this process counts "
                "is not shown. In a pool, or of a fork server, that is older than the tracking() block, call "
                "run.bind(function) of that; elsewhere let the program with the block start first"
            )
        return None
    counts = counts_for(run)
    if counts is None:
        return None
    own = run.reporter(of_process=True)
    own.thread = threading.get_ident()
    counts.add(own)
    counts.flush()  # the run knows of this process before it has counted anything
    context.current.set(own.own)
    if run.adopt_tqdm:
        for begin in on_join:
            begin(own)
    _send_at_end(counts)
    return own.own


on_join: list[Callable[[Reporter], object]] = []
"""What else is to be done once this process counts for a run: tqdm bars are captured."""


def _send_at_end(counts: ProcessCounts) -> None:
    """Send the last state of this process however Python ends it.

    Children of multiprocessing end by ``os._exit``, after they have run finalizers of their own; so do those
    of its fork ``multiprocess``, which ``datasets`` uses. A pool that is left ends its workers by SIGTERM.
    """
    atexit.register(_finish, counts)
    for name in ("multiprocessing.util", "multiprocess.util"):
        if (util := sys.modules.get(name)) is not None:
            util.Finalize(None, _finish, (counts,), exitpriority=-1000)
    if threading.current_thread() is threading.main_thread():
        _handle_sigterm()
    else:  # which no other thread may do; one that waits for this one does it before it goes on
        call_in_main_thread(_handle_sigterm)


def _handle_sigterm() -> None:
    if not is_users_handler(signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, _end)
        repeat_signal(signal.SIGTERM, _end)


def _finish(counts: ProcessCounts) -> None:
    """Write the last state of this process, which is about to end."""
    handled = signal.getsignal(signal.SIGTERM) is _end
    if handled:  # it would interrupt the writing
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    counts.flush()
    if handled:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal passes both
    """Write the last states, and end this process by the signal as if it had no handler."""
    signal.signal(number, signal.SIG_IGN)  # it may come again
    here = [counts for (_, task), counts in _process.joined.items() if not task]

    def send() -> None:
        for each in here:
            each.flush()

    # The signal may have interrupted code that holds a lock which this needs.
    thread = threading.Thread(target=send, daemon=True)
    with suppress(RuntimeError):  # there are too many threads
        thread.start()
        thread.join(END_TIMEOUT_S)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def warn_once(text: str) -> None:
    """Log a warning, unless this process has logged it already."""
    if text not in _process.said:
        _process.said.add(text)
        logger.warning("%s", text)


def _after_fork() -> None:
    """Let a forked child count for the block that was open at the fork, or for what its parent has joined."""
    global _process
    _process = _Process()
    _expect_run()


def _expect_run() -> None:
    process = _process
    tally = (lambda: process.own) if process.joins else _tally_of_process
    context.process_tally = tally if process.named else None


after_fork_in_child(_after_fork)
_expect_run()
