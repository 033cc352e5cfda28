"""Files that a function writes beside its dataset are found, and kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from datasets import Dataset, load_from_disk
from support.shards import start, work

from speedy_utils._sharding.merge import merge_shards
from speedy_utils._sharding.saved_dataset import silence_datasets
from speedy_utils._sharding.shard_worker import begin_shard, finish_shard, read_record
from speedy_utils._sharding.shards import ShardSpec

SPEC = ShardSpec(3, 30, 33)
ROWS = Dataset.from_dict({"id": [30, 31, 32]})


def save(folder: Path) -> Path:
    """Save a dataset, and files as a function does that keeps statistics."""
    with silence_datasets():
        ROWS.save_to_disk(str(folder))
    (folder / "stats.json").write_text('{"kept": 3}')
    (folder / "images").mkdir()
    (folder / "images" / "1.png").write_bytes(b"png")
    (folder / "empty").mkdir()
    (folder.parent / "log.txt").write_text("done")
    return folder


@pytest.mark.parametrize(
    ("place", "returned"), [("output", "path"), ("output", "rows"), ("output/final", "path")]
)
def test_what_does_not_belong_to_the_dataset_is_in_the_record(
    place: str, returned: str, tmp_path: Path
) -> None:
    """Files and whole folders beside the dataset's own files are found, wherever it was saved."""
    output = begin_shard(tmp_path / "00003")
    folder = save(output.parent / place)
    record = finish_shard(str(folder) if returned == "path" else ROWS, output, SPEC)
    attempt = output.parent.name
    beside = "" if place == "output" else "output/"
    expected = [f"{beside}log.txt", f"{place}/images", f"{place}/stats.json"]
    assert sorted(record.extras) == sorted(f"{attempt}/{name}" for name in expected)
    assert read_record(tmp_path / "00003", SPEC) == record


@pytest.mark.parametrize("kind", ["rows", "parquet", "nothing else"])
def test_a_dataset_alone_has_no_extras(kind: str, tmp_path: Path) -> None:
    """What was returned, or saved as the one thing there is, is all the dataset's own."""
    output = begin_shard(tmp_path / "00003")
    result: object = ROWS
    if kind == "parquet":
        ROWS.to_parquet(output)
        result = None
    elif kind == "nothing else":
        with silence_datasets():
            ROWS.save_to_disk(str(output))
        result = output
    assert finish_shard(result, output, SPEC).extras == ()


def test_a_record_of_extras_that_lead_outside_is_not_believed(tmp_path: Path) -> None:
    """A record whose files are not in the shard's folder counts for nothing."""
    output = begin_shard(tmp_path / "00003")
    save(output)
    finish_shard(None, output, SPEC)
    note = tmp_path / "00003" / "record.json"
    raw = json.loads(note.read_text())
    for name in ("/etc/passwd", "../00002", f"{output.parent.name}/../.."):
        note.write_text(json.dumps(raw | {"extras": [name]}))
        assert read_record(tmp_path / "00003", SPEC) is None


def test_the_merge_keeps_extras_of_each_shard_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They lie in the output's folder ``extra``, by shard; links stay links, and the output can be loaded."""
    workspace, plan = start(tmp_path / "out")
    with workspace:
        work(workspace, plan, 0, 1)
        for spec in plan.missing:
            output = begin_shard(workspace.shard_dir(spec))
            save(output)
            (output / "link").symlink_to("/nowhere")
            plan.add(finish_shard(None, output, spec))
        made = merge_shards(workspace, plan)
    assert len(load_from_disk(str(made))) == 12
    assert sorted(os.listdir(made / "extra")) == ["00002", "00003"]
    kept = made / "extra" / "00003"
    assert (kept / "output" / "stats.json").read_text() == '{"kept": 3}'
    assert (kept / "output" / "images" / "1.png").read_bytes() == b"png"
    assert os.readlink(kept / "output" / "link") == "/nowhere"
    assert (kept / "log.txt").read_text() == "done"
    assert f"in 2 of 4 shards, such as 'log.txt': kept in {made / 'extra'}" in caplog.text
    assert os.listdir(tmp_path) == ["out"]
