"""For people who drive Ray themselves: a progress actor, its binding to a task, and a poller for a bar."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from .._run.advice import warn_of_left_out
from .._run.poller import Poller
from .._state.snapshot import Snapshot, StageSnapshot
from .._validation import checked_count
from .._worker.context import bind, unbind
from .._worker.reporter import Reporter
from .actor import ProgressActor, start_actor
from .client import GIVE_UP_AFTER_S, ActorSink, current_attempt_id


class ProgressContext:
    """A thread bound to a progress actor; ends with :meth:`close` or as a context manager.

    Args:
        reporter: What adds the counts up.
        sink: Where they are sent; None for a context that binds nothing and reports nowhere.

    Attributes:
        closed: Whether it has ended.
        failed: Whether its ``with`` block has ended with an exception.
    """

    def __init__(self, reporter: Reporter, sink: ActorSink | None) -> None:
        self._reporter = reporter
        self.closed = sink is None
        self.failed = False
        if sink is not None:
            bind(reporter, sink)

    @property
    def task(self) -> Any:
        """The name under which the counts arrive."""
        return self._reporter.task

    def close(self) -> None:
        """Send the final counts, without waiting for them to arrive, and unbind the thread. Idempotent."""
        if self.closed:
            return
        self.closed = True
        unbind(self._reporter)

    def __enter__(self) -> ProgressContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.failed = kind is not None
        self.close()


class _ThreadState(threading.local):
    """The last binding of each thread, and what it was called: Ray's task id and a number."""

    context: ProgressContext | None = None
    name: tuple[str, int] = ("", 0)


_thread_state = _ThreadState()


def set_progress_context(actor: Any) -> ProgressContext:
    """Bind this thread to a progress actor, in a Ray task of your own.

    Until it is unbound, ``report_progress``, ``track`` and ``tracked`` in this thread, and in threads that
    it starts, count for the actor. If Ray runs a task again, the new attempt's counts replace the dead one's.
    Tasks of ``multi_process`` are bound by themselves, and end what an earlier task left bound in their
    worker; another task of your own there would count for the same actor.

    Args:
        actor: The handle that ``create_progress_tracker`` returned, or a ``ProgressActor`` of this
            process. None unbinds the thread, and so does the end of a ``with`` block.

    Returns:
        The binding, a context manager. If ``actor`` is None, one that reports nowhere: so a task need not
        ask whether it was given an actor.

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
    last = _thread_state.context
    unbind_thread()
    if actor is None:
        return ProgressContext(Reporter(""), None)
    sink = ActorSink(actor)
    # Ray gives every attempt at a task the same id, and so the same names to the contexts that it binds one
    # after the other: a later attempt then replaces an earlier one. The timestamp orders the attempts.
    task_id, attempt = current_attempt_id()
    last_id, last_number = _thread_state.name
    restart = last_id != task_id or (last is not None and last.failed)
    _thread_state.name = (task_id, 0 if restart else last_number + 1)
    reporter = Reporter("{}/{}".format(*_thread_state.name), attempt)
    _thread_state.context = ProgressContext(reporter, sink)
    return _thread_state.context


set_progress_context.__module__ = "speedy_utils"


def unbind_thread() -> None:
    """End what this thread was bound to last. Idempotent."""
    if (last := _thread_state.context) is not None:
        last.close()
        _thread_state.context = None


class UserBarDisplay:
    """Moves a tqdm bar that the user made and will close.

    Args:
        bar: The bar.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(self, snapshot: Snapshot) -> None:
        """Move the bar."""
        if snapshot.total not in (None, self._bar.total):
            self._set_total(snapshot.total)
        if snapshot.run_line.counters:
            self._bar.set_postfix(snapshot.run_line.counters, refresh=False)
        self._bar.update(snapshot.done - self._bar.n)
        self._bar.refresh()

    def _set_total(self, total: int | None) -> None:
        if hasattr(self._bar, "container"):
            # A notebook's widget has a total of its own, which only reset() sets; the bar's clock goes on.
            started_at = self._bar.start_t
            self._bar.reset(total)
            self._bar.start_t = started_at
        self._bar.total = total

    def close(self) -> None:
        """Leave the bar open: it is the user's."""


class ProgressPoller(Poller):
    """Reads progress every ``poll_interval`` seconds, in a thread of its own, and shows it.

    Args:
        source: The handle of a progress actor, a :class:`ProgressActor` of this process, or anything with
            a ``snapshot()``.
        display: A ``tqdm`` bar, which stays yours to close, or a display.
        poll_interval: Seconds between two readings.

    Raises:
        TypeError: ``poll_interval`` is not a number.
        ValueError: ``poll_interval`` is not above 0.

    Example:
        >>> from tqdm import tqdm
        >>> from speedy_utils import ProgressActor, ProgressPoller
        >>> actor = ProgressActor(total=10)
        >>> with tqdm(total=10, disable=True) as bar, ProgressPoller(actor, bar):
        ...     _ = actor.update(10)
    """

    def __init__(self, source: Any, display: Any, poll_interval: float = 0.3) -> None:
        # A warning would be printed into the line of a tqdm bar.
        self._aside = getattr(display, "external_write_mode", nullcontext)
        super().__init__(
            source if hasattr(source, "snapshot") else _ActorSource(source, self._aside),
            display if hasattr(display, "show") else UserBarDisplay(display),
            poll_interval,
        )

    def _warn(self, what: str, error: Exception) -> None:
        with self._aside():
            super()._warn(what, error)


ProgressPoller.__module__ = "speedy_utils"


class _ActorSource:
    """Makes snapshots of what a progress actor has counted.

    Args:
        actor: The actor.
        aside: Makes a context in which a warning may be printed.
    """

    def __init__(self, actor: Any, aside: Callable[[], AbstractContextManager[Any]]) -> None:
        self._actor, self._aside = actor, aside
        self._warned = False

    def snapshot(self) -> Snapshot:
        state = read_progress(self._actor)
        if state["left_out"] and not self._warned:
            self._warned = True
            with self._aside():
                warn_of_left_out(state["left_out"][0])
        stages = tuple(StageSnapshot(name, done, None) for name, done in state["stages"].items())
        run_line = StageSnapshot(
            state["desc"],
            state["processed"],
            state["total"],
            elapsed=state["elapsed"],
            counters=state["counters"],
        )
        return Snapshot(run_line, stages)


def create_progress_tracker(total: int | None = None, desc: str = "Processing") -> Any:
    """Start a :class:`ProgressActor` on the Ray that is running, for tasks of your own.

    It needs no CPU, restarts by itself, and ends with its last handle. Pass the handle to your tasks as an
    argument, call ``set_progress_context(handle)`` in them, and show it with ``ProgressPoller(handle, bar)``.

    Args:
        total: Items in all; None if that is not known.
        desc: What is being done.

    Returns:
        The handle of the actor; its methods are called with ``.remote``.

    Raises:
        ValueError: ``total`` is negative.
        TypeError: ``total`` is not an integer.

    Example:
        It needs a Ray, so here it is not run::

            actor = create_progress_tracker(total=1_000_000, desc="Working")
            with tqdm(total=1_000_000) as bar, ProgressPoller(actor, bar):
                ray.get([work.remote(rows, actor) for rows in parts])
    """
    return start_actor(None if total is None else checked_count(total, "total"), desc)


create_progress_tracker.__module__ = "speedy_utils"


def read_progress(actor: Any) -> dict[str, Any]:
    """Return ``get_progress()`` of an actor's handle, or of a :class:`ProgressActor` of this process."""
    if isinstance(actor, ProgressActor):
        return actor.get_progress()
    import ray

    state: dict[str, Any] = ray.get(actor.get_progress.remote(), timeout=GIVE_UP_AFTER_S)
    return state
