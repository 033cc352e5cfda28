"""What a call of a function returns, and when a tracked call of it has ended."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import coroutine
from typing import Any

import pytest

from speedy_utils import report_progress, tracked
from speedy_utils._instrument.decorator import (
    is_async_generator_function,
    is_coroutine_function,
    is_generator_function,
)
from speedy_utils._worker.context import counting, registered
from speedy_utils._worker.reporter import Reporter


def plain() -> int:
    """Return a value."""
    return 1


async def awaits() -> int:
    """Report an item, and return a value."""
    report_progress(1)
    await asyncio.sleep(0)
    return 1


def yields() -> Iterator[int]:
    """Yield a value."""
    yield 1


async def yields_later() -> AsyncIterator[int]:
    """Yield a value."""
    yield 1


@coroutine
def old_style() -> Iterator[None]:
    """Wait, as a generator that is a coroutine."""
    yield


KINDS: dict[Any, str] = {
    plain: "",
    awaits: "coroutine",
    old_style: "coroutine",
    yields: "generator",
    yields_later: "async generator",
}

FORMS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda function: function,
    "partial": functools.partial,
    "partial of a partial": lambda function: functools.partial(functools.partial(function)),
    "static method": staticmethod,
    "method": lambda function: type("Owner", (), {"call": function})().call,
    "object": lambda function: type("Owner", (), {"__call__": function})(),
    "tracked": tracked,
    "tracked partial": lambda function: tracked(functools.partial(function)),
    "tracked method": lambda function: tracked(type("Owner", (), {"call": function})().call),
    "tracked object": lambda function: tracked(type("Owner", (), {"__call__": function})()),
    "object with a tracked call": lambda function: type("Owner", (), {"__call__": tracked(function)})(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", KINDS, ids=lambda function: function.__name__)
def test_the_kind_of_a_function_is_seen_in_every_form(function: Any, form: str) -> None:
    """What a call returns is seen through partials, methods, objects and @tracked."""
    made = FORMS[form](function)
    kinds = {
        "coroutine": is_coroutine_function(made),
        "generator": is_generator_function(made),
        "async generator": is_async_generator_function(made),
    }
    assert [kind for kind, holds in kinds.items() if holds] == [KINDS[function]] * bool(KINDS[function])


@pytest.mark.parametrize("function", [int, print, Iterator, len, "text".upper, functools.lru_cache(yields)])
def test_of_other_callables_nothing_is_assumed(function: Any) -> None:
    """Classes, built-in functions and what other decorators made are taken for plain functions."""
    assert not is_coroutine_function(function)
    assert not is_generator_function(function)
    assert not is_async_generator_function(function)


def test_what_another_decorator_has_wrapped_is_its_own_business() -> None:
    """A wrapper may collect what it wraps, so what it wraps says nothing about it."""

    @functools.wraps(yields)
    def collects() -> list[int]:
        return list(yields())

    assert not is_generator_function(collects)


@pytest.fixture
def reporter() -> Iterator[Reporter]:
    """Return a reporter that counts here."""
    reporter = Reporter(0)
    with registered(reporter), counting(reporter.own):
        yield reporter


class Odd:
    """Can be awaited, and more."""

    def __await__(self) -> Iterator[Any]:
        """Wait for nothing."""
        return iter(())


@pytest.mark.parametrize("start", [lambda made: made, asyncio.ensure_future], ids=["coroutine", "task"])
def test_a_call_that_returns_an_awaitable_has_ended_once_that_has(
    reporter: Reporter, start: Callable[[Any], Any]
) -> None:
    """A tracked function that returns a coroutine or a task counts once that has ended, for its total."""
    call = tracked(total=5)(lambda: start(awaits()))

    async def program() -> int:
        returned = call()
        assert reporter.own.raw_count() == 0
        await asyncio.sleep(0)
        result: int = await returned
        await asyncio.sleep(0)
        return result

    assert asyncio.run(program()) == 1
    assert reporter.own.raw_count() == 5


@pytest.mark.parametrize("start", [lambda made: made, asyncio.ensure_future], ids=["coroutine", "task"])
def test_an_awaitable_that_fails_counts_for_what_it_reported(
    reporter: Reporter, start: Callable[[Any], Any]
) -> None:
    """If the coroutine or task of a tracked call raises, the call counts for what it had reported."""

    async def fail() -> None:
        report_progress(2)
        raise ValueError("no")

    async def program() -> None:
        await tracked(total=5)(lambda: start(fail()))()

    with pytest.raises(ValueError, match="no"):
        asyncio.run(program())
    assert reporter.own.raw_count() == 2


def test_a_call_whose_coroutine_is_dropped_counts_for_nothing(reporter: Reporter) -> None:
    """A coroutine of a tracked call that is never awaited leaves nothing open."""

    def call() -> Coroutine[Any, Any, int]:
        return awaits()

    made = tracked(total=5)(call)()
    assert made.__qualname__ == "awaits"
    made.close()
    del made
    gc.collect()
    assert reporter.own.raw_count() == 0
    assert not reporter.own._parts


def test_an_object_that_can_be_awaited_is_returned_as_it_is(reporter: Reporter) -> None:
    """An object that may have other uses than being awaited is not replaced, and its call has ended."""
    made = Odd()
    assert tracked(total=5)(lambda: made)() is made
    assert reporter.own.raw_count() == 5
