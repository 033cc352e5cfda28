"""The protocol of engines, and the registry that opens each by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from .._run.run import Feed
from .task import Attempt, Outcome
from .worker_logs import WorkerLogs


@dataclass(frozen=True, slots=True)
class WorkSpec:
    """What all tasks of a run share.

    Attributes:
        function: The user's function.
        kwargs: Its arguments besides the item.
        workers: How many tasks may run at once.
        may_grow: Whether more may, if the engine finds that they only wait: no number was given.
        options: ``ray_options``.
        worker_logs: Whose printed lines are shown.
    """

    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    workers: int
    options: Mapping[str, Any]
    worker_logs: WorkerLogs = "all"
    may_grow: bool = False


class Engine(Feed, Protocol):
    """Runs the attempts at the tasks of one run, and is the feed of that run.

    It is made before the run, so its module and its making must be quick; :meth:`start` does the rest.
    The driver's thread calls all methods but those of :class:`~speedy_utils._run.run.Feed`, which the poller
    calls too, from before the start until after the end.
    """

    def __init__(self, work: WorkSpec) -> None: ...

    @property
    def workers(self) -> int:
        """How many attempts may be under way at once. It may grow while :meth:`wait` waits."""
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

    def submit(self, attempt: Attempt, item: Any) -> None:
        """Start an attempt, or let it wait for its worker."""
        ...

    def wait(self) -> list[tuple[Attempt, Outcome]]:
        """Wait for an attempt to end, and return those that have; the list may also be empty."""
        ...

    def cancel(self) -> None:
        """Stop all attempts that have not ended."""
        ...

    def close(self) -> None:
        """Release what the engine holds; no attempt is under way any more."""
        ...


ENGINES = {
    "ray": ("speedy_utils._ray.engine", "RayEngine"),
    "processes": ("speedy_utils._engines.processes.engine", "ProcessEngine"),
    "threads": ("speedy_utils._engines.threads", "ThreadEngine"),
    "seq": ("speedy_utils._engines.sequential", "SequentialEngine"),
}
"""The module and the class of each backend's engine: each is loaded when it is used."""


def engine_class(backend: str) -> type[Engine]:
    """Return the engine of a backend, one of :data:`ENGINES`."""
    module, name = ENGINES[backend]
    engine: type[Engine] = getattr(import_module(module), name)
    return engine
