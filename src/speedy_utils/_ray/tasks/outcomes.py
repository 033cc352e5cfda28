"""What the Ray task of a chunk has sent, or what Ray says of one that has sent nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._engines.limits.failure import Failure, plain_text
from ..._engines.payload.refs import ValueLostError, resolve
from ..._engines.payload.results import Sent, read_sent
from ..._engines.task import Chunk, ChunkOutcome
from ..._state.ledger import Task
from ..._validation import first_line


def sent_by_all(refs: Sequence[Any], items: Mapping[Any, Any]) -> list[Sent | None]:
    """Return what some Ray tasks have sent that have ended; see :func:`sent_by`.

    Args:
        refs: The references to their outcomes.
        items: By these, the items that are references themselves.
    """
    from ray import exceptions, get

    try:  # at once: a call for each takes as long as all else that the driver does for a small task
        return [_read(each) for each in get(list(refs))]
    except exceptions.RayError:
        return [sent_by(ref, items.get(ref)) for ref in refs]


def sent_by(ref: Any, item: Any) -> Sent | None:
    """Return what a Ray task that has ended has sent; a failed outcome if Ray raises its error.

    None if its worker has done nothing, as it had not read what tasks share.

    Args:
        ref: The reference to its outcome.
        item: Its item if that is a reference, else None.
    """
    from ray import exceptions, get

    lost = (
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.RayActorError,
    )
    try:
        return _read(get(ref))
    except lost as error:
        reason = f"the worker was lost: {first_line(error)}"
        return _failed(Failure(reason, error=error, worker_lost=True))
    except exceptions.RayTaskError as error:
        if item is not None and (failure := _failure_of(item)):
            return _failed(failure)
        reason = f"its arguments could not be read: {first_line(error.cause)}"
        return _failed(Failure(reason, plain_text(str(error)), error))
    except exceptions.RayError as error:
        text = plain_text(str(error))
        return _failed(Failure(f"Ray did not run it: {first_line(error)}", text, error))


def _read(sent: Sent | bytes | str | None) -> Sent | None:
    """Return what a Ray task has sent, from what ``run_in_worker`` returns."""
    if isinstance(sent, bytes):
        return read_sent(sent)
    return _failed(Failure(sent)) if isinstance(sent, str) else sent


def _failed(failure: Failure) -> Sent:
    return Sent(ChunkOutcome(failure=failure))


def _failure_of(ref: Any) -> Failure | None:
    """Return why a reference has no value; None if it has one."""
    try:
        resolve(ref)
    except ValueLostError as error:
        return Failure(str(error), error=error, worker_lost=True)
    except Exception as error:  # that of the user's code which should have made the value
        return Failure(first_line(error), str(error.__cause__), error)
    return None


def with_addresses(
    ended: list[tuple[Chunk, ChunkOutcome]], locate: Callable[[Mapping[Task, int]], Mapping[Task, str]]
) -> list[tuple[Chunk, ChunkOutcome]]:
    """Add to failures which process was lost: Ray's own errors don't say.

    Args:
        ended: Chunks that have ended.
        locate: Returns the addresses of the processes in which some attempts ran, as far as they are known.
    """
    lost: dict[Task, int] = {chunk.task: chunk.attempt for chunk, outcome in ended if outcome.failure}
    addresses = locate(lost) if lost else {}
    for chunk, outcome in ended:
        if outcome.failure is not None and (address := addresses.get(chunk.task)):
            reason = f"{outcome.failure.reason} [{address}]"
            outcome.failure = replace(outcome.failure, reason=reason)
    return ended


_CUDA = re.compile("CUDA|NVIDIA|HIP error")
"""What errors of a GPU say, such as "No CUDA GPUs are available"."""


def with_gpu_hint(failure: Failure) -> Failure:
    """Return a failure of a task that has asked for no GPU, with a word of that if it seems to want one."""
    if not _CUDA.search(failure.reason):
        return failure
    reason = f'{failure.reason}; it has asked for no GPU, as ray_options={{"num_gpus": 1}} does'
    return replace(failure, reason=reason)
