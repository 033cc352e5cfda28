"""Stages and counters, as every engine shows them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.recorder import Recorder
from tqdm import tqdm

from speedy_utils import Snapshot, multi_process, report_progress, track

SHARDS = [range(100 * n) for n in range(1, 5)]


def test_lines_of_a_pipeline_end_at_what_was_done(backend: str, recorder: Recorder) -> None:
    """Steps that drop items have totals of their own, and every line ends at exactly its total."""

    def pipeline(rows: range) -> int:
        read = list(track(rows, desc="Read"))
        kept = list(track(read[::2], desc="Keep"))
        for _ in kept[::5]:
            report_progress(1, desc="Pack")
        return len(kept)

    assert multi_process(
        pipeline, SHARDS, backend=backend, num_workers=2, total_items=len, progress=recorder
    ) == [
        50,
        100,
        150,
        200,
    ]
    assert [(line.name, line.done, line.total) for line in recorder.last.stages] == [
        ("Read", 1_000, 1_000),
        ("Keep", 500, 500),
        ("Pack", 100, 100),
    ]
    assert not any(line.growing for line in recorder.last.lines)
    assert (recorder.last.done, recorder.last.total, recorder.last.show_run_line) == (1_000, 1_000, False)


def test_unnamed_counts_keep_the_runs_own_line(backend: str, recorder: Recorder) -> None:
    """Where something is counted outside the named stages, the run has its own line before theirs."""

    def both(rows: range) -> None:
        for _ in track(rows):
            report_progress(1, desc="Read")

    multi_process(
        both, SHARDS, backend=backend, num_workers=2, total_items=len, desc="All", progress=recorder
    )
    assert [(line.name, line.done, line.total) for line in recorder.last.lines] == [
        ("All", 1_000, 1_000),
        ("Read", 1_000, 1_000),
    ]


def test_counters_are_summed_over_workers(backend: str, recorder: Recorder) -> None:
    """What is counted beside the items is added up exactly, by stage, whole numbers and others."""

    def count(rows: range) -> None:
        for _ in track(rows):
            report_progress(0, tokens=512, seconds=0.1)
        report_progress(len(rows), desc="Read", skipped=3)

    multi_process(count, SHARDS, backend=backend, num_workers=2, total_items=len, progress=recorder)
    assert recorder.last.run_line.counters["tokens"] == 512_000
    assert recorder.last.run_line.counters["seconds"] == pytest.approx(100, abs=1e-9)
    assert recorder.last.stages[0].counters == {"skipped": 12}


def test_counters_of_a_dead_attempt_are_taken_back(backend: str, recorder: Recorder, tmp_path: Any) -> None:
    """A task that runs again counts once, also beside its items."""

    def count(rows: range) -> None:
        report_progress(len(rows), tokens=7, weight=0.1)
        mark = tmp_path / str(len(rows))
        if not mark.exists():
            mark.touch()
            raise SystemExit("the first attempt is lost")

    multi_process(count, SHARDS, backend=backend, num_workers=2, total_items=len, progress=recorder)
    assert recorder.last.run_line.counters == {"tokens": 28, "weight": pytest.approx(0.4, abs=1e-15)}
    assert (recorder.last.done, recorder.last.retries) == (1_000, 4)


def test_clock_of_a_finished_stage_stands(
    backend: str, recorder: Recorder, until: Any, tmp_path: Any
) -> None:
    """A stage that is over keeps its time while another one runs on."""
    go_on = tmp_path / "go on"

    def steps(rows: range) -> None:
        for _ in track(rows, desc="Read"):
            pass
        for _ in track(rows, desc="Write"):
            until(go_on.exists)

    standing: list[float] = []  # the later stage's times, since the first one's has changed last
    at = -1.0

    def look(snapshot: Snapshot) -> None:
        nonlocal at
        lines = {line.name: line.elapsed for line in snapshot.lines}
        if "Write" not in lines or go_on.exists():  # the end brings the exact times
            return
        if abs(lines["Read"] - at) > 0.01:  # between machines it is known to the length of a message
            at = lines["Read"]
            standing.clear()
        standing.append(lines["Write"])
        if standing[-1] > standing[0] + 0.5:
            go_on.touch()

    recorder.hook = look
    multi_process(steps, [range(5)], backend=backend, total_items=len, poll_interval=0.02, progress=recorder)
    assert standing[-1] > standing[0] + 0.5


def test_rates_are_measured_from_when_the_work_began(backend: str, recorder: Recorder, until: Any) -> None:
    """Bars that are moved by hand, and stages that are reported, last as long as the work on their items."""

    def steps(rows: range) -> None:
        def work() -> None:
            end = time.monotonic() + 0.1
            until(lambda: time.monotonic() >= end)

        with tqdm(total=50, desc="Moved") as bar:
            work()
            bar.update(50)
        work()
        report_progress(50, desc="Reported")

    multi_process(steps, [range(5)], backend=backend, total_items=len, progress=recorder)
    assert [line.name for line in recorder.last.stages] == ["Moved", "Reported"]
    assert all(0 < line.rate <= 50 / 0.1 for line in recorder.last.stages)


def test_a_function_gets_the_snapshots(backend: str) -> None:
    """``progress=`` takes a function, which is handed what a bar would show, and the end."""
    seen: list[Snapshot] = []
    multi_process(list, SHARDS, backend=backend, num_workers=2, total_items=len, progress=seen.append)
    assert seen[-1].final
    assert (seen[-1].done, seen[-1].total, seen[-1].tasks_done) == (1_000, 1_000, 4)
    assert not seen[0].final


def test_unit_names_what_is_counted(backend: str, recorder: Recorder) -> None:
    """``unit`` is the run's word for its items, and its default name uses it."""
    multi_process(
        len, SHARDS, backend=backend, num_workers=2, total_items=len, unit="rows", progress=recorder
    )
    assert (recorder.last.unit, recorder.last.desc) == ("rows", "Processing 1,000 rows")
