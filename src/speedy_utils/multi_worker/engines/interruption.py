"""Raising an exception in another thread, where it leaves no lock taken."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from itertools import compress, starmap
from operator import is_, itemgetter
from types import FrameType

_OURS = __name__.partition(".")[0]

_BRIEF = {_OURS, "_weakrefset", "importlib", "logging", "tqdm", "weakref"}
"""Packages whose code is soon left again, and takes locks in Python: what is raised between taking one and
the block that gives it back lets all that need it wait for ever. Weak references drop what is raised."""

_PLUMBING = {"contextlib", "functools", "multiprocessing", "queue", "threading"}
"""Packages in which user code waits for others, and that take locks in the functions of :data:`_TAKING`."""

_WAITING = {("tqdm", "__iter__"), (_OURS, "_sized"), (_OURS, "wait")}
"""Functions of :data:`_BRIEF` in which user code waits: for what it goes through, or for a run of its own."""

_TAKING = {"__del__", "__enter__", "__exit__", "_acquire_restore", "acquire", "release"}


def interrupt(thread: int, error: type[BaseException]) -> bool:
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
