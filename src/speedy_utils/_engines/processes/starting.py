"""How a worker process starts: by a fork of the program, or by a server that is forked in its place.

A fork has all that the program has, at once, and nothing has to be pickled. But only the thread that forks
lives on in it, and a lock that another one held stays held for ever. So the program is forked only while no
threads live in it but those that are known to be harmless:

- Python's own: the main thread, tqdm's monitor, which sleeps, and those of a notebook while they wait.
- Of C: OpenBLAS and MKL end their threads before a fork and start them anew, and so does Arrow with its
  pools. See ``native_threads``.

It is forked once, for a server that forks the workers; see ``fork_server``.

Other threads are not harmless: those of gRPC (Ray, TensorFlow), of OpenMP in PyTorch, of JAX. A library that
is imported and has no thread yet is. CUDA can't be used at all in a fork of a program that has used it. In
these cases the fork server of multiprocessing is asked: a process without threads that has imported what the
function and the items are made of.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from multiprocessing.context import BaseContext
from types import ModuleType

from ..._interrupts import after_fork_in_child
from .native_threads import are_harmless, uses_devices

_HARMFUL = ("tensorflow", "jax", "vllm")
"""Packages that a fork breaks in other ways, or that warn of it."""

_HARMLESS_THREADS = ("TMonitor",)
"""The classes of Python threads that hold no lock for longer than a moment: tqdm's monitor."""

_NOTEBOOKS = ("ipykernel", "IPython")
"""Packages whose threads hold no lock while they wait; those of a function are in these."""

_WAITS_IN = ("select", "wait", "device", "run", "_watch_pipe_fd")
"""The functions in which they wait."""

TIMEOUT_S = 0.2
"""Seconds in which they must begin to wait: one may be showing what was printed last."""


FILES, SPARE_FILES = 7, 64
"""Files that a program has open for each worker, and for all else that it does meanwhile."""


def start_method() -> str:
    """Return how worker processes of this program start now.

    What the program has chosen by ``multiprocessing.set_start_method`` holds, unless that is ``"fork"``,
    which is also what it says if nothing was chosen.
    """
    methods = multiprocessing.get_all_start_methods()
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen in ("spawn", "forkserver"):
        return chosen
    if "fork" in methods and sys.platform == "linux" and _may_fork():
        return "fork"
    return "forkserver" if "forkserver" in methods else "spawn"


def _may_fork() -> bool:
    if any(name in sys.modules for name in _HARMFUL):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    others = [each for each in threading.enumerate() if each is not threading.main_thread()]
    if not all(map(_is_harmless, others)):
        return False
    try:
        if uses_devices():
            return False
        threads = {int(name) for name in os.listdir("/proc/self/task")}
    except OSError:
        return False
    return are_harmless(threads - {os.getpid(), *(each.native_id for each in others)})


def _is_harmless(thread: threading.Thread) -> bool:
    if type(thread).__name__ in _HARMLESS_THREADS:
        return True
    home = str(getattr(getattr(thread, "_target", None), "__module__", type(thread).__module__))
    if _package(home) not in _NOTEBOOKS:
        return False
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        # Private by its name, and documented.
        frame = sys._current_frames().get(thread.ident or 0)
        if frame is None or frame.f_code.co_name in _WAITS_IN:
            return True
        time.sleep(0.002)
    return False


def start_context(method: str, modules: Iterable[str]) -> BaseContext:
    """Return the context of multiprocessing that starts workers.

    Args:
        method: How.
        modules: Where the functions, classes and types are from that workers need: a fork server imports
            those that are installed, and what the project's modules have imported.
    """
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        _preload(context, {f"{__package__}.worker", *_installed(modules)})
    return context


_preloaded: set[str] = set()


def _preload(context: BaseContext, modules: set[str]) -> None:
    """Let the fork server import modules. It does so when it starts, so it may have to be started anew.

    Does nothing to one that the program has started and uses.
    """
    if {*map(_package, modules)} <= {*map(_package, _preloaded)} or multiprocessing.active_children():
        return
    stop = getattr(getattr(multiprocessing.forkserver, "_forkserver", None), "_stop", None)  # it is private
    if stop is not None:
        stop()
    _preloaded.update(modules)
    context.set_forkserver_preload(sorted(_preloaded))


def _installed(modules: Iterable[str]) -> set[str]:
    """Return those of some modules that are installed, and what others have imported."""
    from ..payload.project_modules import is_project_module

    found: set[str] = set()
    for name in modules:
        found.add(name)
        if name != "__main__" and is_project_module(name):
            for value in vars(sys.modules.get(name, sys)).values():
                is_module = isinstance(value, ModuleType)
                found.add(value.__name__ if is_module else str(getattr(value, "__module__", None)))
    return {
        name
        for name in found & sys.modules.keys() - {"__main__"}
        if _package(name) not in {*_HARMFUL, *sys.stdlib_module_names} and not is_project_module(name)
    }


def _package(module: str) -> str:
    return module.partition(".")[0]


def allow_files(workers: int) -> None:
    """Let this process have the files open that workers take, as far as the system lets it.

    Most systems let a process have 1,024 until it asks for more: enough for some 150 workers.
    """
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = len(os.listdir("/proc/self/fd")) + FILES * workers + SPARE_FILES
        if soft != resource.RLIM_INFINITY and soft < needed:
            most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (ImportError, OSError, ValueError):  # Windows, or a system that says less
        return


def no_more_workers(error: OSError, started: int, workers: int) -> OSError:
    """Return the error for a worker that the system has no room for.

    Args:
        error: The system's.
        started: How many there are.
        workers: How many there should be.
    """
    return OSError(
        error.errno,
        f"the system lets no further worker be started, {started} of {workers} are there ({error}): give a "
        "smaller num_workers, or raise its limits, by 'ulimit -n' that of files, by 'ulimit -u' of processes",
    )


@contextmanager
def starting(*, forks: bool) -> Iterator[None]:
    """Let a worker process start in the block.

    It begins with Ctrl-C held back, until it can end without a traceback.

    Args:
        forks: Whether it is forked. Python's warning about threads is then silenced: :func:`start_method`
            has looked at them.
    """
    with _holding_back_ctrl_c(), _as_no_daemon():
        if forks:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                yield
        else:
            with _hidden_main():
                yield


@contextmanager
def _holding_back_ctrl_c() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _as_no_daemon() -> Iterator[None]:
    """Let a worker of ``multiprocessing.Pool`` start processes, which that refuses as they could be left.

    The workers of a run end with the process that has started them, however it ends.
    """
    config = getattr(multiprocessing.current_process(), "_config", {})  # it is private
    daemon = config.pop("daemon", None)
    try:
        yield
    finally:
        if daemon is not None:
            config["daemon"] = daemon


_main_lock = threading.Lock()


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep processes that start in the block from running the program's file again.

    multiprocessing tells a new process to import the main program, which needs a guard, or runs it again.
    Here its functions travel by value, so it is not needed.
    """
    main = sys.modules["__main__"]
    with _main_lock:  # another thread may start workers too
        spec = getattr(main, "__spec__", None)
        main.__spec__ = ModuleSpec("__main__", None)  # with this name there is nothing to import
        try:
            yield
        finally:
            main.__spec__ = spec


def _forget_fork_server() -> None:
    """Let a forked child start a fork server of its own: that of its parent is no child of this process."""
    global _main_lock
    _main_lock = threading.Lock()
    _preloaded.clear()
    server = getattr(multiprocessing.forkserver, "_forkserver", None)  # it is private
    alive = getattr(server, "_forkserver_alive_fd", None)
    if server is None or alive is None:
        return
    with suppress(OSError):
        os.close(alive)  # the server ends once no process has it open
    server.__init__()


after_fork_in_child(_forget_fork_server)
