"""What users read of a run: lines, numbers, and plain values for JSON."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest

from speedy_utils import Snapshot, StageSnapshot, TaskSnapshot

RUN, READ = StageSnapshot("Run", 60, 100, elapsed=5.0, initial=10), StageSnapshot("Read", 5, 9)


def test_snapshot_has_the_numbers_of_its_run_line() -> None:
    """A snapshot's own numbers are the run's, whose line comes first among the lines, unless it is hidden."""
    snapshot = Snapshot(RUN, (READ,))
    names = ("desc", "done", "total", "unit", "elapsed", "initial", "rate")
    assert [getattr(snapshot, name) for name in names] == ["Run", 60, 100, "items", 5.0, 10, 10.0]
    assert Snapshot(StageSnapshot("Run", 60, None)).rate == 0
    assert (snapshot.lines, replace(snapshot, show_run_line=False).lines) == ((RUN, READ), (READ,))


def test_a_stage_is_finished_when_all_there_is_was_done() -> None:
    """A stage without a total, or whose total still grows, or whose results are not in, is not finished."""
    assert StageSnapshot("Read", 9, 9).finished
    for stage in (("Read", 8, 9), ("Read", 9, None)):
        assert not StageSnapshot(*stage).finished
    assert not StageSnapshot("Read", 9, 9, growing=True).finished
    assert not StageSnapshot("Read", 9, 9, pending=True).finished


def test_the_rate_is_measured_while_items_are_counted() -> None:
    """Saving, once all items are counted, goes on the clock and does not lower the rate."""
    saving = StageSnapshot("Read", 100, 100, elapsed=60.0, pending=True, counted_in=10.0)
    assert (saving.rate, replace(saving, counted_in=None).rate) == (10.0, 100 / 60)


def test_snapshot_is_json() -> None:
    """A snapshot as plain values has all that it knows, and ``whole`` beside its new name."""
    stage = StageSnapshot("Read", 3, 9, "B", counters={"rows": 2.5})
    task = TaskSnapshot(
        7, "'c'", 2, 20, 100, since=9.0, node="gpu-3", pid=4_711, stack="File …", elapsed=20.0
    )
    run = Snapshot(
        StageSnapshot("Run", 4, None, elapsed=2.0),
        (stage,),
        phase="merging",
        slowest=(task,),
        waiting_for=task,
    )
    known = run.to_dict()
    assert json.loads(json.dumps(known)) == known
    line = {"initial": 0, "growing": False, "pending": False, "counted_in": None, "initial_counters": {}}
    line |= {"recent_rate": None, "eta": None, "postfix": ""}
    of_the_run = {"done": 4, "total": None, "unit": "items", "elapsed": 2.0, "counters": {}, "rate": 2.0}
    of_the_stage = {
        "done": 3,
        "total": 9,
        "unit": "B",
        "elapsed": 0.0,
        "counters": {"rows": 2.5},
        "rate": 0.0,
    }
    of_tasks = {"tasks_total": 0, "tasks_done": 0, "task_unit": "tasks", "tasks_failed": 0, "retries": 0}
    of_tasks |= {"tasks_kept": 0, "kept_from": "", "workers": 0, "workers_at_work": None}
    of_both_names = {"show_run_line": True, "whole": True}
    stages = [{"name": "Read"} | line | of_the_stage]
    others = {"desc": "Run", "stages": stages, "phase": "merging", "final": False, "complete": False}
    of_the_task = {"index": 7, "item": "'c'", "attempt": 2, "done": 20, "total": 100, "since": 9.0}
    of_the_task |= {"node": "gpu-3", "pid": 4_711, "stack": "File …", "elapsed": 20.0, "unheard": 0.0}
    others |= {"slowest": [of_the_task], "stalled": [], "waiting_for": of_the_task}
    assert known == line | of_the_run | of_tasks | of_both_names | others


@pytest.mark.parametrize(("old", "new"), [("own", "run_line"), ("whole", "show_run_line")])
def test_old_names_of_attributes_work_with_a_warning(old: str, new: str) -> None:
    """``own`` and ``whole`` are read as their new names, which the warning says."""
    snapshot = Snapshot(RUN, (READ,), show_run_line=False)
    with pytest.warns(
        DeprecationWarning, match=rf"Snapshot\.{old} is deprecated; use Snapshot\.{new}$"
    ) as seen:
        assert getattr(snapshot, old) is getattr(snapshot, new)
    assert seen[0].filename == __file__


def test_old_names_of_arguments_work_with_a_warning() -> None:
    """A snapshot can be made, and replaced, with ``own=`` and ``whole=``, and then has no warning to give."""
    with pytest.warns(DeprecationWarning, match="is deprecated; use") as seen:
        made = Snapshot(own=RUN, stages=(READ,), whole=False)  # type: ignore[call-arg] # the old names
    assert [warning.filename for warning in seen] == [__file__] * 2
    assert pickle.loads(pickle.dumps(made)) == made == Snapshot(RUN, (READ,), False)
    assert replace(made, final=True, show_run_line=True) == Snapshot(RUN, (READ,), final=True)
    with pytest.warns(DeprecationWarning, match="own") as seen:
        assert replace(made, own=READ).run_line is READ  # type: ignore[call-arg] # the old name
    assert seen[0].filename == __file__  # Python shows it for a line of the program alone
    with pytest.raises(TypeError, match="run_line"):
        Snapshot()  # type: ignore[call-arg] # it lacks the only argument that has no default
