"""Calls on Ray that are bound to a run of the program: whose they are, and the way to the run's actor."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from typing import Any

import ray

from .._instrument.bound import BoundSpec, bind_class, counting_function
from .._instrument.tracked_call import Total
from .._state.ledger import Report
from .._state.timings import StageTimings
from .._validation import shorten
from .._worker.joining import RunAddress
from .actor import start_actor
from .client import GIVE_UP_AFTER_S, ActorName, ActorReader, ActorSink


def current_task() -> tuple[str, int]:
    """Return the name of the Ray task that runs here, the same for all attempts, and the number of this one.

    Outside a task the name is empty.
    """
    core_worker = _core_worker()
    task = core_worker.get_current_task_id()
    return ("", 1) if task.is_nil() else (_name(task), core_worker.get_current_task_attempt_number() + 1)


@functools.cache
def _core_worker() -> Any:
    """Return what knows the task that runs here: Ray has no public name for the number of the attempt.

    The public ways to the task itself take twenty functions, for each call of a bound one.
    """
    return ray.get_runtime_context().worker.core_worker


@functools.lru_cache(maxsize=32)
def _name(task: Any) -> str:
    return f"ray {task.hex()}"


class _WaitingActorSink(ActorSink):
    """Sends to the actor of a run, and waits until a final state has arrived."""

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
        """Send the state of a task."""
        sent = super().send(reports, timings, last=last)
        if last:
            self.wait(GIVE_UP_AFTER_S)
        return sent


def actor_sink(name: str) -> ActorSink:
    """Return a sink to the actor of a run."""
    return _WaitingActorSink(ActorName(name))


class RunActor(ActorReader):
    """The actor of a run: its name, and what it has heard of.

    Attributes:
        name: Its name.
    """

    def __init__(self) -> None:
        self.name = f"speedy_utils-{uuid.uuid4().hex}"
        self._handle = start_actor(None, "", self.name)
        super().__init__(self._handle)

    def close(self) -> None:
        """End the actor."""
        super().close()
        ray.kill(self._handle)


def start_run_actor() -> RunActor | None:
    """Return a new actor for a run; None if all workers are on this machine, and see the run's folder."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return RunActor() if others else None


def bind_remote(remote: Any, total: Total | None, run: RunAddress) -> Any:
    """Return what ``ray.remote`` made of a function or class, with calls that count for a run.

    Raises:
        TypeError: It is something else of Ray's.
    """
    if isinstance(remote, ray.remote_function.RemoteFunction):
        return _remote(counting_function(BoundSpec(remote._function, total, run)), remote._default_options)
    if isinstance(remote, ray.actor.ActorClass):
        kind = remote.__ray_metadata__.modified_class.__ray_actor_class__
        return _remote(bind_class(kind, total, run), remote._default_options)
    raise TypeError(
        f"bind() can't look into {shorten(remote)} ({type(remote).__name__}): bind the function or class "
        "first, as in ray.remote(run.bind(function)), and take .options(...) or make the actor of that"
    )


def _remote(bound: Any, options: dict[str, Any]) -> Any:
    return ray.remote(**options)(bound) if options else ray.remote(bound)
