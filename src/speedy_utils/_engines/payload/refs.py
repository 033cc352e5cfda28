"""References to objects in Ray, where the values are meant, and functions that are Ray's.

``f.remote(ref)`` calls ``f`` with the value, and so do the tasks of every engine. Nothing here imports Ray:
a program that has not either has none of its objects.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ..._validation import shorten


class ValueLostError(Exception):
    """The object that a reference leads to was lost with its node: another attempt may find it again."""


def is_ref(value: Any) -> bool:
    """Return whether a value is a reference to an object in Ray."""
    kind = getattr(sys.modules.get("ray"), "ObjectRef", None)
    return kind is not None and isinstance(value, kind)


def resolve(value: Any) -> Any:
    """Return the value that a reference leads to; what is no reference as it is.

    Raises:
        Exception: That of the Ray task that should have made the value.
        ValueLostError: The value was lost.
    """
    if not is_ref(value):
        return value
    ray = sys.modules["ray"]
    try:
        return ray.get(value)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ray.exceptions.ObjectLostError, ray.exceptions.WorkerCrashedError) as error:
        raise ValueLostError(
            f"{shorten(value)} was lost: {str(error).strip().partition(chr(10))[0]}"
        ) from error


def shared_arguments(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments that all tasks share, with the values of those that are references.

    A value is fetched when it is first read, once in each process: the first task of a worker does it.
    """
    return _SharedArguments(kwargs) if any(map(is_ref, kwargs.values())) else kwargs


def fetched_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the values of the references among them, for workers that can't fetch these.

    Args:
        kwargs: What :func:`shared_arguments` returned, or a mapping that holds such.

    Raises:
        Exception: That of the Ray task that should have made a value.
        ValueLostError: A value was lost.
    """
    return {
        name: dict(value) if isinstance(value, _SharedArguments) else value for name, value in kwargs.items()
    }


class _SharedArguments(Mapping[str, Any]):
    """Arguments with references among them. In a pickle the references stay what they are."""

    __slots__ = ("_given", "_lock", "_values")

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = dict(given)
        self._values: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Any:
        with self._lock:
            if name not in self._values:
                self._values[name] = resolve(self._given[name])
            return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return repr(self._given)

    def __reduce__(self) -> tuple[Any, ...]:
        return _SharedArguments, (self._given,)


def plain_function(function: Any) -> tuple[Any, dict[str, Any] | None]:
    """Return the function of a ``@ray.remote`` function, with its options; others as they are, with None.

    Raises:
        TypeError: It is a method or the class of an actor, or a remote function with ``.options(...)``.
    """
    kinds = {(each.__module__, each.__qualname__) for each in type(function).__mro__}
    if ("ray.remote_function", "RemoteFunction") in kinds:
        options = {name: value for name, value in function._default_options.items() if name not in _RUNS_OWN}
        return function._function, options
    if ("ray.remote_function", "RemoteFunction.options.<locals>.FuncWrapper") in kinds:
        raise TypeError(
            f"func is a remote function with .options(...), which can't be read back ({shorten(function)}): "
            f"pass the function itself, and ray_options={{...}}"
        )
    if kinds & {("ray.actor", "ActorMethod"), ("ray.actor", "ActorClass"), ("ray.actor", "ActorHandle")}:
        raise TypeError(
            f"func must be a function, not {shorten(function)} ({type(function).__name__}): an actor is one "
            "process. Pass a function that calls it, with the actor's handle as a keyword argument"
        )
    return function, None


_RUNS_OWN = ("max_retries", "retry_exceptions", "num_returns")
"""Options of a remote function that a run sets itself."""
