"""Ends an attempt that runs for too long, from another thread of its process.

What runs in the main thread of a process gets a signal, which also ends ``time.sleep()`` and other calls
that wait for the system. In another thread an exception is raised once its code comes back to Python; a
coroutine is cancelled. None of that ends a call of C code that does not return: a driver kills a process for
it, and gives up a thread.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from ..._interrupts import Cancelled, TimedOut, after_fork_in_child, may_interrupt, raise_in_thread
from ..._worker.code.stacks import stack_of

GRACE_S = 1.0
"""Seconds in which an attempt may end after its limit, before it is given up or its process killed."""

AGAIN_S = 1.0
"""Seconds after which an attempt that has gone on after it was interrupted is interrupted again."""

_POLL_S, _RETRY_S = 0.05, 0.01
"""Seconds between two looks at the limits, and between two attempts to interrupt what is over its limit."""

_LINGER_S = 1.0
"""Seconds for which the thread waits for further attempts, as to start one costs more than most of them."""


class TimeLimit:
    """A limit to the time that a block may take in this thread; a context manager.

    Args:
        seconds: The limit.
        on_stuck: Called, in another thread, if the block has not ended :data:`GRACE_S` after its limit. If it
            returns True the block is given up: should it end after all, it raises ``Cancelled``.

    Attributes:
        expired: Whether the limit was passed: the block then ends with a TimeoutError, whatever it does.
        stack: Where its code was then, as lines of a traceback.
    """

    def __init__(self, seconds: float, on_stuck: Callable[[TimeLimit], bool] | None = None) -> None:
        self.seconds = seconds
        self.due = 0.0
        self.expired = False
        self.stack = ""
        self.thread = threading.get_ident()
        self._on_stuck = on_stuck
        self._lock = threading.Lock()  # while it is held, the block can't end
        self._ended = self._raised = self._given_up = False
        self._interrupt_at = 0.0
        self._by_signal = _signals.handled and self.thread == threading.main_thread().ident
        self._outer: TimeLimit | None = None

    def __enter__(self) -> TimeLimit:
        if self._by_signal:
            self._outer, _signals.limit = _signals.limit, self
        self.due = time.monotonic() + self.seconds
        _watch.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end()
        except TimedOut:
            self.end()
        if self._given_up:
            raise Cancelled
        if self.expired and kind not in (KeyboardInterrupt, Cancelled):  # these end the run
            raise self.error().with_traceback(_without_handler(trace)) from None

    def error(self) -> TimeoutError:
        """Return the exception that the attempt ends with."""
        return timeout_error(self.seconds, self.stack)

    def end(self) -> None:
        """Interrupt the block no more. Idempotent."""
        with self._lock:
            self._ended = True
        _watch.remove(self)
        if self._by_signal:
            if _signals.sent:
                signal.pthread_sigmask(signal.SIG_BLOCK, ())  # it is handled here
            if _signals.limit is self:
                _signals.limit = self._outer
        elif self._raised:  # and perhaps not received yet
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), None)

    def receive(self, frame: FrameType | None) -> None:
        """Raise in the block, which a signal has interrupted, unless it has ended or must not be interrupted.

        Args:
            frame: Where it was interrupted.
        """
        if not self._ended and frame is not None and may_interrupt(frame):
            self._interrupt_at = time.monotonic() + AGAIN_S
            raise TimedOut

    def enforce(self, now: float) -> None:
        """Interrupt the block, if that has not been done yet, and say so if it goes on all the same.

        Args:
            now: The time, not before the limit.
        """
        with self._lock:
            if self._ended:
                return
            if not self.expired:
                self.expired, self.stack = True, stack_of(self.thread)
            if now >= self._interrupt_at and self._interrupt():
                self._interrupt_at = now + AGAIN_S
            if self._on_stuck is not None and now - self.due >= GRACE_S:
                on_stuck, self._on_stuck = self._on_stuck, None
                self._given_up = on_stuck(self)

    def _interrupt(self) -> bool:
        """Interrupt the block where it is; return whether that was done, or is to be tried again soon."""
        from ..._worker.event_loop import call_of  # not above: it imports asyncio, which few programs use

        call = call_of(self.thread)
        if call is not None:
            return call.interrupt(TimedOut)
        if not self._by_signal:
            self._raised = raise_in_thread(self.thread, TimedOut) or self._raised
            return self._raised
        if not _signals.sent:
            _signals.sent = True
            signal.pthread_kill(self.thread, signal.SIGINT)
        return False


class _Signals:
    """What the main thread's handler of SIGINT has to know.

    Attributes:
        handled: Whether it is in place.
        sent: Whether a limit has sent the signal, and it has not been handled yet.
        limit: The innermost limit in that thread.
    """

    handled = sent = False
    limit: TimeLimit | None = None


_signals = _Signals()


@contextmanager
def signalling_main_thread() -> Iterator[None]:
    """Let the limits of this thread interrupt it by a signal, if it is the main thread.

    SIGINT, as few programs handle it by themselves. One that no limit has sent is handled as before.
    """
    before = signal.getsignal(signal.SIGINT)
    if (
        threading.current_thread() is not threading.main_thread()
        or not hasattr(signal, "pthread_kill")
        or not callable(before)
        or _signals.handled
    ):
        yield
        return
    handler = before

    def handle(number: int, frame: FrameType | None) -> None:
        sent, _signals.sent = _signals.sent, False
        if not sent:
            handler(number, frame)
        elif _signals.limit is not None:
            _signals.limit.receive(frame)

    mask: Collection[int] = ()
    try:
        signal.signal(signal.SIGINT, handle)
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # Ray's workers block it
        _signals.handled = True
        yield
    finally:
        _signals.handled = False
        if signal.SIGINT in mask:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, before)


def _without_handler(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback that ends where a signal has interrupted the code, and not in its handler."""
    each = trace
    while each is not None and each.tb_next is not None:
        if each.tb_next.tb_frame.f_globals.get("__name__") == __name__:
            each.tb_next = None
        each = each.tb_next
    return trace


def timeout_error(seconds: float, stack: str) -> TimeoutError:
    """Return the exception of an attempt that has run for too long.

    Args:
        seconds: Its limit.
        stack: Where its code was then, as lines of a traceback; empty if its process could not say so.
    """
    where = f", and stood in {stack.rpartition(chr(10))[2].strip()}"
    if not stack:
        where = "; where it stood is not known: its process answered no signal, as one that is stopped"
    return TimeoutError(f"it ran for longer than task_timeout={seconds:g} seconds{where}")


class _Watch:
    """The one thread of a process that looks whether blocks are over their limits."""

    def __init__(self) -> None:
        self._limits: dict[TimeLimit, None] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, limit: TimeLimit) -> None:
        with self._lock:
            self._limits[limit] = None
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="speedy_utils-time-limits", daemon=True)
                thread.start()
                self._thread = thread

    def remove(self, limit: TimeLimit) -> None:
        self._limits.pop(limit, None)

    def _run(self) -> None:
        used_at = time.monotonic()
        while True:
            now, pause = time.monotonic(), _POLL_S
            for limit in list(self._limits):
                left = limit.due - now
                if left <= 0:
                    limit.enforce(now)
                    left = _RETRY_S
                pause = min(pause, max(left, _RETRY_S))
            with self._lock:
                if self._limits:
                    used_at = now
                elif now - used_at >= _LINGER_S:
                    self._thread = None
                    return
            time.sleep(pause)


_watch = _Watch()


def _forget_parent() -> None:
    """Reset a forked child, which has no such thread."""
    global _watch
    _watch = _Watch()
    _signals.limit, _signals.sent = None, False


after_fork_in_child(_forget_parent)
