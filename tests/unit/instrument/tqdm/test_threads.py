"""Bars in threads and forked children count for the task that they belong to, or for none."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import tqdm.auto
import tqdm.contrib
import tqdm.contrib.concurrent
from support.counts import by_stage
from support.forks import in_fork
from support.screen import bars_drawn
from support.threads import held, in_thread
from tqdm import std

from speedy_utils._instrument.tqdm import bar as tqdm_bar
from speedy_utils._instrument.tqdm import capture as tqdm_capture
from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils._state.ledger import Metric
from speedy_utils._worker.context import counting, registered
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink


def test_a_bar_of_another_thread_is_left_alone(
    sink: RecordingSink, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the driver a thread without a context is not the task's: its bar draws, in the first line."""
    positions = []

    def work() -> None:
        for _ in (bar := std.tqdm(range(3), desc="Mine")):
            positions.append(bar.pos)

    with std.tqdm(total=3, desc="A"), std.tqdm(total=3, desc="B"):
        in_thread(work)
    assert (positions, sink.stages) == ([0, 0, 0], {})
    assert bars_drawn(capfd) == 1


def test_a_context_takes_its_task_along(sink: RecordingSink, capfd: pytest.CaptureFixture[str]) -> None:
    """A thread of asyncio.to_thread works for the task, and its unnamed bars are inside the task's."""

    def work() -> None:
        list(std.tqdm(range(3), desc="A"))
        list(std.tqdm(range(5)))

    async def run() -> None:
        for _ in std.tqdm(range(2)):
            await asyncio.to_thread(work)

    asyncio.run(run())
    assert (sink.stages, sink.done) == ({"A": 6}, 2)
    assert bars_drawn(capfd) == 0


def test_in_a_ray_worker_the_threads_of_the_task_count(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """There a thread is the task's. Its unnamed bars are inside the bar that the task has open meanwhile."""
    monkeypatch.setattr(tqdm_capture, "_threads_belong_to_task", True)

    around = threading.Event()

    class Around(tqdm.auto.tqdm):  # type: ignore[misc,type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            around.set()

    def work(_: int = 0) -> None:
        list(std.tqdm(range(3), desc="A"))
        list(std.tqdm(range(5)))

    def work_in_a_loop(_: int) -> None:
        assert around.wait(30)  # older versions of tqdm start the threads before they make their bar
        work()

    in_thread(work)
    assert (sink.stages, sink.done) == ({"A": 3}, 5)
    tqdm.contrib.concurrent.thread_map(work_in_a_loop, range(4), max_workers=2, tqdm_class=Around)
    assert (sink.stages, sink.done) == ({"A": 15}, 9)
    assert bars_drawn(capfd) == 0


def test_the_bar_around_a_threads_may_come_later(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread's unnamed bar is inside the task's that is made meanwhile; one that has ended is not."""
    monkeypatch.setattr(tqdm_capture, "_threads_belong_to_task", True)
    begun, around = threading.Barrier(3), threading.Event()
    ended: list[Any] = []

    def work(_: int) -> None:
        with std.tqdm(total=5) as bar, std.tqdm(total=2, desc="A") as named:
            bar.update(3)
            named.update(2)
            begun.wait(30)
            assert around.wait(30)
            bar.update(2)

    in_thread(lambda: list(std.tqdm(range(10))))
    in_thread(lambda: ended.append(std.tqdm(total=7)))
    ended[0].update(7)  # and it is never closed
    assert sink.done == 17
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(work, range(2))
        begun.wait(30)
        assert sink.done == 17 + 2 * 3
        bar = std.tqdm(results)
        around.set()
        list(bar)
    assert (sink.stages, sink.done) == ({"A": 4}, 17 + 2)


def test_a_thread_that_outlives_a_task_counts_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pool's thread did for one task has no bearing on the next one."""
    monkeypatch.setattr(tqdm_capture, "_threads_belong_to_task", True)
    bars = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            with RecordingSink() as sink, capturing_tqdm():
                bars.append(pool.submit(std.tqdm, total=5).result())
                bars[-1].update(2)
                assert sink.done == 2


def test_several_tasks_in_threads_count_apart(capfd: pytest.CaptureFixture[str]) -> None:
    """Tasks whose bars are captured and others run side by side, and each bar counts where it belongs."""
    barrier = threading.Barrier(4)

    def task(number: int) -> Any:
        reporter = Reporter(number)
        with registered(reporter), counting(reporter.own), capturing_tqdm() if number else nullcontext():
            barrier.wait()
            list(std.tqdm(range(number or 7), desc="A"))
            barrier.wait()
        return by_stage(reporter.capped_counts(), Metric.ITEMS).get("A")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(task, range(4))) == [None, 1, 2, 3]
    assert bars_drawn(capfd) == 1


def test_a_forked_child_draws_nothing_and_counts_nothing(
    sink: RecordingSink, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bars in a child draw nothing, also those made before the fork; the parent counts its own."""
    bar = std.tqdm(total=4, desc="A")

    def work() -> None:
        bar.update(2)
        bar.close()
        list(std.tqdm(range(3), desc="B"))
        list(std.tqdm(range(3)))

    with held(tqdm_bar.lock):
        assert in_fork(work) == 0
    bar.update(1)
    assert (sink.stages, sink.done) == ({"A": 1}, 0)
    assert capfd.readouterr() == ("", "")


def test_a_child_that_is_forked_elsewhere_draws(capfd: pytest.CaptureFixture[str]) -> None:
    """A child that no task forked draws its bars."""
    assert in_fork(lambda: list(std.tqdm(range(3)))) == 0
    assert bars_drawn(capfd) == 1
