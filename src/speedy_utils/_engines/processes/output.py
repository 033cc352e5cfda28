"""What workers print: read from their pipes, and written above the lines of the driver, line by line."""

from __future__ import annotations

import os
import selectors
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ..worker_logs import LogFilter, WorkerLogs

CHUNK_BYTES = 1 << 16

DRAIN_TIMEOUT_S = 1.0
"""Seconds for which the end of a run waits for what processes that tasks have started still print."""


class _Pipe(NamedTuple):
    pid: int
    name: str
    end: Connection
    rest: bytearray


class WorkerOutput:
    """Reads what workers print, in a thread of its own.

    A line is written whole, to the stream of the same name that the program has then.

    Args:
        choice: Whose lines are shown.
    """

    def __init__(self, choice: WorkerLogs) -> None:
        self._filter = LogFilter(choice)
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake, self._waker = os.pipe()
        self._closing = False
        self._selector.register(self._wake, selectors.EVENT_READ)

    def add(self, pid: int, stdout: Connection, stderr: Connection) -> None:
        """Read what a worker prints from now on."""
        with self._lock:
            for name, end in (("stdout", stdout), ("stderr", stderr)):
                os.set_blocking(end.fileno(), False)
                self._selector.register(
                    end.fileno(), selectors.EVENT_READ, _Pipe(pid, name, end, bytearray())
                )

    def start(self) -> None:
        """Start the thread; not before the first workers were forked."""
        self._thread = threading.Thread(target=self._run, name="speedy_utils-worker-output", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left once all workers are gone, and end the thread. Idempotent."""
        if self._closing:
            return
        self._closing = True
        if self._thread is not None:
            os.write(self._waker, b" ")
            self._thread.join(DRAIN_TIMEOUT_S)
        with self._lock:
            for each in list(self._selector.get_map().values()):
                if each.data:
                    self._end(each.data)
            self._selector.close()
            os.close(self._wake)
            os.close(self._waker)

    def _run(self) -> None:
        while not self._closing:
            self._read(None)
        while self._read(0):  # what has been written already
            pass

    def _read(self, timeout: float | None) -> bool:
        """Read what there is, and return whether there was something."""
        found = False
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                os.read(self._wake, 512)
                continue
            found = True
            try:
                data = os.read(key.fd, CHUNK_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            with self._lock:
                if data:
                    self._take(key.data, data)
                else:
                    self._end(key.data)
        return found

    def _take(self, pipe: _Pipe, data: bytes) -> None:
        pipe.rest.extend(data)
        end = pipe.rest.rfind(b"\n") + 1
        if end:
            self._write(pipe, bytes(pipe.rest[:end]))
            del pipe.rest[:end]

    def _end(self, pipe: _Pipe) -> None:
        if pipe.rest:
            self._write(pipe, bytes(pipe.rest) + b"\n")
        self._selector.unregister(pipe.end.fileno())
        pipe.end.close()

    def _write(self, pipe: _Pipe, data: bytes) -> None:
        stream: Any = getattr(sys, pipe.name)
        if stream is None or not self._filter.allows(pipe.pid):
            return
        try:
            stream.write(data.decode("utf-8", "backslashreplace"))
            stream.flush()
        except (OSError, ValueError):  # it is closed, or its reader is gone; the work goes on
            return
