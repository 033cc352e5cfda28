"""Functions that count for a run wherever they are called: in processes of another engine, or in this one."""

from __future__ import annotations

import copy
import copyreg
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import FunctionType, TracebackType
from typing import Any

import wrapt

from .._state.ledger import RUN_ITEMS, Count, Key
from .._state.stages import Stages
from .._validation import shorten
from .._worker.channel.calls import ProcessCounts
from .._worker.context import activate, current, deactivate
from .._worker.joining import RunAddress, counts_for, on_actor, warn_once
from .._worker.process import in_ray_worker
from .._worker.reporter import Reporter
from .decorator import called_function, factory_for, find_factory
from .tqdm.capture import start_capturing, stop_capturing
from .tracked_call import Total, TrackedSpec


class BoundCall:
    """A bound call that counts while it runs: a block, which gets None if the call is a part of another.

    Args:
        spec: What is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """

    __slots__ = ("_args", "_counts", "_kwargs", "_spec", "tally", "yielded")

    def __init__(self, spec: BoundSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._spec, self._args, self._kwargs = spec, args, kwargs
        self._counts: ProcessCounts | None = None
        self.yielded = 0

    def __enter__(self) -> BoundCall | None:
        run, outer = self._spec.run, current.get()
        if outer is not None and not outer.reporter.of_process:
            return None
        counts = _counts_for(run)
        if counts is None:
            return None
        total = None if self._spec.total is None else self._spec.items(self._args, self._kwargs)
        reporter = run.reporter(total=total)
        self.tally, self._counts = reporter.own, counts
        try:
            counts.add(reporter)
            activate(reporter)
            if run.adopt_tqdm:
                start_capturing(reporter)
        except BaseException as error:  # Ctrl-C: the call won't begin
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        counts, self._counts = self._counts, None
        if counts is None:
            return
        reporter = self.tally.reporter
        try:
            stop_capturing(reporter)
        finally:
            deactivate(reporter)
            counts.failed = counts.failed or kind is not None
            items = reporter.plain_items() if kind is None else None
            if items is not None and reporter.total is not None:
                items = reporter.total
            elif items == 0 and not reporter.has_reported():
                items = 1
            try:
                counts.finish(reporter, _final_counts(reporter, kind is None) if items is None else items)
            except OSError as failure:
                what = failure.strerror or failure  # without the name of a file, which differs each time
                warn_once(
                    f"what is counted in this process can't be sent to its run ({type(failure).__name__}: "
                    f"{what}); its work goes on"
                )
            # A thread that goes on may hold the tally, and so the reporter. Would that hold the tally as
            # well, each call's would stay until Python collects garbage, and the next ones be made elsewhere.
            reporter.own = _ended


_ended = Reporter("").own
"""What stands in the reporter of a call that has ended for what it has counted."""


class BoundSpec(TrackedSpec):
    """A function, and the run that its calls count for.

    Args:
        function: The function.
        total: Items of a call; see :func:`~speedy_utils.tracked`.
        run: The run.
    """

    def __init__(self, function: Callable[..., Any], total: Total | None, run: RunAddress) -> None:
        super().__init__(function, total, None)
        self.run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return BoundSpec, (self.function, self.total, on_actor(self.run))

    def count(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, yields: bool = False) -> BoundCall:  # noqa: ARG002 - what it yields is no item by itself
        """Return a block that counts a call."""
        return BoundCall(self, args, kwargs)


def _final_counts(reporter: Reporter, returned: bool) -> Mapping[Key, Count]:
    """Return what a call counts for: if it has returned for its total or, if nothing was reported, for 1."""
    if not returned:
        return reporter.capped_counts()
    counts = Stages("", None).task_succeeded(reporter.task, reporter.raw_counts(), reporter.total)
    if reporter.total is None and not reporter.has_reported():
        counts[RUN_ITEMS] = 1
    return counts


def _counts_for(run: RunAddress) -> ProcessCounts | None:
    """Return what counts for a run here, under the name of the engine's task, if that may be run again."""
    if in_ray_worker():
        ray_calls = _ray_calls()
        return counts_for(run, *ray_calls.current_task(), actor_sink=ray_calls.actor_sink)
    if (dask_worker := sys.modules.get("distributed.worker")) is not None:
        state = getattr(dask_worker, "thread_state", None)
        if (key := getattr(state, "key", None)) is not None:
            return counts_for(run, f"dask {key}", int(1e9 * getattr(state, "start_time", 0)))
    return counts_for(run)


@functools.cache
def _ray_calls() -> Any:
    """Return the module for calls on Ray. Nothing here imports Ray without need."""
    return import_module("speedy_utils._ray.bound_calls")


class BoundFunction(wrapt.CallableObjectProxy):  # type: ignore[type-arg]  # generic in stubs only
    """What stands for a bound function: the counting one, pickled by what it is made of.

    The counting function is a closure, which pickle refuses. cloudpickle takes this object for a function, as
    wrapt has it look like one, and sends the closure.
    """

    def __init__(self, spec: BoundSpec) -> None:
        super().__init__(counting_function(spec))
        self._self_spec = spec

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        spec = self._self_spec
        return _rebuilt, (spec.function, spec.total, *on_actor(spec.run))

    def __copy__(self) -> BoundFunction:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> BoundFunction:
        spec = self._self_spec
        return BoundFunction(BoundSpec(copy.deepcopy(spec.function, memo), spec.total, spec.run))


def _rebuilt(function: Callable[..., Any], total: Total | None, *address: Any) -> BoundFunction:
    """Return what an engine has sent, with each call perhaps: a plain function is bound only once here."""
    if type(function) is FunctionType and total is None:
        return _rebuilt_function(function, address)
    return BoundFunction(BoundSpec(function, total, RunAddress(*address)))


@functools.lru_cache(maxsize=32)
def _rebuilt_function(function: FunctionType, address: tuple[Any, ...]) -> BoundFunction:
    return BoundFunction(BoundSpec(function, None, RunAddress(*address)))


def counting_function(spec: BoundSpec) -> FunctionType:
    """Return a plain function that counts, of the same kind and with the same name as that of ``spec``."""
    function = spec.function
    counting: Any = functools.wraps(function)(find_factory(function)(spec, function))
    if not hasattr(function, "__name__"):  # of a partial, or of an object
        named = called_function(function)
        counting.__name__ = getattr(named, "__name__", type(function).__name__)
        counting.__qualname__ = getattr(named, "__qualname__", counting.__name__)
    found: FunctionType = counting
    return found


def bind(function: Any, total: Total | None, run: RunAddress) -> Any:
    """Return a function, a class, or what ``ray.remote`` made, with calls that count for a run.

    Raises:
        TypeError: It is nothing of that kind.
        ValueError: ``total`` names no parameter of the function.
    """
    # The class of what it makes of a class has the module of that, and Ray's own among its bases.
    kinds = [kind for kind in type(function).__mro__ if kind.__module__.startswith("ray.")]
    if kinds and not isinstance(function, type):
        return _ray_calls().bind_remote(function, total, run)
    if isinstance(function, type):
        return bind_class(function, total, run)
    if not callable(function):
        raise TypeError(f"bind() needs a function or a class, not {shorten(function)}")
    return BoundFunction(BoundSpec(function, total, run))


def bind_class(kind: type, total: Total | None, run: RunAddress) -> type:
    """Return a subclass whose calls, and calls of its methods without an underscore, count for a run."""
    meta = type(f"Bound{type(kind).__name__}", (type(kind),), {})
    namespace: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        of_class = isinstance(method, (staticmethod, classmethod))
        function = method.__func__ if of_class else method
        if isinstance(function, FunctionType) and (name == "__call__" or not name.startswith("_")):
            counting = functools.wraps(function)(
                factory_for(function)(BoundSpec(function, total, run), function)
            )
            namespace[name] = type(method)(counting) if of_class else counting
    try:
        bound: type = meta(kind.__name__, (kind,), namespace)
    except Exception as error:  # code of the class, or of its own type, may refuse it
        raise TypeError(
            f"bind() can't make a class of {kind.__qualname__} whose calls count ({error}): bind the "
            "functions that use it"
        ) from error
    copyreg.pickle(meta, functools.partial(_reduce_class, kind, total, run))
    return bound


def _reduce_class(kind: type, total: Total | None, run: RunAddress, _bound: type) -> tuple[Any, ...]:
    return bind_class, (kind, total, on_actor(run))
