"""``@tracked``: a call that counts."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, ExitStack, suppress
from types import FunctionType, MethodType
from typing import Any, TypeVar, overload
from weakref import finalize

import wrapt

from .._state.ledger import Stage
from .._validation import checked_count, shorten
from .._worker.context import counting
from .tracked_call import CountedCall, Total, TrackedSpec, attribute_to

F = TypeVar("F", bound=Callable[..., Any])


def _count_calls(spec: TrackedSpec, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        # Not by a ``with``: the call may end later than this function. Nor by attribute_to(): after the
        # milliseconds of a call all Python code that it takes to count it has to be fetched from memory.
        block = spec.count(args, kwargs)
        counted = block.__enter__()
        try:
            before = None if counted is None else counting.begin(counted.tally)
            try:
                result = function(*args, **kwargs)
            finally:
                if before is not None:
                    counting.end(before)
        except BaseException:
            block.__exit__(*sys.exc_info())
            raise
        if counted is not None and hasattr(type(result), "__await__"):
            return _counted_once_awaited(result, counted, block)
        block.__exit__(None, None, None)
        return result

    return call


def _counted_once_awaited(result: Any, counted: CountedCall, counting: AbstractContextManager[Any]) -> Any:
    """Return what a function returned, and let its call end once that has ended, if it can be awaited.

    Coroutines, and futures such as asyncio's tasks, have ended once they were awaited. Of other objects that
    can be awaited it is not known what else they can do: their call ends now.
    """
    stack = ExitStack()
    stack.push(counting)
    if inspect.iscoroutine(result):
        coroutine: Any = _end_after(result, counted, stack)
        coroutine.__name__, coroutine.__qualname__ = result.__name__, result.__qualname__
        finalize(coroutine, _give_up, result, stack).atexit = False
        return coroutine
    if hasattr(result, "add_done_callback"):
        result.add_done_callback(functools.partial(_end_with, stack))
    else:
        stack.close()
    return result


async def _end_after(coroutine: Coroutine[Any, Any, Any], counted: CountedCall, stack: ExitStack) -> Any:
    with stack, attribute_to(counted):
        return await coroutine


def _give_up(coroutine: Coroutine[Any, Any, Any], stack: ExitStack) -> None:
    """End a call whose coroutine was never awaited; do nothing if it has ended."""
    coroutine.close()
    stack.__exit__(GeneratorExit, GeneratorExit(), None)


def _end_with(stack: ExitStack, future: Any) -> None:
    with suppress(BaseException), stack:  # the error is that of the future
        future.result()


def _count_coroutines(spec: TrackedSpec, function: Callable[..., Any]) -> Callable[..., Any]:
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        with spec.count(args, kwargs) as counted, attribute_to(counted):
            return await function(*args, **kwargs)

    return coroutine


def _count_generators(spec: TrackedSpec, function: Callable[..., Any]) -> Callable[..., Any]:
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with spec.count(args, kwargs, yields=True) as counted:
            body = function(*args, **kwargs)
            return (yield from body if counted is None else _CountedSteps(body, counted))

    return generator


class _CountedSteps(Generator[Any, Any, Any]):
    """A generator that counts its yields, and whose steps count for a call.

    The body runs in the context of the code that resumes it, and what that code counts must not count for the
    call. So the context is set for each step only.
    """

    def __init__(self, body: Generator[Any, Any, Any], call: CountedCall) -> None:
        self._body, self._call = body, call

    def __next__(self) -> Any:
        return self._step(self._body.send, None)

    def send(self, value: Any) -> Any:
        return self._step(self._body.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._body.throw, *error)

    def close(self) -> None:
        with attribute_to(self._call):
            self._body.close()

    def _step(self, resume: Callable[..., Any], *args: Any) -> Any:
        with attribute_to(self._call):
            item = resume(*args)
        self._call.yielded += 1
        return item


def _count_async_generators(spec: TrackedSpec, function: Callable[..., Any]) -> Callable[..., Any]:
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with spec.count(args, kwargs, yields=True) as counted:
            body = function(*args, **kwargs)
            resume, value = body.asend, None
            while True:  # what ``yield from`` does, which async generators do not have
                try:
                    with attribute_to(counted):
                        item = await resume(value)
                except StopAsyncIteration:
                    return
                if counted is not None:
                    counted.yielded += 1
                try:
                    resume, value = body.asend, (yield item)
                except GeneratorExit:
                    with attribute_to(counted):
                        await body.aclose()
                    raise
                except BaseException as error:  # the consumer throws it in: the body may handle it
                    resume, value = body.athrow, error

    return async_generator


_Factory = Callable[[TrackedSpec, Callable[..., Any]], Callable[..., Any]]


def factory_for(function: Callable[..., Any]) -> _Factory:
    """Return what makes a counted function of the same kind."""
    if inspect.isasyncgenfunction(function):
        return _count_async_generators
    if inspect.iscoroutinefunction(function) or _has_flag(function, inspect.CO_ITERABLE_COROUTINE):
        return _count_coroutines
    return _count_generators if inspect.isgeneratorfunction(function) else _count_calls


def find_factory(function: Any) -> _Factory:
    """Return what makes a counted function of the same kind, of any callable."""
    return factory_for(called_function(function))


class _BoundTracked(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]  # generic in stubs only
    """A :class:`TrackedObject` as the method of an object."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return getattr, (self._self_instance, self.__name__)


class TrackedObject(wrapt.FunctionWrapper):  # type: ignore[type-arg]  # as above
    """A counted callable that is not a plain function: a bound method, an object, what ``lru_cache`` made.

    wrapt binds it as Python would. A plain function is wrapped in a plain function instead: a wrapt proxy
    says that it is a function, so cloudpickle would take it for one, and ship only what is inside it.
    """

    __bound_function_wrapper__ = _BoundTracked

    def __init__(self, wrapped: Any, total: Total | None, desc: Stage) -> None:
        inner = wrapped.__func__ if inspect.ismethod(wrapped) else wrapped
        spec = TrackedSpec(inner, total, desc)
        count = factory_for(inner)
        if count is _count_calls and not inspect.isroutine(inner):
            count = factory_for(type(inner).__call__)

        def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if instance is None or not inspect.ismethod(wrapped):
                return count(spec, wrapped)(*args, **kwargs)
            # The total may be a function of ``self``, which the bound method does not take.
            return count(spec, lambda _self, *args, **kwargs: wrapped(*args, **kwargs))(
                instance, *args, **kwargs
            )

        super().__init__(wrapped, wrapper)
        self._self_options = (total, desc)
        self._self_spec = spec

    def __reduce_ex__(self, protocol: Any) -> Any:
        name, module = getattr(self, "__qualname__", None), getattr(self, "__module__", None)
        if module != "__main__" and getattr(sys.modules.get(module or ""), name or "", None) is self:
            return name  # pickled by name: what it wraps can't be found under that name any more
        return self.by_value()

    def by_value(self) -> tuple[Any, ...]:
        """Return how it is made again from what it wraps, as ``__reduce__`` does."""
        return TrackedObject, (self.__wrapped__, *self._self_options)


@overload
def tracked(function: F, /) -> F: ...


@overload
def tracked(*, total: Total | None = None, every: int = 100, desc: str | None = None) -> Callable[[F], F]: ...


def tracked(
    function: Any = None, /, *, total: Total | None = None, every: int = 100, desc: str | None = None
) -> Any:
    """Count each call of a function, method, generator, coroutine or async generator.

    A call counts for ``total`` items once it returns; what its body reports meanwhile counts toward that.
    A call that raises counts for what its body had reported. A generator counts one item a yield.

    In the driver, outside any run, a call of a function with ``total`` is itself a run: it draws a bar, and
    bars that the function makes with tqdm count for it as in a task. In a worker or a child process it never
    draws.

    Args:
        function: The function, if the decorator is used without arguments.
        total: Items of a call: a number, the name of a parameter that has a length, or a function of the
            same arguments as the call (``self`` included). A call is one item if it is None.
        every: Accepted for compatibility; has no effect. It bounds how many items the count may be behind,
            and counts are never that far behind.
        desc: The stage that the call's items belong to; None for the run's own line.

    Returns:
        The function, counted: with the same name, signature and kind, picklable as before.

    Raises:
        TypeError: ``function`` can't be called, or an argument has the wrong type.
        ValueError: ``total`` names no parameter of the function, or is negative, or ``every`` is below 1.

    Example:
        >>> from speedy_utils import tracked
        >>> @tracked
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> double(21)
        42
    """
    checked_count(every, "every", least=1)
    if function is None:
        return functools.partial(_track_function, total=total, desc=desc)
    return _track_function(function, total=total, desc=desc)


tracked.__module__ = "speedy_utils"


def _track_function(function: Any, *, total: Total | None, desc: Stage) -> Any:
    if not callable(function) and not isinstance(function, (classmethod, staticmethod)):
        raise TypeError(
            f"@tracked needs a function or method, not {shorten(function)}; "
            "options go by name: @tracked(total=…)"
        )
    if isinstance(function, (classmethod, staticmethod)):
        counted = _track_function(function.__func__, total=total, desc=desc)
        return type(function)(counted)
    if not inspect.isfunction(function):
        return TrackedObject(function, total, desc)
    spec = TrackedSpec(function, total, desc)
    counted = functools.wraps(function)(factory_for(function)(spec, function))
    counted.__tracked__ = spec  # type: ignore[attr-defined]  # no attribute of the type
    return counted


def declared_total(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """Return how many items a call of a ``@tracked`` function counts for, or None if that is not known.

    Args:
        function: Any callable. Bound methods, ``functools.partial`` and objects whose ``__call__`` is
            ``@tracked`` are looked through.
        args: The positional arguments of the call.
        kwargs: Its keyword arguments.
    """
    while True:
        kind = type(function)  # isinstance() would see what a wrapt proxy wraps
        if kind is _BoundTracked:
            function, args = function._self_parent, (function._self_instance, *args)
        elif issubclass(kind, functools.partial):
            function, args, kwargs = function.func, (*function.args, *args), function.keywords | kwargs
        elif issubclass(kind, MethodType):
            function, args = function.__func__, (function.__self__, *args)
        elif kind is TrackedObject or hasattr(function, "__tracked__"):
            break
        elif type(call := getattr(function, "__call__", None)) in (MethodType, _BoundTracked):  # noqa: B004 - it is read
            function = call
        else:
            break
    if kind is TrackedObject:
        spec, bound = function._self_spec, function.__wrapped__
        args = (bound.__self__, *args) if inspect.ismethod(bound) else args
    else:
        spec = getattr(function, "__tracked__", None)
    if not isinstance(spec, TrackedSpec):
        return None
    return spec.items(args, kwargs) if spec.total is not None or is_generator_function(function) else 1


def called_function(function: Any) -> Any:
    """Return the function whose code runs if a callable is called, as far as can be seen.

    Bound methods, ``functools.partial``, objects with ``__call__`` and what ``@tracked`` has wrapped are
    looked through. What another decorator has wrapped is not: it may await that, or iterate it.
    """
    while True:
        kind = type(function)  # as above
        if issubclass(kind, functools.partial):
            function = function.func
        elif issubclass(kind, (MethodType, classmethod, staticmethod)):
            function = function.__func__
        elif issubclass(kind, (TrackedObject, _BoundTracked)):
            function = function.__wrapped__
        elif issubclass(kind, (FunctionType, type)):
            return function
        else:
            call = inspect.getattr_static(kind, "__call__", None)
            if not isinstance(call, (FunctionType, classmethod, staticmethod)):
                return function
            function = call


def is_coroutine_function(function: Any) -> bool:
    """Return whether a call of a function returns a coroutine, as far as can be seen."""
    called = called_function(function)
    return inspect.iscoroutinefunction(called) or _has_flag(called, inspect.CO_ITERABLE_COROUTINE)


def is_generator_function(function: Any) -> bool:
    """Return whether a call of a function returns a generator, as far as can be seen."""
    called = called_function(function)
    return inspect.isgeneratorfunction(called) and not _has_flag(called, inspect.CO_ITERABLE_COROUTINE)


def is_async_generator_function(function: Any) -> bool:
    """Return whether a call of a function returns an async generator, as far as can be seen."""
    return inspect.isasyncgenfunction(called_function(function))


def _has_flag(function: Any, flag: int) -> bool:
    return isinstance(function, FunctionType) and bool(function.__code__.co_flags & flag)
