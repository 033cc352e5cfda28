"""Tasks that travel together: each ends once, whatever becomes of the chunks that they are in."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speedy_utils._display.base import choose_display
from speedy_utils._engines.chunk_sizes import ChunkSizes
from speedy_utils._engines.driver import Ended, drive
from speedy_utils._engines.limits.failure import Failure
from speedy_utils._engines.payload.unsent import UnsentItemError
from speedy_utils._engines.task import Chunk, ChunkOutcome, Outcome
from speedy_utils._engines.task_queue import PARTS, READING_S
from speedy_utils._run.feed import LocalFeed
from speedy_utils._run.run import Run

LOST = Failure("the worker was lost", worker_lost=True)


class DrawingEngine(LocalFeed):
    """Lets each chunk end as is drawn: whole, early, with a failure, or lost after some of its tasks.

    Args:
        draw: Draws from a strategy.
        fails: The tasks that fail.
        workers: How many chunks run at once.
        kills: The tasks that end their workers.
    """

    ahead = 0

    def __init__(self, draw: Any, fails: set[int], workers: int, kills: set[int]) -> None:
        super().__init__()
        self.workers, self._draw, self._fails, self._kills = workers, draw, fails, kills
        self._running: list[Chunk] = []
        self._kept: dict[tuple[int, int], int] = {}
        self.started: list[tuple[int, int]] = []
        self.sizes: list[int] = []

    def start(self) -> None:
        """Do nothing."""

    def submit(self, chunk: Chunk) -> None:
        """Let it wait."""
        self._running.append(chunk)
        self.sizes.append(len(chunk.items))

    def handed_back(self) -> Mapping[tuple[int, int], int]:
        """Let some chunks hand back what has not begun."""
        for chunk in self._running:
            if len(chunk.items) > 1 and self._draw(st.booleans()):
                key = chunk.task, chunk.attempt
                self._kept.setdefault(key, self._draw(st.integers(1, len(chunk.items))))
        return dict(self._kept)

    def wait(self, timeout: float | None = None) -> None:
        """Do not wait."""
        self._has_time = timeout is not None

    def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """End a chunk; perhaps none while there is time."""
        if self._has_time and self._draw(st.booleans()):
            return []
        chunk = self._running.pop(self._draw(st.integers(0, len(self._running) - 1)))
        kept = self._kept.pop((chunk.task, chunk.attempt), len(chunk.items))
        outcome = ChunkOutcome(seconds=self._draw(st.sampled_from([0.0, 1e-4, 0.1])))
        ends = self._draw(st.sampled_from(["whole", "early"])) if kept == len(chunk.items) else "whole"
        stop = kept if ends == "whole" else self._draw(st.integers(1, kept))
        for place in range(stop):
            task = chunk.task + place
            if task in self._kills:
                done = self._draw(st.integers(0, place)) if kept == len(chunk.items) else 0
                # What has ended since the last word of the worker runs again.
                del outcome.values[done:]
                outcome.others = {at: other for at, other in outcome.others.items() if at < done}
                outcome.failure = LOST
                break
            self.started.append((task, chunk.attempt))
            failed = task in self._fails
            outcome.values.append(None if failed else chunk.items[place])
            if failed:
                outcome.others[place] = Outcome(Failure("ValueError: no", error=ValueError("no")), {})
        return [(chunk, outcome)]

    def cancel(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Do nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logger = logging.getLogger("speedy_utils")
    logger.disabled = True
    yield
    logger.disabled = False


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, 300),
    workers=st.integers(1, 4),
    fails=st.sets(st.integers(0, 299), max_size=4),
    kills=st.sets(st.integers(0, 299), max_size=3),
    chunksize=st.none() | st.integers(1, 60),
    data=st.data(),
)
def test_each_task_ends_once(
    count: int, workers: int, fails: set[int], kills: set[int], chunksize: int | None, data: st.DataObject
) -> None:
    """With its own result; tasks that end their workers fail, and take no other with them."""
    kills -= fails
    engine = DrawingEngine(data.draw, fails, workers, kills)
    ended: dict[int, Any] = {}
    shown: list[Any] = []

    def finish(end: Ended) -> None:
        tasks = range(end.first, end.first + max(1, len(end.values)))
        assert not ended.keys() & set(tasks)
        if end.failure is None:
            ended.update(zip(tasks, end.values, strict=True))
        else:
            ended[end.first] = end.failure.reason

    with Run("Run", count, tasks=count, display=choose_display(shown.append), feed=engine) as run:
        items = [f"item {task}" for task in range(count)]
        drive(engine, run, items, finish, max_retries=1, totals=[1] * count, sizes=ChunkSizes(chunksize))
    expected = {task: f"item {task}" for task in range(count)}
    expected |= {task: "ValueError: no" for task in fails if task < count}
    expected |= {task: LOST.reason for task in kills if task < count}
    assert ended == expected
    failed = sum(task < count for task in fails | kills)
    last = shown[-1]
    assert (last.done, last.tasks_done, last.tasks_failed) == (count - failed, count - failed, failed)
    if not kills:
        assert len(engine.started) == len(set(engine.started)) == count


def test_items_that_are_read_slowly_do_not_wait_for_a_full_chunk() -> None:
    """A chunk has as many as there are after a moment, unless it was asked how many it is to have."""

    class Engine(DrawingEngine):
        """Each chunk ends at once."""

        def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
            """End the newest chunk."""
            chunk = self._running.pop()
            return [(chunk, ChunkOutcome([*chunk.items]))]

    def read(number: int) -> int:
        time.sleep(READING_S / 2.5)
        return number

    for chunksize, largest in ((None, 4), (8, 8)):
        engine, ended = Engine(None, set(), 1, set()), []
        with Run("Run", None, tasks=20, display=choose_display(progress=False), feed=engine) as run:
            drive(engine, run, map(read, range(20)), ended.append, max_retries=0, sizes=ChunkSizes(chunksize))
        assert [value for each in ended for value in each.values] == [*range(20)]
        assert max(engine.sizes) <= largest
        assert chunksize is None or engine.sizes == [8, 8, 4]


def test_a_lost_chunk_is_split_until_the_task_that_ends_workers_is_alone() -> None:
    """Of 10,000 tasks one kills its worker: three losses later it is alone, with all its retries.

    Each task that is sent again counts as one retry.
    """

    class Engine(DrawingEngine):
        """Each chunk with that task is lost at once."""

        lost: list[int] = []  # noqa: RUF012 - of this test

        def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
            """End the newest chunk."""
            chunk = self._running.pop()
            if not chunk.task <= 7_777 < chunk.task + len(chunk.items):
                return [(chunk, ChunkOutcome([*chunk.items]))]
            self.lost.append(len(chunk.items))
            return [(chunk, ChunkOutcome(failure=LOST))]

    engine, ended = Engine(None, set(), 1, set()), []
    shown: list[Any] = []
    with Run("Run", None, tasks=10_000, display=choose_display(shown.append), feed=engine) as run:
        drive(engine, run, range(10_000), ended.append, max_retries=2, sizes=ChunkSizes(10_000))
    assert engine.lost == [10_000, 625, 40, 3, 1, 1, 1]
    assert engine.lost[1] == 10_000 // PARTS
    failed = [each for each in ended if each.failure]
    assert [(each.first, each.item) for each in failed] == [(7_777, 7_777)]
    assert sum(len(each.values) for each in ended) == 9_999
    assert shown[-1].retries == sum(engine.lost[:-1])


def test_items_that_can_not_be_sent_fail_alone() -> None:
    """Wherever they are in a chunk, the tasks around them run, once and as a first attempt."""

    class Engine(DrawingEngine):
        """It can't send the multiples of seven."""

        def submit(self, chunk: Chunk) -> None:
            """Refuse the first of them."""
            for place, item in enumerate(chunk.items):
                if item % 7 == 0:
                    raise UnsentItemError(place, "its item can't be sent")
            super().submit(chunk)

        def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
            """End the newest chunk."""
            chunk = self._running.pop()
            self.started += [(task, chunk.attempt) for task in chunk.items]
            return [(chunk, ChunkOutcome([*chunk.items]))]

    engine, ended, shown = Engine(lambda _: False, set(), 2, set()), [], []
    with Run("Run", 100, tasks=100, display=choose_display(shown.append), feed=engine) as run:
        drive(engine, run, range(100), ended.append, max_retries=2, totals=[1] * 100, sizes=ChunkSizes(30))
    failed = [each for each in ended if each.failure]
    assert sorted((each.first, each.item, each.attempts) for each in failed) == [
        (task, task, 1) for task in range(0, 100, 7)
    ]
    assert {each.failure.reason for each in failed} == {"its item can't be sent"}
    assert sorted(engine.started) == [(task, 1) for task in range(100) if task % 7]
    last = shown[-1]
    assert (last.done, last.tasks_done, last.tasks_failed, last.retries) == (85, 85, 15, 0)


@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("stuck", [0, 7_777, 9_999])
def test_a_task_whose_worker_was_killed_for_it_is_alone_at_once(stuck: int, tries: int) -> None:
    """The others of its chunk run again in parts, and it is tried again by itself, or has failed."""

    class Engine(DrawingEngine):
        """Each chunk with that task is lost."""

        lost: list[int] = []  # noqa: RUF012 - of this test

        def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
            """End the newest chunk."""
            chunk = self._running.pop()
            if not chunk.task <= stuck < chunk.task + len(chunk.items):
                return [(chunk, ChunkOutcome([*chunk.items]))]
            self.lost.append(len(chunk.items))
            failure = Failure("late", error=TimeoutError(), retry_in=0.0 if tries > 1 else None)
            return [(chunk, ChunkOutcome(failure=failure, stuck=stuck - chunk.task))]

    engine, ended = Engine(None, set(), 1, set()), []
    engine.lost.clear()
    shown: list[Any] = []
    with Run("Run", None, tasks=10_000, display=choose_display(shown.append), feed=engine) as run:
        sizes = ChunkSizes(10_000)
        drive(engine, run, range(10_000), ended.append, max_retries=tries - 1, sizes=sizes)
    assert engine.lost == [10_000, 1][:tries]
    assert [(each.first, each.attempts) for each in ended if each.failure] == [(stuck, tries)]
    assert sorted(value for each in ended for value in each.values) == [
        *range(stuck),
        *range(stuck + 1, 10_000),
    ]
    last = shown[-1]
    assert (last.tasks_done, last.tasks_failed, last.retries) == (9_999, 1, 9_998 + tries)
