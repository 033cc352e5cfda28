"""Datasets on disk: read and written in the form that ``datasets`` itself reads and writes."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from speedy_utils._sharding.saved_dataset import (
    copy_files,
    data_file_names,
    holds_dataset,
    in_parts,
    read_saved,
    save_dataset,
    silence_datasets,
    write_empty_file,
    write_metadata,
)


def letters(rows: int = 3) -> Dataset:
    """Rows with a description and a split."""
    dataset = Dataset.from_dict({"id": list(range(rows)), "text": ["x"] * rows}, split="train")
    dataset.info.description = "Letters."
    dataset.info.download_size = 12345
    return dataset


def test_a_saved_dataset_is_read_without_its_rows(tmp_path: Path) -> None:
    """What is read of a dataset is what it has: files in order, columns, counts, split and description."""
    dataset = letters(12)
    with silence_datasets():
        dataset.save_to_disk(str(tmp_path / "data"), num_shards=11)
    saved = read_saved(tmp_path / "data")
    assert [file.name for file in saved.files] == data_file_names(11)
    assert (saved.rows, saved.features, saved.split) == (12, dataset.features, "train")
    assert saved.fingerprint == dataset._fingerprint
    assert saved.info["description"] == "Letters."
    assert not saved.info.keys() & {"splits", "download_size", "features"}  # not about the data itself
    assert all(schema == dataset.features.arrow_schema for schema in saved.schemas)


@pytest.mark.parametrize("rows", [3, 0])
def test_what_is_written_can_be_read_by_both(rows: int, tmp_path: Path) -> None:
    """Metadata that is written beside Arrow files loads in ``datasets``, and reads back as it was given."""
    original = letters(3)
    with silence_datasets():
        saved = save_dataset(original, tmp_path / "data")
    folder = tmp_path / "written"
    folder.mkdir()
    files = [folder / name for name in data_file_names(1 if rows else 0)]
    if rows:
        shutil.copyfile(saved.files[0], files[0])
    else:
        write_empty_file(files[0], original.features.arrow_schema)
    write_metadata(
        folder,
        files=files,
        rows=rows,
        features=original.features,
        fingerprint="f",
        split="train",
        infos=[saved.info, {}],
    )
    loaded = load_from_disk(str(folder))
    assert loaded.to_list() == original.to_list()[:rows]
    assert (loaded.split, loaded.info.description) == ("train", "Letters.")
    assert (loaded.info.download_size, loaded.info.dataset_size) == (None, files[0].stat().st_size)
    assert loaded.info.splits["train"].num_examples == rows
    again = read_saved(folder)
    assert (again.rows, again.features, again.fingerprint) == (rows, original.features, "f")
    assert again.info == saved.info
    assert again.files == (files if rows else [])


@pytest.mark.parametrize(
    ("dataset", "holds"), [(letters(), True), (DatasetDict(train=letters()), True), (None, False)], ids=repr
)
def test_a_folder_that_holds_a_dataset_is_known_by_its_names(
    dataset: Any, holds: bool, tmp_path: Path
) -> None:
    """A saved Dataset and a saved DatasetDict differ from any other folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").touch()
    if dataset is not None:
        with silence_datasets():
            dataset.save_to_disk(str(tmp_path / "data"))
    assert holds_dataset(tmp_path / "data") is holds


def test_copies_are_files_of_their_own(tmp_path: Path) -> None:
    """Copied files have the rows of those they were copied from, and don't change with them."""
    with silence_datasets():
        saved = save_dataset(letters(), tmp_path / "data")
    copied = copy_files(saved, tmp_path / "copy")
    content = saved.files[0].read_bytes()
    saved.files[0].write_bytes(b"")
    assert [file.read_bytes() for file in copied.files] == [content]
    assert copied.rows == 3


def test_bars_are_off_inside_and_back_after() -> None:
    """Inside of silence_datasets nothing is drawn; after the outermost block the setting is back."""
    enable_progress_bars()

    def fail() -> None:
        with silence_datasets():
            with silence_datasets():
                assert are_progress_bars_disabled()
            assert are_progress_bars_disabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not are_progress_bars_disabled()


def test_bars_that_were_off_stay_off() -> None:
    """Bars that the user has turned off are not turned on by leaving the block."""
    disable_progress_bars()
    try:
        with silence_datasets():
            pass
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()


def test_bars_stay_off_while_any_thread_is_inside() -> None:
    """Bars come back only when the last of several threads has left its block."""
    enable_progress_bars()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with silence_datasets():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with silence_datasets():
        thread.start()
        assert inside.wait(30)
    assert are_progress_bars_disabled()
    leave.set()
    thread.join(30)
    assert not are_progress_bars_disabled()


@pytest.mark.parametrize(("size", "rows"), [(10**9, [10]), (2_000, [2] * 5), (10, [1] * 10)])
def test_tables_are_cut_by_bytes(size: int, rows: list[int]) -> None:
    """The parts of a table hold about as many bytes as asked for, or one larger row; none is lost."""
    table = pa.table({"text": ["x" * 900] * 10, "id": range(10)})
    parts = list(in_parts(table, size))
    assert [part.num_rows for part in parts] == rows
    assert pa.concat_tables(parts).combine_chunks() == table
    assert list(in_parts(table.slice(0, 0), size)) == []
