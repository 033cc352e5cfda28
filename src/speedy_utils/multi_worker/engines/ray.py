"""Ray tasks, on the Ray that is running or on a local one that is started."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import ray
from ray import cloudpickle

from ...errors import shorten
from ...progress.actor import create_progress_tracker
from ...progress.link import ActorFeed, ActorSink
from ...progress.run import Run
from ..task import Call, Failure, Outcome, perform
from . import Work
from .ray_start import connect, own_cpus

_GRACE = 1.5
"""Seconds in which a cancelled task may end before its worker is killed."""

_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)


class _Shared(NamedTuple):
    """What all tasks of a run share."""

    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    sink: ActorSink


_unpacked: dict[bytes, _Shared] = {}
"""In a worker: what the tasks of the last run share. Reading it anew for each would double a task's cost."""


def _perform(box: list[Any], item: Any, call: Call) -> Outcome:
    name = box[0].binary()
    if name not in _unpacked:
        _unpacked.clear()
        *refs, sink = ray.get(box[0])
        function, kwargs = ray.get(refs)
        _unpacked[name] = _Shared(function, kwargs, sink)
    shared = _unpacked[name]
    outcome = perform(shared.function, item, shared.kwargs, call.reporter(), shared.sink)
    if outcome.failure is None or _survives(outcome.failure.error):
        return outcome
    return replace(outcome, failure=replace(outcome.failure, error=None))


def _survives(error: BaseException | None) -> bool:
    """Whether an exception can be sent: with an ``__init__`` of its own it may pickle, and not unpickle."""
    try:
        pickle.loads(cloudpickle.dumps(error))  # noqa: S301 - it was pickled on this very line
    except Exception:  # its pickling is the user's code, and may raise anything; the text is sent anyway
        return False
    return True


class RayEngine:
    """Runs each call as a Ray task. Retries are the driver's: Ray has no public attempt number."""

    def __init__(self, work: Work, run: Run) -> None:
        name = getattr(work.function, "__qualname__", type(work.function).__qualname__)
        options = {"name": name, **work.options, "max_retries": 0}
        task = ray.remote(_perform)
        task.options(**options)  # a bad option is an error before anything starts
        connect(work.workers)
        run.phase = "waiting for workers"
        if own := own_cpus():  # all workers fit in a Ray that is ours, also where it was started for fewer
            # Ray counts in parts of 10,000.
            options.setdefault("num_cpus", min(10_000, own * 10_000 // work.workers) / 10_000)
        self._task = task.options(**options)
        with _sending("func can't be sent to Ray workers", work.function):
            function = ray.put(work.function)
        with _sending("the keyword arguments can't be sent to Ray workers", dict(work.kwargs)):
            kwargs = ray.put(dict(work.kwargs))
        self._actor = create_progress_tracker()
        self._feed = run.feed = ActorFeed(self._actor)
        # In a list: an argument that is itself a reference would be read again for each task.
        self._box = [ray.put((function, kwargs, ActorSink(self._actor, work.workers)))]
        self._calls: dict[Any, Call] = {}

    def submit(self, call: Call, item: Any) -> None:
        """Start a Ray task."""
        with _sending(f"item {call.task} can't be sent to a Ray worker", item):
            ref = self._task.remote(self._box, item, call)
        self._calls[ref] = call

    def wait(self) -> list[tuple[Call, Outcome]]:
        """Wait for the next tasks to end, half a second at most."""
        ready, _ = ray.wait(list(self._calls), timeout=0.5)
        if ready:
            ready, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        return [(self._calls.pop(ref), _outcome(ref)) for ref in ready]

    def cancel(self) -> None:
        """Interrupt the tasks, and kill the workers of those that go on."""
        try:
            running = self._interrupt(force=False, timeout=_GRACE)
        except KeyboardInterrupt:  # a second Ctrl-C: no more patience
            running = True
        if running:
            self._interrupt(force=True, timeout=5.0)

    def _interrupt(self, *, force: bool, timeout: float) -> bool:
        for ref in self._calls:
            ray.cancel(ref, force=force)
        return bool(self._calls) and bool(
            ray.wait(list(self._calls), num_returns=len(self._calls), timeout=timeout)[1]
        )

    def close(self) -> None:
        """End the actor; Ray goes on."""
        self._feed.close()
        ray.kill(self._actor)


@contextmanager
def _sending(what: str, value: Any) -> Iterator[None]:
    """Name what can't be pickled."""
    try:
        yield
    except ray.exceptions.RayError:
        raise
    except Exception as error:  # pickling is code of the user's classes, and may raise anything
        raise TypeError(f"{what}: {shorten(value)} ({type(error).__name__}: {error})") from error


def _outcome(ref: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(ref)
    except _LOST as error:
        return Outcome(failure=Failure(f"the worker was lost: {_first_line(error)}", error=error, lost=True))
    except ray.exceptions.RayTaskError as error:
        reason = (
            f"its result could not be sent back, or its arguments not be read: {_first_line(error.cause)}"
        )
        return Outcome(failure=Failure(reason, str(error), error))
    except ray.exceptions.RayError as error:
        return Outcome(failure=Failure(f"Ray did not run it: {_first_line(error)}", str(error), error))
    return outcome


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
