"""``@tracked`` makes a counted function of the same kind, with the same name, signature and behaviour."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from speedy_utils import report_progress, track, tracked
from speedy_utils.testing import RecordingSink


class Boom(Exception):
    """What goes wrong in these tests."""


def work(x: int, y: int = 2) -> int:
    """Multiply."""
    return x * y


class Methods:
    """Every kind of method, in every order of decorators."""

    factor = 3

    @tracked
    def instance(self, x: int) -> int:
        """Multiply."""
        return x * self.factor

    @tracked
    @classmethod
    def class_inside(cls, x: int) -> int:
        """Multiply."""
        return x * cls.factor

    @classmethod
    @tracked
    def class_outside(cls, x: int) -> int:
        """Multiply."""
        return x * cls.factor

    @tracked
    @staticmethod
    def static_inside(x: int) -> int:
        """Multiply."""
        return x * 3

    @staticmethod
    @tracked
    def static_outside(x: int) -> int:
        """Multiply."""
        return x * 3

    @property
    @tracked
    def prop(self) -> int:
        """Multiply."""
        return 6

    def plain(self, x: int) -> int:
        """Multiply."""
        return x * self.factor

    def __call__(self, x: int) -> int:
        """Multiply."""
        return x * self.factor


METHODS = ["instance", "class_inside", "class_outside", "static_inside", "static_outside"]


@pytest.mark.parametrize("name", METHODS)
def test_methods_bind_and_count(name: str) -> None:
    """Methods of every kind bind as they would undecorated, in either order of decorators."""
    with RecordingSink() as sink:
        assert getattr(Methods(), name)(2) == 6
        if name != "instance":
            assert getattr(Methods, name)(2) == 6
        else:
            assert Methods.instance(Methods(), 2) == 6
    assert sink.done == 2


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

    class Cached:
        @tracked
        @functools.lru_cache  # noqa: B019 - the object lives as long as the test
        def method(self, x: int) -> int:
            return x * 3

    thing = Cached()
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

    @tracked
    def numbers(n: int) -> Iterator[int]:
        yield from track(range(n))

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


@pytest.mark.parametrize("around", [RecordingSink(), nullcontext()], ids=["inside", "outside"])
def test_generator_that_is_closed_runs_its_cleanup(around: Any) -> None:
    """Closing ends the body at its yield, counts what was yielded, and restores the context."""
    cleaned = []

    @tracked
    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(True)

    with around as sink:
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


def test_interleaved_generators_are_apart() -> None:
    """Two generators that take turns count each for its own."""

    def steps(amount: int) -> Iterator[None]:
        for _ in range(2):
            report_progress(amount)
            yield

    first, second = tracked(total=3, desc="A")(steps), tracked(total=30, desc="B")(steps)
    with RecordingSink() as sink:
        for turn, _ in enumerate(zip(first(1), second(10), strict=False), 1):
            assert sink.stages == {"A": turn, "B": 10 * turn}


def test_gathered_coroutines_are_apart() -> None:
    """Interleaved coroutines count each toward its own total."""

    @tracked(total="n")
    async def steps(n: list[int]) -> None:
        for _ in n:
            report_progress(1)
            await asyncio.sleep(0)
        report_progress(100)
        await asyncio.sleep(0)

    async def main() -> None:
        made = [steps([0] * n) for n in (3, 4, 5)]
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
    assert sink.done == 3
    assert sink.stages == {"Inner": 15}


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
        assert list(source.rows()) == [1, 2]
        assert sink.done == 2
        assert asyncio.run(Source.value()) == 3
        assert sink.done == 3
        assert list(tracked(source)()) == [1, 2, 3]
        assert sink.done == 6
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


@pytest.mark.parametrize("name", METHODS)
def test_methods_stay_what_they_were(name: str) -> None:
    """Methods keep their name, doc and signature, bound and unbound."""
    method = getattr(Methods(), name)
    assert (method.__name__, method.__doc__) == (name, "Multiply.")
    assert str(inspect.signature(method)).startswith("(x: ")


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
