"""What kind of process this is, who has started it, and how SIGTERM ends the children that a task forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .._interrupts import after_fork_in_child

_forked = False
_ray_worker: bool | None = None  # until Ray is imported
_config: dict[str, Any] | None = None  # of the current process of multiprocessing, once that was looked up
_pid = os.getpid()


def _note_fork() -> None:
    global _forked, _pid, _config
    _forked, _pid, _config = True, os.getpid(), None


after_fork_in_child(_note_fork)


def process_id() -> int:
    """Return the number of this process, without a call of the system as ``os.getpid`` makes it."""
    return _pid


def is_child_process() -> bool:
    """Return whether this process was forked from one that uses this package, or is multiprocessing's."""
    return _forked or multiprocessing.parent_process() is not None


def ray_is_running() -> bool:
    """Return whether this process is connected to a Ray, without importing it."""
    # It may lack all of that: another thread is importing it.
    return bool(getattr(sys.modules.get("ray"), "is_initialized", bool)())


def in_ray_worker() -> bool:
    """Return whether this process is a Ray worker, and no fork of one, without importing Ray."""
    global _ray_worker
    if _forked:
        return False
    if _ray_worker is None:
        ray = sys.modules.get("ray")
        if ray is None:
            return False
        # Ray connects its workers before they run any code, so it stays as it is. To ask takes six functions.
        _ray_worker = ray_is_running() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    return _ray_worker


_TASK_MARK = "speedy_utils_task"
"""What multiprocessing hands on to the children of a process while tasks run in it: its process id."""


def mark_children(*, of_tasks: bool) -> None:
    """Let the processes that this one starts from now on know whether tasks have started them.

    multiprocessing copies the configuration of the current process to each process that it makes, whether it
    forks or spawns them; a plain fork copies it too. It is private, so without it there is no mark.
    """
    global _config
    if (config := _config) is None:
        config = _config = getattr(multiprocessing.current_process(), "_config", {})
    if of_tasks:
        config.setdefault(_TASK_MARK, _pid)
    elif config.get(_TASK_MARK) == _pid:  # and not that of the process that has started this one
        config.pop(_TASK_MARK, None)  # another thread may end its last task at the same moment


def started_by_task() -> bool:
    """Return whether a task has started this process, or one of those that it comes from."""
    config = getattr(multiprocessing.current_process(), "_config", {})
    return config.get(_TASK_MARK) not in (None, _pid)


class _SignalMask(threading.local):
    """The signals that this thread had blocked before the fork; None if the fork needs no care."""

    before_fork: set[int] | None = None


def reset_sigterm_in_children(when: Callable[[], bool]) -> None:
    """Restore the default action of SIGTERM in children that this process forks from now on.

    Ray's workers handle SIGTERM with a function that raises ``SystemExit``, and a forked child inherits it.
    While the child starts or ends, Python prints that exception and goes on. Then the child lives, and
    ``Pool.__exit__``, which has sent it the signal, waits forever. In a driver Ray has a handler in C++,
    which Python does not see: it writes the stack to Ray's log, and needs locks that other threads may have
    held at the fork.

    Does nothing on Windows, which has no forks.

    Args:
        when: Returns whether to do it; called before each fork. A handler of the user's stays in any case.
    """
    if not hasattr(os, "register_at_fork"):
        return
    mask = _SignalMask()

    def before() -> None:
        if when() and not is_users_handler(signal.getsignal(signal.SIGTERM)):
            # A signal that comes before the child has reset the handler stays pending until then.
            mask.before_fork = set(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))

    def after() -> None:
        blocked, mask.before_fork = mask.before_fork, None
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def after_in_child() -> None:
        if mask.before_fork is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        after()

    os.register_at_fork(before=before, after_in_parent=after)
    after_fork_in_child(after_in_child)


REPEAT_INTERVAL_S = 0.1
"""Seconds after which a signal is sent again, while its handler has not run."""

_wakeup: tuple[int, ...] = ()


def repeat_signal(number: int, handler: Callable[[int, FrameType | None], object]) -> None:
    """Let a signal reach its handler also if the main thread waits in C, and was about to as it came.

    Python only notes a signal; the handler runs in the main thread, once that is in Python code again. A call
    of C that had not quite begun to wait, such as that for the lock of a pool's queue, is interrupted by
    none but a further signal: so it is sent again, until the handler is another one. To be called in the
    main thread. Does nothing on Windows, or where something else listens for signals already.

    Args:
        number: The signal.
        handler: Its handler, which has to set another one as it starts.
    """
    global _wakeup
    if not hasattr(signal, "pthread_kill"):
        return
    came, noted = os.pipe()
    os.set_blocking(noted, False)
    if (other := signal.set_wakeup_fd(noted, warn_on_full_buffer=False)) != -1:
        signal.set_wakeup_fd(other)
        os.close(came)
        os.close(noted)
        return
    _wakeup = came, noted
    main = threading.get_ident()

    def repeat() -> None:
        while number not in os.read(came, 512):
            pass
        pause = threading.Event()
        while signal.getsignal(number) is handler:
            pause.wait(REPEAT_INTERVAL_S)
            if signal.getsignal(number) is handler:
                signal.pthread_kill(main, number)

    threading.Thread(target=repeat, name="speedy_utils-signals", daemon=True).start()


def _close_wakeup() -> None:
    """Let a forked child write into no pipe of its parent's."""
    global _wakeup
    if _wakeup:
        if (other := signal.set_wakeup_fd(-1)) != _wakeup[1]:
            signal.set_wakeup_fd(other)
        for end in _wakeup:
            os.close(end)
        _wakeup = ()


after_fork_in_child(_close_wakeup)


def is_users_handler(handler: object) -> bool:
    """Return whether a signal handler is neither the default, nor Ray's, nor of this package."""
    if handler in (signal.SIG_DFL, None):  # None: it was set in C
        return False
    return not str(getattr(handler, "__module__", "")).startswith(("ray.", "speedy_utils."))
