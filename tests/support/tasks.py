"""A task of known size in the process of a test, and what the run would see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from speedy_utils._engines.task import TaskSettings, run_chunk
from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric
from speedy_utils._worker.chunk_reporter import ChunkReporter
from speedy_utils._worker.context import counting, registered
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink


class Task:
    """A task that is running.

    Args:
        total: Its items.
        rows: Whether these are the rows of a dataset.
    """

    def __init__(self, total: int, *, rows: bool = True) -> None:
        self.reporter = Reporter(0, total=total, total_is_rows=rows)

    @property
    def done(self) -> int:
        """The items that it has reported."""
        return int(self.reporter.report().counts[RUN_ITEMS])

    @property
    def shown(self) -> int:
        """The items that its run shows."""
        counts = self.reporter.report().counts
        return int(counts[RUN_ITEMS] + counts.get(Key(None, Metric.ESTIMATED), 0))

    @property
    def raw(self) -> int:
        """The items that it has reported, whatever its total."""
        return int(self.reporter.raw_counts()[RUN_ITEMS])


@contextmanager
def a_task(total: int, *, rows: bool = True) -> Iterator[Task]:
    """Let the block be the code of a task whose tqdm bars are captured."""
    task = Task(total, rows=rows)
    with registered(task.reporter, RecordingSink()), counting(task.reporter.own), capturing_tqdm():
        yield task


def run_task(work: Callable[[Task], object], total: int, *, rows: bool = True) -> Task:
    """Run a function as a worker runs the function of a task, and return the task."""
    task = Task(total, rows=rows)
    chunk = ChunkReporter(lambda _: task.reporter, [total], apart=True)
    for ended in run_chunk(work, [task], {}, chunk, TaskSettings()).others.values():
        if ended.failure is not None and ended.failure.error is not None:
            raise ended.failure.error
    return task
