"""Await what a task's function returned: an event loop in a thread beside the worker's own.

A worker's thread calls the user's function. If that returns an awaitable, the thread hands it to the loop,
and waits until it has ended::

    worker's thread    function(item) → coroutine ─ run() ┐                       ┌─ value, or error
    loop's thread                                         └─ asyncio.Task … ended ┘

So for an engine a task that awaits is a task that blocks: how many run at once, retries, outcomes and their
counts are the same. The tasks of a run that share a loop may share what belongs to one: a session, a lock.

The loop has a thread of its own even if just one thread uses it. That thread may be running a loop already,
such as a notebook's. And Ctrl-C is raised in the main thread, where it would interrupt asyncio's own code.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from .._interrupts import Cancelled, raise_in_thread
from .._validation import shorten

logger = logging.getLogger("speedy_utils")

CANCEL_GRACE_S = 2.0
"""Seconds in which a cancelled coroutine may end before its run goes on without it."""

_BLOCKED_AFTER_S = 0.5
"""Seconds without an answer, after which the code of a coroutine is taken to block the loop."""

_CANCEL_RETRY_S = 0.005
"""Seconds between two looks whether a cancelled coroutine has ended."""

_LOOK_INTERVAL_S = 0.05
"""Seconds between two moments at which a waiting main thread can be interrupted.

A signal ends its waiting, but Ray interrupts a task without one.
"""

_LOOP_PACKAGES = frozenset({"asyncio", "concurrent", "selectors", "uvloop"})
"""What a loop's thread runs between the steps of coroutines."""


class _Call:
    """An awaitable that a thread waits for."""

    __slots__ = ("awaitable", "ended", "given_up", "task", "thread")

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable
        self.task: asyncio.Task[Any] | None = None
        self.thread = 0  # that of the loop
        self.given_up = False
        self.ended: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def end(self, value: Any, error: BaseException | None) -> None:
        """Pass on how it ended. A coroutine that never began is closed, or Python would warn of it."""
        if inspect.iscoroutine(self.awaitable):
            with suppress(RuntimeError):  # it goes on though it was closed
                self.awaitable.close()
        self.ended.put((value, error))

    def interrupt(self, error: type[BaseException]) -> bool:
        """Cancel it or, if its code does not let the loop run, raise an error there, in user code only.

        Returns:
            Whether that was done. If not, the caller may try again.
        """
        if self.task is None:
            return False
        if getattr(self.task.get_coro(), "cr_running", False):
            return raise_in_thread(self.thread, error, spare=_LOOP_PACKAGES)
        with suppress(RuntimeError):  # the loop is closed
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)
        return True

    def wait(self) -> tuple[Any, BaseException | None]:
        """Return the value and the error that it ended with."""
        if threading.current_thread() is not threading.main_thread():
            return self.ended.get()
        while True:
            with suppress(Empty):
                return self.ended.get(timeout=_LOOK_INTERVAL_S)


_call_here: ContextVar[_Call | None] = ContextVar("speedy_utils_call", default=None)
"""The call whose coroutine this is or which has started this, as an asyncio task or in a thread."""


_calls_by_thread: dict[int, _Call] = {}
"""The awaitable that each thread waits for."""


def call_of(thread: int) -> _Call | None:
    """Return what a thread waits for in :meth:`EventLoop.run`; None if it is not there."""
    return _calls_by_thread.get(thread)


def is_awaited_by_worker() -> bool:
    """Return whether this is the coroutine itself that a worker's thread waits for."""
    call = _call_here.get()
    return call is not None and _loop_here() is not None and asyncio.current_task() is call.task


class EventLoop:
    """An event loop in a thread of its own, which starts with the first awaitable.

    Args:
        on_start: Called once it starts, in the first thread that awaits.

    Example:
        >>> import asyncio
        >>> with EventLoop() as loop:
        ...     loop.run(asyncio.sleep(0, "value"))
        'value'
    """

    def __init__(self, on_start: Callable[[], object] = lambda: None) -> None:
        self._on_start = on_start
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[_Call] = set()
        self._closing = self._cancelled = False
        self._answered = True  # whether the loop has run since something was to be cancelled
        self._raise_at = self._deadline = 0.0

    def __enter__(self) -> EventLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Await something in the loop, in a copy of this context, and return its value.

        If this thread is interrupted meanwhile, what it waits for is cancelled, and gets a moment to end.

        Raises:
            Cancelled: All that runs in the loop was cancelled.
        """
        call = _Call(awaitable)
        thread = threading.get_ident()
        outer = _calls_by_thread.get(thread)
        _calls_by_thread[thread] = call
        try:
            loop = self._start()
            loop.call_soon_threadsafe(self._begin, call, context=copy_context())
            value, error = call.wait()
        except BaseException:
            self._cancel_call(call)
            raise
        finally:
            if outer is None:
                _calls_by_thread.pop(thread, None)
            else:
                _calls_by_thread[thread] = outer
        if self._cancelled:
            raise Cancelled
        if error is not None:
            try:
                raise error
            finally:
                del error  # it refers to this frame
        return value

    def cancel(self) -> None:
        """Cancel all that runs, and all that would begin from now on, without waiting. Idempotent."""
        with self._lock:
            again, self._cancelled = self._cancelled, True
        if not again:
            self._expect_answer()
            self._call_soon(self._cancel_calls)

    def interrupt(self) -> None:
        """Raise ``Cancelled`` in a coroutine that was to be cancelled but does not let the loop run.

        It is raised in user code only, and in a coroutine that only waits never: that gets a CancelledError.
        """
        thread, now = self._thread, time.monotonic()
        if thread is None or thread.ident is None or self._answered or now < self._raise_at:
            return
        if raise_in_thread(thread.ident, Cancelled, spare=_LOOP_PACKAGES):
            self._raise_at = now + _BLOCKED_AFTER_S

    def close(self) -> None:
        """Cancel what is left, close the loop and end the thread. Idempotent.

        What goes on all the same, two seconds long, is left to end by itself.
        """
        with self._lock:
            thread, again, self._closing = self._thread, self._closing, True
        if thread is None or self._closed is None or again:
            return
        self._call_soon(self._closed.set_result, None)
        left = self._deadline - time.monotonic() if self._deadline else CANCEL_GRACE_S
        with suppress(RuntimeError):  # the thread was not even started: Ctrl-C came before
            thread.join(max(left, 10 * _CANCEL_RETRY_S))
        if thread.is_alive() and not self._deadline:
            logger.warning(
                "what a coroutine has started goes on after all tasks have ended; it ends by itself, or with "
                "the program"
            )

    def _start(self) -> asyncio.AbstractEventLoop:
        """Return the loop; its thread starts with the first call."""
        with self._lock:
            if self._cancelled or self._closing:
                raise Cancelled
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._closed = loop.create_future()
                self._thread = threading.Thread(
                    target=self._run, args=(loop, self._closed), name="speedy_utils-event-loop", daemon=True
                )
                self._loop = loop
                self._thread.start()
                self._on_start()
            return self._loop

    def _call_soon(self, callback: Any, *args: Any) -> bool:
        """Let the loop call something, and return whether it will: not if it is closed, or never started."""
        with suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback, *args)
                return True
        return False

    def _expect_answer(self) -> None:
        now = time.monotonic()
        self._answered, self._raise_at = False, now + _BLOCKED_AFTER_S
        self._deadline = self._deadline or now + CANCEL_GRACE_S

    def _cancel_call(self, call: _Call) -> None:
        """Cancel an awaitable whose thread was interrupted, and wait a moment for it to end."""
        call.given_up = True
        self._expect_answer()
        if not self._call_soon(self._cancel_task, call):
            call.end(None, None)
            return
        while time.monotonic() < self._deadline:
            with suppress(Empty):
                call.ended.get(timeout=_CANCEL_RETRY_S)
                return
            self.interrupt()
        logger.warning("a coroutine goes on after it was cancelled; it ends by itself, or with the program")

    # What follows is called in the loop's thread.

    def _run(self, loop: asyncio.AbstractEventLoop, closed: asyncio.Future[None]) -> None:
        main = loop.create_task(_main(closed))
        while not main.done():
            # asyncio lets these leave the loop, in which other coroutines are at work.
            with suppress(SystemExit, KeyboardInterrupt, Cancelled):
                loop.run_until_complete(main)
        loop.close()

    def _begin(self, call: _Call) -> None:
        if self._cancelled or call.given_up:
            call.end(None, Cancelled())
            return
        _call_here.set(call)
        call.thread = threading.get_ident()
        try:
            own = call.awaitable if inspect.iscoroutine(call.awaitable) else _awaiting(call.awaitable)
            call.task = asyncio.get_running_loop().create_task(own)
            call.task.add_done_callback(partial(self._end, call))
        except BaseException as error:  # the program's own factory of tasks; a thread waits for an answer
            call.end(None, error)
        else:
            self._calls.add(call)

    def _end(self, call: _Call, task: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        try:
            value = task.result()
        except BaseException as error:  # user code may raise anything: the thread that waits is to raise it
            call.end(None, error)
        else:
            call.end(value, None)

    def _cancel_task(self, call: _Call) -> None:
        self._answered = True
        if call.task is None:
            call.end(None, Cancelled())
        else:
            call.task.cancel()

    def _cancel_calls(self) -> None:
        for call in list(self._calls):
            self._cancel_task(call)
        self._answered = True


async def _main(closed: asyncio.Future[None]) -> None:
    """Let other tasks run until the loop is to be closed; then end those that user code has left."""
    await closed
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


shared_loop: ContextVar[EventLoop | None] = ContextVar("speedy_utils_event_loop", default=None)
"""The loop that the tasks of an engine share; None if each task has its own."""


def awaited(value: Any) -> Any:
    """Return what a function returned or, if that is an awaitable, what it returns once awaited.

    Raises:
        RuntimeError: It is a future of a loop that can't run while this thread waits.
    """
    if not inspect.isawaitable(value) or _is_object_ref(value):
        return value
    if asyncio.isfuture(value):
        value = _in_its_loop(value)
    if (loop := shared_loop.get()) is not None:
        return loop.run(value)
    with EventLoop() as loop:
        return loop.run(value)


def _is_object_ref(value: Any) -> bool:
    """Return whether it is a reference of Ray's: these can be awaited, and are values like any other."""
    kinds = type(value).__mro__
    return any(kind.__name__ == "ObjectRef" and kind.__module__.startswith("ray.") for kind in kinds)


def _in_its_loop(future: asyncio.Future[Any]) -> Awaitable[Any]:
    """Return a coroutine that awaits, in any loop, a future of the loop that it was made in.

    Raises:
        RuntimeError: That loop can't run meanwhile.
    """
    if future.done():
        return _awaiting(future)
    home = future.get_loop()
    if not home.is_running() or home is _loop_here():
        raise RuntimeError(
            f"{shorten(future)} can't end, as its event loop does not run while it is waited for: return the "
            "coroutine itself, without create_task() or ensure_future()"
        )
    return _elsewhere(future, home)


async def _elsewhere(future: asyncio.Future[Any], home: asyncio.AbstractEventLoop) -> Any:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaiting(future), home))


def _loop_here() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
