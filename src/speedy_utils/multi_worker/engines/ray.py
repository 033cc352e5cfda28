"""Ray tasks, on the Ray that is running or on a local one that is started."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray import cloudpickle

from ...errors import shorten
from ...progress.actor import ActorFeed, ActorSink, create_progress_tracker
from ...progress.run import Run
from ..task import Call, Failure, Outcome, perform
from . import Work

_GRACE = 1.5
"""Seconds in which a cancelled task may end before its worker is killed."""

_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)

_local_cpus = 0
"""CPUs of the Ray that this process has started; 0 where it has started none."""


def _perform(function: Any, kwargs: Mapping[str, Any], item: Any, call: Call, sink: ActorSink) -> Outcome:
    outcome = perform(function, item, kwargs, call.reporter(), sink)
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
        if _local_cpus:  # all workers fit in a Ray that is ours, also where it was started for fewer
            options.setdefault("num_cpus", min(1.0, _local_cpus / work.workers))
        self._task = task.options(**options)
        with _sending("func can't be sent to Ray workers", work.function):
            self._function = ray.put(work.function)
        with _sending("the keyword arguments can't be sent to Ray workers", dict(work.kwargs)):
            self._kwargs = ray.put(dict(work.kwargs))
        self._actor = create_progress_tracker()
        self._sink = ActorSink(self._actor, work.workers)
        run.feed = ActorFeed(self._actor)
        self._calls: dict[Any, Call] = {}

    def submit(self, call: Call, item: Any) -> None:
        """Start a Ray task."""
        with _sending(f"item {call.task} can't be sent to a Ray worker", item):
            ref = self._task.remote(self._function, self._kwargs, item, call, self._sink)
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


def connect(workers: int) -> None:
    """Use the Ray that is running, or the one at RAY_ADDRESS, or start a local one.

    Args:
        workers: CPUs of a Ray that is started.

    Raises:
        ConnectionError: No Ray answers at RAY_ADDRESS.
    """
    global _local_cpus
    if ray.is_initialized():
        return
    _local_cpus = 0
    address = os.environ.get("RAY_ADDRESS", "")
    if address and address != "local":
        _probe(address)
        ray.init(logging_level=logging.WARNING)
        return
    try:
        # Ray warns about more worker processes than three times what it may start at once.
        with _environment(
            "RAY_worker_maximum_startup_concurrency", str(max(os.cpu_count() or 1, workers // 2))
        ):
            ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR)
    except ValueError:  # `ray start` has started one on this machine: it may not be given CPUs
        ray.init(logging_level=logging.WARNING)
    else:
        _local_cpus = workers


@contextmanager
def _environment(name: str, default: str) -> Iterator[None]:
    """Set a variable for the programs that are started in the block, unless the user has set it."""
    known = os.environ.get(name)
    os.environ.setdefault(name, default)
    try:
        yield
    finally:
        if known is None:
            del os.environ[name]


def _probe(address: str) -> None:
    """Fail soon where nothing answers: ``ray.init`` would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", or a scheme that only Ray knows
        return
    try:
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            if "RAY_USE_TLS" not in os.environ:
                _greet(connection)
    except OSError as error:
        raise ConnectionError(
            f"no Ray answers at RAY_ADDRESS={address} ({error}): start a Ray there, or unset RAY_ADDRESS "
            f"to use a local one"
        ) from error


def _greet(connection: socket.socket) -> None:
    """Open an HTTP/2 connection, as gRPC does, and see whether the other side does too: RFC 9113, 3.4."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty frame of type 4
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    if connection.recv(4)[3:] != settings[3:4]:
        raise OSError("what listens there is no Ray")
