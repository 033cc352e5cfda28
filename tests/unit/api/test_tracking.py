"""``tracking``: a block that draws, and functions that count for it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cloudpickle
import pytest
from support import foreign_work
from support.recorder import Recorder
from tqdm import tqdm

from speedy_utils import multi_process, report_progress, track, tracked, tracking

ITEMS = [1, 2, 3, 4]


def test_a_block_counts_what_its_code_does(recorder: Recorder) -> None:
    """Reports, loops, tracked calls and bars in the block's own thread count, and the bar is full."""

    @tracked
    def call() -> None:
        pass

    with tracking(total=10, desc="Mine", progress=recorder) as run:
        report_progress(3)
        for _ in track(range(4)):
            pass
        for _ in tqdm(range(2), desc="Bar"):
            pass
        call()
        assert run.snapshot().done == 8
        report_progress(2)
    last = recorder.last
    assert (last.desc, last.done, last.total, last.complete) == ("Mine", 10, 10, True)
    assert [(stage.name, stage.done, stage.total) for stage in last.stages] == [("Bar", 2, 2)]


def test_a_block_is_not_credited() -> None:
    """A block that ends with less than its total ends short, and says so."""
    with tracking(total=10, progress=False) as run:
        report_progress(3)
    assert (run.snapshot().done, run.snapshot().complete) == (3, False)


def test_a_block_that_raises_ends_short() -> None:
    """What was counted stays, and the run is not complete even if the count is full."""
    run = tracking(total=3, progress=False)

    def block() -> None:
        with run:
            report_progress(3)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        block()
    assert (run.snapshot().done, run.snapshot().complete) == (3, False)


def test_a_block_without_a_total_ends_complete() -> None:
    """Its total is what was counted."""
    with tracking(progress=False) as run:
        report_progress(3)
        assert run.snapshot().total is None
    assert (run.snapshot().total, run.snapshot().complete) == (3, True)


@pytest.mark.parametrize(
    ("work", "done"),
    [
        (foreign_work.loop, 10),
        (foreign_work.report, 10),
        (foreign_work.bar, 10),
        (foreign_work.nothing, 4),
        (functools.partial(foreign_work.loop), 10),
        (foreign_work.Counter(), 10),
        (foreign_work.Counter(1).method, 14),
        (abs, 4),
    ],
)
def test_bound_calls_count_in_threads(work: Callable[[int], int], done: int) -> None:
    """A call counts for what it reports without a name, or for one item."""
    with tracking(total=done, progress=False) as run, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run.bind(work), ITEMS)) == ITEMS
        assert run.snapshot().done == done
        assert run.snapshot().run_line.finished
    assert run.snapshot().complete


def test_a_bound_call_with_a_total_counts_for_it() -> None:
    """It counts for exactly that once it has returned, and for what it reported if it raised."""
    with tracking(progress=False) as run:
        run.bind(len, total="obj")("seven..")
        run.bind(foreign_work.loop, total=lambda n: 2 * n)(3)
        with pytest.raises(ValueError, match="three"):
            run.bind(foreign_work.fail_at_three, total=10)(3)
    assert run.snapshot().done == 7 + 6 + 3


def test_a_thread_that_outlives_its_bound_call_counts_for_no_other() -> None:
    """What it reports once the call has returned, or takes back, changes nothing."""
    with tracking(progress=False) as run, ThreadPoolExecutor(2) as pool:
        returned = threading.Event()

        def count_later() -> None:
            assert returned.wait(30)
            for items in (5, -3):
                report_progress(items)
            report_progress(2, desc="Later", words=3)

        def start_thread() -> Future[None]:
            report_progress(2)
            return pool.submit(contextvars.copy_context().run, count_later)

        thread = run.bind(start_thread)()
        returned.set()
        thread.result(30)
        run.bind(abs)(-1)
    assert (run.snapshot().done, run.snapshot().stages) == (3, ())


def test_bound_functions_of_all_kinds_stay_what_they_are() -> None:
    """Coroutine and generator functions stay such, names and signatures are kept."""
    with tracking(progress=False) as run:
        work = run.bind(foreign_work.await_loop)
        assert inspect.iscoroutinefunction(work)
        assert asyncio.run(work(3)) == 3
        generate = run.bind(foreign_work.generate)
        assert inspect.isgeneratorfunction(generate)
        assert list(generate(4)) == [0, 1, 2, 3]
        loop = run.bind(foreign_work.loop)
        assert (loop.__name__, loop.__module__) == ("loop", "support.foreign_work")
        assert inspect.signature(loop) == inspect.signature(foreign_work.loop)
    assert run.snapshot().done == 7


def test_calls_of_objects_of_a_bound_class_count() -> None:
    """A bound class is a subclass with the same name; a method that calls another one counts once."""
    with tracking(progress=False) as run:
        kind = run.bind(foreign_work.Counter)
        assert issubclass(kind, foreign_work.Counter)
        assert kind.__name__ == "Counter"
        counter = kind(1)
        assert (counter(2), counter.method(3)) == (2, 3)
    assert run.snapshot().done == 3 + 4


def test_methods_without_an_object_stay_such_in_a_bound_class() -> None:
    """Static and class methods are called as before, through an object and the class, and count."""
    with tracking(progress=False) as run:
        kind = run.bind(foreign_work.Counter)
        assert [kind.of_none(3), kind().of_none(4)] == [3, 4]
        assert [kind.of_class(3), kind().of_class(4)] == [kind, kind]
    assert run.snapshot().done == 3 + 4 + 2


def _report_none(rows: list[int]) -> None:
    report_progress(len(rows))


def _track_none(rows: list[int], desc: str | None = None) -> None:
    for _ in track(rows, desc=desc):
        pass


def _show_none(rows: list[int]) -> None:
    for _ in tqdm(rows):
        pass


@pytest.mark.parametrize(
    "work", [_report_none, _track_none, _show_none, functools.partial(_track_none, desc="Rows")]
)
def test_a_bound_call_that_reports_no_items_counts_for_none(work: Callable[[list[int]], None]) -> None:
    """A file without rows is no item; what is only counted beside items leaves the call to be one."""
    with tracking(total=1, progress=False) as run:
        run.bind(work)([])
        run.bind(report_progress)(0, letters=7)
    assert (run.snapshot().done, run.snapshot().complete) == (1, True)


def test_copies_of_bound_functions_are_bound() -> None:
    """What copies the objects that hold one, as engines and datasets do, gets one that counts."""
    with tracking(progress=False) as run:
        counter = foreign_work.Counter(1)
        for copied in (copy.copy(run.bind(counter)), copy.deepcopy([run.bind(counter)])[0]):
            assert copied(2) == 2
        assert copied.more == 1
        counter.more = 5
        assert copied.more == 1
    assert run.snapshot().done == 6


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize(
    "work", [foreign_work.loop, foreign_work.Counter(), functools.partial(foreign_work.loop)]
)
def test_bound_functions_travel(pickler: Any, work: Any) -> None:
    """What pickle or cloudpickle has sent counts for the run too."""
    with tracking(progress=False) as run:
        sent = pickle.loads(pickler.dumps(run.bind(work)))
        assert sent(5) == 5
        kind = pickle.loads(pickler.dumps(run.bind(foreign_work.Counter)))
        assert kind()(2) == 2
    assert run.snapshot().done == 7


def test_closures_travel_by_cloudpickle() -> None:
    """A closure that ``functools.wraps`` has made is bound and sent."""

    def decorate(function: Callable[[int], int]) -> Callable[[int], int]:
        @functools.wraps(function)
        def double(n: int) -> int:
            return 2 * function(n)

        return double

    with tracking(progress=False) as run:
        sent = pickle.loads(cloudpickle.dumps(run.bind(decorate(foreign_work.loop))))
        assert sent(5) == 10
    assert run.snapshot().done == 5


def test_runs_inside_a_block_count_for_it(recorder: Recorder) -> None:
    """``multi_process`` and another block draw nothing there, and what they count is counted once."""
    with tracking(total=26, progress=recorder) as run:
        multi_process(foreign_work.loop, ITEMS, backend="threads", total_items=int)
        with tracking(total=10, progress=True) as inner:
            foreign_work.loop(10)
            assert os.environ["SPEEDY_UTILS_RUN"] == inner.address
        assert os.environ["SPEEDY_UTILS_RUN"] == run.address
        run.bind(multi_process)(foreign_work.loop, [6], backend="seq")
    assert "SPEEDY_UTILS_RUN" not in os.environ
    assert recorder.last.done == 26
    assert recorder.last.complete


def test_a_block_in_a_task_counts_for_the_task(recorder: Recorder) -> None:
    """It draws nothing there; what is beyond the total of the task does not count."""

    def work(n: int) -> None:
        with tracking(progress=True) as run:
            run.bind(foreign_work.loop)(n)

    multi_process(work, ITEMS, backend="seq", total_items=lambda n: min(n, 3), progress=recorder)
    assert (recorder.last.done, recorder.last.total) == (9, 9)


def test_blocks_of_several_threads_name_no_run(caplog: pytest.LogCaptureFixture) -> None:
    """Bound calls count for their own run, and that other processes need them is said once."""
    both = threading.Barrier(2)
    done: dict[int, int] = {}

    def block(n: int) -> None:
        with tracking(progress=False) as run:
            both.wait()
            assert "SPEEDY_UTILS_RUN" not in os.environ
            run.bind(foreign_work.loop)(n)
            both.wait()
        done[n] = run.snapshot().done

    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(block, [3, 4]))
    assert done == {3: 3, 4: 4}
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "tracking() blocks of several threads are open"
    ]


def test_arguments_are_checked() -> None:
    """What can't be meant is refused, with what was meant."""
    with pytest.raises(TypeError, match=r"did you mean track\(rows\)"):
        tracking([1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="total must be at least 0"):
        tracking(-1)
    with pytest.raises(RuntimeError, match="begins with its block"):
        tracking().bind(foreign_work.loop)
    with tracking(progress=False) as run:
        with pytest.raises(TypeError, match="needs a function or a class"):
            run.bind(3)
        with pytest.raises(TypeError, match=r"can't make a class of bool .*bind the functions that use it"):
            run.bind(bool)
        with pytest.raises(RuntimeError, match="only once"):
            run.__enter__()
        with pytest.raises(TypeError, match=r"send the function that run\.bind\(function\) returns"):
            cloudpickle.dumps(lambda: run.snapshot())


def test_a_bound_call_after_its_block_works_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """It counts nowhere, and says so once."""
    with tracking(progress=False) as run:
        bound = run.bind(foreign_work.loop)
    assert [bound(3), bound(4)] == [3, 4]
    assert len(caplog.records) == 1
    assert "can't be reached" in caplog.text
