"""Which task is this thread working for?

A context variable holds the tally that counts here; it follows a coroutine, and ``asyncio.to_thread``.
A thread that a task starts by itself has none: it counts for the task of this process, if there is just one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar

from .._interrupts import after_fork_in_child
from .channel.flusher import Flusher, Sink
from .chunk_reporter import AnyReporter
from .process import in_ray_worker, mark_children, reset_sigterm_in_children, started_by_task
from .tally import Tally

current: ContextVar[Tally | None] = ContextVar("speedy_utils_tally", default=None)
"""The tally that counts in this context. Most callers want :func:`tally_here`."""


flusher = Flusher()
"""The flusher of this process."""


VARIABLE = "SPEEDY_UTILS_RUN"
"""The environment variable that names the run which a process counts for: the address of a run."""


process_tally: Callable[[], Tally | None] | None = None
"""Returns the tally for code that works for no task, if it counts for an open ``tracking()`` block of this
process, or for a run that did not start this process; None in other processes. Set by :mod:`.joining`."""


_active: dict[AnyReporter, None] = {}
"""The tasks under way."""


def tally_here() -> Tally | None:
    """Return the tally that counts what happens here; None outside a run."""
    tally = current.get()
    if tally is None and len(_active) == 1:
        for reporter in list(_active):
            # The task's own thread always has a tally, unless the task is a suspended generator: then the
            # running code is its consumer, which must not be counted.
            if reporter.thread != threading.get_ident():
                return reporter.own
    if tally is None and (of_process := process_tally) is not None:  # another thread may change it
        return of_process()
    return tally


class counting:  # noqa: N801 - used like a function; as a generator it takes twice as long for each call
    """Let what happens in this context count for a tally, until the block ends.

    ``begin`` and ``end`` are for a short call that ends in the context in which it began. They are found
    here as functions that refer to a ContextVar can't be pickled by value.
    """

    __slots__ = ("_tally", "_token")

    begin, end = current.set, current.reset

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def __enter__(self) -> None:
        self._token = current.set(self._tally)

    def __exit__(self, *exception: object) -> None:
        try:  # noqa: SIM105 - contextlib's suppress takes longer than all the rest
            current.reset(self._token)
        except ValueError:  # an abandoned coroutine is closed in another context, which it need not reset
            pass


def register(reporter: AnyReporter, sink: Sink | None) -> None:
    """Do what :class:`registered` does, until :func:`forget`."""
    activate(reporter)
    if sink is not None:
        flusher.add(reporter, sink)


class registered:  # noqa: N801 - as above
    """Let threads without a context of their own find a reporter, until the block ends.

    Args:
        reporter: The reporter of a task.
        sink: Where its counts are sent while it works; None if a feed of this process reads them.
    """

    __slots__ = ("_reporter", "_sink")

    def __init__(self, reporter: AnyReporter, sink: Sink | None = None) -> None:
        self._reporter, self._sink = reporter, sink

    def __enter__(self) -> None:
        register(self._reporter, self._sink)

    def __exit__(self, *exception: object) -> None:
        forget(self._reporter)


def forget(reporter: AnyReporter) -> None:
    """Unregister a reporter, and clear the current tally if it belongs to it. Idempotent."""
    deactivate(reporter)
    flusher.remove(reporter)


def bind(reporter: AnyReporter, sink: Sink) -> None:
    """Let this thread count for a reporter, and send what it counts, until :func:`unbind`."""
    activate(reporter)
    current.set(reporter.own)
    flusher.add(reporter, sink)


def unbind(reporter: AnyReporter) -> None:
    """Undo :func:`bind`; the final counts are sent, without waiting for them to arrive."""
    deactivate(reporter)
    flusher.remove(reporter, last=True)


def activate(reporter: AnyReporter) -> None:
    """Let threads without a context of their own find a reporter, until :func:`deactivate`."""
    reporter.thread = threading.get_ident()
    _active[reporter] = None
    mark_children(of_tasks=True)


def deactivate(reporter: AnyReporter) -> None:
    """Undo :func:`activate`, and clear the current tally if it belongs to the reporter. Idempotent."""
    _active.pop(reporter, None)
    if not _active:
        mark_children(of_tasks=False)
    # Still set if a KeyboardInterrupt was raised in the end of counting().
    if (tally := current.get()) is not None and tally.reporter.own is reporter.own:
        current.set(None)


def _forget_parent() -> None:
    """Reset a forked child: it has no flusher thread, and its parent's tasks are not its own."""
    global flusher
    current.set(None)
    _active.clear()
    flusher = Flusher()


after_fork_in_child(_forget_parent)


reset_sigterm_in_children(lambda: bool(_active) or process_tally is not None)


def in_task() -> bool:
    """Return whether this code works for a task: in its context, or in a process that it has started.

    In a Ray worker also in a thread that a task has started: there nothing else runs meanwhile.
    """
    return current.get() is not None or started_by_task() or (bool(_active) and in_ray_worker())
