"""What runs tasks: one module an engine, behind one small protocol."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from .worker_logs import WorkerLogs

if TYPE_CHECKING:
    from .._run.run import Run
    from .task import Attempt, Outcome


@dataclass(frozen=True, slots=True)
class WorkSpec:
    """What all tasks of a run share.

    Attributes:
        function: The user's function.
        kwargs: Its arguments besides the item.
        workers: How many tasks may run at once.
        options: ``ray_options``.
        worker_logs: Whose printed lines are shown.
    """

    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    workers: int
    options: Mapping[str, Any]
    worker_logs: WorkerLogs = "all"


class Engine(Protocol):
    """Runs calls. All methods are called by the driver's thread."""

    def submit(self, call: Attempt, item: Any) -> None:
        """Start a call, or let it wait for its worker."""
        ...

    def wait(self) -> list[tuple[Attempt, Outcome]]:
        """The calls that ended since the last time; waits for one, but may also return with none."""
        ...

    def cancel(self) -> None:
        """Stop all calls that have not ended."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; no call is under way any more."""
        ...


ENGINES = {
    "ray": ("speedy_utils._ray.engine", "RayEngine"),
    "mp": ("speedy_utils._engines.threads", "ThreadEngine"),
    "seq": ("speedy_utils._engines.sequential", "SequentialEngine"),
}
"""The module and the class of each backend's engine: loaded when it is used, as one of them needs Ray."""


def default_workers(backend: str) -> int:
    """How many workers a run has where nobody says: the CPUs of this machine, or of a Ray that is running."""
    # Importing Ray takes seconds, in which there is no bar yet: not where none can be running.
    if backend == "ray" and ("ray" in sys.modules or os.environ.get("RAY_ADDRESS")):
        return import_module("speedy_utils._ray.runtime").running_cpus() or cpus()
    return cpus()


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def starting(backend: str) -> str:
    """What a run does until its engine is there."""
    return "starting Ray" if backend == "ray" else ""  # importing it takes long enough to say so


def open_engine(backend: str, work: WorkSpec, run: Run) -> Engine:
    """Start an engine.

    Args:
        backend: One of ``ENGINES``.
        work: What it is for.
        run: The run whose bar says what it waits for, and which reads the engine's live counts.
    """
    module, name = ENGINES[backend]
    engine: Engine = getattr(import_module(module), name)(work, run)
    return engine
