"""``@tracked`` makes a counted function of the same kind, with the same name, signature and behaviour."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from support.errors import Boom

from speedy_utils import report_progress, track, tracked
from speedy_utils.testing import RecordingSink


def work(x: int, y: int = 2) -> int:
    """Multiply."""
    return x * y


def scale(owner: Any, x: int) -> int:
    """Multiply."""
    return x * owner.factor


def triple(x: int) -> int:
    """Multiply."""
    return x * 3


class Methods:
    """Every kind of method, in every order of decorators."""

    factor = 3
    instance = tracked(scale)
    class_inside = tracked(classmethod(scale))
    class_outside = classmethod(tracked(scale))
    static_inside = tracked(staticmethod(triple))
    static_outside = staticmethod(tracked(triple))
    prop = property(tracked(lambda self: 2 * self.factor))
    plain = __call__ = scale


@pytest.mark.parametrize(
    "name", ["instance", "class_inside", "class_outside", "static_inside", "static_outside"]
)
def test_methods_bind_and_count(name: str) -> None:
    """Methods bind as undecorated ones, in either order of decorators, and keep name, doc and signature."""
    bound, unbound = getattr(Methods(), name), getattr(Methods, name)
    with RecordingSink() as sink:
        assert bound(2) == 6
        assert (unbound(Methods(), 2) if name == "instance" else unbound(2)) == 6
    assert sink.done == 2
    original = triple if "static" in name else scale
    assert (bound.__name__, bound.__doc__) == (original.__name__, "Multiply.")
    assert str(inspect.signature(bound)).startswith("(x: ")


def test_methods_get_the_subclass_and_properties_their_object() -> None:
    """A class method of a subclass gets the subclass, and a tracked getter of a property its object."""
    child = type("Child", (Methods,), {"factor": 10})
    for name in ("class_inside", "class_outside"):
        assert getattr(child, name)(2) == getattr(child(), name)(2) == 20
    with RecordingSink() as sink:
        assert Methods().prop == 6
    assert sink.done == 1


@pytest.mark.parametrize(
    "callee",
    [
        Methods().plain,
        Methods(),
        functools.partial(work, y=3),
        functools.lru_cache(lambda x: x * 3),
        (3).__mul__,
    ],
    ids=["bound method", "callable object", "partial", "lru_cache", "builtin"],
)
def test_other_callables_count(callee: Callable[..., int]) -> None:
    """Bound methods, objects, partials and builtins count as functions do."""
    with RecordingSink() as sink:
        assert tracked(callee)(2) == 6
    assert sink.done == 1


def test_cached_method_binds() -> None:
    """Other decorators may stand below: a cached method binds, counts and keeps its cache."""
    thing = type("Cached", (), {"method": tracked(functools.lru_cache(lambda self, x: x * 3))})()
    with RecordingSink() as sink:
        assert [thing.method(2), thing.method(2)] == [6, 6]
    assert sink.done == 2
    assert thing.method.cache_info().hits == 1


def test_context_manager_works_in_either_order() -> None:
    """``contextmanager`` may stand above or below."""

    def block() -> Iterator[int]:
        yield 5

    with (
        RecordingSink() as sink,
        contextmanager(tracked(block))() as a,
        tracked(contextmanager(block))() as b,
    ):
        assert a == b == 5
    assert sink.done == 2


def test_generator_counts_its_yields() -> None:
    """A generator counts one item a yield, and what its body reports adds nothing to that."""
    numbers = tracked(lambda n: (yield from track(range(n))))
    with RecordingSink() as sink:
        for turn, number in enumerate(numbers(4)):
            assert (number, sink.done) == (turn, turn + 1)
    assert sink.done == 4


def test_generator_passes_send_throw_and_return() -> None:
    """What is sent and thrown in reaches the body, and its return value comes out."""

    @tracked
    def talk() -> Any:
        got = yield "start"
        try:
            got = yield got
        except Boom as error:
            got = yield error
        return got

    boom = Boom()
    with RecordingSink() as sink:
        talking = talk()
        assert next(talking) == "start"
        assert talking.send("a") == "a"
        assert talking.throw(boom) is boom
        with pytest.raises(StopIteration) as end:
            talking.send("bye")
        assert (end.value.value, sink.done) == ("bye", 3)
        talking = talk()
        next(talking)
        with pytest.raises(KeyError):  # the body does not handle it
            talking.throw(KeyError())
    assert sink.done == 4


@pytest.mark.parametrize("around", [RecordingSink, nullcontext], ids=["inside", "outside"])
def test_generator_that_is_closed_runs_its_cleanup(around: Any) -> None:
    """Closing ends the body at its yield, and counts what was yielded."""
    cleaned = []

    @tracked
    def numbers() -> Iterator[int]:
        try:
            yield from (1, 2)
        finally:
            cleaned.append(True)

    with around() as sink:
        going = numbers()
        next(going)
        going.close()
        assert (cleaned, list(going)) == ([True], [])
    assert sink is None or sink.done == 1


def test_cleanup_of_a_generator_counts_for_it_and_may_fail() -> None:
    """What the body does when it is closed counts for it, and its error reaches the caller."""

    @tracked(total=9, desc="Inner")
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            report_progress(4)
            raise Boom

    with RecordingSink() as sink:
        going = numbers()
        next(going)
        with pytest.raises(Boom):
            going.close()
    assert (sink.done, sink.stages) == (0, {"Inner": 4})


def test_generator_does_not_leak_its_context() -> None:
    """Between two yields the consumer counts for itself, and in the body the generator does."""

    @tracked(total=6, desc="Inner")
    def numbers() -> Iterator[int]:
        for number in range(2):
            report_progress(3)
            yield number

    with RecordingSink() as sink:
        for turn, _ in enumerate(numbers(), 1):
            report_progress(10)
            assert sink.stages == {"Inner": 3 * turn}
        assert sink.done == 20
    assert sink.stages == {"Inner": 6}


def test_gathered_coroutines_are_apart() -> None:
    """Interleaved coroutines count each toward its own total."""

    @tracked(total="n")
    async def steps(n: list[int]) -> None:
        for amount in (*n, 100):
            report_progress(amount)
            await asyncio.sleep(0)

    async def main() -> None:
        made = [steps([1] * n) for n in (3, 4, 5)]
        assert sink.done == 0  # none has started
        await asyncio.gather(*made)

    with RecordingSink() as sink:
        asyncio.run(main())
    assert sink.done == 12


def test_cancelled_coroutine_counts_what_it_reported() -> None:
    """A cancelled call keeps what it had reported."""

    @tracked(total=10)
    async def stuck() -> None:
        report_progress(4)
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(stuck())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with RecordingSink() as sink:
        asyncio.run(main())
    assert sink.done == 4


def test_async_generator_counts_its_yields() -> None:
    """An async generator counts one item a yield, and the consumer counts for itself in between."""

    @tracked(desc="Inner")
    async def numbers(n: int) -> AsyncIterator[int]:
        for number in range(n):
            report_progress(5)
            yield number
            await asyncio.sleep(0)

    async def main() -> list[int]:
        seen = []
        async for number in numbers(3):
            seen.append(number)
            report_progress(1)
        return seen

    with RecordingSink() as sink:
        assert asyncio.run(main()) == [0, 1, 2]
    assert (sink.done, sink.stages) == (3, {"Inner": 15})


def test_async_generator_passes_asend_athrow_and_aclose() -> None:
    """What is sent and thrown in reaches the body, and closing runs its cleanup."""
    cleaned = []

    @tracked
    async def talk() -> Any:
        try:
            got = yield "start"
            try:
                got = yield got
            except Boom as error:
                got = yield error
            yield got
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def main() -> None:
        boom, talking = Boom(), talk()
        assert await talking.__anext__() == "start"
        assert await talking.asend("a") == "a"
        assert await talking.athrow(boom) is boom
        await talking.aclose()
        assert cleaned == [True]
        with pytest.raises(StopAsyncIteration):
            await talking.__anext__()

    with RecordingSink() as sink:
        asyncio.run(main())
    assert sink.done == 3


def test_kinds_of_methods_stay_what_they_are() -> None:
    """Generators and coroutines that are methods, or callable objects, count as such."""

    class Source:
        @tracked
        def rows(self) -> Iterator[int]:
            yield from (1, 2)

        @tracked
        @classmethod
        async def value(cls) -> int:
            return 3

        def __call__(self) -> Iterator[int]:
            yield from (1, 2, 3)

    source = Source()
    with RecordingSink() as sink:
        assert (list(source.rows()), sink.done) == ([1, 2], 2)
        assert (asyncio.run(Source.value()), sink.done) == (3, 3)
        assert (list(tracked(source)()), sink.done) == ([1, 2, 3], 6)
    assert inspect.isgeneratorfunction(source.rows)
    assert inspect.iscoroutinefunction(Source.value)


def test_function_stays_what_it_was() -> None:
    """Name, doc, signature, module and annotations stay."""
    counted = tracked(work)
    assert inspect.signature(counted) == inspect.signature(work)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(counted, name) == getattr(work, name)
    assert inspect.isfunction(counted)
    assert counted.__wrapped__ is work


def test_kinds_of_functions_stay() -> None:
    """Coroutine, generator and async generator functions are still recognised as such."""

    async def coroutine() -> None: ...

    def generator() -> Any:
        yield

    async def async_generator() -> Any:
        yield

    checks = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for function in (work, coroutine, generator, async_generator, functools.partial(generator)):
        assert [check(tracked(function)) for check in checks] == [check(function) for check in checks]


@pytest.mark.parametrize("thing", [5, "rows", property(work)])
def test_only_callables_are_tracked(thing: Any) -> None:
    """Decorating what can't be called is an error that shows it."""
    with pytest.raises(TypeError, match=r"@tracked needs a function or method, not .*options go by name"):
        tracked(thing)


def test_wrong_arguments_are_the_functions_own_error() -> None:
    """A call with missing arguments fails as it would undecorated."""
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        tracked(work)()
