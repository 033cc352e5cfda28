"""The driver's side of worker processes: each has a connection of its own.

The pools of the standard library, loky and pebble share one pipe and its locks among all workers. If one is
killed while it sends a result, the lock stays held and the others wait for it. Here what a killed worker
leaves behind concerns no other.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Pipe, wait
from multiprocessing.context import BaseContext
from typing import Any

from ..payload.results import Sent
from .data import receive, send
from .output import WorkerOutput
from .starting import starting
from .worker import Ends, Order, Shared, run_worker

EXIT_TIMEOUT_S = 2.0
"""Seconds in which a worker without a chunk ends once its connection is closed."""


class Worker:
    """A worker process.

    Args:
        start: Starts a process with the worker's ends.
        output: Reads what it prints.

    Attributes:
        connection: Ready to be read once it has sent something, or is gone.
        death: Ready to be read once it is gone.
        pid: The number of the process.
    """

    def __init__(self, start: Callable[[Ends], Any], output: WorkerOutput) -> None:
        self.connection, tasks = Pipe()
        lifeline, self._lifeline = Pipe(duplex=False)
        stdout_end, stdout = Pipe(duplex=False)
        stderr_end, stderr = Pipe(duplex=False)
        ends = Ends(tasks, lifeline, stdout, stderr)
        try:
            self._process = start(ends)
        finally:
            for end in ends:
                end.close()
        self.pid: int = self._process.pid
        output.add(self.pid, stdout_end, stderr_end)
        self.death: Any = self._process.sentinel
        self._pidfd: int | None = None
        if hasattr(os, "pidfd_open"):
            # The sentinel is ready only once the processes that it has forked are gone as well.
            with suppress(OSError):
                self.death = self._pidfd = os.pidfd_open(self.pid)

    def submit(self, order: Order) -> None:
        """Let it run a chunk. What it can't be sent, as it is gone, is noticed by `wait`."""
        with suppress(OSError):
            send(self.connection, order)

    def receive(self) -> Sent | None:
        """Return the outcome that it has sent; None if it is gone."""
        try:
            sent: Sent = receive(self.connection)
        except (EOFError, OSError):
            return None
        return sent

    def alive(self) -> bool:
        """Return whether it has not ended."""
        return not wait([self.death], 0)

    def how_it_ended(self) -> str:
        """Return how it has ended, for a message: ``"process 4711 was killed by SIGKILL"``."""
        self._process.join(EXIT_TIMEOUT_S)
        code = self._process.exitcode
        if code is None:
            return f"process {self.pid} is gone"
        if code >= 0:
            return f"process {self.pid} exited with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = ", perhaps as memory ran out" if name == "SIGKILL" else ""
        return f"process {self.pid} was killed by {name}{memory}"

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in it; end it if it has not begun, as it would print a traceback."""
        with suppress(OSError):
            begun = not hasattr(os, "getpgid") or os.getpgid(self.pid) == self.pid
            os.kill(self.pid, signal.SIGINT if begun else signal.SIGKILL)

    def kill(self) -> None:
        """End it now, with the processes that its tasks have started."""
        with suppress(OSError):
            self._process.kill()
        if hasattr(os, "killpg"):
            with suppress(OSError):  # there are none
                os.killpg(self.pid, signal.SIGKILL)

    def release(self) -> None:
        """Close the connection; a worker that waits runs its exit handlers, and ends. Idempotent."""
        self.connection.close()

    def reap(self) -> None:
        """Forget a process that is gone. Idempotent."""
        self._process.join(EXIT_TIMEOUT_S)
        self._lifeline.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def start_process(context: BaseContext, shared: Shared, ends: Ends) -> Any:
    """Start a worker, which is no fork of this process, and return it."""
    process: Any = context.Process(  # type: ignore[attr-defined]  # each context has it, the base has not
        target=run_worker, args=(ends, shared), name="speedy_utils-worker", daemon=False
    )
    with starting(forks=False):
        process.start()
    return process


def wait_for_end(workers: Iterable[Worker], timeout: float) -> list[Worker]:
    """Wait for workers to end.

    Args:
        workers: The workers.
        timeout: Seconds to wait at most.

    Returns:
        Those that have not ended.
    """
    running, deadline = list(workers), time.monotonic() + timeout
    while running:
        ended = wait([each.death for each in running], max(0.0, deadline - time.monotonic()))
        if not ended:
            break
        running = [each for each in running if each.death not in ended]
    return running
