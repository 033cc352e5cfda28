"""What the lines of a run show: live never ahead, and at a clean end exactly full."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counts import Fixed
from support.work import Work, count

from speedy_utils import StageSnapshot
from speedy_utils._display.format import format_excess
from speedy_utils._instrument.loops import report_progress
from speedy_utils._state.ledger import Key, Metric
from speedy_utils._state.lines.sums import StageSums, sums_by_stage
from speedy_utils._state.stages import RunSums, Stages, Total, expected_total
from speedy_utils._state.timings import StageClock
from speedy_utils._worker.context import counting
from speedy_utils.testing import FakeClock


@pytest.mark.parametrize(
    ("with_own", "without", "started", "run", "total"),
    [
        (0, 0, 2, RunSums(None, 0, 2), Total(None)),
        (0, 2, 2, RunSums(None, 0, 2), Total(None)),
        (0, 0, 2, RunSums(100, 0, 2), Total(100)),
        (0, 0, 0, RunSums(100, 15, 0), Total(85)),
        (1, 1, 2, RunSums(100, 0, 2), Total(None)),
        (1, 0, 1, RunSums(100, 15, 1), Total(40)),
        (1, 0, 0, RunSums(None, 0, 0), Total(40)),
        (1, 0, 1, RunSums(None, 0, 2), Total(40, growing=True)),
        (1, 0, 0, RunSums(100, 0, 1), Total(40, growing=True)),
    ],
)
def test_a_stage_has_the_runs_total_or_that_of_its_tasks(
    with_own: int, without: int, started: int, run: RunSums, total: Total
) -> None:
    """The table in the docstring of ``expected_total``, case by case."""
    sums = StageSums(7, 40, started, with_own, without)
    assert expected_total(sums, run) == total


def play(work: Work, action: str) -> None:
    """Do what a line of a case says."""
    match action.split():
        case [task, "starts", *how]:
            known = int(how[1]) if "with" in how else None
            work.start(int(task), known, attempt=2 if "again" in how else 1)
        case [task, "counts", n, *details]:
            words = dict(zip(details[::2], details[1::2], strict=True))
            stage, total = words.get("in"), words.get("of")
            if total:
                work.reporters[int(task)].declare(stage, None if total == "?" else int(total))
            count(work.reporters[int(task)], stage, int(n))
        case [task, "declares", total, "in", stage]:
            work.reporters[int(task)].declare(stage, int(total))
        case [task, "succeeds"]:
            work.finish(work.reporters[int(task)])
        case [task, "fails"]:
            work.fail(work.reporters[int(task)])
        case ["wait", seconds]:
            work.clock.advance(int(seconds))
        case ["all", "succeeded"]:
            work.stages.all_succeeded()
        case _:
            raise ValueError(action)


def shown(work: Work) -> str:
    """Return the lines as text, with the run's in brackets if it is hidden.

    A total that grows has a plus, and dots follow the count of a line whose results are not all in.
    """
    snapshot = work.read()

    def text(line: StageSnapshot) -> str:
        total = "?" if line.total is None else f"{line.total}{'+' * line.growing}"
        total += "…" * line.pending + f" {line.unit}" * (line.unit != "items")
        return f"{line.name} {line.done}/{total}" + (f" {line.elapsed:.0f}s" if line.elapsed else "")

    run = text(snapshot.run_line) if snapshot.show_run_line else f"({text(snapshot.run_line)})"
    return ", ".join([run, *map(text, snapshot.stages)])


CASES = """
the run's line is hidden while a stage says the same, until something is counted unnamed
    total=10, tasks=1
    0 starts with 10 | Run 0/10
    0 counts 3 in Read | (Run 0/10), Read 3/10
    0 counts 1 | Run 1/10, Read 3/10
    0 succeeds | Run 10/10…, Read 3/3
a task that only named stages does not bring the run's line back when it is credited
    total=10, tasks=1
    0 starts with 10, 0 counts 10 in Read | (Run 0/10), Read 10/10…
    0 succeeds | (Run 10/10…), Read 10/10…
    all succeeded | (Run 10/10), Read 10/10
a stage of items can't say how many tasks are done, with a total or without
    total=None, tasks=2
    0 starts, 0 counts 3 in Read of 5 | Run 0/2 tasks, Read 3/5+
    0 counts 3 in Pack | Run 0/2 tasks, Read 3/5+, Pack 3/?
    0 succeeds | Run 1/2 tasks, Read 3/3+, Pack 3/?
a stage with a total of its own does not say all, a second stage may
    total=10, tasks=1
    0 starts with 10, 0 counts 1 in Pack of 2 | Run 0/10, Pack 1/2
    0 counts 3 in Read | (Run 0/10), Pack 1/2, Read 3/10
the stages of a resumed run have what is left to do
    total=100, tasks=2, initial=40
    2 starts with 30 | Run 40/100
    2 counts 5 in Read | (Run 40/100), Read 5/60
    2 counts 25 in Read, 2 succeeds | (Run 70/100), Read 30/60
    3 starts with 30, 3 counts 30 in Read, 3 succeeds, all succeeded | (Run 100/100), Read 60/60
tasks that were done before don't keep a stage growing
    total=None, tasks=1, initial=40
    3 starts, 3 counts 1 in Read of 5 | Run 40/?, Read 1/5
a stage stops growing once each task has come to it, which need not have ended
    total=None, tasks=2
    0 starts, 0 counts 1 in Read of 5 | Run 0/2 tasks, Read 1/5+
    1 starts | Run 0/2 tasks, Read 1/5+
    1 counts 0 in Read of 4 | Run 0/2 tasks, Read 1/9
a retry takes back what the lost attempt declared, and the task has to come to the stage again
    total=None, tasks=2
    0 starts, 0 counts 1 in Read of 5, 1 starts, 1 counts 3 in Read of 7 | Run 0/2 tasks, Read 4/12
    1 starts again | Run 0/2 tasks, Read 1/5+
    1 counts 7 in Read of 7 | Run 0/2 tasks, Read 8/12
what a loop declared and did not do leaves the total when its task succeeds
    total=None, tasks=2
    0 starts, 1 starts, 0 counts 2 in Read of 10, 1 counts 1 in Read of 10 | Run 0/2 tasks, Read 3/20
    0 succeeds | Run 1/2 tasks, Read 3/12
the same of an unnamed loop
    total=None, tasks=1
    0 starts, 0 counts 4 of 9 | Run 4/9
    0 succeeds | Run 4/4…
    all succeeded | Run 4/4
a failed task leaves its stages and the run short
    total=20, tasks=2
    0 starts with 10, 1 starts with 10, 0 counts 2 in Read | (Run 0/20), Read 2/20
    0 counts 1 in Pack of 4 | (Run 0/20), Read 2/20, Pack 1/4+
    1 counts 10 in Read, 0 fails | (Run 2/20), Read 12/20, Pack 1/4+
    1 succeeds | (Run 12/20), Read 12/20, Pack 1/4
a failed task has done what it brought through each stage that all items go through
    total=20, tasks=2
    0 starts with 10, 1 starts with 10, 0 counts 9 in Read | (Run 0/20), Read 9/20
    0 counts 4 in Write | (Run 0/20), Read 9/20, Write 4/20
    1 counts 6 in Read, 1 fails | (Run 0/20), Read 15/20, Write 4/20
    0 fails | (Run 4/20), Read 15/20, Write 4/20
a loop without a length makes the total of its stage unknown
    total=None, tasks=1
    0 starts, 0 counts 2 in Read of 2 | Run 0/1 tasks, Read 2/2
    0 counts 3 in Read of ? | Run 0/1 tasks, Read 5/?
or that of its task, if it has one
    total=10, tasks=1
    0 starts with 10, 0 counts 2 in Read of 2 | Run 0/10, Read 2/2
    0 counts 3 in Read of ? | (Run 0/10), Read 5/10
one task without a total makes that of the stage unknown
    total=None, tasks=2
    0 starts, 0 counts 1 in Read of 5 | Run 0/2 tasks, Read 1/5+
    1 starts, 1 counts 3 in Read | Run 0/2 tasks, Read 4/?
without a total tasks are counted until one counts items, of as many as their unnamed loops have
    total=None, tasks=3
    0 starts, 1 starts | Run 0/3 tasks
    0 counts 3 of 10 | Run 3/10+
    1 counts 1 of 5 | Run 4/15+
    0 counts 7, 0 succeeds, 2 starts | Run 11/15+
    2 counts 0 of 4 | Run 11/19
    1 counts 4, 1 succeeds, 2 counts 4 | Run 19/19…
    2 succeeds, all succeeded | Run 19/19
the total that unnamed loops declare is dropped once others count without one, and comes back after them
    total=None, tasks=3
    0 starts, 0 counts 4 of 9 | Run 4/9+
    1 starts, 1 counts 50 | Run 54/?
    1 succeeds, 2 starts | Run 54/59+
    2 counts 1 of ? | Run 55/?
or once their task has counted more than they have
    total=None, tasks=1
    0 starts, 0 counts 4 of 5 | Run 4/5
    0 counts 2 | Run 6/?
    0 succeeds | Run 6/?
    all succeeded | Run 6/6
once a task has begun a second unnamed loop more may follow, in others too, so the total grows
    total=None, tasks=2
    0 starts, 1 starts, 0 counts 5 of 5, 1 counts 1 of 9 | Run 6/14
    0 counts 1 of 5 | Run 7/19+
    0 counts 4, 0 succeeds | Run 11/19+
tasks that count nothing are a part of the run all the same
    total=None, tasks=3
    0 starts, 0 succeeds | Run 1/3 tasks
    1 starts, 1 counts 5 of 5, 2 starts | Run 5/5+
    1 succeeds | Run 5/5+
    2 succeeds, all succeeded | Run 5/5
once a task has failed its items are not known, nor the total
    total=None, tasks=3
    0 starts, 1 starts, 0 counts 5 of 5, 1 counts 2 of 5 | Run 7/10+
    1 fails | Run 7/?
    0 succeeds, 2 starts, 2 counts 5 of 5, 2 succeeds | Run 12/?
a lost attempt takes back its items and its total, and the line goes on to count items
    total=None, tasks=1
    0 starts, 0 counts 5 of 9 | Run 5/9
    0 starts again | Run 0/?
    0 counts 1 of 9 | Run 1/9
counters alone leave the tasks on the line
    total=None, tasks=2
    0 starts, 0 counts 0 in Read, 0 succeeds | Run 1/2 tasks, Read 0/?
what unnamed loops declare comes on top of what was done before
    total=None, tasks=1, initial=100
    0 starts | Run 100/?
    0 counts 4 of 9 | Run 104/109
the run's own total is stronger than what its loops declare
    total=99, tasks=1
    0 starts, 0 counts 4 of 9 | Run 4/99
    0 succeeds | Run 4/99
    all succeeded | Run 99/99
the clock of a finished stage stops: later stages don't slow its rate
    total=10, tasks=1
    0 starts with 10, wait 60, 0 counts 0 in Read | (Run 0/10), Read 0/10
    wait 2, 0 counts 4 in Read | (Run 0/10 2s), Read 4/10 2s
    wait 3, 0 counts 6 in Read | (Run 0/10 5s), Read 10/10… 5s
    wait 100, 0 counts 0 in Cut, wait 4, 0 counts 1 in Cut | (Run 0/10 109s), Read 10/10 5s, Cut 1/10 4s
the clock of a full stage stops, and goes on with the next task that comes to it
    total=None, tasks=2
    0 starts, 0 counts 0 in Read of 5, wait 2, 0 counts 5 in Read | Run 0/2 tasks 2s, Read 5/5+ 2s
    wait 3 | Run 0/2 tasks 5s, Read 5/5+ 2s
    1 starts, 1 counts 1 in Read of 4, wait 4 | Run 0/2 tasks 9s, Read 6/9 9s
the clock of a stage without a total stops with the tasks that have come to it
    total=None, tasks=3
    0 starts, 0 counts 0 in Read, wait 2, 0 counts 1 in Read | Run 0/3 tasks 2s, Read 1/? 2s
    wait 1 | Run 0/3 tasks 3s, Read 1/? 3s
    0 succeeds, 1 starts, wait 4 | Run 1/3 tasks 7s, Read 1/? 2s
    1 counts 1 in Read | Run 1/3 tasks 7s, Read 2/? 7s
    wait 5, 1 fails, 2 starts | Run 1/3 tasks 12s, Read 2/? 7s
the clock of a stage without a total stops at a clean end
    total=None, tasks=1
    0 starts, 0 counts 0 in Read, wait 5, 0 counts 10 in Read | Run 0/1 tasks 5s, Read 10/? 5s
    wait 20, 0 counts 0 in Cut | Run 0/1 tasks 25s, Read 10/? 25s, Cut 0/?
    wait 3, 0 counts 1 in Cut, wait 2 | Run 0/1 tasks 30s, Read 10/? 30s, Cut 1/? 5s
    0 succeeds, all succeeded | Run 1/1 tasks 30s, Read 10/? 5s, Cut 1/? 5s
the last stage that each item goes through is not finished before the run, and its clock goes on
    total=10, tasks=1
    0 starts with 10, 0 counts 0 in Read, wait 2, 0 counts 10 in Read | (Run 0/10 2s), Read 10/10… 2s
    wait 7 | (Run 0/10 9s), Read 10/10… 9s
    0 counts 0 in Cut | (Run 0/10 9s), Read 10/10 2s, Cut 0/10
    wait 3, 0 counts 10 in Cut, wait 4 | (Run 0/10 16s), Read 10/10 2s, Cut 10/10… 7s
    0 counts 2 in Pack of 2 | (Run 0/10 16s), Read 10/10 2s, Cut 10/10… 7s, Pack 2/2
    0 succeeds, wait 1 | (Run 10/10… 17s), Read 10/10 2s, Cut 10/10… 8s, Pack 2/2
    all succeeded | (Run 10/10 17s), Read 10/10 2s, Cut 10/10 8s, Pack 2/2
beside the run's own line stages may finish
    total=10, tasks=1
    0 starts with 10, 0 counts 10 in Read, 0 counts 10 | Run 10/10…, Read 10/10
    0 succeeds | Run 10/10…, Read 10/10
    all succeeded | Run 10/10, Read 10/10
a lost attempt takes back all that was counted
    total=10, tasks=1
    0 starts with 10, 0 counts 10 | Run 10/10…
    0 starts with 10 again, 0 counts 4 | Run 4/10
    0 fails | Run 4/10
a stage that was only declared has no time
    total=10, tasks=1
    0 starts with 10, 0 declares 5 in Read, wait 3 | Run 0/10, Read 0/5
"""
"""For each case: what it shows, the run, and rows of actions with the lines that they lead to."""


@pytest.mark.parametrize(
    "case", re.findall(r"^\S.*\n(?: .*\n)+", CASES, re.MULTILINE), ids=lambda case: case.split("\n")[0]
)
def test_what_the_lines_show(case: str) -> None:
    """After the actions of each row the lines are those beside them."""
    _, options, *rows = map(str.strip, case.strip().splitlines())
    work = Work(**eval(f"dict({options})"))
    for row in rows:
        actions, _, _ = row.partition(" | ")
        for action in actions.split(", "):
            play(work, action)
        assert f"{actions} | {shown(work)}" == row


@pytest.mark.parametrize(
    ("known", "script", "lines", "excess"),
    [
        (10, "0 counts 15 in Cut, 1 counts 16 in Cut", "(Run 20/20), Cut 20/20", "task 0 reported 15 of 10"),
        (10, "0 counts 10, 1 counts 1012", "Run 20/20", "task 1 reported 1,012 of 10"),
        (10, "0 counts 9 in Pack of 4", "Run 20/20, Pack 4/4", "task 0 reported 9 of 4"),
        (10, "0 counts 10 of 4, 1 counts 10", "Run 20/20", None),
        (10, "0 counts 10 in Read of 10, 1 counts 10 in Read", "(Run 20/20), Read 20/20", None),
        (None, "0 counts 15, 1 counts 10", "Run 20/20", "the tasks reported 25 of 20"),
    ],
)
def test_what_is_reported_too_much_is_capped_and_named(
    known: int | None, script: str, lines: str, excess: str | None
) -> None:
    """A task counts no more than its items, or than it declared; the first that reported more is kept."""
    work = Work(20, tasks=2)
    for task in range(2):
        work.start(task, known)
    for action in [*script.split(", "), "0 succeeds", "1 succeeds", "all succeeded"]:
        play(work, action)
    assert shown(work) == lines
    assert (work.stages.excess and format_excess(work.stages.excess)) == (excess and f"{excess} items")


def test_a_counter_of_the_run_shows_its_line() -> None:
    """A counter outside named stages has its place on the run's line only."""
    work = Work(10, tasks=1)
    with counting(work.start(0, 10).own):
        report_progress(3, desc="Read", tokens=7)
        assert [line.name for line in work.read().lines] == ["Read"]
        report_progress(0, tokens=1)
    counters = [(line.name, dict(line.counters)) for line in work.read().lines]
    assert counters == [("Run", {"tokens": 1}), ("Read", {"tokens": 7})]


@pytest.mark.parametrize("total", [10, None])
def test_a_stage_may_count_in_a_unit_of_its_own(total: int | None) -> None:
    """A stage counts items unless a task says another unit, also after that task has ended."""
    work = Work(total, tasks=1)
    reporter = work.start(0, total)
    count(reporter, "Download", 1_024, declared=4_096)
    reporter.set_unit("Download", "B")
    count(reporter, "Read", 1)
    units = [(stage.name, stage.unit) for stage in work.read().stages]
    assert units == [("Download", "B"), ("Read", "items")]
    work.finish(reporter)
    assert work.stage("Download").unit == "B"


class CountedIterations(dict[Any, Any]):
    """Counts how often its items are iterated."""

    iterations = 0

    def items(self) -> Any:
        """Count."""
        self.iterations += 1
        return super().items()

    def __iter__(self) -> Any:
        self.iterations += 1
        return super().__iter__()


def test_many_stages_are_read_in_one_go() -> None:
    """A reading iterates over all sums a fixed number of times, not once a stage."""
    metrics = Metric.ITEMS, Metric.TOTAL, Metric.TASKS_WITH_OWN_TOTAL
    sums = CountedIterations({Key(f"file {n}", metric): 1 for n in range(300) for metric in metrics})
    stages = Stages("Run", None, tasks=300)
    named = stages.read(sums, StageClock(FakeClock()), 0.0).stages
    assert [(stage.done, stage.total) for stage in named] == [(1, 1)] * 300
    assert sums.iterations <= 2


def test_sums_of_a_lost_attempt_show_nothing() -> None:
    """A unit that only a lost attempt had is not the stage's, and stages keep the order of their items."""
    read, write = Key("Read", Metric.ITEMS), Key("Write", Metric.ITEMS)
    sums = {write: 0, Key("Write", Metric.UNIT, "B"): 0, read: 5, Key("Read", Metric.UNIT, "kB"): 1}
    assert list(sums_by_stage(sums).items()) == [
        (None, StageSums()),
        ("Write", StageSums()),
        ("Read", StageSums(items=5, unit="kB")),
    ]


STAGES = st.sampled_from([None, "Read", "Write"])
STEP = st.tuples(STAGES, st.integers(0, 12), st.none() | st.integers(0, 12))
PLAN = st.lists(st.tuples(st.integers(0, 10), st.lists(STEP, max_size=4)), min_size=1, max_size=5)
KIND = st.sampled_from(["items", "run total only", "unknown"])


def work_of(kind: str, totals: list[int]) -> tuple[Work, list[int | None]]:
    """Return work of some kind, and the totals that its tasks know."""
    tasks = len(totals)
    if kind == "items":
        return Work(sum(totals), tasks=tasks), list(totals)
    return Work(None if kind == "unknown" else sum(totals), tasks=tasks), [None] * tasks


@given(KIND, PLAN)
def test_no_line_is_ever_ahead_and_all_are_full_at_a_clean_end(kind: str, plan: list[Any]) -> None:
    """Whatever tasks declare and count, no line passes its total, and a clean end leaves none short of it."""
    work, totals = work_of(kind, [total for total, _ in plan])

    def never_ahead() -> None:
        snapshot = work.read()
        for line in (snapshot.run_line, *snapshot.stages):
            assert line.total is None or line.done <= line.total

    running = [work.start(task, total) for task, total in enumerate(totals)]
    for reporter, (_, steps) in zip(running, plan, strict=True):
        for stage, n, declared in steps:
            count(reporter, stage, n, declared=declared)
            never_ahead()
    for reporter in running:
        work.finish(reporter)
        never_ahead()
    work.stages.all_succeeded()
    last = work.read()
    for line in (last.run_line, *last.stages):
        assert line.total in (None, line.done)
        assert not line.growing
    assert last.done == last.total


@given(PLAN, st.data())
def test_a_stage_of_the_runs_total_loses_what_ended_tasks_left_out(
    plan: list[Any], data: st.DataObject
) -> None:
    """A stage's total is the run's, less what each task that succeeded has and did not count there."""
    totals = [total for total, _ in plan]
    work = Work(sum(totals), tasks=len(totals))
    running = [work.start(task, total) for task, total in enumerate(totals)]
    done = [data.draw(st.integers(0, total)) for total in totals]
    for reporter, n in zip(running, done, strict=True):
        count(reporter, "Read", n)
    expected = sum(totals)
    for reporter, n, total in zip(running, done, totals, strict=True):
        assert (work.stage("Read").done, work.stage("Read").total) == (sum(done), expected)
        work.finish(reporter)
        expected -= total - n
    assert (work.stage("Read").done, work.stage("Read").total) == (sum(done), sum(done))


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["finish", "fail", "skip"])), min_size=1))
def test_declared_totals_add_up_and_grow_until_every_task_has_come(tasks: list[tuple[int, str]]) -> None:
    """A stage with declared totals has their sum, and grows until each task has come to it or ended."""
    work = Work(None, tasks=len(tasks))
    expected = tasks[0][0]
    count(first := work.start(0), "Read", 0, declared=expected)
    for task, (declared, end) in enumerate(tasks[1:], start=1):
        assert work.stage("Read").growing
        reporter = work.start(task)
        if end != "skip":
            count(reporter, "Read", declared, declared=declared)
            expected += declared
            assert work.stage("Read").total == expected
        (work.fail if end == "fail" else work.finish)(reporter)
        assert work.stage("Read").total == expected
    assert not work.stage("Read").growing
    count(first, "Read", tasks[0][0])
    assert (work.stage("Read").done, work.stage("Read").total) == (expected, expected)


def test_what_a_running_task_is_taken_to_have_finished_is_shown_until_it_ends() -> None:
    """The run's line counts it; a task that fails keeps what it reported, one that succeeds its total."""
    work = Work(200, tasks=2)
    running = [work.start(task, 100) for task in (0, 1)]
    for reporter in running:
        part = Fixed(5)
        part.shares = 10
        reporter.own.open(part)
    assert work.read().done == 100
    work.fail(running[0])
    assert work.read().done == 55
    work.finish(running[1])
    assert work.read().done == 105


def test_what_an_earlier_run_has_counted_is_there_from_the_start() -> None:
    """Kept tasks count for their stages and counters as before, and for no rate; unknown ones for none."""
    stages = Stages("Run", 30, initial=20, tasks=1)
    tokenize, tokens = Key("Tokenize", Metric.ITEMS), Key(None, Metric.COUNTER, "tokens")
    kept = stages.task_kept({Key(None, Metric.ITEMS): 0, tokenize: 8, tokens: 50}, 10)
    (line,) = stages.read(kept, StageClock(lambda: 0.0), 0.0)[1]
    assert (line.done, line.total, line.initial, line.finished) == (8, 18, 8, False)
    run = stages.read(kept, StageClock(lambda: 0.0), 0.0)[0]
    assert (run.done, run.total, run.initial) == (20, 30, 20)
    assert run.counters == run.initial_counters == {"tokens": 50}
