"""The protocol of engines, and the registry that opens each by its name."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from .._run.feed import Feed
from .._state.ledger import Task
from .limits.retries import NO_RETRIES, RetryPolicy
from .task import Chunk, ChunkOutcome, TaskSettings
from .worker_logs import WorkerLogs


@dataclass(frozen=True, slots=True)
class WorkSpec:
    """What all tasks of a run share.

    Attributes:
        function: The user's function.
        kwargs: Its arguments besides the item.
        workers: How many tasks may run at once.
        may_grow: Whether more may, if the engine finds that they only wait: no number was given.
        settings: What its workers need to know of all tasks.
        retries: Which exceptions are worth another attempt.
        options: ``ray_options``.
        worker_logs: Whose printed lines are shown.
        items: The items of the tasks, for workers that are forked; empty if looking one up makes it.
    """

    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    workers: int
    options: Mapping[str, Any]
    worker_logs: WorkerLogs = "all"
    may_grow: bool = False
    settings: TaskSettings = field(default_factory=TaskSettings)
    retries: RetryPolicy = NO_RETRIES
    items: Sequence[Any] = ()


class Engine(Feed, Protocol):
    """Runs the chunks of the tasks of one run, and is the feed of that run.

    It is made before the run, so its module and its making must be quick; :meth:`start` does the rest.
    The driver's thread calls all methods but those of :class:`~speedy_utils._run.run.Feed`, which the poller
    calls too, from before the start until after the end.
    """

    def __init__(self, work: WorkSpec) -> None: ...

    @property
    def workers(self) -> int:
        """How many chunks may be under way at once. It may grow while :meth:`wait` waits."""
        ...

    @property
    def ahead(self) -> int:
        """How many further chunks may be handed over, and wait in the engine."""
        ...

    @classmethod
    def default_workers(cls, *, awaits: bool = False) -> int:
        """Return how many workers a run has if its caller does not say.

        Args:
            awaits: Whether its tasks are coroutines.
        """
        ...

    def start(self) -> None:
        """Make ready to run; :meth:`close` follows also if that fails."""
        ...

    def submit(self, chunk: Chunk) -> None:
        """Start a chunk, or let it wait for its worker.

        Raises:
            UnsentItemError: One of its items can't be sent to a worker.
        """
        ...

    def wait(self, timeout: float | None = None) -> None:
        """Wait for a chunk to end, or until there is something else to look at; Ctrl-C comes here.

        Args:
            timeout: Seconds to wait at most, on engines that wait; None for as long as it takes.
        """
        ...

    def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Return the chunks that have ended since the last call, at once: Ctrl-C does not come here."""
        ...

    def handed_back(self) -> Mapping[tuple[Task, int], int]:
        """Return how many tasks the chunks keep that have handed back the others, as far as is known.

        A chunk does so once it is late and one of its tasks hangs; by its first task and the attempt.
        """
        ...

    def cancel(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Stop all chunks that have not ended, and return what is known of those: which tasks had ended."""
        ...

    def close(self) -> None:
        """Release what the engine holds; no chunk is under way any more."""
        ...


ENGINES = {
    "ray": ("speedy_utils._ray.engine", "RayEngine"),
    "processes": ("speedy_utils._engines.processes.engine", "ProcessEngine"),
    "threads": ("speedy_utils._engines.in_process.threads", "ThreadEngine"),
    "seq": ("speedy_utils._engines.in_process.sequential", "SequentialEngine"),
}
"""The module and the class of each backend's engine: each is loaded when it is used."""


def engine_class(backend: str) -> type[Engine]:
    """Return the engine of a backend, one of :data:`ENGINES`."""
    module, name = ENGINES[backend]
    engine: type[Engine] = getattr(import_module(module), name)
    return engine


def default_backend(*, asks_for_ray: bool) -> str:
    """Return the backend of a run whose caller names none: Ray where there is one, else processes.

    Imports nothing of Ray, which takes seconds.

    Args:
        asks_for_ray: Whether the caller has options for Ray, or a function that is Ray's.
    """
    is_initialized = getattr(sys.modules.get("ray"), "is_initialized", bool)  # bool() is False
    if asks_for_ray or is_initialized() or os.environ.get("RAY_ADDRESS") or _ray_was_started_here():
        return "ray"
    return "processes"


def _ray_was_started_here() -> bool:
    """Return whether this user's ``ray start`` has made this machine part of a cluster that answers."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    file = Path(folder, "ray", "ray_current_cluster")  # holds such as "10.0.0.7:6379"
    try:
        if hasattr(os, "getuid") and file.stat().st_uid != os.getuid():
            return False
        host, _, port = file.read_text().strip().rpartition(":")
        with socket.create_connection(
            (host, int(port)), timeout=1.0
        ):  # a Ray that was killed leaves the file
            return True
    except (OSError, ValueError):
        return False
