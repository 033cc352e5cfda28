"""What a run shows of its stages: names on one line, shared lines with the time that is left."""

from __future__ import annotations

from speedy_utils._display.base import NullDisplay
from speedy_utils._run.feed import LocalFeed
from speedy_utils._run.run import Run
from speedy_utils._worker.chunk_reporter import ChunkReporter
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock


def a_run(desc: str, total: int | None, *, tasks: int, clock: FakeClock) -> tuple[Run, list[Reporter]]:
    """Make a run that the test reads by hand, and the reporters of its tasks, which have begun."""
    feed = LocalFeed()
    run = Run(desc, total, tasks=tasks, workers=tasks, display=NullDisplay(), feed=feed, clock=clock)
    reporters = [Reporter(task, total=total and total // tasks, clock=clock) for task in range(tasks)]
    for task, reporter in enumerate(reporters):
        run.attempt(task, 1, total=reporter.total)
        feed.add(reporter)
    return run, reporters


def test_names_take_one_line_each() -> None:
    """Line breaks, tabs and escapes in the names of a run and its stages reach no display."""
    run, (reporter,) = a_run("All\nof\tit", None, tasks=1, clock=FakeClock())
    reporter.stage("Read\n\tall\x1b[2J \x1b[31mfiles\x1b[0m").n += 1
    assert [line.name for line in run.snapshot().lines] == ["All of it", "Read all files"]


def test_a_shared_line_has_the_time_that_is_left() -> None:
    """It is that of the slowest task, whatever the name of its stage; the first line has it for the run."""
    clock = FakeClock()
    run, reporters = a_run("Run", 400, tasks=4, clock=clock)
    for _ in range(20):
        for task, reporter in enumerate(reporters):
            reporter.mark_started(f"shard-{task}")
            reporter.stage(f"shard-{task}").n += 1 if task else 4
        snapshot = run.snapshot()
        clock.advance(1)
    (line,) = snapshot.lines
    assert (line.name, line.done, line.total) == ("shard-*", 140, 400)
    assert line.eta is not None
    assert 75 < line.eta < 85
    assert [stage.name for stage in snapshot.stages] == [f"shard-{task}" for task in range(4)]


def test_the_total_of_a_finished_task_is_no_count_of_the_runs_own() -> None:
    """A chunk counts it for the run; tasks that count for stages alone get no line for the run by that."""
    clock = FakeClock()
    feed = LocalFeed()
    run = Run("Run", 20, tasks=2, display=NullDisplay(), feed=feed, clock=clock)
    run.attempt_chunk(0, 1, [None] * 2, [10, 10])
    chunk = ChunkReporter(lambda total: Reporter(0, total=total, clock=clock), [10, 10])
    feed.add(chunk)
    for _ in range(2):
        chunk.current.mark_started("Read")
        chunk.current.stage("Read").n += 10
        chunk.next(chunk.current.raw_counts())
        snapshot = run.snapshot()
        assert [line.name for line in snapshot.lines] == ["Read"]
    assert snapshot.done == 20
