"""What runs only once it is awaited or iterated: coroutines, awaitables and generators, on each backend."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from support.backends import AT_ONCE
from support.recorder import Recorder
from tqdm import tqdm

from speedy_utils import TaskError, multi_process, multi_process_dataset, report_progress, track, tracked


def ten(item: Any) -> int:
    """Any item stands for ten."""
    return 10


async def double(i: int) -> int:
    """Double a number, at some length."""
    for _ in track(range(5)):
        await asyncio.sleep(0)
    await asyncio.gather(child(), asyncio.to_thread(report_progress, 2), asyncio.create_task(child()))
    return 2 * i


async def child() -> None:
    """Report one item, in an asyncio task of its own."""
    await asyncio.sleep(0)
    report_progress(1)


class Doubler:
    """Doubles by a call and by a method."""

    async def __call__(self, i: int) -> int:
        """Double."""
        return await double(i)

    async def method(self, i: int) -> int:
        """Double."""
        return await double(i)


class Later:
    """Can be awaited, and is no coroutine."""

    def __init__(self, i: int) -> None:
        self.i = i

    def __await__(self) -> Iterator[Any]:
        """Return what waits for the double."""
        return double(self.i).__await__()


def plain(i: int) -> Any:
    """Return a coroutine."""
    return double(i)


@tracked(total=9)
async def counted(i: int) -> int:
    """Double, as a call that counts."""
    return await double(i)


@pytest.mark.parametrize(
    "function",
    [
        double,
        plain,
        lambda i: double(i),
        functools.partial(double),
        functools.wraps(double)(lambda i: double(i)),
        Doubler(),
        Doubler().method,
        Later,
        counted,
    ],
    ids=["function", "plain", "lambda", "partial", "wrapped", "object", "method", "awaitable", "tracked"],
)
def test_what_is_awaited_is_counted(backend: str, recorder: Recorder, function: Any) -> None:
    """Whatever returns an awaitable is awaited: results come in order, with the counts of its own task."""
    results = multi_process(function, range(6), backend=backend, total_items=ten, progress=recorder)
    assert results == [0, 2, 4, 6, 8, 10]
    assert (recorder.last.done, recorder.last.total, recorder.last.tasks_done) == (60, 60, 6)


def test_what_a_coroutine_reports_is_seen(backend: str, recorder: Recorder) -> None:
    """Reports of a coroutine, its threads, its asyncio tasks and its bars count while it runs."""

    async def task(i: int) -> None:
        await double(i)
        for _ in tqdm(range(7), desc="Files"):
            await asyncio.sleep(0)
        raise ValueError

    multi_process(task, range(3), backend=backend, total_items=ten, on_error="continue", progress=recorder)
    assert (recorder.last.done, recorder.last.total) == (27, 30)  # failed, so only what was reported counts
    (stage,) = recorder.last.stages
    assert (stage.name, stage.done) == ("Files", 21)


def test_coroutines_in_threads_run_in_one_loop_and_at_most_so_many_at_once() -> None:
    """On "threads" num_workers coroutines are in flight as long as there are enough, and share their loop."""
    full: list[asyncio.Event] = []
    running, loops, threads = [0], set(), set()

    async def task(i: int) -> int:
        loops.add(asyncio.get_running_loop())
        threads.add(threading.get_ident())
        if not full:
            full.append(asyncio.Event())
        running[0] += 1
        assert running[0] <= 50
        if running[0] == 50:
            full[0].set()
        await full[0].wait()
        await asyncio.sleep(0)
        running[0] -= 1
        return i

    assert multi_process(task, range(200), backend="threads", num_workers=50) == [*range(200)]
    assert len(loops) == len(threads) == 1
    assert loops.pop().is_closed()


@pytest.mark.parametrize(
    "form", [lambda task: task, lambda task: lambda i: task(i)], ids=["function", "lambda"]
)
def test_32_coroutines_run_at_once_by_default(form: Callable[[Any], Any]) -> None:
    """On "threads" 32 coroutines are in flight if no number is given, also if they come from a lambda."""
    most, running = [0], [0]

    async def task(i: int) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        while most[0] < 32:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        running[0] -= 1

    multi_process(form(task), range(100), backend="threads")
    assert most == [32]


def test_coroutines_in_sequence_share_a_loop() -> None:
    """On "seq" coroutines run one after another in one loop, and may share what belongs to it."""
    shared: list[Any] = []
    order: list[int] = []

    async def task(i: int) -> None:
        if not shared:
            shared.extend([asyncio.get_running_loop(), asyncio.Lock()])
        assert asyncio.get_running_loop() is shared[0]
        async with shared[1]:
            order.append(i)
            await asyncio.sleep(0)
            order.append(i)

    multi_process(task, range(3), backend="seq")
    assert order == [0, 0, 1, 1, 2, 2]
    assert shared[0].is_closed()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ValueError, "ValueError: no"),
        (asyncio.CancelledError, "CancelledError"),  # Python 3.10 drops what it says
        (asyncio.TimeoutError, "TimeoutError: no"),
        (StopIteration, "RuntimeError: coroutine raised StopIteration"),
        (SystemExit, "sys.exit('no') in the function"),
    ],
)
def test_a_coroutine_that_raises_fails_its_task(
    backend: str, recorder: Recorder, kind: type[BaseException], reason: str
) -> None:
    """What a coroutine raises is the error of its task, with its own traceback, and the others go on."""

    async def task(i: int) -> int:
        report_progress(3)
        await asyncio.sleep(0)
        if i == 1:
            raise kind("no")
        return i

    results = multi_process(
        task,
        range(4),
        backend=backend,
        total_items=ten,
        on_error="continue",
        max_retries=0,
        progress=recorder,
    )
    assert [results[i] for i in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(results[1], TaskError)
    assert reason in results[1].reason
    assert "in task" in results[1].traceback
    assert "event_loop.py" not in results[1].traceback
    assert (recorder.last.done, recorder.last.tasks_failed) == (33, 1)


def test_a_coroutine_that_is_cancelled_fails_its_task(backend: str, recorder: Recorder) -> None:
    """A coroutine whose asyncio task is cancelled by the program's own code fails, and the others go on."""

    async def task(i: int) -> int:
        if i == 1:
            own = asyncio.current_task()
            assert own is not None
            own.cancel()
            await asyncio.sleep(60)
        return i

    results = multi_process(task, range(3), backend=backend, on_error="continue", progress=recorder)
    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1].__cause__, asyncio.CancelledError)
    assert recorder.last.tasks_failed == 1


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_a_failure_cancels_the_coroutines_that_run(
    backend: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """The first failure cancels the coroutines in flight, which may clean up."""

    async def task(i: int) -> None:
        if i:
            while not (tmp_path / "started").exists():
                await asyncio.sleep(0.01)
            raise ValueError
        try:
            (tmp_path / "started").touch()
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            (tmp_path / "cancelled").touch()
            raise
        finally:
            await asyncio.sleep(0.01)
            (tmp_path / "ended").touch()

    with pytest.raises(TaskError):
        multi_process(task, range(2), backend=backend, num_workers=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cancelled", "ended", "started"]


def test_what_coroutines_leave_behind_ends_with_the_loop(backend: str, tmp_path: Path) -> None:
    """Tasks and async generators that a coroutine leaves in the loop end with the run at the latest."""

    async def background() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            (tmp_path / "task").touch()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            (tmp_path / "generator").touch()

    kept: list[Any] = []

    async def task(i: int) -> int:
        kept.extend([asyncio.create_task(background()), numbers()])
        await asyncio.sleep(0)
        return int(await kept[-1].__anext__())

    assert multi_process(task, [0], backend=backend) == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["generator", "task"]


@pytest.mark.parametrize("function", [double, plain])
def test_a_program_may_run_a_loop_already(backend: str, function: Any) -> None:
    """A run may start inside a coroutine, as in a notebook."""

    async def program() -> list[int]:
        return multi_process(function, range(3), backend=backend, num_workers=2)

    assert asyncio.run(program()) == [0, 2, 4]


def test_an_async_process_func_is_awaited(backend: str, recorder: Recorder, tmp_path: Path) -> None:
    """A process_func may be a coroutine function: each shard is awaited before it is saved."""

    async def process(shard: Any, output_path: str) -> Any:
        rows = []
        for row in track(shard):
            await asyncio.sleep(0)
            rows.append({"x": 2 * row["x"]})
        return Dataset.from_list(rows)

    rows = Dataset.from_dict({"x": [*range(20)]})
    out = multi_process_dataset(
        rows, process, tmp_path / "out", num_shards=4, num_workers=2, backend=backend, progress=recorder
    )
    assert load_from_disk(out)["x"][:] == [*range(0, 40, 2)]
    assert (recorder.last.done, recorder.last.total) == (20, 20)


def numbers(i: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(i)


async def numbers_later(i: int) -> AsyncIterator[int]:
    """Yield a number."""
    yield i


class Generators:
    """Yields by a call and by a method."""

    def __call__(self, i: int) -> Iterator[int]:
        """Yield numbers."""
        yield i

    async def method(self, i: int) -> AsyncIterator[int]:
        """Yield a number."""
        yield i


LAZY: dict[str, Any] = {
    "function": numbers,
    "async function": numbers_later,
    "object": Generators(),
    "method": Generators().method,
    "partial": functools.partial(numbers),
    "tracked": tracked(total=1)(numbers),
    "tracked async": tracked(numbers_later),
    "tracked object": tracked(Generators()),
    "tracked partial": tracked(functools.partial(numbers)),
}


@pytest.mark.parametrize("name", LAZY)
def test_generator_functions_are_refused(recorder: Recorder, name: str) -> None:
    """A function whose calls would run nothing is refused before anything starts, with what to do."""
    with pytest.raises(TypeError, match=r"func is an? (async )?generator function.* return"):
        multi_process(LAZY[name], range(3), progress=recorder)
    assert not recorder.runs


def test_an_async_generator_is_no_process_func(tmp_path: Path) -> None:
    """An async generator function is refused for datasets too, and nothing is made."""
    with pytest.raises(TypeError, match="process_func is an async generator function"):
        multi_process_dataset(Dataset.from_dict({"x": [1]}), numbers_later, tmp_path / "out")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "function",
    [
        lambda i: numbers(i),
        lambda i: numbers_later(i),
        lambda i: map(abs, [i]),
        functools.wraps(numbers)(lambda i: numbers(i)),
    ],
    ids=["generator", "async generator", "map", "wrapped"],
)
def test_what_has_not_run_is_no_result(backend: str, recorder: Recorder, function: Any) -> None:
    """A task that returns a generator fails, and the bar stays below 100 %."""
    with pytest.raises(TaskError, match="none of that has run: return a list"):
        multi_process(function, [1], backend=backend, total_items=ten, progress=recorder)
    assert (recorder.last.done, recorder.last.tasks_done) == (0, 0)


def test_a_decorator_may_collect_what_a_generator_yields(backend: str) -> None:
    """A function that wraps a generator function, and returns a list, is taken for what it is."""
    collected = functools.wraps(numbers)(lambda i: list(numbers(i)))
    assert multi_process(collected, range(3), backend=backend) == [[], [0], [0, 1]]


context: ContextVar[int] = ContextVar("context", default=0)


def test_coroutines_have_a_context_each() -> None:
    """What a coroutine sets in its context is not seen by those beside it."""

    async def task(i: int) -> int:
        assert context.get() == 0
        context.set(i)
        await asyncio.sleep(0)
        return context.get()

    assert multi_process(task, range(1, 9), backend="threads", num_workers=4) == [*range(1, 9)]
