"""``@tracked``: a call that counts."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from types import MethodType
from typing import Any, TypeVar, overload

import wrapt

from .._state.ledger import Stage
from .._validation import checked_count, shorten
from .tracked_call import Total, TrackedSpec, attribute_to, counted_call

F = TypeVar("F", bound=Callable[..., Any])


def _counted(spec: TrackedSpec, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """The function, counted: of the same kind as the function itself."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with counted_call(spec, args, kwargs) as counted, attribute_to(counted):
            return function(*args, **kwargs)

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        with counted_call(spec, args, kwargs) as counted, attribute_to(counted):
            return await function(*args, **kwargs)

    # A generator's body runs in the context of whoever resumes it, so the context is set for each step only.
    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with counted_call(spec, args, kwargs, yields=True) as counted:
            body = function(*args, **kwargs)
            step, value = body.send, None
            while True:
                try:
                    with attribute_to(counted):
                        item = step(value)
                except StopIteration as end:
                    return end.value
                if counted is not None:
                    counted.yielded += 1
                try:
                    step, value = body.send, (yield item)
                except GeneratorExit:
                    with attribute_to(counted):
                        body.close()
                    raise
                except BaseException as error:  # thrown in by the consumer: it is the body's to handle
                    step, value = body.throw, error

    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with counted_call(spec, args, kwargs, yields=True) as counted:
            body = function(*args, **kwargs)
            step, value = body.asend, None
            while True:
                try:
                    with attribute_to(counted):
                        item = await step(value)
                except StopAsyncIteration:
                    return
                if counted is not None:
                    counted.yielded += 1
                try:
                    step, value = body.asend, (yield item)
                except GeneratorExit:
                    with attribute_to(counted):
                        await body.aclose()
                    raise
                except BaseException as error:  # the same
                    step, value = body.athrow, error

    kinds: dict[str, Callable[..., Any]] = {
        "call": call,
        "coroutine": coroutine,
        "generator": generator,
        "async_generator": async_generator,
    }
    return kinds[kind]


def _kind(function: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(function):
        return "async_generator"
    if inspect.isgeneratorfunction(function):
        return "generator"
    return "coroutine" if inspect.iscoroutinefunction(function) else "call"


# Both are generic in the stubs of wrapt only.
class _Bound(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]  # it is generic in the stubs only
    """A :class:`_Bindable` as the method of an object."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return getattr, (self._self_instance, self.__name__)


class _Bindable(wrapt.FunctionWrapper):  # type: ignore[type-arg]  # the same
    """What is no plain function, counted: bound methods, callable objects, what ``lru_cache`` made.

    wrapt binds them as Python would. A plain function becomes a plain function instead: a wrapt proxy of
    one says that it is a function, cloudpickle then takes it for one, and ships what is inside it.
    """

    __bound_function_wrapper__ = _Bound

    def __init__(self, wrapped: Any, total: Total | None, desc: Stage) -> None:
        inner = wrapped.__func__ if inspect.ismethod(wrapped) else wrapped
        spec = TrackedSpec(inner, total, desc)
        kind = _kind(inner)
        if kind == "call" and not inspect.isroutine(inner):
            kind = _kind(type(inner).__call__)

        def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if instance is None or not inspect.ismethod(wrapped):
                return _counted(spec, wrapped, kind)(*args, **kwargs)
            return _counted(spec, lambda _, *rest, **named: wrapped(*rest, **named), kind)(
                instance, *args, **kwargs
            )

        super().__init__(wrapped, wrapper)
        self._self_options = (total, desc)
        self._self_spec = spec

    def __reduce_ex__(self, protocol: Any) -> Any:
        name, module = getattr(self, "__qualname__", None), getattr(self, "__module__", None)
        if module != "__main__" and getattr(sys.modules.get(module or ""), name or "", None) is self:
            return name  # it has taken the place of what it wraps, which can't be found there any more
        return _Bindable, (self.__wrapped__, *self._self_options)


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

    Called in the driver, outside any run, a function with ``total`` is itself a run and draws a bar, and
    bars that it makes with tqdm count for it as in a task. In a worker or a child process it never draws.

    Args:
        function: The function, where the decorator is used without arguments.
        total: Items of a call: a number, the name of a parameter that has a length, or a function of the
            same arguments as the call (``self`` included). 1 where it is not given.
        every: As in ``track``: no more than a bound, which calls keep in any case.
        desc: The stage that the call's items belong to; None for the run's own line.

    Returns:
        The function, counted: with the same name, signature and kind, picklable as before.

    Raises:
        TypeError: It is used on something that can't be called, or an argument has the wrong type.
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
        return _Bindable(function, total, desc)
    spec = TrackedSpec(function, total, desc)
    counted = functools.wraps(function)(_counted(spec, function, _kind(function)))
    # A function may carry attributes; the types have no word for it.
    counted.__tracked__ = spec  # type: ignore[attr-defined]
    return counted


def declared_total(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """The total that a ``@tracked(total=…)`` function gives a call; None where it is no such function.

    Args:
        function: Any callable; bound methods and ``functools.partial`` are looked through.
        args: The positional arguments that it would get.
        kwargs: The named ones.
    """
    while True:
        kind = type(function)  # a wrapt proxy passes for an instance of what it wraps
        if kind is _Bound:
            function, args = function._self_parent, (function._self_instance, *args)
        elif issubclass(kind, functools.partial):
            function, args, kwargs = function.func, (*function.args, *args), function.keywords | kwargs
        elif issubclass(kind, MethodType):
            function, args = function.__func__, (function.__self__, *args)
        else:
            break
    if kind is _Bindable:
        spec, bound = function._self_spec, function.__wrapped__
        args = (bound.__self__, *args) if inspect.ismethod(bound) else args
    else:
        spec = getattr(function, "__tracked__", None)
    return spec.items(args, kwargs) if isinstance(spec, TrackedSpec) else None
