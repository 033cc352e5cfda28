"""Results as they come, of items that are read as they are needed, on each backend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.backends import BACKENDS
from support.recorder import Recorder

from speedy_utils import TaskError, multi_process_iter

PROGRAM = """
import itertools, time
from speedy_utils import multi_process_iter

def call(item):
    for _ in range(60_000 if item == 5 else 0):
        time.sleep(0.01)
    return item

results = multi_process_iter(call, itertools.count(), backend=BACKEND, num_workers=2)
for result in results:
    break
raise SystemExit(7)
"""


def double(item: int) -> int:
    """Return twice the item."""
    return 2 * item


def test_results_come_in_the_order_of_a_generators_items(backend: str, recorder: Recorder) -> None:
    """All results of a source without a length are there, in order; the bar counts, and ends complete."""
    results = multi_process_iter(
        double, (n for n in range(2000)), backend=backend, num_workers=2, progress=recorder
    )
    assert list(results) == [2 * n for n in range(2000)]
    assert (recorder.last.done, recorder.last.total, recorder.last.complete) == (2000, 2000, True)
    assert {snapshot.total for snapshot in recorder.snapshots[:-1]} <= {None}


@pytest.mark.parametrize("items", [range(100), iter(range(100))], ids=["length", "total_items"])
def test_a_known_length_is_the_total_of_the_bar(recorder: Recorder, items: Any) -> None:
    """It is that of the items or, if these have none, total_items."""
    total_items = None if isinstance(items, range) else 100
    list(multi_process_iter(double, items, backend="threads", total_items=total_items, progress=recorder))
    assert {snapshot.total for snapshot in recorder.snapshots} == {100}


def test_an_endless_source_is_read_only_some_way_ahead(backend: str, recorder: Recorder) -> None:
    """The first result comes while the source goes on; a loop that ends early ends the run short."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for n in itertools.count():
            read.append(n)
            yield n

    results = multi_process_iter(
        double, source(), backend=backend, num_workers=2, chunksize=5, progress=recorder
    )
    assert not read
    assert list(itertools.islice(results, 50)) == [2 * n for n in range(50)]
    results.close()  # type: ignore[attr-defined]
    assert len(read) <= 50 + 4 * 2 * 5 + 1
    last = recorder.last
    assert (last.final, last.complete) == (True, False)
    assert 50 <= last.tasks_done <= len(read)
    assert last.done == last.tasks_done


@pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)
def test_unordered_results_do_not_wait_for_a_slow_one(backend: str, tmp_path: Path, until: Any) -> None:
    """Each result is yielded once it is there; on one worker that is the order of the items."""
    mark = tmp_path / "last"

    def call(item: int) -> int:
        if backend != "seq" and item == 0:
            until(mark.exists)
        if item == 9:
            mark.touch()
        return item

    results = list(
        multi_process_iter(call, range(10), backend=backend, num_workers=2, ordered=False, chunksize=1)
    )
    assert sorted(results) == [*range(10)]
    assert results[-1] in (0, 9)


def test_a_failed_task_is_raised_or_yielded(backend: str) -> None:
    """With "raise" the iterator raises its error; with "continue" it stands in its place."""

    def call(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    calls = [(item,) for item in range(5)]
    with pytest.raises(TaskError, match="three") as raised:
        list(multi_process_iter(call, calls, star=True, backend=backend, num_workers=1))
    assert raised.value.item == (3,)
    results = list(multi_process_iter(call, range(5), backend=backend, num_workers=1, on_error="continue"))
    assert results[:3] + results[4:] == [0, 1, 2, 4]
    assert isinstance(results[3], TaskError)
    assert (results[3].index, results[3].item) == (3, 3)


def test_an_error_of_the_source_comes_after_the_results_before_it(recorder: Recorder) -> None:
    """What was read is worked on, and then the run ends with what reading has raised."""

    def source() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    results = multi_process_iter(double, source(), backend="threads", progress=recorder)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)
    assert not recorder.last.complete


def test_tasks_that_are_tried_again_keep_their_places(tmp_path: Path) -> None:
    """A result that comes late for its retries is yielded in its place all the same."""

    def call(item: int) -> int:
        mark = tmp_path / str(item)
        if item % 10 == 0 and not mark.exists():
            mark.touch()
            raise ConnectionError
        return item

    results = multi_process_iter(
        call, iter(range(50)), backend="threads", num_workers=2, retry_on=ConnectionError, retry_wait=0
    )
    assert list(results) == [*range(50)]


@pytest.mark.parametrize(
    ("items", "options", "error"),
    [
        ("text", {}, TypeError),
        (5, {}, TypeError),
        ([1], {"total_items": len}, TypeError),
        ([1], {"task_timeout": -1}, ValueError),
        ([1], {"num_workers": 0}, ValueError),
    ],
)
def test_arguments_are_checked_at_the_call(
    items: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    """What is wrong is said before a result is asked for."""
    with pytest.raises(error):
        multi_process_iter(double, items, backend="seq", **options)


def test_nothing_to_do_is_no_run(recorder: Recorder) -> None:
    """No items yield no results."""
    assert list(multi_process_iter(double, [], backend="threads", progress=recorder)) == []
    assert list(multi_process_iter(double, iter([]), backend="threads", progress=recorder)) == []


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_an_iterator_that_is_still_held_does_not_hold_the_program_up(driver: Any, backend: str) -> None:
    """A program that ends with one in hand ends, and stops the tasks that run."""
    ended = driver(PROGRAM.replace("BACKEND", repr(backend)))
    assert ended.returncode == 7


def test_items_may_be_arguments_and_some_may_be_done(recorder: Recorder) -> None:
    """With star each is the arguments of a call; those that were done before are in the count."""
    results = multi_process_iter(
        divmod, iter([(7, 2), (9, 4)]), star=True, initial=3, total_items=5, backend="seq", progress=recorder
    )
    assert list(results) == [(3, 1), (2, 1)]
    assert {(each.total, each.done >= 3) for each in recorder.snapshots} == {(5, True)}
    assert recorder.last.done == 5


@pytest.mark.parametrize("said", [5, 15])
def test_another_number_of_items_than_was_said_is_told(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, said: int
) -> None:
    """A bar never shows more than its total, nor all of one that was not reached; a warning says both."""
    results = multi_process_iter(
        double, iter(range(10)), total_items=said, backend="threads", chunksize=1, progress=recorder
    )
    assert len(list(results)) == 10
    assert (recorder.last.done, recorder.last.total) == (10, max(said, 10))
    assert all(each.total is None or each.done <= each.total for each in recorder.snapshots)
    assert f"there were 10 items, and total_items says {said}" in caplog.text


def test_what_a_function_does_not_take_is_said_at_the_call() -> None:
    """The call is bound to its arguments, and to the first item where that is known."""
    with pytest.raises(TypeError, match="did you mean num_workers=8"):
        multi_process_iter(double, iter([1]), backend="seq", workers=8)
    with pytest.raises(TypeError, match="can't be called with an item, not read yet"):
        multi_process_iter(divmod, iter([1]), backend="seq")
    with pytest.raises(TypeError, match=r"can't be called with an item, \(7, 2\)"):
        multi_process_iter(divmod, [(7, 2)], backend="seq")
