"""Tracked functions of every kind, around the same body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from speedy_utils import tracked

Body = Callable[[], object]


def _function(body: Body, **options: Any) -> Callable[[], object]:
    return tracked(**options)(lambda: body())


def _object(body: Body, **options: Any) -> Callable[[], object]:
    return tracked(**options)(type("Callee", (), {"__call__": lambda self: body()})())


def _method(body: Body, **options: Any) -> Callable[[], object]:
    return type("Owner", (), {"call": tracked(**options)(lambda self: body())})().call


def _class_method(body: Body, **options: Any) -> Callable[[], object]:
    return type("Owner", (), {"call": tracked(**options)(classmethod(lambda cls: body()))}).call


def _static_method(body: Body, **options: Any) -> Callable[[], object]:
    return type("Owner", (), {"call": tracked(**options)(staticmethod(lambda: body()))})().call


def _generator(body: Body, **options: Any) -> Callable[[], object]:
    @tracked(**options)
    def generator() -> Iterator[None]:
        body()
        yield

    return lambda: list(generator())


def _coroutine(body: Body, **options: Any) -> Callable[[], object]:
    @tracked(**options)
    async def coroutine() -> None:
        await asyncio.sleep(0)
        body()

    return lambda: asyncio.run(coroutine())


def _async_generator(body: Body, **options: Any) -> Callable[[], object]:
    @tracked(**options)
    async def generator() -> AsyncIterator[None]:
        body()
        await asyncio.sleep(0)
        yield

    async def consume() -> None:
        async for _ in generator():
            pass

    return lambda: asyncio.run(consume())


KINDS: dict[str, Callable[..., Callable[[], object]]] = {
    "function": _function,
    "object": _object,
    "method": _method,
    "class method": _class_method,
    "static method": _static_method,
    "generator": _generator,
    "coroutine": _coroutine,
    "async generator": _async_generator,
}

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
"""Run a test for each kind: ``kind(body, total=3)()`` runs a body in a call of three items.

Without a total each call is one item.
"""
