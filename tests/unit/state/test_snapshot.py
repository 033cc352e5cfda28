"""What users read of a run: lines, numbers, and plain values for JSON."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest

from speedy_utils import Snapshot, StageSnapshot

RUN, READ = StageSnapshot("Run", 60, 100, elapsed=5.0, initial=10), StageSnapshot("Read", 5, 9)


def test_snapshot_has_the_numbers_of_its_run_line() -> None:
    """A snapshot's own numbers are those of the run's line, and its rate leaves out what was there before."""
    snapshot = Snapshot(RUN, (READ,))
    numbers = (
        snapshot.desc,
        snapshot.done,
        snapshot.total,
        snapshot.unit,
        snapshot.elapsed,
        snapshot.initial,
    )
    assert numbers == ("Run", 60, 100, "items", 5.0, 10)
    assert snapshot.rate == 10.0
    assert Snapshot(StageSnapshot("Run", 60, None)).rate == 0


def test_snapshot_lists_the_lines_that_are_shown() -> None:
    """The run's line comes first, unless it is not to be shown."""
    assert Snapshot(RUN, (READ,)).lines == (RUN, READ)
    assert Snapshot(RUN, (READ,), show_run_line=False).lines == (READ,)


@pytest.mark.parametrize(
    ("stage", "finished"),
    [
        (StageSnapshot("Read", 9, 9), True),
        (StageSnapshot("Read", 8, 9), False),
        (StageSnapshot("Read", 9, 9, growing=True), False),
        (StageSnapshot("Read", 9, None), False),
    ],
)
def test_a_stage_is_finished_when_all_there_is_was_done(stage: StageSnapshot, finished: bool) -> None:
    """A stage without a total, or whose total still grows, is never finished."""
    assert stage.finished is finished


def test_snapshot_is_json() -> None:
    """A snapshot as plain values has all that it knows, and ``whole`` beside its new name."""
    stage = StageSnapshot("Read", 3, 9, "B", counters={"rows": 2.5})
    snapshot = Snapshot(StageSnapshot("Run", 4, None, elapsed=2.0), (stage,), phase="merging", tasks_total=3)
    known = snapshot.to_dict()
    assert json.loads(json.dumps(known)) == known
    of_the_line = {"elapsed": 0.0, "initial": 0, "growing": False}
    assert known == {
        "desc": "Run",
        "done": 4,
        "total": None,
        "unit": "items",
        **of_the_line,
        "elapsed": 2.0,
        "counters": {},
        "rate": 2.0,
        "stages": [
            {"name": "Read", "done": 3, "total": 9, "unit": "B", **of_the_line, "counters": {"rows": 2.5}}
            | {"rate": 0.0}
        ],
        "show_run_line": True,
        "whole": True,
        "tasks_total": 3,
        "tasks_done": 0,
        "task_unit": "tasks",
        "tasks_failed": 0,
        "retries": 0,
        "phase": "merging",
        "final": False,
    }


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
    """A snapshot can be made with ``own=`` and ``whole=``, and then has no warning to give."""
    with pytest.warns(DeprecationWarning, match="is deprecated; use") as seen:
        made = Snapshot(own=RUN, stages=(READ,), whole=False)  # type: ignore[call-arg] # the old names
    assert {warning.filename for warning in seen} == {__file__}
    assert len(seen) == 2
    assert made == Snapshot(RUN, (READ,), False)
    with pytest.raises(TypeError, match="run_line"):
        Snapshot()  # type: ignore[call-arg] # it lacks the only argument that has no default


def test_snapshots_can_be_replaced_and_pickled() -> None:
    """``dataclasses.replace`` takes the new names and, with a warning, the old ones; copies are equal."""
    snapshot = Snapshot(RUN, (READ,))
    assert replace(snapshot, final=True, show_run_line=False) == Snapshot(RUN, (READ,), False, final=True)
    with pytest.warns(DeprecationWarning, match="own"):
        assert replace(snapshot, own=READ).run_line is READ  # type: ignore[call-arg] # the old name
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot
