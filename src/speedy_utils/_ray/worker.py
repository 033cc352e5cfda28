"""The worker's side of the Ray engine. Each worker process imports it, so it imports little."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import ray
from ray import cloudpickle

from .._engines.task import Attempt, Outcome, run_attempt
from .client import ActorSink, worker_address
from .own_tasks import set_progress_context


class _Shared(NamedTuple):
    """What all tasks of a run share."""

    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    sink: ActorSink


_cache: dict[bytes, _Shared] = {}
"""In a worker: what the tasks of the last run share. To read it for each task would double a task's cost."""


def run_shared_attempt(shared_ref: list[Any], item: Any, attempt: Attempt) -> Outcome:
    """Run an attempt at a task, as a Ray task.

    Args:
        shared_ref: A reference to what all tasks share; in a list, as Ray would read a bare one each time.
        item: The task's item.
        attempt: The attempt.
    """
    key = shared_ref[0].binary()
    if key not in _cache:
        _cache.clear()
        *refs, sinks = ray.get(shared_ref[0])
        function, kwargs = ray.get(refs)
        sink = sinks[uuid.uuid4().int % len(sinks)]  # any: `random` is the user's, and may be seeded
        _cache[key] = _Shared(function, kwargs, sink)
    shared = _cache[key]
    # A worker process runs one task after another. If an earlier one has bound it and not unbound it, threads
    # of this task would find two tasks to count for.
    set_progress_context(None)
    outcome = run_attempt(
        shared.function, item, shared.kwargs, attempt.reporter(), shared.sink, adopt_tqdm=attempt.adopt_tqdm
    )
    failure = outcome.failure
    if failure is None:
        return outcome
    if failure.worker_lost:
        failure = replace(failure, reason=f"{failure.reason} [{worker_address()}]")
    if not _can_be_sent(failure.error):
        failure = replace(failure, error=None)
    return replace(outcome, failure=failure)


def _can_be_sent(error: BaseException | None) -> bool:
    """Return whether an exception unpickles: with an ``__init__`` of its own it may pickle only."""
    try:
        pickle.loads(cloudpickle.dumps(error))  # noqa: S301 - it was pickled on this very line
    except Exception:  # its pickling is the user's code, and may raise anything; the text is sent anyway
        return False
    return True
