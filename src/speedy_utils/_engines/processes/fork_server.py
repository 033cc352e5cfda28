"""A fork server that is itself a fork of the program, made before the run has threads.

It has one thread, and all that the program had: its modules, and the function with what that holds, also what
can't be pickled. Each worker is a fork of it, and so is what replaces a lost one. The program itself must not
be forked for that: the run's own threads live in it by then, and a lock that one of them holds stays held
in the fork for ever.

The driver sends one message for each worker, and gets one back::

    start                  with the worker's ends    →  "4711", with what is ready to be read once it is gone
    how 4711 has ended     "4711"                    →  "-9"
"""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import socket
from multiprocessing.connection import Connection, wait
from typing import Any

from .starting import starting
from .worker import Ends, Shared, leave_terminal, run_worker

EXIT_TIMEOUT_S = 2.0
"""Seconds in which workers end once the driver is done, or gone."""

_START = b"start"


class ForkServer:
    """A fork of the program that forks workers.

    Args:
        shared: What all tasks of the run share; the workers inherit it.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._begin()

    def _begin(self) -> None:
        # Messages, and not a stream.
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve,
            args=(theirs, self._socket, self._shared),
            name="speedy_utils-fork-server",
            daemon=False,
        )
        with theirs, starting(forks=True):
            self._process.start()

    def start(self, ends: Ends) -> ForkedWorker:
        """Start a worker.

        Raises:
            OSError: The system has no room for another process.
        """
        try:
            return self._start(ends)
        except ConnectionError:  # it was killed, and a fork of the program as it is now is the only way on
            self.close()
            self._begin()
            return self._start(ends)

    def _start(self, ends: Ends) -> ForkedWorker:
        socket.send_fds(self._socket, [_START], [each.fileno() for each in ends])
        answer, files, *_ = socket.recv_fds(self._socket, 256, 1)
        if not files:
            text = answer.decode()
            if text.isdecimal():  # it is there, and ends as its driver can't have what comes with the answer
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            raise OSError(text) if text else ConnectionResetError("the fork server is gone")
        return ForkedWorker(self, int(answer), Connection(files[0], writable=False))

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a worker that is gone; None if it is not known."""
        try:
            self._socket.send(str(pid).encode())
            return int(self._socket.recv(256))
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """End the server, whose workers have ended. Idempotent."""
        self._socket.close()
        self._process.join(EXIT_TIMEOUT_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


class ForkedWorker:
    """A worker that the server has started, with what the driver uses of ``multiprocessing.Process``.

    Attributes:
        pid: Its number.
        sentinel: Ready to be read once it is gone.
    """

    def __init__(self, server: ForkServer, pid: int, sentinel: Connection) -> None:
        self.pid, self.sentinel = pid, sentinel
        self._server = server

    @property
    def exitcode(self) -> int | None:
        """Its exit code; None if it is not known."""
        return self._server.exit_code(self.pid)

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        wait([self.sentinel], timeout)

    def kill(self) -> None:
        """End it now."""
        os.kill(self.pid, 9)


def _serve(control: socket.socket, of_driver: socket.socket, shared: Shared) -> None:
    """Start workers until the driver closes its end, or is gone."""
    of_driver.close()
    leave_terminal()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # what reads the program's output must see it end
        os.dup2(nothing, number)
    shared.surroundings.threads.set_in_libraries()
    gc.freeze()  # else the collectors of the workers would write to, and so copy, what they share
    workers: dict[int, Any] = {}
    while True:
        request, files, *_ = socket.recv_fds(control, 256, len(Ends._fields))
        if not request:
            break
        if request == _START:
            try:
                pid, sentinel = _start(control, files, shared, workers)
                socket.send_fds(control, [str(pid).encode()], [sentinel])
            except OSError as error:
                control.send(str(error).encode())
        else:
            worker = workers.get(int(request))  # None if another server has started it
            if worker is not None:
                worker.join(EXIT_TIMEOUT_S)
            control.send(str(getattr(worker, "exitcode", None)).encode())
    for worker in workers.values():
        worker.join(EXIT_TIMEOUT_S)
    os._exit(0)


def _start(
    control: socket.socket, files: list[int], shared: Shared, workers: dict[int, Any]
) -> tuple[int, int]:
    """Start a worker, and return its number and what is ready to be read once it is gone."""
    ends = Ends(*map(Connection, files))
    worker = multiprocessing.get_context("fork").Process(
        target=_work, args=(control, ends, shared), name="speedy_utils-worker", daemon=False
    )
    try:
        with starting(forks=True):
            worker.start()
    finally:
        for end in ends:
            end.close()
    pid = int(worker.pid or 0)
    workers[pid] = worker
    return pid, worker.sentinel


def _work(control: socket.socket, ends: Ends, shared: Shared) -> None:
    control.close()
    run_worker(ends, shared)
