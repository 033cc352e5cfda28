"""Finished shards become one dataset, by linking files and writing metadata."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.shards import start

from speedy_utils._sharding.fingerprint import Fingerprint
from speedy_utils._sharding.merge import common_features, merge_shards
from speedy_utils._sharding.saved_dataset import silence_datasets
from speedy_utils._sharding.shard_worker import begin_shard, finish_shard
from speedy_utils._sharding.workspace import ShardPlan, Workspace
from speedy_utils.errors import MergeError

A, B, C = {"id": 1, "text": "a"}, {"id": 2, "text": "b"}, {"id": 3, "text": "c"}


def finished(output: Path, parts: Iterable[Any], *, overwrite: bool = False) -> tuple[Workspace, ShardPlan]:
    """A run with one shard for each part, all finished; a part is rows, a dataset, or what saves one."""
    parts = [Dataset.from_list(part) if isinstance(part, list) else part for part in parts]
    fingerprint = Fingerprint("dataset", len(parts), "func", {})
    workspace, plan = start(output, fingerprint, num_shards=len(parts), resume=False, overwrite=overwrite)
    with silence_datasets():
        for spec, part in zip(plan.specs, parts, strict=True):
            path = begin_shard(workspace.shard_dir(spec))
            plan.add(finish_shard(part if isinstance(part, Dataset) else part(path), path, spec))
    return workspace, plan


def merged(output: Path, parts: Iterable[Any], **options: bool) -> Dataset:
    """The parts, merged and loaded."""
    return load_from_disk(str(merge_shards(*finished(output, parts, **options))))


def test_the_merge_is_the_shards_in_order_and_nothing_else_is_left(tmp_path: Path) -> None:
    """The output holds the rows of all shards in order, and the run's folder is gone."""
    dataset = merged(tmp_path / "out", [[A, B], [C], [B]])
    assert dataset.to_list() == [A, B, C, B]
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(os.listdir(tmp_path / "out")) == [
        *(f"data-0000{i}-of-00003.arrow" for i in range(3)),
        "dataset_info.json",
        "state.json",
    ]


# No empty lists: not every version of concatenate_datasets can tell that they fit lists of numbers.
VALUES = st.one_of(st.none(), st.lists(st.integers(0, 9), min_size=1, max_size=2))
ROW = st.fixed_dictionaries({"n": st.one_of(st.none(), st.integers(0, 9)), "l": VALUES})


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.lists(ROW, max_size=4), min_size=1, max_size=5))
def test_a_merge_equals_concatenate_datasets(parts: list[list[dict[str, Any]]], tmp_path: Path) -> None:
    """Rows, order and columns are those of concatenate_datasets, also with empty and null-typed shards."""
    output = tmp_path / str(len(os.listdir(tmp_path)))
    expected = concatenate_datasets([Dataset.from_list(part) for part in parts])
    dataset = merged(output, parts)
    assert dataset.to_list() == expected.to_list()
    assert dataset.features == expected.features


def test_files_are_linked_and_only_those_that_do_not_fit_rewritten(tmp_path: Path) -> None:
    """A shard's Arrow file keeps its inode, so no byte of it was copied; one typed null is rewritten."""
    workspace, plan = finished(tmp_path / "out", [[{"v": 1}], [{"v": None}], [{"v": 2}]])
    names = [workspace.shard_dir(spec) / plan.finished[spec.index].files[0][0] for spec in plan.specs]
    shards = [name.stat().st_ino for name in names]
    assert load_from_disk(str(merge_shards(workspace, plan)))["v"][:] == [1, None, 2]
    output = [file.stat().st_ino for file in sorted((tmp_path / "out").glob("*.arrow"))]
    assert [ours == theirs for ours, theirs in zip(output, shards, strict=True)] == [True, False, True]


def several_files(path: Path) -> Path:
    """Ten rows in ten files."""
    Dataset.from_list([{"id": i, "text": str(i)} for i in range(12)]).save_to_disk(str(path), num_shards=12)
    return path


def test_the_files_of_a_shard_stay_in_order(tmp_path: Path) -> None:
    """A shard that was saved in many files comes out in the order of its state.json."""
    dataset = merged(tmp_path / "out", [[A], several_files, [B]])
    assert dataset["id"][:] == [1, *range(12), 2]
    assert len(dataset.cache_files) == 14


def test_shards_without_rows_add_no_file(tmp_path: Path) -> None:
    """Shards that filtered everything away, with or without columns, leave no trace."""
    dataset = merged(tmp_path / "out", [[], [A], Dataset.from_dict({"other": ["x"]}).select([]), [B], []])
    assert dataset.to_list() == [A, B]
    assert len(dataset.cache_files) == 2


@pytest.mark.parametrize("columns", [{"id": Value("int32")}, {}])
def test_a_merge_without_any_row_can_be_loaded(columns: dict[str, Any], tmp_path: Path) -> None:
    """Where no shard has rows the output is an empty dataset with the columns that are known."""
    empty = Dataset.from_dict({name: [] for name in columns}, features=Features(columns))
    dataset = merged(tmp_path / "out", [[], empty, []])
    assert (len(dataset), dataset.features) == (0, Features(columns))


NULLS: dict[str, tuple[list[Any], list[Any]]] = {
    "a null column": ([{"v": None}], [{"v": 1.5}]),
    "an empty list": ([{"v": []}], [{"v": ["x"]}]),
    "null in a struct": ([{"v": {"a": None, "b": 1}}], [{"v": {"a": "x", "b": None}}]),
    "structs in a list": ([{"v": [{"a": None}]}], [{"v": [{"a": [1]}]}]),
    "null beside a struct": ([{"v": None}], [{"v": {"a": 1}}]),
    "columns in another order": ([{"v": 1, "w": "x"}], [{"w": "y", "v": 2}]),
    "fields in another order": ([{"v": {"a": 1, "b": "x"}}], [{"v": {"b": "y", "a": 2}}]),
}


@pytest.mark.parametrize(("first", "second"), NULLS.values(), ids=NULLS.keys())
@pytest.mark.parametrize("swapped", [False, True])
def test_null_and_order_are_reconciled(
    first: list[Any], second: list[Any], swapped: bool, tmp_path: Path
) -> None:
    """A null type gives way to a real one, at any depth, and the first shard's order holds for all."""
    parts = [second, first] if swapped else [first, second]
    dataset = merged(tmp_path / "out", [*parts, first])
    assert dataset.to_list() == [*parts[0], *parts[1], *first]
    assert "null" not in str(dataset.features)


MISFITS: dict[str, tuple[list[Any], str]] = {
    "types": (
        [[{"v": 1}], [{"v": None}], [{"v": "x"}]],
        r"shard 2 \(rows 2-2\): column 'v' is string .*, but int64 in shard 0 \(rows 0-0\)",
    ),
    "the shard that gave the type": (
        [[{"v": None}], [{"v": 1}], [{"v": "x"}]],
        r"shard 2 .*: column 'v' is string \(row 0 holds 'x'\), but int64 in shard 1 .* \(row 0 holds 1\)",
    ),
    "a field": ([[{"v": {"a": 1}}], [{"v": {"a": "x"}}]], r"column 'v\.a' is string .*, but int64"),
    "an item": ([[{"v": [1]}], [{"v": ["x"]}]], r"column 'v\[\]' is string .*, but int64"),
    "other columns": ([[{"n": 1}], [{"id": 1}]], r"shard 1 \(rows 1-1\) has no column 'n', which shard 0"),
    "a list and a value": ([[{"v": [1]}], [{"v": 1}]], r"column 'v' is int64 .*, but (List|Sequence)\("),
    "labels": (
        [
            Dataset.from_dict({"v": [0]}, features=Features({"v": ClassLabel(names=names)}))
            for names in (["a", "b"], ["b", "a"])
        ],
        r"column 'v' is ClassLabel\(",
    ),
    "an integer that no float holds": (
        [[{"v": 2**53 + 1}], [{"v": 0.5}]],
        r"shard 0 .*, row 0, column 'v': ",
    ),
}


@pytest.mark.parametrize(("parts", "says"), MISFITS.values(), ids=MISFITS.keys())
def test_shards_that_do_not_fit_are_an_error_before_anything_is_merged(
    parts: list[Any], says: str, tmp_path: Path
) -> None:
    """The error names both shards, the column and both types; the shards stay and nothing is merged."""
    workspace, plan = finished(tmp_path / "out", parts)
    with pytest.raises(MergeError, match=says):
        merge_shards(workspace, plan)
    assert not workspace.merged.exists()
    assert not (tmp_path / "out").exists()
    assert sorted(os.listdir(workspace.folder / "shards")) == [f"{spec.index:05d}" for spec in plan.specs]


def test_many_misfits_make_a_short_error(tmp_path: Path) -> None:
    """Of many misfits the error lists ten, and counts the rest."""
    _, plan = finished(tmp_path / "out", [[{"v": 1}], *([{"v": "x"}] for _ in range(15))])
    with pytest.raises(MergeError, match="and 5 more") as caught:
        common_features(list(plan.finished.values()))
    assert str(caught.value).count("\n  - ") == 11


def test_one_path_for_two_shards_is_an_error_that_names_both(tmp_path: Path) -> None:
    """A function that always saves to the same place has overwritten its own shards: an error says so."""

    def to_one_place(_: Path) -> Path:
        Dataset.from_list([A]).save_to_disk(str(tmp_path / "one"))
        return tmp_path / "one"

    workspace, plan = finished(tmp_path / "out", [[B], to_one_place, to_one_place])
    with pytest.raises(MergeError, match=r"same path.*one', for shard 1 \(rows 1-1\) and for shard 2"):
        merge_shards(workspace, plan)


def test_an_unfinished_run_is_not_merged(tmp_path: Path) -> None:
    """Merging before every shard is finished names the missing ones."""
    workspace, plan = finished(tmp_path / "out", [[A], [B], [C]])
    del plan.finished[1]
    with pytest.raises(MergeError, match=r"not finished: 1\."):
        merge_shards(workspace, plan)


def test_metadata_counts_the_whole(tmp_path: Path) -> None:
    """Description and split of the shards are kept; sizes and row counts are those of the whole."""
    parts = [Dataset.from_list([A, B], split="train"), Dataset.from_list([C], split="train")]
    for part in parts:
        part.info.description = "Letters."
        part.info.download_size = 12345
    dataset = merged(tmp_path / "out", parts)
    size = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.arrow"))
    assert dataset.split == "train"
    assert dataset.info.description == "Letters."
    assert (dataset.info.dataset_size, dataset.info.download_size) == (size, None)
    assert (dataset.info.splits["train"].num_examples, dataset.info.splits["train"].num_bytes) == (3, size)
    assert dataset.format["type"] is None


def test_the_same_shards_have_the_same_fingerprint_and_others_another(tmp_path: Path) -> None:
    """A run that was interrupted ends with the fingerprint of one that was not; other rows have another."""
    one = merged(tmp_path / "one", [[A], [B]])
    same = merged(tmp_path / "same", [[A], [B]])
    other = merged(tmp_path / "other", [[A], [C]])
    assert one._fingerprint == same._fingerprint != other._fingerprint
    assert one._fingerprint not in {Dataset.from_list([row])._fingerprint for row in (A, B)}


def test_what_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """A dataset that another program saved at output_path during the run stays, and so do the shards."""
    workspace, plan = finished(tmp_path / "out", [[B]])
    Dataset.from_list([A]).save_to_disk(str(tmp_path / "out"))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        merge_shards(workspace, plan)
    assert load_from_disk(str(tmp_path / "out")).to_list() == [A]
    assert not plan.missing
    assert workspace.shard_dir(plan.specs[0]).exists()


def test_a_failing_swap_puts_the_old_data_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the new folder can't be moved into place the old one returns to it."""
    merged(tmp_path / "out", [[A]])
    workspace, plan = finished(tmp_path / "out", [[B]], overwrite=True)
    rename = os.rename

    def refuse_new(source: Path, target: Path) -> None:
        if source == workspace.merged:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_new)
    with pytest.raises(OSError, match="Input/output"):
        merge_shards(workspace, plan)
    assert load_from_disk(str(tmp_path / "out")).to_list() == [A]


def test_what_can_not_be_deleted_yet_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old files that another program still uses, as on NFS, stay for a while; the output is in its place."""
    merged(tmp_path / "out", [[A]])
    workspace, plan = finished(tmp_path / "out", [[B]], overwrite=True)

    def busy(path: Any, *args: Any, **kwargs: Any) -> None:
        if str(path).endswith((".arrow", "holder.json")):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        unlink(path, *args, **kwargs)

    unlink = os.unlink
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy)
        assert load_from_disk(str(merge_shards(workspace, plan))).to_list() == [B]
    assert workspace.published
    again = finished(tmp_path / "out", [[C]], overwrite=True)
    assert load_from_disk(str(merge_shards(*again))).to_list() == [C]
    assert os.listdir(tmp_path) == ["out"]
