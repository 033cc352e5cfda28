"""A loop that is the only one in a task, and has a total of its own, moves the task in proportion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import datasets
import pytest
from support.errors import Boom
from support.tasks import Task, run_task
from tqdm import tqdm

from speedy_utils import report_progress, track, tracked
from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter

ALL = 1_000
SHARD = datasets.Dataset.from_dict({"n": list(range(ALL))})


def bar(iterable: Any = None, **options: Any) -> Any:
    """Return a bar of which each item is seen at once."""
    return tqdm(iterable, miniters=1, mininterval=0, **options)


def by_hand(batches: Iterable[Any]) -> Iterator[Any]:
    """Move a bar by hand."""
    with bar(total=20) as moved:
        for batch in batches:
            yield batch
            moved.update()


ONLY: dict[str, Callable[[], Iterable[Any]]] = {
    "track": lambda: track(range(20)),
    "track with a total": lambda: track(iter(range(20)), total=20),
    "a bar": lambda: bar(range(20)),
    "a bar with a total": lambda: bar(iter(range(20)), total=20),
    "a bar moved by hand": lambda: by_hand(range(20)),
}


@pytest.mark.parametrize("loop", ONLY.values(), ids=ONLY)
@pytest.mark.parametrize("rows", [True, False])
def test_the_only_loop_moves_its_task_in_proportion(loop: Callable[[], Iterable[Any]], rows: bool) -> None:
    """Twenty steps in a task of a thousand items are fifty items each; the last item is the task's end."""
    seen: list[int] = []

    def work(task: Task) -> None:
        seen.extend(task.shown for _ in loop())
        seen.append(task.shown)

    task = run_task(work, ALL, rows=rows)
    assert seen == [*range(0, 1_000, 50), 999]
    assert task.reporter.capped_counts()[RUN_ITEMS] == 20, "what a failed task is left with"


@pytest.mark.parametrize("wrap", [track, bar])
def test_more_elements_than_items_are_parts_of_items(wrap: Callable[..., Iterable[Any]]) -> None:
    """Of a loop over 5,000 tokens in a task of 1,000 items, five are an item."""

    def work(task: Task) -> None:
        assert [task.done for _ in wrap(range(5_000))] == [n // 5 for n in range(5_000)]
        assert task.raw == ALL

    run_task(work, ALL)


def in_parts(wrap: Callable[..., Iterable[Any]]) -> Iterator[Any]:
    """Go through a task's items in ten loops of a hundred."""
    for _ in range(10):
        yield from wrap(list(range(100)))


def in_calls(wrap: Callable[..., Iterable[Any]]) -> Iterator[Any]:
    """Go through them in calls of another function."""

    def part() -> list[Any]:
        return [None for _ in wrap(list(range(100)))]

    for parts in [part() for _ in range(10)]:
        yield from parts


@pytest.mark.parametrize("wrap", [track, bar])
@pytest.mark.parametrize("loops", [in_parts, in_calls])
def test_loops_in_a_loop_count_their_items(
    wrap: Callable[..., Iterable[Any]], loops: Callable[..., Iterator[Any]]
) -> None:
    """The first of several loops over parts of the items is not taken for the only one."""

    def work(task: Task) -> None:
        for number, _ in enumerate(loops(wrap)):
            assert task.shown in (number, ALL)
        assert task.raw == ALL

    run_task(work, ALL)


def test_what_was_shown_stays_until_more_is_counted() -> None:
    """A second loop ends the proportion: nothing moves backwards, and the counts go on behind it."""
    seen: list[int] = []

    def work(task: Task) -> None:
        for _ in track(range(500)):
            pass
        seen.extend(task.shown for _ in track(iter(range(600))))
        seen.append(task.shown)
        assert task.done == ALL

    run_task(work, ALL)
    assert seen == [999] * 500 + [ALL] * 101


def test_a_bar_of_which_more_is_known_moves_nothing_back() -> None:
    """A total that grows, or a round after a reset, holds the task where it is; going back does not."""
    seen: list[int] = []

    def work(task: Task) -> None:
        def see(steps: int) -> None:
            moved.update(steps)
            seen.append(task.shown)

        with bar(total=10) as moved:
            see(5)
            moved.total = 20
            see(1)
            see(5)
            see(-10)
            see(18)
            moved.reset()
            see(1)

    run_task(work, ALL)
    assert seen == [500, 500, 550, 50, 950, 950]


def test_a_second_loop_after_a_few_steps_is_counted() -> None:
    """Counts that pass what was shown in proportion are shown."""

    def work(task: Task) -> None:
        for n in track(range(20)):
            if n == 2:
                break
        assert task.shown == 100
        for _ in track(range(300)):
            assert task.shown >= 100
        assert task.shown == task.done == 302

    run_task(work, ALL)


def test_code_that_counts_as_well_ends_the_proportion() -> None:
    """``report_progress`` in the loop says what was done: the elements then count as ever."""

    def work(task: Task) -> None:
        for _ in bar(range(20)):
            report_progress(50)
            assert task.shown == task.done
        assert task.raw == ALL

    run_task(work, ALL)


@pytest.mark.parametrize("wrap", [track, bar])
def test_rows_are_rows_if_they_are_no_more_than_there_are(wrap: Callable[..., Iterable[Any]]) -> None:
    """A part of the dataset counts for its rows, in batches too; more rows than the task has are parts."""
    part, more = SHARD.select(range(300)), datasets.concatenate_datasets([SHARD, SHARD])

    def work(task: Task) -> None:
        for _ in wrap(part):
            assert task.shown == task.done
        assert task.raw == 300

    def batches(task: Task) -> None:
        assert [task.shown for _ in wrap(part.iter(100))] == [0, 100, 200]

    def too_many(task: Task) -> None:
        assert [task.shown for _ in wrap(more.iter(200))] == list(range(0, 1_000, 100))

    for function in (work, batches, too_many):
        run_task(function, ALL)


def test_a_named_stage_moves_by_its_elements() -> None:
    """Names make stages with totals of their own, and leave the task's own line alone."""

    def work(task: Task) -> None:
        for _ in track(range(20), desc="Batches"):
            assert task.shown == 0
        for _ in bar(range(20), desc="Bars"):
            assert task.shown == 0

    run_task(work, ALL)


def test_a_tracked_call_of_known_size_is_moved_in_proportion() -> None:
    """``@tracked(total=...)`` makes a call a part of known size, and shows the share of its only loop."""

    @tracked(total="items")
    def go(items: range, task: Task) -> list[int]:
        return [task.shown for _ in track(range(20))]

    def work(task: Task) -> None:
        assert go(range(ALL), task) == list(range(0, 1_000, 50))
        assert task.shown == task.done == ALL

    run_task(work, ALL)


def test_where_the_function_of_the_task_is_not_found_elements_count() -> None:
    """In a thread of its own, a loop may be one of many beside each other."""
    reporter = Reporter(0, total=ALL)
    with counting(reporter.own), capturing_tqdm():
        for _ in track(range(20)):
            pass
        assert reporter.report().counts[RUN_ITEMS] == 20
        assert reporter.own.estimate() == 0


def test_a_loop_that_fails_keeps_its_share_until_the_task_fails() -> None:
    """An error that the task survives takes nothing back."""

    def go() -> None:
        for n in track(range(20)):
            if n == 10:
                raise Boom

    def work(task: Task) -> None:
        with pytest.raises(Boom):
            go()
        assert (task.shown, task.done) == (500, 10)

    run_task(work, ALL)


def leave(loop: Iterable[Any]) -> None:
    """Break off after three elements."""
    for number, _ in enumerate(loop):
        if number == 3:
            break


def exhaust(loop: Iterable[Any]) -> None:
    """Go through all of it."""
    for _ in loop:
        pass


@pytest.mark.parametrize("wrap", [track, bar])
@pytest.mark.parametrize(
    ("end", "loop", "meant"),
    [
        (leave, lambda: SHARD, True),
        (leave, lambda: list(range(ALL)), True),
        (leave, lambda: range(20), True),
        (exhaust, lambda: SHARD.select(range(20)), True),
        (exhaust, lambda: SHARD.select(range(20)).iter(5), True),
        (exhaust, lambda: iter(range(20)), False),
    ],
    ids=["dataset", "list", "steps", "fewer rows", "batches of fewer rows", "batches, perhaps"],
)
def test_a_part_that_was_meant_is_told_from_batches(
    wrap: Callable[..., Iterable[Any]],
    end: Callable[[Iterable[Any]], None],
    loop: Callable[[], Iterable[Any]],
    meant: bool,
) -> None:
    """Few items of a loop that was left, or of rows, are no batches, so the run need not say what to do."""
    task = run_task(lambda task: end(wrap(loop())), ALL)
    assert (Key(None, Metric.ONLY_A_PART) in task.reporter.raw_counts()) is meant


@pytest.mark.parametrize("unit", ["B", "iB"])
def test_bytes_are_no_rows(unit: str) -> None:
    """Bars over bytes in a loop over rows count for nothing; the only one of a task is its share."""
    seen: list[int] = []

    def download(task: Task) -> None:
        with bar(total=4_000, unit=unit) as moved:
            moved.update(2_000)
            seen.append(task.shown)

    def each(task: Task) -> None:
        for _ in range(3):
            download(task)

    run_task(each, ALL)
    run_task(download, ALL)
    assert seen == [0, 0, 0, 500]
