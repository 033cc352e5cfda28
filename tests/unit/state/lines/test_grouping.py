"""Which stages share a line, and in which order the lines of a run stand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from support.work import Work, count

from speedy_utils import Snapshot
from speedy_utils._state.ledger import Key, Metric
from speedy_utils._state.lines.grouping import MAX_OF_A_KIND, MAX_OF_ONE_TASK_EACH, Grouping
from speedy_utils._state.lines.sums import StageSums


def lines_of(tasks: Iterable[Iterable[str]]) -> list[str]:
    """Return the names of the lines after tasks have come to stages: for each task its stages."""
    grouping, stages = Grouping(), {}
    for task, names in enumerate(tasks):
        grouping.observe(task, {Key(name, Metric.TASKS_STARTED): 1 for name in names})
        stages |= {name: StageSums(tasks_started=1) for name in names}
    return [line.name for line in grouping.lines(stages)]


FEW, MANY = MAX_OF_ONE_TASK_EACH, MAX_OF_A_KIND + 1


@pytest.mark.parametrize(
    ("tasks", "lines"),
    [
        ([["shard-0.parquet"]], ["shard-0.parquet"]),
        ([["shard-0.parquet"], ["shard-1.parquet"]], ["shard-*.parquet"]),
        ([["gpu 0"], ["gpu 1"], ["gpu 0"], ["gpu 1"]], ["gpu *"]),
        ([["file 1", "file 2"], ["file 3", "file 4"], ["Save"]], ["file *", "Save"]),
        ([["Pass 1", "Pass 2"], ["Pass 1"]], ["Pass 1", "Pass 2"]),
        ([[f"Pass {n}" for n in range(MANY)]] * 2, ["Pass *"]),
        ([["Read", "Pack", "Save"], ["Read", "Pack"], ["Read"]], ["Read", "Pack", "Save"]),
        ([[name] for name in "abc"[:FEW]], [*"abc"[:FEW]]),
        ([["Read", name] for name in "abcdef"], ["Read", "a and others"]),
        ([[name] for name in "abcdef"] + [["others"]], ["a and others"]),
        ([[f"{task} {name}" for name in "abcdef"] for task in "xy"], ["x a and others"]),
        ([[f"{name} {n}" for n in range(MANY)] for name in "abcd"], ["a * and others"]),
        ([["file 1", "file 2", "file *"]], ["file *"]),
    ],
)
def test_stages_of_one_kind_share_a_line(tasks: list[list[str]], lines: list[str]) -> None:
    """Names that differ in digits do, if not each task has several; and many that one task each has."""
    assert lines_of(tasks) == lines


def test_a_line_once_shared_stays_shared() -> None:
    """What shares a line does not fall apart when it turns out that a task goes through several."""
    grouping, stages = Grouping(), {name: StageSums() for name in ("file 1", "file 2")}
    for task, name in enumerate(stages):
        grouping.observe(task, {Key(name, Metric.TASKS_STARTED): 1})
    assert [line.name for line in grouping.lines(stages)] == ["file *"]
    grouping.observe(2, {Key(name, Metric.TASKS_STARTED): 1 for name in stages})
    grouping.observe(3, {Key(name, Metric.TASKS_STARTED): 1 for name in stages})
    assert [line.name for line in grouping.lines(stages)] == ["file *"]


def shown(snapshot: Snapshot) -> list[str]:
    """Return the lines of a snapshot as text: name, count, and total with a plus if it grows."""
    return [
        f"{line.name} {line.done}/{'?' if line.total is None else line.total}{'+' * line.growing}"
        for line in snapshot.lines
    ]


@pytest.mark.parametrize(("total", "tasks"), [(10, []), (None, ["Run 0/3"])], ids=["items", "tasks"])
def test_a_shared_line_adds_up_and_ends_exactly(total: int | None, tasks: list[str]) -> None:
    """It has the sums of its stages, the clock of them all, and the run's total if they have."""
    work = Work(total and 30, tasks=3)
    for task in range(3):
        count(work.start(task, total), f"shard-{task}", 4, declared=10)
        work.clock.advance(5)
    assert shown(work.read()) == [*tasks, "shard-* 12/30"]
    for task in range(3):
        work.reporters[task].stage(f"shard-{task}").n += 6
        work.finish(work.reporters[task])
    work.stages.all_succeeded()
    snapshot = work.read()
    assert shown(snapshot)[-1] == "shard-* 30/30"
    assert (snapshot.lines[-1].elapsed, snapshot.lines[-1].rate) == (15.0, 2.0)
    assert [stage.name for stage in snapshot.stages] == ["shard-0", "shard-1", "shard-2"]


def test_a_shared_line_grows_while_tasks_may_bring_more() -> None:
    """Where a task goes through several of its stages there may be more of them until the last task ends."""
    work = Work(None, tasks=2)
    for task in range(2):
        reporter = work.start(task)
        for name in "ab":
            count(reporter, f"file {task}{name}", 3, declared=3)
            count(reporter, f"file {2 + task}{name}", 1, declared=3)
    assert shown(work.read()) == ["Run 0/2", "file *a 8/12+", "file *b 8/12+"]


def test_lines_of_the_run_come_first_and_those_that_are_over_last() -> None:
    """Short stages that come and go before the work sink below it; a line keeps its place from then on."""
    work = Work(200, tasks=2)
    first, second = work.start(0, 100), work.start(1, 100)
    for reporter in (first, second):
        count(reporter, "Loading", 5, declared=8)
    assert shown(work.read()) == ["Run 0/200", "Loading 10/16"]
    for reporter in (first, second):
        count(reporter, "Loading", 3)
        count(reporter, "Capturing", 1, declared=4)
    assert shown(work.read()) == ["Run 0/200", "Capturing 2/8", "Loading 16/16"]
    for reporter in (first, second):
        count(reporter, "Capturing", 3)
        count(reporter, "Prompts", 10, declared=100)
    assert shown(work.read()) == ["Prompts 20/200", "Loading 16/16", "Capturing 8/8"]
    count(first, "Prompts", 90)
    work.finish(first)
    count(work.start(2, 100), "Loading", 1, declared=8)
    assert shown(work.read()) == ["Prompts 110/200", "Loading 17/24", "Capturing 8/8"]


def test_what_runs_stands_before_what_is_finished() -> None:
    """A stage that is finished, or that no task works on any more, goes below those that are at work."""
    work = Work(None, tasks=3)
    for task, name in enumerate(["alpha", "beta", "gamma"]):
        count(work.start(task), name, 2, declared=6)
    work.reporters[0].stage("alpha").n += 4
    work.finish(work.reporters[0])
    assert shown(work.read()) == ["Run 1/3", "beta 2/6+", "gamma 2/6+", "alpha 6/6+"]


def test_the_runs_line_stays_until_what_is_named_covers_its_items() -> None:
    """A stage that a task has brought fewer items to than it has does not say how far the run is."""
    work = Work(20, tasks=2)
    count(work.start(0, 10), "Keep", 4)
    assert shown(work.read()) == ["Keep 4/20"]
    work.finish(work.reporters[0])
    count(work.start(1, 10), "Keep", 1)
    assert shown(work.read()) == ["Run 10/20", "Keep 5/14"]


def leave_nothing(work: Work, task: int, name: str) -> None:
    """Let a bar that leaves no line count two items for a stage of a task."""
    reporter = work.start(task)
    reporter.bar_lines.open(name, leave=False)
    count(reporter, name, 0, declared=2)
    reporter.stage(name).bars.n += 2


def test_bars_that_leave_nothing_go_when_they_have_ended() -> None:
    """A line goes once all its bars have ended; the stage counts on, and what stays keeps its line."""
    work = Work(None, tasks=3)
    leave_nothing(work, 0, "Load")
    assert shown(work.read()) == ["Run 0/3", "Load 2/2+"]
    work.reporters[0].bar_lines.close("Load")
    assert shown(work.read()) == ["Run 0/3"]
    work.finish(work.reporters[0])
    leave_nothing(work, 1, "Load")
    assert shown(work.read()) == ["Run 1/3", "Load 4/4+"]
    work.reporters[1].bar_lines.close("Load")
    work.finish(work.reporters[1])
    snapshot = work.read()
    assert (shown(snapshot), snapshot.stages[0].done) == (["Run 2/3"], 4)
    count(work.start(2), "Load", 1)
    work.finish(work.reporters[2])
    assert shown(work.read()) == ["Run 3/3", "Load 5/?"]


def test_the_newest_postfix_is_shown() -> None:
    """A line has the last postfix that one of its tasks has set, also once that task has ended."""
    work = Work(None, tasks=2)
    for task, text in enumerate(["loss=0.5", "loss=0.3"]):
        count(work.start(task), f"epoch {task}", 1)
        work.reporters[task].bar_lines.set_postfix(f"epoch {task}", text)
    assert work.read().lines[1].postfix == "loss=0.3"
    work.reporters[0].bar_lines.set_postfix("epoch 0", "loss=0.2")
    assert work.read().lines[1].postfix == "loss=0.2"
    for task in range(2):
        work.finish(work.reporters[task])
    assert work.read().lines[1].postfix in ("loss=0.2", "loss=0.3")
