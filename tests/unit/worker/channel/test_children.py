"""What processes count that a task has started."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from speedy_utils._state.ledger import ENDED, RUN_ITEMS, Key, Metric, Report
from speedy_utils._worker.channel.children import SETTLED_S, Children
from speedy_utils._worker.channel.writer import FolderSink
from speedy_utils._worker.chunk_reporter import CHILD_S, ChunkReporter
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock

LOOKED = Key("Look", Metric.ITEMS)
LETTERS = Key("Look", Metric.COUNTER, "letters")


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    """Return what reads a folder of their own."""
    children = Children(tmp_path / "children")
    yield children
    children.close()


def write(children: Children, reading: int, **items: int) -> None:
    """Write what processes have counted by now, all from this one."""
    run = json.loads(Path(children.path, "run").read_bytes())["run"]
    sink = FolderSink(children.path, run)
    reports = [
        Report(name, 1, {RUN_ITEMS: n, LOOKED: 2 * n, LETTERS: n / 2, ENDED: 1}, reading)
        for name, n in items.items()
    ]
    sink.send(reports, {})


def test_the_task_that_runs_counts_what_has_come_since_the_last_look(children: Children) -> None:
    """A process that outlives a task counts for the next one from then on; what it takes back comes off."""
    first, second = Reporter(1), Reporter(2)
    first.children = second.children = children
    assert first.capped_counts()[RUN_ITEMS] == 0
    write(children, 1, a=3, b=4)
    counts = first.raw_counts()
    assert (counts[RUN_ITEMS], counts[LOOKED], counts[LETTERS]) == (7, 14, 3.5)
    write(children, 2, a=5, b=4)
    assert second.capped_counts()[RUN_ITEMS] == 2
    write(children, 3, a=4, b=4)
    assert second.capped_counts()[RUN_ITEMS] == 1
    assert first.raw_counts()[RUN_ITEMS] == 7


def test_what_processes_count_is_within_the_total_of_the_task(children: Children) -> None:
    """The task shows no more than it has."""
    reporter = Reporter(1, total=5)
    reporter.children = children
    reporter.own.n += 2
    write(children, 1, a=9)
    assert reporter.report().counts[RUN_ITEMS] == 5


def test_a_plain_task_counts_them_if_it_has_taken_long_enough_to_start_one(children: Children) -> None:
    """Tasks of microseconds don't look into the folder."""
    clock = FakeClock()

    def make(total: int | None) -> Reporter:
        reporter = Reporter(1, total=total, clock=clock)
        reporter.children = children
        return reporter

    chunk = ChunkReporter(make)
    write(children, 1, a=3)
    assert chunk.next_if_plain()
    assert chunk.plain_items == 0
    clock.advance(2 * CHILD_S)
    assert not chunk.next_if_plain()  # they have counted for a stage
    assert chunk.current.raw_counts()[RUN_ITEMS] == 3


def test_what_comes_is_found_at_once_by_tasks_that_look_all_the_time(children: Children) -> None:
    """They look at when the folder was changed, which file systems keep less exactly than they look."""
    reporter, done = Reporter(1), 0
    for _ in range(3):
        until = time.monotonic() + 2 * SETTLED_S
        while time.monotonic() < until:
            children.count_for(reporter)
        for _ in range(5):
            done += 3
            write(children, done, a=done)
            children.count_for(reporter)
            assert reporter.own.n == done


def count_here(children: Children) -> None:
    """Count three items as a child does."""
    write(children, 1, **{f"{FolderSink(children.path).process_name}": 3})


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the system has no forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of the threads of other tests
def test_what_a_process_adds_to_its_file_counts(children: Children) -> None:
    """A process that counts for longer than the folder takes to be settled is counted to its end."""
    reporter = Reporter(1)
    reporter.children = children
    run = json.loads(Path(children.path, "run").read_bytes())["run"]
    sink = FolderSink(children.path, run)
    for reading in range(1, 4):
        sink.send([Report("a", 1, {RUN_ITEMS: 5 * reading, ENDED: 1}, reading)], {})
        until = time.monotonic() + 2 * SETTLED_S
        while time.monotonic() < until:
            reporter.count_children()
        assert reporter.capped_counts()[RUN_ITEMS] == 5 * reading


def test_files_of_processes_that_have_ended_do_not_add_up(tmp_path: Path) -> None:
    """A worker may run thousands of tasks that each start some, and all that they counted stays counted."""
    children, reporter = Children(tmp_path / "children", most_files=3), Reporter(1)
    for _ in range(10):
        child = multiprocessing.get_context("fork").Process(target=count_here, args=(children,))
        child.start()
        child.join()
        children.count_for(reporter)
        assert len([*Path(children.path).glob("*.json")]) <= 5
    assert reporter.raw_counts()[RUN_ITEMS] == 30
    children.close()


def test_no_folder_no_counts(tmp_path: Path) -> None:
    """Where there can be no folder, the work goes on without it."""
    (tmp_path / "file").touch()
    assert Children.if_possible(tmp_path / "file" / "children") is None
