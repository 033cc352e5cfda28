"""Which task is this thread working for?

A context variable names the tally that counts here; it follows a coroutine, and ``asyncio.to_thread``.
A thread that a task starts by itself has none: it counts for the task of this process, where there is
just one.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .._interrupts import after_fork_in_child
from .flusher import Flusher, Sink
from .process import end_children_on_sigterm
from .reporter import Reporter, Tally

if TYPE_CHECKING:
    pass

current: ContextVar[Tally | None] = ContextVar("speedy_utils_tally", default=None)
"""The tally that counts in this context. Most callers want :func:`tally_here`."""


flusher = Flusher()
"""The flusher of this process."""


_active: dict[Reporter, int] = {}
"""The tasks under way, each with the thread it started in."""


_forked = False


def tally_here() -> Tally | None:
    """The tally that counts what happens here; None outside a run."""
    tally = current.get()
    if tally is None and len(_active) == 1:
        for reporter, thread in list(_active.items()):
            # Its own thread has a context. Where that names no tally the task is paused: it is a generator,
            # and what runs here is whoever iterates over it.
            if thread != threading.get_ident():
                return reporter.own
    return tally


@contextmanager
def counting(tally: Tally) -> Iterator[None]:
    """Let what happens in this context count for a tally, until the block ends."""
    token = current.set(tally)
    try:
        yield
    finally:
        # A coroutine that nobody finished is closed in a foreign context, and need not reset that.
        with suppress(ValueError):
            current.reset(token)


@contextmanager
def registered(reporter: Reporter, sink: Sink | None = None) -> Iterator[None]:
    """Let threads that have no context of their own find a reporter, until the block ends.

    Args:
        reporter: Who counts.
        sink: Where its counts are sent while it works; None where somebody else reads them.
    """
    _active[reporter] = threading.get_ident()
    if sink is not None:
        flusher.add(reporter, sink)
    try:
        yield
    finally:
        forget(reporter)


def forget(reporter: Reporter) -> None:
    """End what :func:`registered` has begun, and what counts here; to do so twice does no harm."""
    _active.pop(reporter, None)
    flusher.remove(reporter)
    if (tally := current.get()) is not None and tally.reporter is reporter:  # Ctrl-C has struck who bound it
        current.set(None)


def bind(reporter: Reporter, sink: Sink) -> None:
    """Let this thread count for a reporter, and send what it counts, until :func:`unbind`."""
    _active[reporter] = threading.get_ident()
    current.set(reporter.own)
    flusher.add(reporter, sink)


def unbind(reporter: Reporter) -> None:
    """Undo :func:`bind`; the final counts are sent, without waiting for them to arrive."""
    _active.pop(reporter, None)
    if current.get() is reporter.own:
        current.set(None)
    flusher.remove(reporter, last=True)


def _forget_after_fork() -> None:
    """A forked child has no flusher thread, and its parent's counts are not its own."""
    global flusher, _forked
    _forked = True
    current.set(None)
    _active.clear()
    flusher = Flusher()


after_fork_in_child(_forget_after_fork)


end_children_on_sigterm(lambda: bool(_active))


def owns_terminal() -> bool:
    """Whether a run that starts here may draw: not inside a task, nor in a child process."""
    return current.get() is None and not _forked and multiprocessing.parent_process() is None
