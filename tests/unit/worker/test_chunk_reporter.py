"""What a chunk has counted, and what of it has not begun."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest

from speedy_utils._state.ledger import FINISHED, RUN_ITEMS, Count, Metric
from speedy_utils._worker.chunk_reporter import ChunkReporter
from speedy_utils._worker.reporter import Reporter


class Clock:
    """A clock that stands unless it is set."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


def chunk_of(items: list[str], clock: Clock, most_seconds: float | None = 0.5) -> ChunkReporter:
    """Return the reporter of a chunk that begins now."""
    chunk = ChunkReporter(lambda total: Reporter(7, total=total, clock=clock), most_seconds=most_seconds)
    chunk.begin(items)
    return chunk


def test_what_has_not_begun_is_handed_back_once_a_chunk_is_late(clock: Clock) -> None:
    """The worker keeps what it has taken, and finds no more; until then it keeps all."""
    chunk = chunk_of(["a", "b", "c", "d"], clock)
    assert [chunk.left.popleft(), chunk.report().kept] == ["a", 0]
    assert chunk.next_if_plain()
    assert chunk.left.popleft() == "b"
    clock.now += 0.4
    assert chunk.report().kept == 0
    clock.now += 0.2
    assert [chunk.report().kept, chunk.report().kept, chunk.kept_if_late(), len(chunk.left)] == [2, 2, 2, 0]
    assert chunk.report().position == 1


def test_a_chunk_that_is_late_before_it_has_begun_keeps_its_tasks(clock: Clock) -> None:
    """Its process stood still; what is left is handed back once the first has begun."""
    chunk = chunk_of(["a", "b", "c"], clock)
    clock.now += 1
    assert (chunk.report().kept, len(chunk.left)) == (0, 3)
    assert [chunk.left.popleft(), chunk.report().kept] == ["a", 1]


def test_nothing_is_handed_back_by_a_chunk_that_is_never_late(clock: Clock) -> None:
    """Nor by one whose last task runs."""
    fixed, alone = chunk_of(["a", "b"], clock, None), chunk_of(["a"], clock)
    alone.left.popleft()
    clock.now += 1e6
    assert (fixed.report().kept, alone.report().kept, len(fixed.left)) == (0, 0, 2)


def test_each_item_is_either_taken_or_handed_back(clock: Clock) -> None:
    """Also while several threads look whether the chunk is late: they say what the worker has taken."""
    for _ in range(30):
        chunk = chunk_of([str(number) for number in range(2_000)], clock)
        clock.now += 1
        start, taken, kept = threading.Barrier(3), [], []

        def look(
            chunk: ChunkReporter = chunk, start: threading.Barrier = start, kept: list[int] = kept
        ) -> None:
            start.wait()
            kept.append(chunk.kept_if_late())

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        start.wait()
        while chunk.left:
            try:
                taken.append(chunk.left.popleft())
            except IndexError:
                break
        for thread in threads:
            thread.join()
        assert chunk.kept_if_late() in (len(taken), 0 if len(taken) == 2_000 else -1)
        assert taken == [str(number) for number in range(max(1, len(taken)))]


def test_tasks_that_have_ended_are_one_sum(clock: Clock) -> None:
    """The report says which task runs, what it has counted, and what those before it count for."""
    chunk = chunk_of(["a", "b", "c"], clock)
    for count in (3, 4):
        chunk.own.n += count
        assert chunk.next_if_plain()
    chunk.own.n += 1
    report = chunk.report()
    assert report.before is not None
    assert (report.position, report.counts[RUN_ITEMS]) == (2, 1)
    assert {key: report.before[key] for key in (FINISHED, RUN_ITEMS)} == {FINISHED: 2, RUN_ITEMS: 7}


def test_a_reading_between_two_tasks_counts_none_twice() -> None:
    """Whether the one that ends leaves its reporter to the next, or is followed by another one."""
    chunk: ChunkReporter | None = None
    found: list[Count] = []

    def make(total: int | None) -> Reporter:
        if chunk is not None:  # as another thread would, while the next task begins
            found.append(chunk.report().all_counts()[RUN_ITEMS])
        return Reporter(7, total=total)

    chunk = ChunkReporter(make)
    chunk.begin("ab")
    chunk.own.n += 5
    chunk.next(chunk.current.raw_counts())
    assert found == [5]
    assert chunk.report().all_counts()[RUN_ITEMS] == 5


def test_a_thread_that_reads_all_the_time_never_sees_too_much() -> None:
    """Of tasks that count nothing, items or a stage, and of some that fail, it sees no more than there is."""
    chunk, counted, finished = ChunkReporter(lambda total: Reporter(7, total=total)), [0], [0]
    over: list[tuple[Count, ...]] = []
    before, ended = sys.getswitchinterval(), threading.Event()

    def read() -> None:
        while not ended.is_set():
            counts = chunk.report().all_counts()
            done, tasks = counts[RUN_ITEMS], counts.get(FINISHED, 0)
            if done > counted[0] or tasks > finished[0]:
                over.append((done, counted[0], tasks, finished[0]))

    thread = threading.Thread(target=read)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for number in range(8_000):
            kind = number % 8
            if kind > 4:
                counted[0] += 3
                chunk.own.n += 3
            if kind == 7:
                chunk.current.stage("Read").n += 1
            if kind != 4:
                finished[0] += 1
            if kind == 4 or not chunk.next_if_plain():
                chunk.next(None if kind == 4 else chunk.current.raw_counts())
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(before)
    assert not over
    counts = chunk.report().all_counts()
    assert (counts[RUN_ITEMS], counts[FINISHED]) == (counted[0], finished[0])


@pytest.mark.parametrize(
    "count",
    [
        lambda task: task.stage("Read"),
        lambda task: task.declare(None, 3),
        lambda task: task.declare("Read", 3),
        lambda task: task.set_unit(None, "B"),
        lambda task: task.leave_out(ValueError("no number"), "here"),
        lambda task: task.note_another_loop("has counted all its items"),
        lambda task: task.note_part(),
        lambda task: task.own.add_to_counters({"skipped": 1}),
    ],
)
def test_a_task_with_more_to_say_leaves_its_reporter_to_no_other(count: Callable[[Reporter], object]) -> None:
    """Whatever it has counted besides items of no stage: that is read, and another reporter follows."""
    chunk = ChunkReporter(lambda total: Reporter(7, total=total))
    chunk.begin("ab")
    count(chunk.current)
    assert not chunk.next_if_plain()
    chunk.next(chunk.current.raw_counts())
    assert chunk.next_if_plain()


def test_items_without_a_total_are_in_no_total_that_others_declare() -> None:
    """Neither those of plain tasks nor those of others, before the run has taken them in."""
    without = RUN_ITEMS._replace(metric=Metric.TASKS_WITHOUT_TOTAL)
    for named in (False, True):
        for totals, expected in ((None, 1), ([3, 3], 0)):
            chunk = ChunkReporter(lambda total: Reporter(7, total=total), totals)
            chunk.begin("ab")
            chunk.own.n += 3
            if named:
                chunk.current.stage("Read").n += 1
            if not chunk.next_if_plain():
                chunk.next(chunk.current.raw_counts())
            assert (chunk.report().before or {}).get(without, 0) == expected
