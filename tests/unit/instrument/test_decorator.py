"""``@tracked`` counts calls of anything that can be called, and leaves it as it was otherwise."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import multiprocessing
import os
import pickle
import sys
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dill
import pytest
from tqdm import tqdm

from speedy_utils import report_progress, track, tracked
from speedy_utils._instrument.decorator import declared_total
from speedy_utils.testing import RecordingDisplay, RecordingSink


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


@tracked(total="rows")
def sums(rows: list[int], offset: int = 0) -> int:
    """Add up."""
    return sum(track(rows)) + offset


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> RecordingDisplay:
    """What a run that draws shows, in place of a terminal."""
    display = RecordingDisplay()
    monkeypatch.setattr(
        "speedy_utils._run.run.choose_display", lambda progress, leave: display if progress else None
    )
    return display


# kinds of functions


def test_function_counts_one_a_call() -> None:
    """A call without a total counts one item once it returns."""
    counted = tracked(work)
    with RecordingSink() as sink:
        assert counted(2) == 4
        assert counted(x=2, y=5) == 10
        assert sink.done == 2


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


@pytest.mark.parametrize("name", ["class_inside", "class_outside"])
def test_class_methods_get_the_subclass(name: str) -> None:
    """A class method of a subclass gets the subclass."""
    child = type("Child", (Methods,), {"factor": 10})
    assert getattr(child, name)(2) == 20
    assert getattr(child(), name)(2) == 20


def test_property_counts() -> None:
    """A property over a tracked getter counts one item a reading."""
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


def test_recursion_counts_the_outermost_call() -> None:
    """An inner call counts toward the one it is part of, and that counts one."""

    @tracked
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    with RecordingSink() as sink:
        assert factorial(5) == 120
        assert factorial(1) == 1
    assert sink.done == 2


def test_nested_calls_count_toward_the_outer_total() -> None:
    """Calls within a call with a total are its progress."""
    inner = tracked(work)
    seen = []

    with RecordingSink() as sink:

        @tracked(total=4)
        def outer() -> None:
            for _ in range(3):
                inner(1)
                seen.append(sink.done)

        outer()
    assert seen == [1, 2, 3]
    assert sink.done == 4


# generators


def test_generator_counts_its_yields() -> None:
    """A generator counts one item a yield, and what its body reports adds nothing to that."""

    @tracked
    def numbers(n: int) -> Iterator[int]:
        yield from track(range(n))

    with RecordingSink() as sink:
        for turn, number in enumerate(numbers(4)):
            assert number == turn
            assert sink.done == turn + 1
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
    assert end.value.value == "bye"
    assert sink.done == 3


def test_generator_is_delegated_to() -> None:
    """``yield from`` sees the return value."""

    @tracked
    def inner() -> Any:
        yield 1
        return 7

    def outer() -> Any:
        yield (yield from inner())

    assert list(outer()) == [1, 7]


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_generator_that_is_closed_runs_its_cleanup(inside: bool) -> None:
    """Closing ends the body at its yield, counts what was yielded, and gives the context back."""
    cleaned = []

    @tracked
    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(True)

    sink = RecordingSink()
    if inside:
        sink.__enter__()
    going = numbers()
    next(going)
    going.close()
    assert cleaned == [True]
    assert list(going) == []
    if inside:
        sink.__exit__(None, None, None)
        assert sink.done == 1


def test_cleanup_of_a_generator_counts_for_it_and_may_fail() -> None:
    """What the body does when it is closed counts for it, and its error reaches who closes."""

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


def test_generator_that_fails_lets_its_error_pass() -> None:
    """An exception in the body, or one thrown in, passes and leaves what was yielded."""

    @tracked(total=10)
    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise Boom

    with RecordingSink() as sink:
        with pytest.raises(Boom):
            list(numbers())
        assert sink.done == 2
        going = numbers()
        next(going)
        with pytest.raises(KeyError):
            going.throw(KeyError())
        assert sink.done == 3


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

    @tracked(total=3, desc="A")
    def first() -> Iterator[None]:
        report_progress(1)
        yield
        report_progress(1)
        yield

    @tracked(total=30, desc="B")
    def second() -> Iterator[None]:
        report_progress(10)
        yield
        report_progress(10)
        yield

    with RecordingSink() as sink:
        for turn, _ in enumerate(zip(first(), second(), strict=False), 1):
            assert sink.stages == {"A": turn, "B": 10 * turn}


# coroutines


def test_coroutine_counts_once_it_returns() -> None:
    """A coroutine counts when it has returned, not when it is made."""

    @tracked
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x * 2

    async def main() -> None:
        coroutine = later(2)
        assert sink.done == 0
        assert await coroutine == 4

    with RecordingSink() as sink:
        asyncio.run(main())
        assert sink.done == 1


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
        await asyncio.gather(steps([0] * 3), steps([0] * 4), steps([0] * 5))

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


# totals


@pytest.mark.parametrize("reported", [0, 3, 10, 25])
def test_call_that_returns_counts_its_total(reported: int) -> None:
    """A call that returned counts for exactly its total, whatever its body reported."""

    @tracked(total=10)
    def call() -> None:
        report_progress(reported)
        assert sink.done == min(reported, 10)

    with RecordingSink() as sink:
        call()
        assert sink.done == 10


@pytest.mark.parametrize(("reported", "counted"), [(0, 0), (3, 3), (25, 10)])
def test_call_that_fails_counts_what_it_reported(reported: int, counted: int) -> None:
    """A call that raised counts for what it had reported, within its total, and the error passes."""

    @tracked(total=10)
    def call() -> None:
        report_progress(reported)
        raise Boom

    with RecordingSink() as sink, pytest.raises(Boom):
        call()
    assert sink.done == counted


def test_call_without_total_that_fails_counts_nothing() -> None:
    """A plain tracked call that raised is no item."""
    with RecordingSink() as sink, pytest.raises(TypeError):
        tracked(work)("x", "y")
    assert sink.done == 0


@pytest.mark.parametrize(
    ("total", "args", "kwargs", "counted"),
    [
        (7, ([1, 2],), {}, 7),
        (0, ([1, 2],), {}, 0),
        ("rows", ([1, 2],), {}, 2),
        ("rows", (), {"rows": "abc"}, 3),
        ("more", ([1, 2],), {}, 4),
        ("more", ([1, 2], "x"), {}, 1),
        ("rest", ([1, 2],), {"a": 1, "b": 2}, 2),
        (lambda rows, more="", **rest: len(rows) * 10, ([1, 2],), {"a": 1}, 20),
    ],
)
def test_total_comes_from_the_arguments(
    total: Any, args: tuple[Any, ...], kwargs: dict[str, Any], counted: int
) -> None:
    """A total is a number, the length of a parameter, defaults included, or a function of the arguments."""

    @tracked(total=total)
    def call(rows: Any, more: str = "abcd", **rest: int) -> None:
        pass

    with RecordingSink() as sink:
        call(*args, **kwargs)
    assert sink.done == counted
    assert declared_total(call, args, kwargs) == counted


def test_total_of_a_method_sees_self() -> None:
    """A total that is a function gets the same arguments as the call, ``self`` included."""

    class Reader:
        size = 4

        @tracked(total=lambda self, times: self.size * times)
        def read(self, times: int) -> None:
            pass

        @tracked(total="rows")
        @classmethod
        def all(cls, rows: list[int]) -> None:
            pass

        @tracked(total="rows")
        @staticmethod
        def none(rows: list[int]) -> None:
            pass

    with RecordingSink() as sink:
        Reader().read(2)
        assert sink.done == 8
        Reader.all([1, 2])
        Reader().none([1])
        assert sink.done == 11


@pytest.mark.parametrize(
    "function",
    [
        sums,
        functools.partial(sums, offset=3),
        functools.partial(functools.partial(sums), offset=3),
        tracked(total="rows")(functools.partial(lambda offset, rows: 0, 1)),
        tracked(total=len)(sorted),
        tracked(total=lambda self, rows: len(rows))(types.SimpleNamespace(f=Methods()).f.plain),
        tracked(total=lambda rows: len(rows))(Methods()),
        types.MethodType(tracked(total="rows")(lambda self, rows: 0), object()),
        type("K", (), {"f": tracked(total="rows")(classmethod(lambda cls, rows: 0))}).f,
        type("K", (), {"f": tracked(total="rows")(staticmethod(lambda rows: 0))})().f,
        type("K", (), {"f": tracked(total="rows")(functools.lru_cache(lambda self, rows: 0))})().f,
    ],
    ids=lambda function: type(function).__name__,
)
def test_the_driver_can_ask_for_the_total(function: Any) -> None:
    """The total of a call is known before it, whatever wraps the tracked function, and the call agrees."""
    rows = (1, 2, 3)
    assert declared_total(function, (rows,), {}) == 3
    with RecordingSink() as sink:
        function(rows)
    assert sink.done == 3


@pytest.mark.parametrize(
    "function", [work, tracked(work), tracked(Methods()), functools.partial(work, 1), len]
)
def test_without_total_the_driver_is_told_none(function: Any) -> None:
    """Functions that are not tracked, or have no total, name none."""
    assert declared_total(function, ([1],), {}) is None


def test_total_adds_up_in_its_stage() -> None:
    """Calls in a stage declare their totals there, and count there only."""

    @tracked(total="rows", desc="Pack")
    def pack(rows: str) -> None:
        report_progress(1)

    with RecordingSink() as sink:
        pack("abc")
        pack("de")
    assert (sink.done, sink.stages, sink.totals) == (0, {"Pack": 5}, {"Pack": 5})


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"total": "lines"}, ValueError, r"total='lines' is no parameter of work\(x, y\)"),
        ({"total": -1}, ValueError, "total must be at least 0, not -1"),
        ({"total": 1.5}, TypeError, "total must be an integer, not 1.5"),
        ({"total": True}, TypeError, "total must be an integer, not True"),
        ({"every": 0}, ValueError, "every must be at least 1, not 0"),
        ({"desc": 5}, TypeError, "desc must be a string, not 5"),
    ],
)
def test_bad_options_are_errors_at_decoration(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    """What is wrong is said where the function is defined, for methods of a class too."""
    for function in (work, staticmethod(work), classmethod(work)):
        with pytest.raises(error, match=says):
            tracked(**options)(function)


@pytest.mark.parametrize("thing", [5, "rows", property(work)])
def test_only_callables_are_tracked(thing: Any) -> None:
    """Decorating what can't be called is an error that shows it."""
    with pytest.raises(TypeError, match=r"@tracked needs a function or method, not .*options go by name"):
        tracked(thing)


@pytest.mark.parametrize(
    ("total", "argument", "error", "says"),
    [
        ("x", 5, TypeError, r"total='x' of .*: int has no length"),
        (lambda x: -1, 5, ValueError, "the total of .* must be at least 0, not -1"),
        (lambda x: 1.5, 5, TypeError, "the total of .* must be an integer, not 1.5"),
        (lambda x: x / 0, 5, ZeroDivisionError, "division"),
    ],
)
def test_bad_total_of_a_call_is_an_error_before_it_starts(
    total: Any, argument: Any, error: type[Exception], says: str
) -> None:
    """A total that is no count is an error that names the function, before the body runs."""
    called = []
    counted = tracked(total=total)(lambda x: called.append(x))
    with RecordingSink() as sink, pytest.raises(error, match=says):
        counted(argument)
    assert (called, sink.done) == ([], 0)


def test_wrong_arguments_are_the_functions_own_error() -> None:
    """A call with missing arguments fails as it would undecorated."""
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        tracked(work)()


# what stays


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
    """Coroutine, generator and async generator functions are still seen as such."""

    async def coroutine() -> None: ...

    def generator() -> Any:
        yield

    async def async_generator() -> Any:
        yield

    checks = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for function in (work, coroutine, generator, async_generator):
        assert [check(tracked(function)) for check in checks] == [check(function) for check in checks]


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with tracked things, which pickle finds by name."""
    module: Any = types.ModuleType("tracked_things")
    monkeypatch.setitem(sys.modules, "tracked_things", module)
    code = """
import functools
from speedy_utils import report_progress, tracked

@tracked
def function(x): return x * 3

@tracked(total=4)
@functools.lru_cache
def cached(x): return x * 3

class Methods:
    @tracked
    def instance(self, x): return x * 3
    @tracked
    @classmethod
    def class_inside(cls, x): return x * 3
    @classmethod
    @tracked
    def class_outside(cls, x): return x * 3
    @tracked
    @staticmethod
    def static_inside(x): return x * 3
    @tracked
    @functools.lru_cache
    def cached(self, x): return x * 3
    def plain(self, x): return x * 3
    def __call__(self, x): return x * 3

bound = tracked(Methods().plain)
thing = tracked(Methods())
partial = tracked(functools.partial(function))
"""
    exec(code, module.__dict__)
    return module


PICKLED = [
    "function",
    "cached",
    "Methods().instance",
    "Methods.class_inside",
    "Methods.class_outside",
    "Methods.static_inside",
    "Methods().cached",
    "bound",
    "thing",
    "partial",
]


@pytest.mark.parametrize("what", PICKLED)
def test_pickled_by_reference(importable: Any, what: str) -> None:
    """Whatever is tracked goes through pickle and counts on the other side as it did here."""
    original = eval(what, importable.__dict__)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(original, protocol))
        with RecordingSink() as here:
            assert original(2) == 6
        with RecordingSink() as there:
            assert copy(2) == 6
        assert there.done == here.done > 0
        assert declared_total(copy, (2,), {}) == declared_total(original, (2,), {})


@pytest.mark.parametrize("what", [what for what in PICKLED if "cached" not in what])
def test_pickled_by_value(importable: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no worker can import, as in ``__main__``, travels with its code and counts there."""
    original = eval(what, importable.__dict__)
    monkeypatch.delitem(sys.modules, "tracked_things")
    copy = dill.loads(dill.dumps(original, byref=False, recurse=True))
    with RecordingSink() as sink:
        assert copy(2) == 6
    assert sink.done == 1


def test_closure_pickles_by_value() -> None:
    """A tracked closure with a total travels with what it closes over."""
    factor = 3

    @tracked(total=lambda rows: len(rows) * factor)
    def scaled(rows: list[int]) -> list[int]:
        return [row * factor for row in track(rows)]

    copy = dill.loads(dill.dumps(scaled, byref=False, recurse=True))
    with RecordingSink() as sink:
        assert copy([1, 2]) == [3, 6]
    assert sink.done == 6
    assert declared_total(copy, ([1, 2],), {}) == 6


# stages and counters in a call


def test_reports_to_a_calls_own_stage_count_toward_the_call() -> None:
    """Naming the stage that a call is for already changes nothing: the call counts for its total once."""

    @tracked(total=10, desc="Pack")
    def call() -> None:
        report_progress(4, desc="Pack")
        assert sink.stages == {"Pack": 4}
        report_progress(3)
        assert sink.stages == {"Pack": 7}
        report_progress(2, desc="Read")

    with RecordingSink() as sink:
        call()
    assert sink.stages == {"Pack": 10, "Read": 2}
    assert (sink.done, sink.totals) == (0, {"Pack": 10})


@pytest.mark.parametrize("desc", ["Pack", None])
def test_loops_in_a_calls_own_stage_count_toward_the_call(desc: str | None) -> None:
    """A loop that names its call's stage, or none, moves the call, and its length is told once."""

    @tracked(total="rows", desc="Pack")
    def call(rows: str) -> None:
        for turn, _ in enumerate(track(rows, desc=desc)):
            assert sink.stages == {"Pack": turn}

    with RecordingSink() as sink:
        call("abcd")
    assert (sink.stages, sink.totals, sink.done) == ({"Pack": 4}, {"Pack": 4}, 0)


def test_calls_nested_in_their_own_stage_count_once() -> None:
    """A tracked call inside another of the same stage is a part of it."""
    inner = tracked(total=2, desc="Pack")(lambda: None)
    outer = tracked(total=4, desc="Pack")(lambda: [inner(), inner()])
    with RecordingSink() as sink:
        outer()
    assert (sink.stages, sink.totals) == ({"Pack": 4}, {"Pack": 4})


def test_counters_in_a_call_belong_to_its_stage() -> None:
    """What a call counts beside its items goes to its stage, also where the call fails."""

    @tracked(total=3, desc="Pack")
    def call(fails: bool) -> None:
        report_progress(1, tokens=5)
        report_progress(0, desc="Pack", tokens=2)
        report_progress(0, desc="Read", tokens=0.5)
        if fails:
            raise Boom

    with RecordingSink() as sink:
        call(False)
        with pytest.raises(Boom):
            call(True)
        report_progress(0, tokens=100)
        tracked(total=2)(lambda: report_progress(0, tokens=1))()
    assert sink.counters == {None: {"tokens": 101}, "Pack": {"tokens": 14}, "Read": {"tokens": 1.0}}


def test_counters_of_a_run_of_its_own_are_shown(display: RecordingDisplay) -> None:
    """A call that is a run shows its counters at the end."""
    tracked(total=3)(lambda: report_progress(1, tokens=5))()
    assert display.last.run_line.counters == {"tokens": 5}


# runs of their own


def test_outermost_call_is_a_run(display: RecordingDisplay) -> None:
    """Outside any run, a call with a total has a bar, which ends at exactly that total."""

    @tracked(total="rows")
    def call(rows: str) -> str:
        for _ in track(rows[1:]):
            pass
        return rows

    assert call("abcd") == "abcd"
    assert display.closed
    assert display.snapshots[0].done == 0
    last = display.last
    assert (last.desc, last.done, last.total) == ("Processing 4 items", 4, 4)
    assert (last.final, last.tasks_done, last.tasks_failed) == (True, 1, 0)


def test_run_is_called_what_desc_says(display: RecordingDisplay) -> None:
    """The bar of a run is named by ``desc``, and its items are the run's own."""
    tracked(total=3, desc="Packing")(lambda: report_progress(1))()
    assert [(line.name, line.done, line.total) for line in display.last.lines] == [("Packing", 3, 3)]


def test_run_shows_its_stages(display: RecordingDisplay) -> None:
    """Named stages in a run have lines of their own."""

    @tracked(total=3)
    def call() -> None:
        for _ in track("abcde", desc="Read"):
            pass

    call()
    lines = [(line.name, line.done, line.total) for line in display.last.lines]
    assert lines == [("Processing 3 items", 3, 3), ("Read", 5, 5)]


def test_run_counts_threads_of_its_own(display: RecordingDisplay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that the call starts counts for its run; the poller sees it live."""
    shown = threading.Event()
    monkeypatch.setattr(display, "show", lambda snapshot: shown.set() if snapshot.done == 2 else None)

    @tracked(total=5)
    def call() -> bool:
        thread = threading.Thread(target=lambda: report_progress(2))
        thread.start()
        thread.join()
        return shown.wait(30)

    assert call()


def test_exception_leaves_the_bar_short(display: RecordingDisplay) -> None:
    """A run whose call raised ends where it was, marked failed, and the error passes."""

    @tracked(total=10)
    def call() -> None:
        report_progress(4)
        raise Boom

    with pytest.raises(Boom):
        call()
    assert (display.last.done, display.last.total, display.last.tasks_failed) == (4, 10, 1)
    assert display.closed


def test_nested_calls_draw_one_bar(display: RecordingDisplay) -> None:
    """A tracked call within a run is part of it and draws nothing."""
    inner = tracked(total=2)(lambda: None)
    tracked(total=4)(lambda: [inner(), inner()])()
    assert {snapshot.desc for snapshot in display.snapshots} == {"Processing 4 items"}
    assert display.last.done == 4


def test_generator_is_a_run_while_it_is_iterated(display: RecordingDisplay) -> None:
    """A generator with a total has a bar until it ends, and its consumer's own counts are not its."""

    @tracked(total=3)
    def numbers() -> Iterator[int]:
        yield from range(3)

    for _ in track(numbers()):
        report_progress(50)
        for _ in track("abc"):
            pass
    assert (display.last.done, display.last.total, display.last.tasks_failed) == (3, 3, 0)


def test_generator_that_is_given_up_leaves_the_bar_short(display: RecordingDisplay) -> None:
    """A consumer that has seen enough is no failure: the bar ends short, and is closed."""

    @tracked(total=3)
    def numbers() -> Iterator[int]:
        yield from range(3)

    for number in numbers():
        if number == 1:
            break
    assert display.closed
    assert (display.last.done, display.last.total, display.last.tasks_failed) == (2, 3, 0)


def test_coroutine_is_a_run(display: RecordingDisplay) -> None:
    """A coroutine with a total has a bar."""

    @tracked(total=3)
    async def call() -> None:
        await asyncio.to_thread(report_progress, 2)

    asyncio.run(call())
    assert display.last.done == 3


def test_bars_of_tqdm_count_for_a_run_of_its_own(
    display: RecordingDisplay, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a call that is a run tqdm's bars join as in a task: they feed its lines, and draw nothing."""

    @tracked(total="rows")
    def call(rows: str) -> None:
        for _ in tqdm(rows):
            pass
        for _ in tqdm("abcde", desc="Read"):
            pass

    call("abc")
    lines = [(line.name, line.done, line.total) for line in display.last.lines]
    assert lines == [("Processing 3 items", 3, 3), ("Read", 5, 5)]
    assert capfd.readouterr() == ("", "")
    list(tqdm("ab", desc="After"))
    assert "After: 100%" in capfd.readouterr().err


def test_bars_of_a_generators_consumer_are_left_alone(
    display: RecordingDisplay, capfd: pytest.CaptureFixture[str]
) -> None:
    """While a generator is a run its own bars join, and those of whoever iterates over it draw as ever."""

    @tracked(total=2)
    def numbers() -> Iterator[int]:
        yield from tqdm(range(2), desc="Inside")

    for number in numbers():
        list(tqdm("ab", desc=f"Outside {number}"))
    assert [(line.name, line.done) for line in display.last.lines][-1] == ("Inside", 2)
    drawn = capfd.readouterr().err
    assert "Outside 0: 100%" in drawn
    assert "Outside 1: 100%" in drawn
    assert "Inside" not in drawn


def test_bars_draw_after_a_run_that_ends_elsewhere(
    display: RecordingDisplay, capfd: pytest.CaptureFixture[str]
) -> None:
    """After a generator is closed in another context than the one it began in, bars draw as ever."""

    @tracked(total=3)
    def numbers() -> Iterator[int]:
        yield from tqdm(range(3), desc="Inside")

    running = numbers()
    contextvars.copy_context().run(next, running)
    running.close()
    list(tqdm("ab", desc="Outside"))
    assert "Inside" not in (drawn := capfd.readouterr().err)
    assert "Outside: 100%" in drawn


def test_over_report_of_a_run_is_told_once(
    display: RecordingDisplay, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that reports more than its total is clamped, with one warning that names it and the cure."""

    @tracked(total=3)
    def greedy() -> None:
        report_progress(5)

    greedy()
    assert display.last.done == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "greedy reported 5 of 3 items" in record.message
    assert "desc=" in record.message


def test_no_run_without_total(display: RecordingDisplay) -> None:
    """A call without a total never has a bar."""
    tracked(work)(2)
    list(tracked(lambda: iter([1]))())
    assert display.snapshots == []


def test_no_run_in_a_task(display: RecordingDisplay) -> None:
    """Inside a task, and in its threads, a call with a total only counts."""
    call = tracked(total=3)(lambda: None)
    with RecordingSink() as sink:
        call()
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert display.snapshots == []
    assert sink.done == 6


def test_forked_child_draws_nothing(display: RecordingDisplay, tmp_path: Path) -> None:
    """In a forked child a call with a total works and draws nothing."""
    answer = tmp_path / "answer"
    call = tracked(total=3)(lambda: 6)

    def child() -> None:
        answer.write_text(f"{call()} {len(display.snapshots)}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn where threads are running
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    process.join(30)
    assert answer.read_text() == "6 0"


def test_spawned_child_draws_nothing(tmp_path: Path) -> None:
    """In a process of a pool a call with a total works and writes nothing to stderr."""
    answer = tmp_path / "answer"
    code = f"""
import io, sys
from pathlib import Path
from speedy_utils import tracked
sys.stderr = io.StringIO()
result = tracked(total=3)(lambda: 6)()
Path({os.fspath(answer)!r}).write_text(str(result) + sys.stderr.getvalue())
"""
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(code,))
    process.start()
    process.join(30)
    assert answer.read_text() == "6"
