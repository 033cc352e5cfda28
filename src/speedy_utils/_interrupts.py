"""Ctrl-C, SIGTERM, cancelled threads and forks: what may happen where, and how the code holds against it.

**What is raised.** Some exceptions may be raised at any place in code that knows nothing of them. Ctrl-C
raises a KeyboardInterrupt in the main thread. A run that ends early raises ``Cancelled`` in the threads that
still work for it (:func:`raise_in_thread`), as Python has no other way to end a thread; a task that has run
for longer than its ``task_timeout`` is ended by ``TimedOut``. All of them are raised between two bytecodes,
so never within one call of a C function, and at the latest when that returns.

**Where they must not be raised**, or need care:

1. *Between acquiring a lock and the block that releases it*: all that need the lock would wait forever. A
   ``with`` on a lock that C implements is safe; locks that are taken in Python are not: those of
   ``Condition``, ``Event`` and ``Queue``, tqdm's and logging's.
2. *Where the exception is dropped*: in callbacks of weak references and in ``__del__``, and in libraries
   that take a KeyboardInterrupt for their own error.
3. *Between a step and the ``try`` that undoes it*, or within what undoes it: a task would stay registered, a
   reporter be read forever, a thread or a display stay open.
4. *In a forked child that is about to run another program*: Python would print a traceback there.

**How the code holds against that.**

- :func:`holding` takes tqdm's lock for as long as a function runs, each step within one C call. It is for
  code that runs in user threads: drawing, and text printed above the lines.
- Threads wait for each other by ``queue.SimpleQueue`` and ``threading.Lock``, which C implements.
- :func:`raise_in_thread` looks what the thread runs and raises in user code only; it is called again a
  few milliseconds later for a thread that is elsewhere. Functions of this package in which user code waits
  are marked by :func:`interruptible`.
- What undoes a step is idempotent, and called once more: in ``run_chunk`` if it is interrupted, and by the
  next block outside in a tracked call that is a run, in ``Run.__exit__`` and ``Poller.__exit__``. What is
  bound to a context is bound in a context, or a thread, of its own.
- :func:`keeping_ctrl_c` notes a KeyboardInterrupt while a library runs, and raises it again if that swallows
  it.
- :func:`delaying_ctrl_c` raises it after the block: for imports, as a package that is half imported can't be
  imported again in this process, for Ray's start, which may crash, and while results are taken in, which
  would be lost.
- :func:`release_locks` releases tqdm's lock before a run that was interrupted waits for its last reading:
  tqdm's own code may have been interrupted while it held it. And that wait is a short one, as there are
  other locks.
- A second Ctrl-C ends each wait of the cleanup: for tasks to end by themselves, and for the last reading.
- An iterator over results can't see why it is dropped, and what is raised in a ``__del__`` is only printed:
  see ``_engines.streaming.dropped``.

**SIGTERM.** A run in the main thread of a program that has no handler for it raises ``Terminated``
(:func:`ending_on_sigterm`), which goes the way of Ctrl-C: tasks are stopped, the last lines are drawn, and
what is kept is said. If the program catches it, it goes on, as after Ctrl-C. Else the signal is raised
again, so the program ends by it, as it would without a run. The first process of a container is not ended by
a signal that it does not handle: it exits with the code 143. Ray has a handler of its own.

**In workers** in other processes a run that ends raises a KeyboardInterrupt by SIGINT. One that comes
without a signal is the user's own: it fails its task (:func:`note_interrupts`).

**Coroutines** run in an event loop in a thread of its own (``_worker.event_loop``), so neither exception is
raised in asyncio's code. What waits for a coroutine and is interrupted cancels it, as does a run that ends
early, and gives it a moment to end. Only if it keeps the loop from running is ``Cancelled`` raised in it.

**What is left.** A thread inside a long C call, or in code that catches BaseException, goes on; a warning
says so, and it ends with the program. Two Ctrl-C within microseconds can skip both calls of a cleanup. An
interrupted logging call of the program can leave the lock of its handler held; then the last reading may not
be shown.

**Forks.** In a forked child only the thread that forked lives on, and a lock that another one held stays
held. Each module that keeps threads, locks or tasks registers what its child resets by
:func:`after_fork_in_child`.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import compress, starmap
from operator import is_, itemgetter, methodcaller
from types import CodeType, FrameType, TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Cancelled(BaseException):
    """Raised in a task whose run was cancelled."""


class TimedOut(BaseException):
    """Raised in a task that has run for longer than its ``task_timeout``."""


class Terminated(KeyboardInterrupt):
    """Raised in the main thread at SIGTERM."""


def after_fork_in_child(reset: Callable[[], object]) -> None:
    """Call a function in each child that this process forks, to reset what belongs to the parent.

    The functions are called in the order in which they were registered. On Windows, which has no forks, they
    are never called.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)


_acquire, _release = methodcaller("acquire"), methodcaller("release")
_PLAIN_LOCK = type(threading.Lock())


def holding(locks: Callable[[], Sequence[Any]]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that holds some locks while a function runs, and can't leave them held.

    A KeyboardInterrupt can only be raised between bytecodes. Acquiring all locks and recording which were
    acquired therefore happens in one C call (``list.extend`` over a ``map``), and so does releasing them.

    Args:
        locks: Returns the locks, at each call of the decorated function.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> T:
            wanted = locks()
            held: list[Any] = []
            released: list[Any] = []
            releasing = map(_release, held)
            try:
                held.extend(compress(wanted, map(_acquire, wanted)))
                return function(*args, **kwargs)
            finally:
                released.extend(releasing)

        return locked

    return decorate


def release_locks(locks: Sequence[Any]) -> None:
    """Release those of some locks that this thread still holds, however often it has acquired them.

    A KeyboardInterrupt in the code of a library that takes them may have skipped the release.
    """
    for lock in locks:
        # A plain lock does not know its owner; the others refuse to be released by another thread.
        with suppress(RuntimeError, AssertionError):
            while not isinstance(lock, _PLAIN_LOCK):
                lock.release()


@contextmanager
def keeping_ctrl_c() -> Iterator[None]:
    """Raise again a KeyboardInterrupt that the block swallows, as a library took it for its own error.

    Ray does so while it starts, ``datasets`` while it hashes the arguments of a transform, and fsspec while
    it looks whether a file exists.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pressed, here = False, os.getpid()
    terminated = _terminated

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if os.getpid() != here:
            # A child that is about to be another program: Python would print what is raised in it.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        try:
            handler(number, frame)
        except KeyboardInterrupt:
            pressed = True
            raise

    try:
        signal.signal(signal.SIGINT, note)
        yield
    except Exception as error:
        if pressed or _terminated > terminated:  # the error is what the library made of it
            raise (KeyboardInterrupt if pressed else Terminated) from error
        raise
    finally:
        try:
            signal.signal(signal.SIGINT, handler)
        except KeyboardInterrupt:  # raised before the handler was changed
            signal.signal(signal.SIGINT, handler)
            raise
    if pressed or _terminated > terminated:
        raise KeyboardInterrupt if pressed else Terminated


_terminated = 0
"""How many SIGTERM have come that a run handled."""


def terminated() -> int:
    """Return how many SIGTERM have come that a run handled."""
    return _terminated


def _raise_terminated(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal passes both
    global _terminated
    if os.getpid() != _handled_in:  # in a forked child
        _end_by(number)
    _terminated += 1
    if _terminated == 1:
        _end_by_sigterm_if_uncaught()
    raise Terminated


_handled_in = 0
"""The process that handles SIGTERM at the moment."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Raise ``Terminated`` if SIGTERM comes in the block, and end the program by it if nothing catches that.

    Does nothing outside the main thread, or if the program handles the signal by itself or ignores it.
    """
    global _handled_in
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    _handled_in, terminated = os.getpid(), _terminated
    try:
        signal.signal(signal.SIGTERM, _raise_terminated)
        yield
    except Exception as error:
        if _terminated > terminated:  # the error is what something made of it
            raise Terminated from error
        raise
    finally:
        with suppress(Terminated, ValueError):  # raised before it was changed; or this is another thread
            if (
                signal.getsignal(signal.SIGTERM) is _raise_terminated
            ):  # neither the program nor Ray has set one
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _terminated > terminated:  # and the block swallowed it
        _end_by(signal.SIGTERM)


def _end_by_sigterm_if_uncaught() -> None:
    """End the program by SIGTERM in place of a traceback, where a KeyboardInterrupt is not caught."""
    hook, here = sys.excepthook, os.getpid()

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt) and os.getpid() == here:
            sys.stderr.flush()
            sys.stdout.flush()
            _end_by(signal.SIGTERM)
        hook(kind, error, trace)

    sys.excepthook = end


def _end_by(number: int) -> None:
    """End this process by a signal; by SystemExit if that does not end it."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    raise SystemExit(128 + number)  # the process with the number 1 is left alone by it


_signal = sys.modules.get("_signal", signal)
"""As ``signal``, without a look for an enum at each call: up to Python 3.11 that takes 5 µs."""


@contextmanager
def delaying_ctrl_c(*, once: bool = False) -> Iterator[None]:
    """Let Ctrl-C, and a SIGTERM that a run handles, wait for the end of the block.

    Args:
        once: Whether a second one does not wait.
    """
    handlers: dict[int, Any] = {
        number: _signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    if handlers[signal.SIGTERM] is not _raise_terminated:
        del handlers[signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread() or not callable(handlers[signal.SIGINT]):
        yield
        return
    pressed: list[int] = []
    here = os.getpid()

    def note(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if os.getpid() != here or (once and len(pressed) > 1):
            pressed.clear()
            handlers[number](number, frame)

    for number in handlers:
        _signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if _signal.getsignal(number) is note:  # Ray sets one of its own as it starts
                _signal.signal(number, handler)
        if pressed:
            handlers[pressed[0]](pressed[0], sys._getframe())


_interrupted = False


def note_interrupts() -> None:
    """Let this worker remember whether SIGINT has come from now on: see :func:`was_interrupted`."""
    forget_interrupts()
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, _raise_interrupt)


def forget_interrupts() -> None:
    """Let :func:`was_interrupted` return False until SIGINT comes again."""
    global _interrupted
    _interrupted = False


def was_interrupted() -> bool:
    """Return whether SIGINT has come to this worker, so that a KeyboardInterrupt is not the user's own."""
    return _interrupted


def _raise_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal passes both
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


_OURS = __name__.partition(".")[0]

_NOT_INTERRUPTIBLE = {_OURS, "_weakrefset", "importlib", "logging", "tqdm", "weakref"}
"""Packages whose code is soon left again, and takes locks in Python or drops what is raised (1, 2 above)."""

_WAIT_PACKAGES = {"contextlib", "functools", "multiprocessing", "queue", "threading"}
"""Packages in which user code waits: it matters what called them. Their :data:`_LOCK_METHODS` take locks."""

_LOCK_METHODS = {"__del__", "__enter__", "__exit__", "_acquire_restore", "acquire", "release"}

_TQDM_WAITS_IN = "__iter__"
"""The function of tqdm in which user code waits: for the next item of what a bar goes through."""

_interruptible: set[CodeType] = set()


def interruptible(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function of this package as one in which user code waits, and may be interrupted."""
    _interruptible.add(function.__code__)
    return function


def raise_in_thread(thread: int, error: type[BaseException], *, spare: Collection[str] = frozenset()) -> bool:
    """Raise an exception in a thread, if it is in user code.

    It is raised where the thread is or, if it has called a C function, once that returns.

    Args:
        thread: Its ident.
        error: The exception's class.
        spare: Further packages in whose code it must not be raised.

    Returns:
        Whether it was raised. If not, the thread has ended, or is for a moment in code that must not be
        interrupted, and the caller may try again.
    """
    frame = sys._current_frames().get(thread)
    if frame is None or _package(frame) in spare:
        return False
    return may_interrupt(frame) and _async_raise(thread, frame, error)


_pending_call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)

_pending_calls: list[object] = []
"""What C code holds no reference to, and has yet to call."""


def call_in_main_thread(function: Callable[[], object]) -> None:
    """Call a function in the main thread before that runs any more Python code, without waiting for it.

    Args:
        function: The function. What it raises is only printed.
    """

    def call(_: object) -> int:
        function()
        return 0

    _pending_calls.append(pending := _pending_call(call))
    ctypes.pythonapi.Py_AddPendingCall(pending, None)


def _async_raise(thread: int, innermost: FrameType, error: type[BaseException]) -> bool:
    """Raise an exception in a thread, if its innermost frame is still this one.

    Between looking and raising the thread must not run on, so both happen within one C call: ``compress``
    yields the arguments only if the frame is the same, and ``sum`` makes the call with them.
    """
    # The one way into another thread that Python has; see PyThreadState_SetAsyncExc in its C API.
    set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
    arguments = [(ctypes.c_ulong(thread), ctypes.py_object(error))]
    frame_now = map(itemgetter(thread), starmap(sys._current_frames, [()]))
    unchanged = map(is_, frame_now, [innermost])
    collects = gc.isenabled()
    gc.disable()  # it would run Python code within the call
    try:
        return bool(sum(starmap(set_async_exc, compress(arguments, unchanged))))
    except KeyError:  # the thread has ended
        return False
    finally:
        if collects:
            gc.enable()


def may_interrupt(innermost: FrameType) -> bool:
    """Return whether a thread with this innermost frame is in user code, or in what that waits in."""
    frames = [*_outwards(innermost)]
    if any(_package(frame) == "tqdm" and frame.f_code.co_name == "refresh" for frame in frames):
        return False  # it holds tqdm's lock, and may write to a stream that is user code
    if _package(innermost) in _WAIT_PACKAGES and innermost.f_code.co_name in _LOCK_METHODS:
        return False
    for frame in frames:
        package = _package(frame)
        if package not in _WAIT_PACKAGES:
            waits = package == "tqdm" and frame.f_code.co_name == _TQDM_WAITS_IN
            return package not in _NOT_INTERRUPTIBLE or waits or frame.f_code in _interruptible
    return False


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
