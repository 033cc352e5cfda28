"""``multi_process_dataset``: what functions return becomes one output, which appears whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from support.recorder import Recorder
from support.rows import ids, names, never, numbered, saved
from support.waiting import wait_until

from speedy_utils import multi_process_dataset
from speedy_utils.errors import BusyError, FailedShardsError, MergeError


def test_all_ways_to_return_rows(backend: str, tmp_path: Path) -> None:
    """A returned path, None after writing to output_path, and a Dataset give the same output."""
    elsewhere = tmp_path / "elsewhere"

    def text_path(dataset: Any, output_path: str) -> Any:
        dataset.save_to_disk(output_path)
        return output_path

    def path(dataset: Any, output_path: str) -> Any:
        return Path(text_path(dataset, output_path))

    def other_path(dataset: Any, output_path: str) -> Any:
        return text_path(dataset, str(elsewhere / str(dataset[0]["id"])))

    def nothing(dataset: Any, output_path: str) -> Any:
        text_path(dataset, output_path)

    def rows(dataset: Any, output_path: str) -> Any:
        return dataset

    def some_ways(dataset: Any, output_path: str) -> Any:
        return [nothing, rows, path][dataset[0]["id"] // 4](dataset, output_path)

    dataset = numbered(12)
    for way in (text_path, path, other_path, nothing, rows, some_ways):
        if backend == "ray" and way in (text_path, path):
            continue  # to be quick
        out = multi_process_dataset(
            dataset,
            way,
            tmp_path / way.__name__,
            num_workers=2,
            num_shards=3,
            backend=backend,
            progress=False,
        )
        assert load_from_disk(out)[:] == dataset[:], way.__name__
    assert sorted(os.listdir(elsewhere)) == ["0", "4", "8"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("/nowhere/at/all", "but nothing exists there"),
        (None, "wrote nothing to"),
        (3, "returned 3 of type int"),
    ],
    ids=repr,
)
def test_another_result_is_an_error_that_names_the_shard(
    value: Any, says: str, local: str, out: Path
) -> None:
    """A result that is no dataset fails its shard with the reason and the cure; the others are kept."""

    def process(dataset: Any, output_path: str) -> Any:
        return value if dataset[0]["id"] == 2 else dataset

    with pytest.raises(FailedShardsError, match=r"1 of 3 shards failed") as caught:
        multi_process_dataset(
            numbered(6), process, out, num_workers=2, num_shards=3, backend=local, progress=False
        )
    (error,) = caught.value.errors
    assert (error.index, error.attempts) == (1, 1)
    assert says in str(caught.value)
    assert str(caught.value).count("shard 1 (rows 2-3)") == 1
    assert "Traceback" not in str(caught.value)  # of this package's own code
    assert "Yield rows, or return them as a Dataset" in str(caught.value)
    assert names(out.parent) == ["out.partial"]
    assert len(list(out.parent.glob("out.partial/shards/*/record.json"))) == 2


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (
            {"n": [1]},
            {"n": ["a"]},
            "shard 1 (rows 1-1): column 'n' is string (row 0 holds 'a'), but int64 in",
        ),
        ({"n": [1]}, {"m": [1]}, "shard 1 (rows 1-1) has no column 'n'"),
    ],
    ids=["type", "column"],
)
def test_shards_that_do_not_fit_name_column_and_types_and_stay(
    first: Any, second: Any, says: str, local: str, out: Path
) -> None:
    """The error names shard, column and both types of features that don't fit; no shard is lost."""

    def process(dataset: Any, output_path: str) -> Dataset:
        return Dataset.from_dict(second if dataset[0]["id"] else first)

    with pytest.raises(MergeError) as caught:
        multi_process_dataset(
            numbered(2), process, out, num_workers=1, backend=local, num_shards=2, progress=False
        )
    assert says in str(caught.value)
    assert names(out.parent) == ["out.partial"]
    assert len(list(out.parent.glob("out.partial/shards/*/record.json"))) == 2


@pytest.mark.parametrize("kind", ["dataset", "file", "folder"])
def test_what_exists_is_refused_before_any_work(kind: str, local: str, recorder: Recorder, out: Path) -> None:
    """An output_path that exists is a FileExistsError before any work, and stays as it is."""
    out.parent.mkdir()
    if kind == "dataset":
        saved(Dataset.from_dict({"old": [1]}), out)
    elif kind == "file":
        out.write_text("mine")
    else:
        (out / "work").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        multi_process_dataset(numbered(4), never, out, num_workers=1, backend=local, progress=recorder)
    assert names(out.parent) == ["out"]
    assert recorder.runs == []


def test_the_path_that_is_returned_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative output_path, and one with ``~``, is that of the call, wherever process_func goes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))

    def leaves(rows: Dataset) -> Dataset:
        os.chdir(tmp_path.parent)
        return rows

    for given, name in (("sub/out", "sub/out"), ("~/other", "other")):
        monkeypatch.chdir(tmp_path)
        made = multi_process_dataset(numbered(3), leaves, given, num_workers=1, backend="seq", progress=False)
        assert made == str(tmp_path / name)
        assert len(load_from_disk(made)) == 3


def test_overwrite_replaces_the_old_data_only_when_the_new_is_whole(
    local: str, recorder: Recorder, out: Path, tmp_path: Path
) -> None:
    """The old data can be read as long as the new is not whole, and after a run that failed."""
    out.parent.mkdir()
    saved(Dataset.from_dict({"id": [77]}), out)

    def process(dataset: Any, output_path: str) -> Any:
        if ids(out) != [77]:
            raise AssertionError("the old data is gone")
        if not (tmp_path / "mended").exists() and dataset[0]["id"]:
            raise ValueError("not yet")
        return dataset

    def run() -> str:
        return multi_process_dataset(
            numbered(4), process, out, num_workers=2, backend=local, overwrite=True, progress=recorder
        )

    with pytest.raises(FailedShardsError, match="not yet"):
        run()
    assert ids(out) == [77]
    (tmp_path / "mended").touch()
    run()
    assert ids(out) == [0, 1, 2, 3]
    assert recorder.runs[1][0].initial == 2
    assert names(out.parent) == ["out"]


def test_the_output_appears_whole(local: str, out: Path) -> None:
    """As long as shards are processed nothing is at output_path."""
    seen = []

    def process(dataset: Any, output_path: str) -> Any:
        seen.append(names(out.parent))
        return dataset

    multi_process_dataset(
        numbered(6), process, out, num_workers=2, num_shards=3, backend=local, progress=False
    )
    assert seen == [["out.partial"]] * 3
    assert names(out.parent) == ["out"]


def test_a_run_inside_a_run_on_the_same_output_is_refused(local: str, out: Path) -> None:
    """A second run on the same output_path is refused, also in the same process; the first one goes on."""
    dataset = numbered(2)

    def process(rows: Any, output_path: str) -> Any:
        with pytest.raises(BusyError, match=f"process {os.getpid()} on"):
            multi_process_dataset(dataset, never, out, num_workers=1, backend="seq")
        return rows

    multi_process_dataset(dataset, process, out, num_workers=1, backend=local, progress=False)
    assert ids(out) == [0, 1]


HOLDER = """
import pathlib, sys, time
from datasets import Dataset
from speedy_utils import multi_process_dataset
def process(dataset, output_path):
    pathlib.Path("started").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return dataset
if __name__ == "__main__":
    multi_process_dataset(Dataset.from_dict({"id": [0, 1]}), process, "out", num_workers=1, backend="threads",
                          overwrite=True)
"""


def test_a_second_program_on_the_same_output_is_refused(tmp_path: Path) -> None:
    """While another program works on an output_path a run there is refused, whatever its options."""
    (tmp_path / "holder.py").write_text(HOLDER)
    holder = subprocess.Popen([sys.executable, "holder.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (tmp_path / "started").exists() or holder.poll() is not None)
        for options in ({}, {"resume": "trust"}, {"resume": False, "overwrite": True}):
            with pytest.raises(BusyError, match=f"process {holder.pid} on"):
                multi_process_dataset(
                    Dataset.from_dict({"id": [0, 1]}), never, tmp_path / "out", backend="seq", **options
                )
        (tmp_path / "go").touch()
        _, errors = holder.communicate(timeout=240)
    finally:
        holder.kill()
        holder.wait()
    assert holder.returncode == 0, errors
    assert ids(tmp_path / "out") == [0, 1]
    assert "100% 2/2" in errors
