"""``multi_process_dataset``: a shard counts for its rows, and what is shown besides."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from datasets.utils import are_progress_bars_disabled
from support.recorder import Recorder
from support.rows import ids, numbered, upper

from speedy_utils import Snapshot, multi_process_dataset, report_progress, track
from speedy_utils._sharding.merge import merge_shards


def reports_nothing(dataset: Any, output_path: str) -> Any:
    """Report nothing."""
    return dataset


def reports_by_index(dataset: Any, output_path: str) -> Any:
    """Report hundred items at each hundredth row, so 200 of 133."""
    for i, _ in enumerate(dataset):
        if i % 100 == 0:
            report_progress(100)
    return dataset


def reports_too_little(dataset: Any, output_path: str) -> Any:
    """Report less than was done."""
    report_progress(3)
    return dataset


def filters(dataset: Any, output_path: str) -> Any:
    """Keep every second row."""
    return Dataset.from_list([row for row in track(dataset) if row["id"] % 2])


def breaks_off(dataset: Any, output_path: str) -> Any:
    """Leave the loop early."""
    for row in track(dataset):
        if row["id"] % 100 == 10:
            break
    return dataset


def takes_batches(dataset: Any, output_path: str) -> Any:
    """Report whole batches."""
    for _ in track(dataset.iter(40), size=lambda batch: len(batch["id"])):
        pass
    return dataset


HABITS = [reports_nothing, reports_by_index, reports_too_little, filters, breaks_off, takes_batches]


@pytest.mark.parametrize("process", HABITS, ids=lambda function: function.__name__)
def test_a_shard_counts_for_its_rows(
    backend: str, recorder: Recorder, out: Path, process: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a function reports or drops, the bar ends at the rows of the input, and never goes beyond."""
    multi_process_dataset(
        numbered(530),
        process,
        out,
        num_workers=2,
        num_shards=4,
        backend=backend,
        poll_interval=0.01,
        progress=recorder,
    )
    assert (recorder.last.done, recorder.last.total, recorder.last.unit) == (530, 530, "items")
    assert (recorder.last.tasks_done, recorder.last.tasks_total) == (4, 4)
    done = [snapshot.done for snapshot in recorder.snapshots]
    assert done == sorted(done)
    assert len(load_from_disk(str(out))) == (265 if process is filters else 530)
    assert recorder.last.final
    counted_in = recorder.last.run_line.counted_in
    assert counted_in is not None
    assert counted_in <= recorder.last.elapsed
    assert recorder.last.rate == 530 / counted_in
    # 200 of 133 rows were reported, or a small part of them; a loop that was left early was meant so
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (process in (reports_by_index, reports_too_little))


def test_the_work_of_several_steps_has_a_line_each(local: str, recorder: Recorder, out: Path) -> None:
    """Named stages get lines of their own, beside the items of the run."""

    def process(dataset: Any, output_path: str) -> Any:
        rows = [dict(row) for row in track(dataset, desc="Read")]
        return Dataset.from_list(list(track(rows, desc="Write")))

    multi_process_dataset(
        numbered(50), process, out, num_workers=2, num_shards=3, backend=local, progress=recorder
    )
    assert [(stage.name, stage.done, stage.total) for stage in recorder.last.lines] == [
        ("Read", 50, 50),
        ("Write", 50, 50),
    ]


def test_without_progress_nothing_else_changes(
    local: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``progress=False`` draws nothing, and the output is the same."""
    caplog.set_level(logging.INFO)
    outputs = []
    for progress in (True, False):
        path = multi_process_dataset(
            numbered(20), upper, tmp_path / str(progress), num_workers=2, backend=local, progress=progress
        )
        outputs.append(load_from_disk(path)[:])
        assert ("Processing 20 items" in caplog.text) is progress
        caplog.clear()
    assert outputs[0] == outputs[1]


def test_merging_is_shown(local: str, recorder: Recorder, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While shards are checked and merged the line names the phase, and is not finished."""
    phases: list[str] = []
    shown = threading.Event()

    def look(snapshot: Snapshot) -> None:
        if phases and snapshot.phase == phases[-1]:
            assert snapshot.done == snapshot.total == 10
            assert (snapshot.run_line.finished, snapshot.complete) == (False, False)
            shown.set()

    def merge_when_shown(workspace: Any, plan: Any, enter: Any, features: Any) -> Path:
        def enter_and_wait(phase: str) -> None:
            enter(phase)
            phases.append(phase)
            assert shown.wait(240)
            shown.clear()

        return merge_shards(workspace, plan, enter_and_wait, features)

    recorder.hook = look
    monkeypatch.setattr("speedy_utils._api.multi_process_dataset.merge_shards", merge_when_shown)
    options: Any = {"num_workers": 2, "backend": local, "poll_interval": 0.01, "progress": recorder}
    multi_process_dataset(numbered(10), upper, out, **options)
    assert phases == ["checking", "merging", "syncing", "publishing"]
    assert [recorder.last.phase, recorder.last.final, recorder.last.complete] == ["", True, True]
    assert recorder.last.run_line.finished


@pytest.mark.ray
def test_waiting_for_a_ray_that_runs_is_shown(ray_session: None, recorder: Recorder, out: Path) -> None:
    """While the engine starts the bar is there, empty, and says what it waits for."""
    multi_process_dataset(numbered(4), upper, out, num_workers=2, progress=recorder)
    first, *_ = recorder.snapshots
    assert (first.phase, first.done, first.total) == ("waiting for workers 0/2", 0, 4)


def test_bars_of_datasets_stay_off_the_terminal(
    local: str, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bars of ``datasets`` in workers and while merging are not drawn; afterwards they are again."""

    def process(dataset: Any, output_path: str) -> Any:
        mapped = dataset.map(lambda row: {"text": row["text"].upper()}, load_from_cache_file=False)
        mapped = mapped.filter(lambda row: row["id"] != 3, load_from_cache_file=False)
        mapped.save_to_disk(output_path)

    multi_process_dataset(
        numbered(10),
        process,
        out,
        num_workers=2,
        num_shards=3,
        backend=local,
        progress=False,
    )
    assert tuple(capfd.readouterr()) == ("", "")
    assert len(ids(out)) == 9
    assert not are_progress_bars_disabled()


STRAY = """
from datasets import Dataset
from speedy_utils import multi_process_dataset
def process(dataset, output_path):
    dataset.map(lambda row: {"id": row["id"] + 1}).save_to_disk(output_path)
if __name__ == "__main__":
    multi_process_dataset(Dataset.from_dict({"id": [0, 1, 2]}), process, "out", num_workers=2, backend="seq")
"""


def test_bars_of_datasets_are_lines_of_the_run(driver: Any) -> None:
    """Bars of datasets in a shard's function are lines of the run; none of them draws by itself."""
    done = driver(STRAY, env={"HF_DATASETS_DISABLE_PROGRESS_BARS": None})
    assert done.returncode == 0, done.stderr
    *before, last = (line.split(" ", 1)[1] for line in done.stderr.splitlines())
    assert all(line.startswith("Processing 3 items") for line in before), done.stderr
    run, *stages = last.split(" | ")
    assert run.startswith("Processing 3 items: 3 items in "), done.stderr
    assert [stage.split(" in ")[0] for stage in stages] == ["Map 100% 3/3"]  # saving is no work on the items
