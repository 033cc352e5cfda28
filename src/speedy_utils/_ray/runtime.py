"""The Ray that a run uses: one that is running, the one at RAY_ADDRESS, or a local one that is started."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue

import ray

from .._interrupts import keeping_ctrl_c

_own_cpus = 0
"""CPUs of the Ray that this process has started; 0 where it has started none."""


_connecting = threading.Lock()
"""Held while Ray starts: runs in several threads may want it at once."""


def own_cpus() -> int:
    """CPUs of the Ray that :func:`connect` has started; 0 where the Ray in use is somebody else's."""
    return _own_cpus if ray.is_initialized() else 0


def running_cpus() -> int:
    """CPUs of the Ray that is running or at RAY_ADDRESS; 0 where one would have to be started."""
    if not ray.is_initialized() and not _address():
        return 0
    connect(1)
    return own_cpus() or int(ray.cluster_resources().get("CPU", 0))


def connect(workers: int) -> None:
    """Use the Ray that is running, or the one at RAY_ADDRESS, or start a local one.

    Args:
        workers: CPUs of a Ray that is started.

    Raises:
        ConnectionError: No Ray answers at RAY_ADDRESS.
    """
    global _own_cpus
    with _connecting:
        if ray.is_initialized():
            return
        _own_cpus = 0
        if sys.stderr is None:  # Ray hands it to faulthandler, which needs one as long as Ray is there
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open
        with keeping_ctrl_c():
            _own_cpus = _connect(workers)


def _connect(workers: int) -> int:
    if address := _address():
        _probe(address)
        ray.init(logging_level=logging.WARNING)
        return 0
    try:
        # Ray warns about more worker processes than three times what it may start at once.
        with _environment(
            "RAY_worker_maximum_startup_concurrency", str(max(os.cpu_count() or 1, workers // 2))
        ):
            _lasting(lambda: ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR))
    except ValueError:  # `ray start` has started one on this machine: it may not be given CPUs
        ray.init(logging_level=logging.WARNING)
        return 0
    return workers


def _lasting(start: Callable[[], object]) -> None:
    """Call in a thread that lasts as long as the program.

    On Linux Ray lets the kernel kill its processes with their parent, and that is the *thread* which has
    started them: PR_SET_PDEATHSIG in prctl(2). A run's own thread may end while others still need Ray.
    """
    global _starter
    if threading.current_thread() is threading.main_thread():
        start()
        return
    if _starter is None or not _starter.is_alive():  # none yet, or left behind by a fork
        _starter = _Starter()
        _starter.start()
    _starter.call(start)


class _Starter(threading.Thread):
    """A thread that calls what it is given, and never ends."""

    def __init__(self) -> None:
        super().__init__(name="speedy_utils-ray", daemon=True)
        self._calls: SimpleQueue[tuple[Callable[[], object], Future[None]]] = SimpleQueue()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in this thread, and raise what it raises."""
        ended: Future[None] = Future()
        self._calls.put((function, ended))
        ended.result()

    def run(self) -> None:
        """Call what comes."""
        while True:
            function, ended = self._calls.get()
            try:
                function()
            except BaseException as error:  # it is raised again where the call came from
                ended.set_exception(error)
            else:
                ended.set_result(None)


_starter: _Starter | None = None


def _address() -> str:
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


@contextmanager
def _environment(name: str, default: str) -> Iterator[None]:
    """Set a variable for the programs that are started in the block, unless the user has set it."""
    known = os.environ.get(name)
    os.environ.setdefault(name, default)
    try:
        yield
    finally:
        if known is None:
            del os.environ[name]


def _probe(address: str) -> None:
    """Fail soon where nothing answers: ``ray.init`` would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", or a scheme that only Ray knows
        return
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            if "RAY_USE_TLS" not in os.environ:
                _greet(connection)
    except OSError as error:
        raise ConnectionError(
            f"no Ray answers at RAY_ADDRESS={address} ({error}): start a Ray there, or unset RAY_ADDRESS "
            f"to use a local one"
        ) from error


def _greet(connection: socket.socket) -> None:
    """Open an HTTP/2 connection, as gRPC does, and see whether the other side does too: RFC 9113, 3.4."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of type 4
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    if connection.recv(4)[3:] != settings[3:4]:
        raise OSError("what listens there is no Ray")
