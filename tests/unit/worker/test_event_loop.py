"""The loop in which a worker's thread awaits what a function returned."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from types import coroutine
from typing import Any

import pytest
from support.threads import in_thread

from speedy_utils._interrupts import Cancelled, raise_in_thread
from speedy_utils._worker import event_loop
from speedy_utils._worker.event_loop import EventLoop, awaited, is_awaited_by_worker, shared_loop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """Return a loop that the tasks of this context share."""
    with EventLoop() as loop:
        token = shared_loop.set(loop)
        yield loop
        shared_loop.reset(token)


async def value(result: Any = 7) -> Any:
    """Return something, later."""
    await asyncio.sleep(0)
    return result


class Later:
    """Can be awaited, and is no coroutine."""

    def __await__(self) -> Generator[Any, Any, Any]:
        """Return what waits for the value."""
        return value().__await__()


@coroutine
def old_style() -> Generator[Any, Any, int]:
    """Return a value, as a generator that is a coroutine."""
    yield
    return 7


@pytest.mark.parametrize("make", [value, Later, old_style, lambda: 7])
def test_awaitables_are_awaited_and_other_values_are_not(make: Callable[[], Any]) -> None:
    """A value is returned as it is, and an awaitable once it has ended, in a loop of its own."""
    assert awaited(make()) == 7
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("event-loop")]


def test_a_reference_of_ray_is_a_value() -> None:
    """An ObjectRef can be awaited, and is returned as it is."""
    kind = type("ObjectRef", (Later,), {"__module__": "ray._raylet"})
    assert type(awaited(kind())) is kind


def test_an_error_comes_with_its_traceback(loop: EventLoop) -> None:
    """What a coroutine raises is raised in the thread that waits for it, as the same object."""
    error = ValueError("no")

    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="no") as caught:
        loop.run(fail())
    assert caught.value is error
    assert caught.traceback[-1].name == "fail"


def test_a_coroutine_runs_in_a_copy_of_the_context(loop: EventLoop) -> None:
    """It sees what its thread has set, and what it sets itself is its own."""
    variable: ContextVar[int] = ContextVar("variable")
    variable.set(1)

    async def change() -> int:
        before = variable.get()
        variable.set(2)
        return before

    assert (loop.run(change()), variable.get()) == (1, 1)


def test_threads_share_a_loop(loop: EventLoop) -> None:
    """Coroutines of several threads run beside each other, and may wait for each other."""
    barrier: list[asyncio.Event] = []

    async def meet(i: int) -> int:
        if not barrier:
            barrier.append(asyncio.Event())
        if i == 3:
            barrier[0].set()
        await barrier[0].wait()
        return i

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda i: loop.run(meet(i)), range(4))] == [0, 1, 2, 3]


def test_a_loop_outlives_what_asyncio_lets_through(loop: EventLoop) -> None:
    """A SystemExit in a coroutine, or in a task that it has started, leaves the loop at work."""

    async def leave() -> None:
        raise SystemExit(3)

    async def start() -> None:
        await asyncio.create_task(leave())

    for function in (leave, start):
        with pytest.raises(SystemExit):
            loop.run(function())
    assert loop.run(value()) == 7


def test_the_coroutine_itself_is_known(loop: EventLoop) -> None:
    """Code of the coroutine that is waited for differs from its asyncio tasks, its threads and other code."""

    async def look() -> list[bool]:
        async def task() -> bool:
            return is_awaited_by_worker()

        return [
            is_awaited_by_worker(),
            await asyncio.create_task(task()),
            await asyncio.to_thread(is_awaited_by_worker),
        ]

    assert loop.run(look()) == [True, False, False]
    assert not is_awaited_by_worker()
    assert asyncio.run(look()) == [False, False, False]


def test_a_future_of_another_loop_is_awaited_there(loop: EventLoop) -> None:
    """A future, or a task, of a loop that runs in another thread is awaited where it belongs."""
    with EventLoop() as other:

        async def start() -> asyncio.Task[Any]:
            return asyncio.create_task(value())

        assert awaited(other.run(start())) == 7


@pytest.mark.parametrize("ended", [True, False])
def test_a_future_that_can_not_end_is_refused(ended: bool) -> None:
    """A future of a loop that this thread keeps from running is an error that says what to return."""

    async def program() -> Any:
        task = asyncio.ensure_future(value())
        if ended:
            await task
        return awaited(task)

    if ended:
        assert asyncio.run(program()) == 7
    else:
        with pytest.raises(RuntimeError, match=r"its event loop does not run.* return the coroutine itself"):
            asyncio.run(program())


def test_an_interrupted_thread_cancels_its_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    """If what waits is interrupted, the coroutine gets a CancelledError and the time to clean up."""
    seen: list[str] = []
    started = threading.Event()

    async def sleep() -> None:
        try:
            started.set()
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0.01)
            seen.append("ended")
            raise

    def interrupt(call: Any) -> Any:
        assert started.wait(240)
        raise KeyboardInterrupt

    monkeypatch.setattr(event_loop._Call, "wait", interrupt)
    with EventLoop() as loop, pytest.raises(KeyboardInterrupt):
        loop.run(sleep())
    assert seen == ["cancelled", "ended"]


def test_a_coroutine_that_can_not_be_cancelled_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A coroutine that goes on after it was cancelled is left after a moment, with one warning."""
    started, over = threading.Event(), threading.Event()

    async def go_on() -> None:
        started.set()
        while not over.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                continue

    def interrupt(call: Any) -> Any:
        assert started.wait(240)
        raise KeyboardInterrupt

    monkeypatch.setattr(event_loop, "CANCEL_GRACE_S", 0.1)
    monkeypatch.setattr(event_loop._Call, "wait", interrupt)
    with EventLoop() as loop, pytest.raises(KeyboardInterrupt):
        loop.run(go_on())
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("a coroutine goes on after it was cancelled")
    over.set()
    assert loop._thread is not None
    loop._thread.join(240)


def test_a_coroutine_that_blocks_the_loop_is_interrupted(until: Callable[..., Any]) -> None:
    """If a coroutine does not let the loop run, an exception ends it, and those that wait are cancelled."""
    blocking, seen = threading.Event(), []
    loop = EventLoop()

    async def wait() -> None:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def block() -> None:
        try:
            blocking.set()
            while True:
                time.sleep(0.001)
        except Cancelled:
            seen.append("interrupted")
            raise

    def run(awaitable: Any) -> None:
        with pytest.raises(Cancelled):
            loop.run(awaitable)
        seen.append("ended")

    threads = [threading.Thread(target=run, args=(each,)) for each in (wait(), block())]
    for thread in threads:
        thread.start()
    assert blocking.wait(240)
    loop.cancel()
    until(lambda: loop.interrupt() or seen.count("ended") == 2)
    assert sorted(seen) == ["cancelled", "ended", "ended", "interrupted"]
    loop.close()
    with pytest.raises(Cancelled):
        loop.run(value())


def test_no_exception_is_raised_in_code_of_the_loop(loop: EventLoop, until: Callable[..., Any]) -> None:
    """The loop's own code is spared: there an exception would break it."""

    async def ident() -> int:
        return threading.get_ident()

    thread = loop.run(ident())
    for _ in range(1000):
        assert not raise_in_thread(thread, Cancelled, spare=event_loop._LOOP_PACKAGES)
    assert loop.run(value()) == 7


def test_what_never_began_is_closed() -> None:
    """A coroutine that is handed over when all was cancelled is closed: Python would warn of it else."""
    loop = EventLoop()
    loop.run(value())
    loop.cancel()
    with pytest.raises(Cancelled):
        loop.run(value())
    loop.close()
    with pytest.raises(Cancelled):
        loop.run(value())


def test_what_is_left_ends_with_the_loop() -> None:
    """Closing a loop cancels tasks, closes async generators and ends threads that coroutines left in it."""
    ended: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def background() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.append("task")

    kept: list[Any] = []

    async def leave() -> None:
        kept.extend([asyncio.create_task(background()), numbers()])
        await kept[-1].__anext__()
        await asyncio.to_thread(kept.append, None)

    before = threading.active_count()
    with EventLoop() as loop:
        loop.run(leave())
    assert ended == ["task", "generator"]
    assert threading.active_count() == before


def test_a_loop_that_was_not_used_has_no_thread() -> None:
    """A loop without a coroutine starts nothing, and closing is idempotent."""
    before = threading.active_count()
    loop = EventLoop()
    loop.cancel()
    loop.interrupt()
    loop.close()
    loop.close()
    assert threading.active_count() == before


def test_a_thread_inherits_no_loop(loop: EventLoop) -> None:
    """A thread without the context of a task awaits in a loop of its own."""
    results: list[Any] = []
    in_thread(lambda: results.append(awaited(value())))
    assert results == [7]
