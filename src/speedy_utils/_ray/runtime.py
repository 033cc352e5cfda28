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

from .._engines.cpus import cpus
from .._interrupts import keeping_ctrl_c

ADDRESS_TIMEOUT_S = 5.0
"""Seconds that the Ray at RAY_ADDRESS has to answer."""


_own_cpus = 0
"""CPUs of the Ray that this process has started; 0 if it has started none."""


_connecting = threading.Lock()
"""Held while Ray starts: runs in several threads may need it at the same time."""


def own_cpus() -> int:
    """Return the CPUs of the Ray that :func:`connect` has started; 0 if the Ray in use is not ours."""
    return _own_cpus if ray.is_initialized() else 0


def running_cpus() -> int:
    """Return the CPUs of the Ray that is running or at RAY_ADDRESS; 0 if one would have to be started."""
    if not ray.is_initialized() and not _address():
        return 0
    connect(1)
    return own_cpus() or int(ray.cluster_resources().get("CPU", 0))


def connect(workers: int) -> None:
    """Use the Ray that is running, or the one at RAY_ADDRESS, or start a local one.

    Args:
        workers: How many CPUs a Ray that is started gets.

    Raises:
        ConnectionError: No Ray answers at RAY_ADDRESS.
    """
    global _own_cpus
    with _connecting:
        if ray.is_initialized():
            return
        _own_cpus = 0
        if sys.stderr is None:  # Ray passes it to faulthandler, which needs one as long as Ray runs
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open
        with keeping_ctrl_c():
            _own_cpus = _connect(workers)


def _connect(workers: int) -> int:
    """Connect, and return the CPUs of a Ray that was started for it; 0 if none was."""
    if address := _address():
        _probe(address)
        ray.init(logging_level=logging.WARNING)
        return 0
    try:
        # Ray warns about more worker processes than three times what it may start at once.
        with _default_environment("RAY_worker_maximum_startup_concurrency", str(max(cpus(), workers // 2))):
            _call_in_lasting_thread(
                lambda: ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR)
            )
    except ValueError:  # a Ray that `ray start` has started on this machine was found: it has its own CPUs
        ray.init(logging_level=logging.WARNING)
        return 0
    return workers


def _call_in_lasting_thread(start: Callable[[], object]) -> None:
    """Call a function in a thread that lasts as long as the program.

    On Linux Ray lets the kernel kill its processes with their parent, and that is the *thread* which has
    started them: PR_SET_PDEATHSIG in prctl(2). The thread of a run may end while others still need Ray.
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
    """A daemon thread that calls functions for other threads, and never ends."""

    def __init__(self) -> None:
        super().__init__(name="speedy_utils-ray", daemon=True)
        self._calls: SimpleQueue[tuple[Callable[[], object], Future[None]]] = SimpleQueue()

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in this thread, and raise what it raises."""
        ended: Future[None] = Future()
        self._calls.put((function, ended))
        ended.result()

    def run(self) -> None:
        """Call the functions as they come."""
        while True:
            function, ended = self._calls.get()
            try:
                function()
            except BaseException as error:  # raised again in the thread that called
                ended.set_exception(error)
            else:
                ended.set_result(None)


_starter: _Starter | None = None


def _address() -> str:
    """Return RAY_ADDRESS; empty if it asks for a local Ray."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


@contextmanager
def _default_environment(name: str, default: str) -> Iterator[None]:
    """Set a variable for the programs that are started in the block, unless the user has set it."""
    known = os.environ.get(name)
    os.environ.setdefault(name, default)
    try:
        yield
    finally:
        if known is None:
            del os.environ[name]


def _probe(address: str) -> None:
    """Raise a ConnectionError if no Ray answers: ``ray.init`` would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", or a scheme that only Ray knows
        return
    try:
        with socket.create_connection((host, int(port)), timeout=ADDRESS_TIMEOUT_S) as connection:
            if "RAY_USE_TLS" not in os.environ:
                _greet(connection)
    except OSError as error:
        raise ConnectionError(
            f"no Ray answers at RAY_ADDRESS={address} ({error}): start a Ray there, or unset RAY_ADDRESS "
            f"to use a local one"
        ) from error


def _greet(connection: socket.socket) -> None:
    """Exchange the first bytes of HTTP/2, which gRPC speaks (RFC 9113, 3.4), or raise an OSError."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of type 4
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    if connection.recv(4)[3:] != settings[3:4]:
        raise OSError("another program listens there")
