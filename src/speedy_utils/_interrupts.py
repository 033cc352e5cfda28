"""Ctrl-C that arrives while a library runs which swallows it."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import compress, starmap
from operator import is_, itemgetter, methodcaller
from types import FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def after_fork_in_child(reset: Callable[[], object]) -> None:
    """Call a function in each child that this process forks, to reset what belongs to the parent."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        os.register_at_fork(after_in_child=reset)


_acquire, _release = methodcaller("acquire"), methodcaller("release")
_PLAIN_LOCK = type(threading.Lock())
_lock_sources: list[Callable[[], Sequence[Any]]] = []


def holding(locks: Callable[[], Sequence[Any]]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a decorator that holds some locks while a function runs, so that Ctrl-C can't leave them held.

    A KeyboardInterrupt can only be raised between bytecodes. Acquiring all locks and recording which were
    acquired therefore happens in one C call (``list.extend`` over a ``map``), and so does releasing them.

    Args:
        locks: Returns the locks, at each call of the decorated function.
    """
    _lock_sources.append(locks)

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


def release_locks() -> None:
    """Release the locks of :func:`holding` that this thread still holds.

    A KeyboardInterrupt in the code of a library that takes the same lock may have skipped its release.
    """
    for lock in [lock for locks in _lock_sources for lock in locks()]:
        # A plain lock does not know its owner; the others refuse to be released by another thread.
        with suppress(RuntimeError, AssertionError):
            while not isinstance(lock, _PLAIN_LOCK):
                lock.release()


@contextmanager
def keeping_ctrl_c() -> Iterator[None]:
    """Raise again what the block swallows: a KeyboardInterrupt that a library takes for its own error.

    Ray does so while it starts, ``datasets`` while it hashes the arguments of a transform, and fsspec while
    it looks whether a file exists.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pressed, here = False, os.getpid()

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
        if pressed:  # it is what came of it
            raise KeyboardInterrupt from error
        raise
    finally:
        try:
            signal.signal(signal.SIGINT, handler)
        except KeyboardInterrupt:  # it strikes before it is changed
            signal.signal(signal.SIGINT, handler)
            raise
    if pressed:
        raise KeyboardInterrupt


_OURS = __name__.partition(".")[0]


_BRIEF = {_OURS, "_weakrefset", "importlib", "logging", "tqdm", "weakref"}
"""Packages whose code is soon left again, and takes locks in Python: what is raised between taking one and
the block that gives it back lets all that need it wait for ever. Weak references drop what is raised."""


_PLUMBING = {"contextlib", "functools", "multiprocessing", "queue", "threading"}
"""Packages in which user code waits for others, and that take locks in the functions of :data:`_TAKING`."""


_WAITING = {("tqdm", "__iter__"), (_OURS, "_sized"), (_OURS, "wait")}
"""Functions of :data:`_BRIEF` in which user code waits: for what it goes through, or for a run of its own."""


_TAKING = {"__del__", "__enter__", "__exit__", "_acquire_restore", "acquire", "release"}


def raise_in_thread(thread: int, error: type[BaseException]) -> bool:
    """Raise an exception in a thread, unless it is where that would do harm.

    It is raised where the thread stands, or once that is back from the C function that it has called.

    Args:
        thread: Its ident.
        error: The exception's class.

    Returns:
        Whether it was raised: False where the thread is in the middle of something brief, and may be asked
        again in a moment.
    """
    frame = sys._current_frames().get(thread)
    return frame is not None and _in_user_code(frame) and _raise(thread, frame, error)


def _raise(thread: int, innermost: FrameType, error: type[BaseException]) -> bool:
    """Raise in a thread whose innermost frame is still the same.

    Between two calls from Python code the thread may run on. So it is looked at once more, and struck, within
    one call: ``sum`` pulls the blow through ``compress``, which hands it on where the frame is the same.
    """
    # The one way into another thread that Python has; see PyThreadState_SetAsyncExc in its C API.
    strike = ctypes.pythonapi.PyThreadState_SetAsyncExc
    blow = [(ctypes.c_ulong(thread), ctypes.py_object(error))]
    now = map(itemgetter(thread), starmap(sys._current_frames, [()]))
    collects = gc.isenabled()
    gc.disable()  # it would run Python code within the call
    try:
        return bool(sum(starmap(strike, compress(blow, map(is_, now, [innermost])))))
    except KeyError:  # the thread has ended
        return False
    finally:
        if collects:
            gc.enable()


def _in_user_code(innermost: FrameType) -> bool:
    """Whether the innermost frame is of user code, or of what that waits in."""
    if any(_package(frame) == "tqdm" and frame.f_code.co_name == "refresh" for frame in _outwards(innermost)):
        return False  # it holds tqdm's lock, and writes to a stream that may be anybody's code
    if _package(innermost) in _PLUMBING and innermost.f_code.co_name in _TAKING:
        return False
    for frame in _outwards(innermost):
        if (package := _package(frame)) not in _PLUMBING:
            return package not in _BRIEF or (package, frame.f_code.co_name) in _WAITING
    return False


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
