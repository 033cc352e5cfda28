"""Children that a task forks end when they are told to.

Ray's workers handle SIGTERM with a function that raises ``SystemExit``, and a forked child inherits it. While
the child starts or ends, Python prints that exception and goes on: then the child lives, and
``Pool.__exit__``, which has sent it the signal, waits for good. In a driver Ray has a handler in C++, of
which Python knows nothing: it writes the stack to Ray's log, with locks that others may hold at the fork.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable


class _Forking(threading.local):
    mask: set[int] | None = None


def end_children_on_sigterm(when: Callable[[], bool]) -> None:
    """Give SIGTERM its default meaning in children that are forked from now on.

    Args:
        when: Whether it is to be done, asked before each fork. A handler of the user's always stays.
    """
    forking = _Forking()

    def before() -> None:
        if when() and not _is_users(signal.getsignal(signal.SIGTERM)):
            # A signal that comes before the child has let go of the handler waits until then.
            forking.mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))

    def after() -> None:
        mask, forking.mask = forking.mask, None
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def after_in_child() -> None:
        if forking.mask is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)


def _is_users(handler: object) -> bool:
    if handler in (signal.SIG_DFL, None):
        return False
    return not str(getattr(handler, "__module__", "")).startswith("ray.")


def in_ray_worker() -> bool:
    """Whether this process is a Ray worker; answers without importing Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)
