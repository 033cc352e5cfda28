"""What holds of the lines of a run whatever its tasks declare and count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.work import Work, count

from speedy_utils._instrument.loops import report_progress
from speedy_utils._worker.context import counting

STAGES = st.sampled_from([None, "Read", "Write"])
STEP = st.tuples(STAGES, st.integers(0, 12), st.none() | st.integers(0, 12))
PLAN = st.lists(st.tuples(st.integers(0, 10), st.lists(STEP, max_size=4)), min_size=1, max_size=5)
KIND = st.sampled_from(["items", "run total only", "unknown", "tasks"])


def work_of(kind: str, totals: list[int]) -> tuple[Work, list[int | None]]:
    """Return work of some kind, and the totals that its tasks know."""
    tasks = len(totals)
    if kind == "tasks":
        return Work(tasks, tasks=tasks, counts_items=False), [None] * tasks
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
    if kind != "unknown":
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


AMOUNTS = st.floats(0, 1e300) | st.integers(0, 10**20)


@given(st.lists(st.tuples(AMOUNTS, st.booleans()), min_size=1, max_size=6))
def test_counters_add_up_and_a_retry_leaves_no_trace(tasks: list[tuple[float, bool]]) -> None:
    """What a lost attempt added to a counter is gone to the last bit; all others add up."""
    kept, hit = Work(None, tasks=len(tasks)), Work(None, tasks=len(tasks))
    for task, (amount, dies) in enumerate(tasks):
        if dies:
            with counting(hit.start(task).own):
                report_progress(1, desc="Read", tokens=amount / 3)
            hit.read()
        for work in (kept, hit):
            reporter = work.start(task, attempt=1 + (dies and work is hit))
            with counting(reporter.own):
                report_progress(1, desc="Read", tokens=amount)
            work.read()
            work.finish(reporter)
    found, expected = (float(work.stage("Read").counters["tokens"]) for work in (hit, kept))
    assert found == expected == pytest.approx(sum(amount for amount, _ in tasks))
