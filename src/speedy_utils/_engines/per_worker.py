"""A class as the function of a run: each worker makes one instance, and calls that.

::

    class Embedder:
        def __init__(self, model):  # once in each worker
            self.model = load(model)

        def __call__(self, text):  # once for each item
            return self.model.encode(text)

        def close(self):  # at the end of the worker, if there is one
            self.model.shutdown()


    multi_process(Embedder, texts, num_workers=8, model="large")
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .._worker.event_loop import awaited

logger = logging.getLogger("speedy_utils")

CLOSE_TIMEOUT_S = 30.0
"""Seconds that the end of a run waits for instances to be closed."""


class PreparationError(Exception):
    """A worker can't make its instance: ``__init__`` has raised the cause."""


class PerWorker:
    """A class of which each worker makes an instance; :func:`prepared` puts that in its place."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.__qualname__ = cls.__qualname__  # as functions have it

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse to be called itself."""
        raise TypeError(f"no instance of {self.__qualname__} was made")


def makes_callables(function: Any) -> bool:
    """Return whether something is a class whose instances can be called, and no metaclass.

    Example:
        >>> class Embedder:
        ...     def __call__(self, text): ...
        >>> makes_callables(Embedder), makes_callables(int), makes_callables(type), makes_callables(len)
        (True, False, False, False)
    """
    return (
        isinstance(function, type)
        and not issubclass(function, type)
        and any("__call__" in vars(each) for each in function.__mro__)
    )


def per_worker(function: Any) -> Any:
    """Return a class whose instances can be called as :class:`PerWorker`; anything else as it is."""
    return PerWorker(function) if makes_callables(function) else function


def called_with_items(function: Any) -> Any:
    """Return what is called with each item: of a class that is made once per worker its ``__call__``."""
    return function.__call__ if makes_callables(function) else function


def maker_of(function: Any, kwargs: Mapping[str, Any]) -> PerWorker | None:
    """Return what the workers of a run have to make; None if there is nothing.

    Args:
        function: The function of the run. Of a dataset's run it calls its argument ``process_func`` with its
            argument ``kwargs``.
        kwargs: Its arguments.
    """
    maker = function if type(function) is PerWorker else kwargs.get("process_func")
    return maker if type(maker) is PerWorker else None


class _Made(threading.local):
    """In each thread that works: its instance, or a PreparationError, by maker."""

    def __init__(self) -> None:
        self.instances: dict[PerWorker, Any] = {}


_made = _Made()


def prepared(function: Any, kwargs: Mapping[str, Any]) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """Return what this worker calls and with which arguments; the arguments are those of :func:`maker_of`.

    Raises:
        PreparationError: The instance can't be made; again at each further call.
    """
    if (maker := maker_of(function, kwargs)) is None:
        return function, kwargs
    make_instance(function, kwargs)
    instance = _made.instances[maker]
    if isinstance(instance, PreparationError):
        raise instance
    return (
        (instance, {})
        if maker is function
        else (function, {**kwargs, "process_func": instance, "kwargs": {}})
    )


def make_instance(function: Any, kwargs: Mapping[str, Any]) -> None:
    """Make the instance of this worker, if there is to be one; the arguments are as above. Idempotent."""
    if (maker := maker_of(function, kwargs)) is None or maker in _made.instances:
        return
    try:
        _made.instances[maker] = maker.cls(**(kwargs if maker is function else kwargs["kwargs"]))
    except (Exception, SystemExit) as error:
        failed = PreparationError(maker.__qualname__)
        failed.__cause__ = error
        _made.instances[maker] = failed


def close_instance(function: Any, kwargs: Mapping[str, Any]) -> None:
    """Call ``close()`` of the instance of this worker, if there are both; the arguments are as above."""
    if (maker := maker_of(function, kwargs)) is None:
        return
    close = getattr(_made.instances.pop(maker, None), "close", None)
    if not callable(close):
        return
    try:
        awaited(close())
    except Exception:  # it is the user's code, and the results are in
        logger.warning("close() of a %s has failed in its worker", maker.__qualname__, exc_info=True)
