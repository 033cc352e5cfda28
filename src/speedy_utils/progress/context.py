"""Which task is this thread working for?

A context variable names the tally that counts here; it follows a coroutine, and ``asyncio.to_thread``.
A thread that a task starts by itself has none: it counts for the task of this process, where there is
just one.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from .flusher import Flusher, Sink
from .forks import end_children_on_sigterm
from .reporter import Reporter, Tally

if TYPE_CHECKING:
    from .link import ActorSink

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


def _forget_after_fork() -> None:
    """A forked child has no flusher thread, and its parent's counts are not its own."""
    global flusher, _forked
    _forked = True
    current.set(None)
    _active.clear()
    flusher = Flusher()


os.register_at_fork(after_in_child=_forget_after_fork)
end_children_on_sigterm(lambda: bool(_active))


def owns_terminal() -> bool:
    """Whether a run that starts here may draw: not inside a task, nor in a child process."""
    return current.get() is None and not _forked and multiprocessing.parent_process() is None


class ProgressContext:
    """A thread bound to a progress actor; ends with :meth:`close` or as a context manager.

    Args:
        sink: Where the counts go.
        reporter: Who counts.
    """

    def __init__(self, sink: ActorSink, reporter: Reporter) -> None:
        self._reporter = reporter
        self.closed = False
        self.failed = False
        _active[reporter] = threading.get_ident()
        current.set(reporter.own)
        flusher.add(reporter, sink)

    @property
    def task(self) -> Any:
        """The name under which the counts arrive."""
        return self._reporter.task

    def close(self) -> None:
        """Send the final counts, without waiting for them to arrive, and unbind the thread."""
        if self.closed:
            return
        self.closed = True
        _active.pop(self._reporter, None)
        if current.get() is self._reporter.own:
            current.set(None)
        flusher.remove(self._reporter, last=True)

    def __enter__(self) -> ProgressContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.failed = kind is not None
        self.close()


class _Bound(threading.local):
    context: ProgressContext | None = None
    place: tuple[str, int] = ("", 0)


_bound = _Bound()


@overload
def set_progress_context(actor: None) -> None: ...
@overload
def set_progress_context(actor: Any) -> ProgressContext: ...
def set_progress_context(actor: Any) -> ProgressContext | None:
    """Bind this thread to a progress actor, in a Ray task of your own.

    Until it is unbound, ``report_progress``, ``track`` and ``tracked`` in this thread, and in threads that
    it starts, count for the actor. Where Ray runs a task again, the new attempt's counts replace the
    dead one's. Tasks of ``multi_process`` are bound by themselves, and end what an earlier task left bound
    in their worker; another task of your own there would count for the same actor.

    Args:
        actor: The handle that ``create_progress_tracker`` returned, or a ``ProgressActor`` of this
            process. None unbinds the thread, and so does the end of a ``with`` block.

    Returns:
        The binding, a context manager; None where ``actor`` is None.

    Raises:
        TypeError: ``actor`` is neither of these.

    Example:
        >>> from speedy_utils import ProgressActor, report_progress, set_progress_context
        >>> actor = ProgressActor(total=10)
        >>> with set_progress_context(actor):
        ...     report_progress(4)
        >>> actor.get_progress()["processed"]
        4
    """
    last = _bound.context
    if last is not None:
        last.close()
    _bound.context = None
    if actor is None:
        return None
    from .link import ActorSink, here

    sink = ActorSink(actor)
    # Ray gives every attempt at a task the same id, and so the same names to what it binds in turn:
    # a later attempt then replaces an earlier one. The time orders the attempts.
    where, attempt = here()
    name, turn = _bound.place
    again = name != where or (last is not None and last.failed)
    _bound.place = (where, 0 if again else turn + 1)
    reporter = Reporter("{}/{}".format(*_bound.place), attempt)
    _bound.context = ProgressContext(sink, reporter)
    return _bound.context
