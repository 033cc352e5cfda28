"""The worker's side of the Ray engine. Each worker process imports it, so it imports little."""

from __future__ import annotations

import atexit
import os
import pickle
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import cloudpickle

from .. import __version__
from .._engines.environment.surroundings import Applied, Surroundings
from .._engines.limits.failure import Failure
from .._engines.limits.retries import RetryPolicy
from .._engines.limits.task_note import NoteFile
from .._engines.limits.time_limit import signalling_main_thread
from .._engines.payload.pickling import ProjectPickler
from .._engines.payload.rebuild import begin_run, program_main, take_differences
from .._engines.payload.results import Sent, as_sent, pack_outcome, sent_size, unread
from .._engines.payload.shipment import Packed
from .._engines.per_worker import close_instance, make_instance, maker_of
from .._engines.task import ChunkOutcome, TaskSettings, chunk_reporter, run_chunk
from .._interrupts import forget_interrupts, note_interrupts
from .._validation import first_line
from .._worker import context
from .._worker.channel.children import Children
from .._worker.channel.flusher import Sink
from .._worker.context import VARIABLE
from .._worker.process import process_id
from ..errors import NotSharedError
from .client import worker_address, worker_node
from .logs import log_sizes, whole_lines
from .own_tasks import unbind_thread
from .tasks.overdue import note_file

STORED_BYTES_PER_S = 20_000_000
"""How fast a result is stored at the least; with too little memory Ray writes it to a disk."""


_CARRIED = (ray.ObjectRef, ray.actor.ActorHandle)


class RayPickler(ProjectPickler, cloudpickle.Pickler):  # type: ignore[misc]  # Ray has no types
    """Pickles what travels to Ray's workers and back. Ray itself pickles its references and handles."""

    cloudpickle = cloudpickle

    def carries(self, kind: type) -> bool:
        """Return whether a type is one of Ray's references and handles, or of Ray Client's."""
        return issubclass(kind, _CARRIED) or kind.__module__ == "ray.util.client.common"


class TaskArguments(NamedTuple):
    """What a Ray task gets for a chunk, as a plain tuple, or as its pickle where Ray need not pickle it.

    Attributes:
        run: Names what the tasks share.
        shared: How many references lead to that.
        task: The first task.
        attempt: The number of the attempts.
        totals: The items of each task; None if these are not known.
        items: The tasks' items if they are plain.
        packed: Else a list of them, packed; None for an item that is a reference of Ray's.
    """

    run: bytes
    shared: int
    task: int
    attempt: int
    totals: Sequence[int] | None
    items: Sequence[Any] | None
    packed: tuple[Any, ...] | None

    def as_sent(self) -> bytes | tuple[Any, ...]:
        """Return what is sent: Ray takes bytes as they are, which is ten times as fast."""
        if self.packed is not None and (self.packed[1] or self.packed[2]):  # Ray need not copy these
            return tuple(self)
        return pickle.dumps(tuple(self), pickle.HIGHEST_PROTOCOL)


class _Shared(NamedTuple):
    """What all tasks of a run share."""

    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    makes: bool
    sink: Sink
    surroundings: Applied
    children: Children | None
    settings: TaskSettings
    retries: RetryPolicy
    note: NoteFile | None
    warnings: list[str]


_cache: dict[bytes, _Shared] = {}
"""In a worker: what the tasks of the last run share. To read it for each task would double a task's cost."""


_definitions: set[bytes] = set()
"""In a worker: which further definitions of that run have been read."""


_run: Callable[..., Sent | bytes | None] | None = None
"""What :func:`run_in_worker` calls, once it is known to be of the version of the program."""


def run_in_worker(
    arguments: bytes | tuple[Any, ...], shared_refs: Sequence[Any] = (), value: Any = None
) -> Sent | bytes | str | None:
    """Run a chunk, as a Ray task, if the worker has this version of this package.

    Travels by value, and its arguments are none of this package's objects: where it is missing, Ray would
    print thirty lines about each that can't be read.

    Args:
        arguments: What :meth:`TaskArguments.as_sent` returns.
        shared_refs: References to what all tasks share, and to what items have needed besides; in a list, as
            Ray would read bare ones each time. None where the worker should have read them: to send them
            doubles what a small task costs.
        value: What the item leads to, if that is a reference of Ray's.

    Returns:
        What the task sends, pickled if Ray need not do that, or what is wrong with the worker. None if it has
        not read what tasks share, and has done nothing.
    """
    global _run
    if _run is None:
        try:
            from speedy_utils import __version__ as found
            from speedy_utils._ray.worker import run_shared_chunk
        except ImportError as error:
            found = str(error)
        else:
            if found == __version__:
                _run = run_shared_chunk
            found = f"it has version {found}"
    if _run is not None:
        return _run(shared_refs, arguments, value)
    import socket

    return (
        f"a Ray worker on {socket.gethostname()} lacks speedy_utils {__version__} ({found}): call "
        'ray.init(runtime_env={"py_modules": [speedy_utils]}) before the run, or install it on every node'
    )


run_in_worker.__module__ = "__main__"  # what is defined there is pickled by value


def run_shared_chunk(
    shared_refs: Sequence[Any], arguments: bytes | tuple[Any, ...], value: Any
) -> Sent | bytes | None:
    """Run a chunk; the arguments are those of :func:`run_in_worker`."""
    fields: tuple[Any, ...] = pickle.loads(arguments) if isinstance(arguments, bytes) else arguments  # noqa: S301 - the run's own
    run, number, task, attempt, totals, items, packed = fields
    if not shared_refs and (run not in _cache or number - 1 > len(_definitions)):
        return None
    out_before, err_before = log_sizes()
    size = sent_size(items or (), None if packed is None else Packed(*packed))
    forget_interrupts()
    try:
        shared = _shared_by(run, shared_refs)
    except ray.exceptions.RayError:
        raise
    except Exception as error:  # loading a pickle imports modules and calls code of the user's
        return unread("func or what it needs", error)
    # A worker process runs one task after another. If an earlier one has bound it and not unbound it, threads
    # of this task would find two tasks to count for.
    unbind_thread()
    settings, children = shared.settings, shared.children
    with whole_lines(), shared.surroundings as renew, program_main():
        if shared.makes:
            make_instance(shared.function, shared.kwargs)  # no part of the attempt: there is no reporter yet
        began = time.monotonic()
        try:
            items = Packed(*packed).load() if packed is not None else [value] if items is None else items
        except OSError as error:  # from a path that the item leads to, such as that of a dataset's rows
            text = (
                f"{worker_node()} can't read the files of its input ({first_line(error)}): they must be on "
                "storage that all nodes share. A dataset loaded with keep_in_memory=True is sent itself"
            )
            outcome = ChunkOutcome(failure=Failure(text, error=NotSharedError(text)))
            reporter = chunk_reporter(task, attempt, 1, totals, settings)
        except Exception as error:  # as above
            return unread("its item", error)
        else:
            reporter = chunk_reporter(task, attempt, len(items), totals, settings, children)
            work = shared.function, items, shared.kwargs
            outcome, limited = ChunkOutcome(), settings.task_timeout is not None

            def begin_next() -> None:
                renew()
                unbind_thread()

            try:
                with signalling_main_thread() if limited else _NOTHING:
                    run_chunk(
                        *(*work, reporter, settings, shared.sink, outcome),
                        renew=begin_next,
                        retries=shared.retries,
                        note=shared.note,
                    )
            except KeyboardInterrupt:  # cancelled: what has ended is kept
                if not outcome.values:
                    raise
                outcome.failure = Failure("the worker was interrupted", worker_lost=True)
        if outcome.failure is not None or outcome.others:
            _name_unsuited_node(outcome)
        with context.flusher.sending_outcome(reporter, shared.sink) as ended:
            sent = pack_outcome(RayPickler, outcome, worker_address())
            returned = sent.size()
            ended.sending_s = returned / STORED_BYTES_PER_S
    outcome = sent.outcome
    outcome.seconds = time.monotonic() - began
    outcome.size = size + returned
    outcome.warnings = tuple(shared.warnings)  # once: with the first outcome of this worker
    shared.warnings.clear()
    out, err = log_sizes()
    printed = process_id(), max(0, out - out_before), max(0, err - err_before)
    return as_sent(Sent(*sent[:4], take_differences(), printed))


_NOTHING = nullcontext()


@cache
def _children() -> Children | None:
    """Return what processes count that tasks start in this worker."""
    # In the folder that Ray has for its session, as it may end a worker without a word.
    session = getattr(ray._private.worker, "_global_node", None)
    name = f"speedy_utils-children-{os.getpid()}"
    children = Children.if_possible(session and Path(session.get_session_dir_path(), name))
    if children is not None:
        atexit.register(children.close)
    return children


def close_shared() -> None:
    """Close what this worker has made for the last run."""
    for shared in _cache.values():
        with whole_lines(), shared.surroundings, program_main():
            close_instance(shared.function, shared.kwargs)


def _name_unsuited_node(outcome: ChunkOutcome) -> None:
    """Add the node to failures by which it can't see files of the run."""

    def named(failure: Failure) -> Failure:
        if not isinstance(failure.error, NotSharedError):
            return failure
        node = ray.get_runtime_context().get_node_id()
        return replace(failure, reason=str(failure.error), unsuited_node=node)

    outcome.failure = outcome.failure and named(outcome.failure)
    for place, other in outcome.others.items():
        if other.failure is not None:
            outcome.others[place] = replace(other, failure=named(other.failure))


def _shared_by(run: bytes, refs: Sequence[Any]) -> _Shared:
    """Return what tasks share, read when it is first asked for."""
    if run not in _cache:
        for each in _cache.values():
            if each.note is not None:
                each.note.close()
        _cache.clear()
        _definitions.clear()
        _cache[run] = _read_shared(refs[0])
    shared = _cache[run]
    for ref in refs[1:]:
        if ref.binary() not in _definitions:
            with shared.surroundings, program_main():
                ray.get(ref).load()
            _definitions.add(ref.binary())
    return shared


def _read_shared(ref: Any) -> _Shared:
    begin_run()
    note_interrupts()
    *packed, sinks, program, settings, name = ray.get(ref)
    children = _children()
    surroundings = _for_this_worker(program)
    if children is not None:  # processes that tasks start find it
        surroundings = replace(surroundings, variables={**surroundings.variables, VARIABLE: children.path})
    applied = surroundings.applied()
    with applied, program_main():  # modules are imported when the function is read
        function, kwargs, retries = (each.load() for each in ray.get(packed))
    sink = sinks[uuid.uuid4().int % len(sinks)]  # any: `random` is the user's, and may be seeded
    note = note_file(name) if name else None
    return _Shared(
        *(function, kwargs, maker_of(function, kwargs) is not None, sink, applied, children),
        *(settings, retries, note, _warnings(surroundings)),
    )


def _warnings(surroundings: Surroundings) -> list[str]:
    """Return what the user must know about this worker."""
    if (missing := surroundings.missing_folder()) is None:
        return []
    text = "{} does not have the program's folder {!r}: relative paths of tasks there begin at {!r}"
    return [text.format(worker_node(), missing, os.getcwd())]


def _for_this_worker(program: Surroundings) -> Surroundings:
    """Return what this worker takes over of the program's surroundings.

    What Ray sets itself stays, and so does what a ``runtime_env`` sets, of the task, the job or the cluster.
    """
    settings = dict(ray.get_runtime_context().runtime_env)
    variables = settings.pop("env_vars", None) or {}
    own_code = {"working_dir", "py_modules", "pip", "uv", "conda", "container", "image_uri"} & settings.keys()

    def keeps(name: str) -> bool:
        return name in variables or _is_of_ray(name) or (bool(own_code) and name in _SEARCHED)

    threads = replace(program.threads, of_user=program.threads.of_user | variables.keys())
    return replace(program, threads=threads).without(
        keeps,
        folder="working_dir" in settings,
        paths=bool(own_code),
        logs="worker_process_setup_hook" in settings,
    )


_SEARCHED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
"""The variables that say where programs and modules are: with code of its own a worker keeps them."""

_OF_RAY = re.compile(
    "RAY_|PYTHONBREAKPOINT$|OMP_NUM_THREADS$"
    # Which devices a task has.
    "|.*VISIBLE_(DEVICES|CORES|MODULES|CHIPS)$|(FURIOSA|RBLN)_DEVICES$|ZE_AFFINITY_MASK$|ONEAPI_DEVICE_SELECTOR$"
    "|TPU_"
)


def _is_of_ray(name: str) -> bool:
    """Return whether Ray sets an environment variable in its workers.

    Example:
        >>> _is_of_ray("CUDA_VISIBLE_DEVICES"), _is_of_ray("RAY_JOB_ID"), _is_of_ray("HF_HOME")
        (True, True, False)
    """
    return _OF_RAY.match(name) is not None
