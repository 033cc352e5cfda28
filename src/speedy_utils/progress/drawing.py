"""The lock under which tqdm draws, held so that Ctrl-C can't leave it behind."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import compress
from operator import methodcaller
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm

P = ParamSpec("P")
T = TypeVar("T")

_acquire, _release = methodcaller("acquire"), methodcaller("release")

_PLAIN = type(threading.Lock())


def give_back() -> None:
    """Release what this thread has of tqdm's lock: Ctrl-C may have struck it where it was to do so itself."""
    for lock in _locks():
        # A plain lock does not know whose it is; the others refuse to be released by anybody else.
        with suppress(RuntimeError, AssertionError):
            while not isinstance(lock, _PLAIN):
                lock.release()


def _locks() -> list[Any]:
    # The stubs of tqdm leave it untyped.
    lock: Any = tqdm.get_lock()  # type: ignore[no-untyped-call]  # it has no types in the stubs
    return getattr(lock, "locks", None) or [lock]  # a user may have set one of their own


def drawing(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function hold tqdm's lock while it runs.

    tqdm's lock is two, which it takes and gives back in Python code. A Ctrl-C that strikes a thread in there
    leaves one of them taken for ever, and all others that draw wait for it: the poller too, and the end of
    the run for the poller. That matters where the main thread prints all the time, as in a run of ``"seq"``.

    Between two calls from Python code anything may be raised, within one of C code nothing. So each of the
    two steps is one such call: ``extend`` pulls the locks through ``compress``, which hands on those that
    ``map`` could acquire, and later through the ``map`` that releases them.
    """

    @functools.wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> T:
        locks = _locks()
        held: list[Any] = []
        released: list[Any] = []
        releasing = map(_release, held)
        try:
            held.extend(compress(locks, map(_acquire, locks)))
            return function(*args, **kwargs)
        finally:
            released.extend(releasing)

    return locked
