"""The folder of a run: what lies there when it begins, is interrupted, resumes and ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from support.shards import FINGERPRINT, leave_interrupted, start, work

import speedy_utils
from speedy_utils._sharding import workspace as workspace_module
from speedy_utils._sharding.merge import merge_shards
from speedy_utils._sharding.saved_dataset import silence_datasets
from speedy_utils._sharding.workspace import Workspace
from speedy_utils._state.ledger import Key, Metric
from speedy_utils.errors import BusyError, ResumeError

CHANGED = replace(FINGERPRINT, function="module.other")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the output is to appear."""
    return tmp_path / "out"


def save(output: Path, rows: int = 10) -> None:
    """Save a dataset."""
    with silence_datasets():
        Dataset.from_dict({"id": list(range(rows))}).save_to_disk(str(output))


def test_the_same_call_again_has_only_the_missing_shards_to_do(output: Path) -> None:
    """Finished shards of an interrupted run are kept, with their records and their cut."""
    leave_interrupted(output, 0, 2)
    workspace, plan = start(output, default_shards=7)
    with workspace:
        assert sorted(plan.finished) == [0, 2]
        assert [spec.index for spec in plan.missing] == [1, 3]
        work(workspace, plan)
        assert load_from_disk(str(merge_shards(workspace, plan)))["id"][:] == list(range(0, 20, 2))
        assert workspace.published
    assert os.listdir(output.parent) == ["out"]


def cut_off(shard: Path) -> None:
    """Cut a finished shard's file off."""
    (file,) = shard.rglob("*.arrow")
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
    "spoil", [cut_off, lambda shard: (shard / "record.json").unlink()], ids=["damaged", "without a record"]
)
def test_what_is_not_whole_is_deleted_and_done_again(spoil: Callable[[Path], None], output: Path) -> None:
    """A damaged shard, and what an unfinished attempt has left, count as missing and are deleted."""
    folder = leave_interrupted(output, 0, 1)
    spoil(folder / "shards" / "00001")
    workspace, plan = start(output)
    with workspace:
        assert list(plan.finished) == [0]
        assert os.listdir(folder / "shards") == ["00000"]


def test_a_refused_run_changes_nothing_and_leaves_two_ways_on(output: Path) -> None:
    """A changed run is refused by the folder's name; "trust" keeps the shards, overwrite=True starts over."""
    folder = leave_interrupted(output, 0, 1)
    before = sorted(os.walk(folder))
    with pytest.raises(ResumeError, match=r"out\.partial' holds an interrupted run .*\n  - process_func"):
        start(output, CHANGED)
    assert sorted(os.walk(folder)) == before
    for overwrite in (False, True):
        workspace, plan = start(output, CHANGED, resume="trust", overwrite=overwrite)
        with workspace:
            assert sorted(plan.finished) == [0, 1]
    workspace, plan = start(output, CHANGED)  # what was trusted once is known from then on
    with workspace:
        assert sorted(plan.finished) == [0, 1]
    workspace, plan = start(output, overwrite=True)
    with workspace:
        assert plan.finished == {}
        assert os.listdir(folder / "shards") == []


def test_a_run_that_version_0_1_0_has_left_can_be_resumed(output: Path) -> None:
    """What version 0.1.0 wrote is still read, and kept by "trust": it did not note what it was made of."""
    folder = leave_interrupted(output, 0, 1)
    shard = json.loads((folder / "shards" / "00001" / "record.json").read_text())
    (folder / "manifest.json").write_text(
        '{\n "kind": "speedy_utils.multi_process_dataset",\n "version": 1,\n "written_by": "0.1.0",\n'
        ' "num_shards": 4,\n "identity": {\n  "dataset": "d0",\n  "num_rows": 10,\n'
        '  "function": "module.func",\n  "code": "c0",\n  "kwargs": {\n   "size": "k0"\n  }\n }\n}'
    )
    ((name, size),) = shard["files"]
    (folder / "shards" / "00001" / "record.json").write_text(
        '{\n "spec": {\n  "index": 1,\n  "start": 3,\n  "stop": 6\n },\n "rows": 3,\n "files": [\n  [\n'
        f'   "{name}",\n   {size}\n  ]\n ],\n "features": {{\n  "id": {{\n   "dtype": "int64",\n'
        f'   "_type": "Value"\n  }}\n }},\n "fingerprint": "{shard["fingerprint"]}",\n "split": null,\n'
        ' "info": {},\n "source": null\n}'
    )
    with pytest.raises(ResumeError, match=r"was not noted, .*\n.* pass resume=\"trust\": the 2 finished"):
        start(output)
    workspace, plan = start(output, resume="trust")
    with workspace:
        assert sorted(plan.finished) == [0, 1]
        raw = json.loads((folder / "manifest.json").read_text())
        assert list(raw["identity"]) == ["dataset", "num_rows", "function", "code", "kwargs"]
        work(workspace, plan)
        assert load_from_disk(str(merge_shards(workspace, plan)))["id"][:] == list(range(0, 20, 2))


def test_counts_of_finished_shards_are_kept_with_them(output: Path) -> None:
    """What a shard has counted is read back as it was, and is unknown where it was not noted."""
    counts = {Key(None, Metric.ITEMS): 3, Key("Tokenize", Metric.COUNTER, "tokens"): 1.5}
    workspace, plan = start(output)
    with workspace:
        work(workspace, plan, 0, 1)
        workspace.keep_counts(plan.specs[0], counts)
    workspace, plan = start(output)
    with workspace:
        assert workspace.kept_counts(plan.specs[0]) == counts
        assert workspace.kept_counts(plan.specs[1]) is None
        assert re.fullmatch(r"\d\d:\d\d", workspace.kept_from(plan)[-5:])


def test_the_manifest_names_the_version_that_wrote_it(output: Path) -> None:
    """``written_by`` is the version of this package."""
    folder = leave_interrupted(output)
    assert json.loads((folder / "manifest.json").read_text())["written_by"] == speedy_utils.__version__


@pytest.mark.parametrize("kind", ["files", "file", "link"])
def test_what_is_no_dataset_is_never_overwritten(kind: str, output: Path, tmp_path: Path) -> None:
    """overwrite=True replaces a saved dataset; anything else at output_path is refused and kept."""
    if kind == "file":
        output.touch()
    else:
        target = output if kind == "files" else tmp_path / "target"
        target.mkdir()
        (target / "thesis.tex").touch()
        if kind == "link":
            output.symlink_to(target)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError):
        Workspace.open(output, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("kind", ["dict", "empty"])
def test_a_saved_dict_may_be_overwritten_and_an_empty_folder_is_no_obstacle(kind: str, output: Path) -> None:
    """A saved DatasetDict makes room with overwrite=True, a folder with nothing in it always."""
    if kind == "dict":
        DatasetDict(train=Dataset.from_dict({"id": [1]})).save_to_disk(str(output))
    else:
        output.mkdir()
    workspace, plan = start(output, overwrite=kind == "dict")
    with workspace:
        work(workspace, plan)
        assert len(load_from_disk(str(merge_shards(workspace, plan)))) == 10


@pytest.mark.parametrize("kind", ["files", "manifest", "garbled", "file", "link"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_ours_is_not_touched(
    kind: str, overwrite: bool, output: Path, tmp_path: Path
) -> None:
    """A ``.partial`` that no run has made is refused, whatever else is asked for, and kept."""
    folder = tmp_path / "out.partial"
    if kind == "file":
        folder.touch()
    else:
        target = tmp_path / "target" if kind == "link" else folder
        target.mkdir()
        (target / "shards").mkdir()
        if kind == "link":
            folder.symlink_to(target)
        if kind in ("manifest", "garbled"):
            text = json.dumps({"kind": "another tool's"}) if kind == "manifest" else "{"
            (target / "manifest.json").write_text(text)
    before = sorted(os.walk(tmp_path))
    with pytest.raises(ResumeError, match="left as it is"):
        start(output, resume=False, overwrite=overwrite)
    assert sorted(os.walk(tmp_path)) == before


def test_a_folder_is_one_runs_at_a_time(output: Path) -> None:
    """A second run is refused by the name of the first; a workspace that was closed touches nothing more."""
    first = Workspace.open(output)
    first.close()
    with Workspace.open(output):
        first.close()
        with pytest.raises(BusyError, match=rf"out'.*\(process {os.getpid()} on "):
            Workspace.open(output, overwrite=True)
    assert os.listdir(output.parent) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_output_whose_replacement_was_killed_is_put_back_at_once(overwrite: bool, output: Path) -> None:
    """Opened, the workspace has the old output in its place again, before the input is loaded."""
    folder = leave_interrupted(output, 0)
    save(folder / "old", 5)
    if overwrite:
        with Workspace.open(output, overwrite=True):
            assert len(load_from_disk(str(output))) == 5
    else:
        with pytest.raises(FileExistsError):
            Workspace.open(output)
        assert len(load_from_disk(str(output))) == 5
    workspace, plan = start(output, overwrite=True)
    with workspace:
        assert list(plan.finished) == [0]


def test_a_folder_left_by_a_clean_up_that_was_cut_short_starts_afresh(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed while it deleted its folder doesn't come back as an unfinished one."""
    folder = leave_interrupted(output, 0, 1, 2, 3)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    workspace, plan = start(output)
    with workspace, monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_shards(workspace, plan)
    assert len(load_from_disk(str(output))) == 10
    workspace, plan = start(output, overwrite=True)
    with workspace:
        assert plan.finished == {}
    shutil.rmtree(output)
    (folder / "shards").rmdir()
    (folder / "manifest.json").unlink()
    (folder / "published").touch()
    workspace, plan = start(output)
    with workspace:
        assert len(plan.missing) == 4


@pytest.mark.parametrize("step", ["holder.json", "manifest.json"])
def test_an_early_failure_leaves_nothing_behind(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that can't write its first files takes the folder, and those it had made above, away again."""
    write_json = workspace_module.write_json

    def write_or_fail(path: Path, value: object) -> None:
        if path.name == step:
            raise OSError("full")
        write_json(path, value)

    monkeypatch.setattr(workspace_module, "write_json", write_or_fail)
    with pytest.raises(OSError, match="full"):
        start(tmp_path / "a" / "b" / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", [".", "..", "../here"])
def test_the_current_folder_is_never_replaced(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The current folder and those above it are refused, empty or with a dataset, and stay."""
    here = tmp_path / "here"
    save(here)
    before = sorted(os.listdir(here))
    monkeypatch.chdir(here)
    with pytest.raises(ValueError, match="current folder or holds it"):
        Workspace.open(path, overwrite=True)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("path", ["s3://bucket/out", "", "/"])
def test_a_path_that_names_no_folder_is_refused(path: str) -> None:
    """A remote path, an empty one and the root are a ValueError."""
    with pytest.raises(ValueError, match="output_path"):
        Workspace.open(path)
