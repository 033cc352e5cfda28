"""The Ray that a run uses: one that is running, the one at RAY_ADDRESS, or a local one that is started."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from queue import SimpleQueue
from typing import Any

import ray

from ..._engines.cpus import cpus
from ..._interrupts import delaying_ctrl_c, keeping_ctrl_c
from .death import Watch, current_node, death_of, raylet_silence

logger = logging.getLogger("speedy_utils")


ADDRESS_TIMEOUT_S = 5.0
"""Seconds that the Ray at RAY_ADDRESS has to answer."""


END_TIMEOUT_S = 30.0
"""Seconds that a Ray which has died is kept for runs that still use it."""


_own_cpus = 0
"""CPUs of the Ray that this process has started; 0 if it has started none."""


_own_node: Any = None
"""That Ray, see :func:`current_node`."""


_users: set[object] = set()
"""The engines that use Ray now."""


_watch: Watch | None = None


_connecting = threading.Lock()
"""Held while Ray starts or ends: runs in several threads may need it at the same time."""


def own_cpus() -> int:
    """Return the CPUs of the Ray that :func:`connect` has started; 0 if the Ray in use is not ours."""
    return _own_cpus if _own_node is not None and current_node() is _own_node else 0


def own_death() -> str:
    """Return what has died of the Ray that :func:`connect` has started; empty if it lives or is not ours."""
    return death_of(_own_node) if _own_node is not None and own_cpus() else ""


def running_cpus() -> int:
    """Return the CPUs of the Ray that is running or at RAY_ADDRESS; 0 if one would have to be started."""
    if own_death() or (not ray.is_initialized() and not _address()):
        return 0
    connect(1)
    return own_cpus() or cluster_cpus()


def cluster_cpus() -> int:
    """Return the CPUs of the Ray in use."""
    return int(ray.cluster_resources().get("CPU", 0))


def connect(workers: int, user: object = None) -> None:
    """Use the Ray that is running, or the one at RAY_ADDRESS, or start a local one; watch it from then on.

    Args:
        workers: How many CPUs a Ray that is started gets.
        user: Who uses it until :func:`release`; None if it is not used.

    Raises:
        ConnectionError: No Ray answers at RAY_ADDRESS, or the Ray that the program has started has died.
    """
    global _own_cpus, _own_node, _watch
    with _connecting:
        node = current_node()
        if death := death_of(node) or raylet_silence(node):
            if not own_cpus():
                raise ConnectionError(
                    f"the Ray of this program has died ({death}): call ray.shutdown() and ray.init() before "
                    "the run"
                )
            _end_dead_ray()
        if not ray.is_initialized():
            _own_cpus, _own_node = 0, None
            if sys.stderr is None:  # Ray passes it to faulthandler, which needs one as long as Ray runs
                sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open
            with keeping_ctrl_c(), delaying_ctrl_c(once=True):
                _own_cpus = _connect(workers)
                _own_node = current_node() if _own_cpus else None
        if user is not None:
            _users.add(user)
        node = current_node()
        if node is not None and (_watch is None or _watch.node is not node or not _watch.is_alive()):
            _watch = Watch(node, _replace_own_ray if own_cpus() else None)
            _watch.start()


def release(user: object) -> None:
    """Note that an engine makes no call of Ray any more. Idempotent."""
    _users.discard(user)


def _replace_own_ray(node: Any, death: str) -> None:
    """End a Ray of ours that has died: the next run starts another one."""
    logger.warning("the local Ray of this program has died (%s): the next run starts a new one", death)
    with _connecting:
        if current_node() is node:
            _end_dead_ray()


def _end_dead_ray() -> None:
    """Disconnect from a Ray that has died, once no run is in a call of it any more."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while _users and time.monotonic() < deadline:
        time.sleep(0.05)
    with delaying_ctrl_c(once=True):
        ray.shutdown()


def _connect(workers: int) -> int:
    """Connect, and return the CPUs of a Ray that was started for it; 0 if none was."""
    if address := _address():
        _probe(address)
        try:
            ray.init(logging_level=logging.WARNING)
        except Exception as error:
            _raise_if_token_is_missing(address, error)
            raise
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
    if not port.isdigit():
        if address == "auto" or "://" in address:  # a scheme that only Ray knows
            return
        raise ConnectionError(
            f"RAY_ADDRESS={address} is no address of a Ray, such as 10.0.0.7:6379: correct it, or unset "
            "RAY_ADDRESS to run on this machine"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=ADDRESS_TIMEOUT_S) as connection:
            if "RAY_USE_TLS" not in os.environ:
                _greet(connection)
    except OSError as error:
        raise ConnectionError(
            f"no Ray answers at RAY_ADDRESS={address} ({error}): start a Ray there, or unset RAY_ADDRESS "
            "to run on this machine"
        ) from error
    if not address.startswith("ray://"):
        try:  # `ray.init` would try twenty times
            import_module("ray._raylet").GcsClient(address=address)
        except Exception as error:  # what is no matter of tokens is left to `ray.init`
            _raise_if_token_is_missing(address, error)


def _raise_if_token_is_missing(address: str, error: Exception) -> None:
    """Raise a ConnectionError with the cure if Ray failed to connect as it wants another token.

    What Ray raises then depends on what was asked, a GCS, a raylet or a server of clients.
    """
    text = _texts(error)
    if not any(word in text for word in ("AuthenticationError", "InvalidAuthToken", "UNAUTHENTICATED")):
        return
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        cure = "put that Ray's token into ~/.ray/auth_token or RAY_AUTH_TOKEN; it has another one now"
    else:
        cure = (
            "set RAY_AUTH_MODE=token in the environment of this program, which then sends the token in "
            "~/.ray/auth_token or RAY_AUTH_TOKEN"
        )
    raise ConnectionError(
        f"the Ray at RAY_ADDRESS={address} does not accept the token of this program: {cure}"
    ) from None


def _texts(error: BaseException | None) -> str:
    """Return the types and texts of an exception and of those that have led to it."""
    text = ""
    while error is not None:
        text += f"{type(error).__name__}: {error}\n"
        error = error.__cause__ or error.__context__
    return text


def _greet(connection: socket.socket) -> None:
    """Exchange the first bytes of HTTP/2, which gRPC speaks (RFC 9113, 3.4), or raise an OSError."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of type 4
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    if connection.recv(4)[3:] != settings[3:4]:
        raise OSError("another program listens there")
