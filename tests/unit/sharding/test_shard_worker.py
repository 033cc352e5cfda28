"""What process_func returns becomes a finished shard, or an error that says what is wrong."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Value, load_from_disk

from speedy_utils import tracked
from speedy_utils._sharding.saved_dataset import silence_datasets
from speedy_utils._sharding.shard_worker import (
    ShardRecord,
    begin_shard,
    call_process_func,
    finish_shard,
    read_record,
)
from speedy_utils._sharding.shards import ShardSpec
from speedy_utils.errors import NotSharedError, ShardError

SPEC = ShardSpec(3, 30, 40)
ROWS = Dataset.from_list([{"id": i, "text": f"t{i}"} for i in range(10)])


@pytest.fixture
def shard_dir(tmp_path: Path) -> Path:
    """The folder of a shard, in the folder of a run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "00003"


def save(dataset: Dataset | DatasetDict, path: Path, **options: int) -> Path:
    """Save without a bar."""
    with silence_datasets():
        dataset.save_to_disk(str(path), **options)
    return path


def parquet(path: Path) -> Path:
    """Write the rows to a Parquet file."""
    pq.write_table(ROWS.with_format("arrow")[:], path)
    return path


def contents(record: ShardRecord, shard_dir: Path) -> list[object]:
    """The rows in the files of a record."""
    tables = [pa.ipc.open_stream(pa.memory_map(str(shard_dir / name))).read_all() for name, _ in record.files]
    return [row for table in tables for row in table.to_pylist()]


RETURNED: dict[str, Callable[[Path], object]] = {
    "the path, as text": lambda output: str(save(ROWS, output)),
    "the path, as a Path": lambda output: save(ROWS, output),
    "a path below": lambda output: save(ROWS, output / "deep" / "er"),
    "None": lambda output: save(ROWS, output) and None,
    "a dataset": lambda _: ROWS,
    "a dataset with a transform": lambda _: ROWS.with_transform(lambda batch: {"id": [0] * len(batch["id"])}),
    "the saved dataset, loaded": lambda output: load_from_disk(str(save(ROWS, output))),
    "a path elsewhere": lambda output: save(ROWS, output.parents[2] / "elsewhere"),
    "several files": lambda output: save(ROWS, output, num_shards=3),
    "a list of rows": lambda _: list(ROWS),
    "a dict of columns": lambda _: {"id": np.arange(10), "text": ROWS["text"][:]},
    "a DataFrame": lambda _: ROWS.to_pandas(),
    "an Arrow table": lambda _: ROWS.with_format("arrow")[:],
    "a Parquet file": lambda output: parquet(output.with_suffix(".parquet")),
    "a Parquet file elsewhere": lambda output: parquet(output.parents[2] / "rows"),
    "a Parquet file at output_path": lambda output: parquet(output) and None,
}


@pytest.mark.parametrize("make", RETURNED.values(), ids=RETURNED.keys())
def test_every_way_to_return_rows_makes_a_finished_shard(
    make: Callable[[Path], object], shard_dir: Path
) -> None:
    """A path, None and a Dataset all end as a record whose files hold the rows, in order."""
    output = begin_shard(shard_dir)
    record = finish_shard(make(output), output, SPEC)
    assert contents(record, shard_dir) == ROWS.to_list()
    assert (record.rows, record.spec) == (10, SPEC)
    types = {name: feature.dtype for name, feature in Features.from_dict(record.features).items()}
    assert types in ({"id": "int64", "text": "string"}, {"id": "int64", "text": "large_string"})
    assert all(size == (shard_dir / name).stat().st_size for name, size in record.files)
    assert read_record(shard_dir, SPEC) == record


class Callee:
    """An object that can be called."""

    def __call__(self, dataset: Any) -> tuple[Any, ...]:
        """Take the shard alone."""
        return (dataset,)

    def method(self, dataset: Any, out: Any = None) -> tuple[Any, ...]:
        """Take the shard and a path."""
        return dataset, out


def handing_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function in one that takes any arguments."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def with_path(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function in one that takes a path, and does not hand it on."""

    @functools.wraps(function)
    def wrapper(dataset: Any, output_path: Any) -> Any:
        return *function(dataset), output_path

    return wrapper


def with_start(dataset: Any, start: Any, out: Any, n: Any = 0) -> tuple[Any, ...]:
    """Take the place of the shard before the path."""
    return dataset, start, out, n


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[Any, ...]]] = {
    "the shard": (lambda dataset: (dataset,), {}, ("D",)),
    "a path too": (lambda dataset, output_path: (dataset, output_path), {}, ("D", "P")),
    "a path with a default": (lambda dataset, out=None: (dataset, out), {}, ("D", "P")),
    "an argument": (lambda dataset, n: (dataset, n), {"n": 3}, ("D", 3)),
    "an argument, then a path": (lambda dataset, n, out: (dataset, n, out), {"n": 3}, ("D", 3, "P")),
    "a path, then an argument": (lambda dataset, out, n: (dataset, out, n), {"n": 3}, ("D", "P", 3)),
    "names only": (lambda dataset, *, n=0: (dataset, n), {}, ("D", 0)),
    "any names": (lambda dataset, **kwargs: (dataset, kwargs), {"n": 3}, ("D", {"n": 3})),
    "anything": (lambda *args: args, {}, ("D", "P")),
    "a start": (lambda dataset, start: (dataset, start), {}, ("D", 30)),
    "a start of the caller's": (lambda dataset, start: (dataset, start), {"start": 1}, ("D", 1)),
    "a start before the path": (with_start, {"n": 3}, ("D", 30, "P", 3)),
    "an object": (Callee(), {}, ("D",)),
    "a method": (Callee().method, {}, ("D", "P")),
    "a partial": (functools.partial(lambda n, dataset: (n, dataset), 3), {}, (3, "D")),
    "a wrapper that hands on": (handing_on(lambda dataset: (dataset,)), {}, ("D",)),
    "a wrapper with a path": (with_path(lambda dataset: (dataset,)), {}, ("D", "P")),
    "a counted function": (tracked(lambda dataset: (dataset,)), {}, ("D",)),
    "a counted object": (tracked(Callee()), {}, ("D",)),
    "compiled": (getattr, {}, "no signature"),
}


@pytest.mark.parametrize(("function", "kwargs", "got"), CALLS.values(), ids=CALLS.keys())
def test_a_function_gets_what_it_takes(
    function: Callable[..., Any], kwargs: dict[str, Any], got: tuple[Any, ...]
) -> None:
    """The path goes to a second positional parameter that is left, and the shard's place to ``start``."""
    if function is getattr:
        assert call_process_func(getattr, SPEC, "index", 30, {}) == SPEC.index
    else:
        assert call_process_func(function, "D", "P", 30, kwargs) == got


@pytest.mark.parametrize(
    "rows",
    [Dataset.from_list([]), ROWS.select([]), Dataset.from_dict({"id": []})],
    ids=["no columns", "no rows", "null"],
)
@pytest.mark.parametrize("saved", [False, True])
def test_a_shard_without_rows_finishes_without_files(rows: Dataset, saved: bool, shard_dir: Path) -> None:
    """A shard that filtered everything away is finished, has no files, and keeps the columns it had."""
    output = begin_shard(shard_dir)
    if saved:
        # What save_to_disk leaves, written by hand: not every version can save a dataset without columns.
        output.mkdir()
        (output / "state.json").write_text(
            json.dumps({"_data_files": [], "_fingerprint": "f", "_split": None})
        )
        (output / "dataset_info.json").write_text(json.dumps({"features": rows.features.to_dict()}))
    record = finish_shard(output if saved else rows, output, SPEC)
    assert (record.rows, record.files) == (0, ())
    assert Features.from_dict(record.features) == rows.features
    assert read_record(shard_dir, SPEC) == record


def test_files_that_other_tools_wrote_are_cast_to_their_features(shard_dir: Path) -> None:
    """A folder whose Arrow types are not those of its features is rewritten as loading it would cast it."""
    output = begin_shard(shard_dir)
    save(ROWS, output)
    raw = pa.table({"id": pa.array(range(10), pa.int32()), "text": pa.array([f"t{i}" for i in range(10)])})
    with pa.ipc.new_stream(str(output / "data-00000-of-00001.arrow"), raw.schema) as stream:
        stream.write_table(raw.replace_schema_metadata(None))
    (output / "dataset_info.json").write_text(json.dumps({"features": None}))
    record = finish_shard(None, output, SPEC)
    assert Features.from_dict(record.features) == Features({"id": Value("int32"), "text": Value("string")})
    assert contents(record, shard_dir) == ROWS.to_list()


def broken(output: Path) -> Path:
    """A dataset whose Arrow file is cut off."""
    save(ROWS, output)
    (output / "data-00000-of-00001.arrow").write_bytes(b"\x00")
    return output


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "None without a file": (
        lambda _: None,
        "returned None, but wrote nothing to .*, the output_path that a second",
    ),
    "no such path": (lambda _: "no/such/place", "'no/such/place', but nothing exists there"),
    "no dataset": (lambda output: output.parent, r"no dataset that can be loaded at .*FileNotFoundError"),
    "a file": (lambda _: __file__, "no dataset that can be loaded at"),
    "a broken file": (broken, "no dataset that can be loaded at"),
    "texts": (lambda _: ["a"], r"rows that can't be written: 'a' of type str is no row"),
    "no columns": (lambda _: {"id": 1}, r"'id' is 1 of type int; return a list of rows"),
    "columns of two lengths": (lambda _: {"id": [1], "n": []}, r"different lengths: \{'id': 1, 'n': 0\}"),
    "mixed rows": (lambda _: [{"n": 1}, {"n": "a"}], r"int64: row 0 holds 1, and row 1 'a'"),
    "true": (lambda _: True, "returned True of type bool"),
    "a DatasetDict": (lambda _: DatasetDict(train=ROWS), "of type DatasetDict"),
    "a saved DatasetDict": (lambda output: save(DatasetDict(train=ROWS), output), "several splits"),
}


CURES = ("Yield rows", "rows are dicts", "return a list of rows", "different lengths", "features=")


@pytest.mark.parametrize(("make", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_is_no_dataset_names_the_shard_and_the_cure(
    make: Callable[[Path], object], says: str, shard_dir: Path
) -> None:
    """A wrong return value names the shard, its rows, the value and what to return; no record is left."""
    output = begin_shard(shard_dir)
    with pytest.raises(ShardError, match=says) as caught:
        finish_shard(make(output), output, SPEC)
    assert str(caught.value).startswith("shard 3 (rows 30-39): ")
    assert any(cure in str(caught.value) for cure in CURES)
    assert read_record(shard_dir, SPEC) is None


def test_a_new_attempt_forgets_the_one_before(shard_dir: Path) -> None:
    """A second attempt starts in an empty folder, and the first one's record and files are gone."""
    first = begin_shard(shard_dir)
    finish_shard(ROWS, first, SPEC)
    second = begin_shard(shard_dir)
    assert second.parent != first.parent
    assert not second.exists()
    assert list(shard_dir.iterdir()) == [second.parent]
    assert read_record(shard_dir, SPEC) is None


def test_a_straggler_can_not_finish_a_later_attempts_shard(shard_dir: Path) -> None:
    """An attempt that was given up, and ends after a new one has begun, leaves no record."""
    straggler = begin_shard(shard_dir)
    save(ROWS, straggler)
    begin_shard(shard_dir)
    with pytest.raises(ShardError):
        finish_shard(None, straggler, SPEC)
    with pytest.raises(FileNotFoundError):
        finish_shard(ROWS.select([]), straggler, SPEC)
    assert read_record(shard_dir, SPEC) is None


def test_a_worker_without_the_storage_says_so(tmp_path: Path) -> None:
    """A worker that doesn't see the run's folder asks for shared storage."""
    with pytest.raises(NotSharedError, match="storage that the driver and all workers share"):
        begin_shard(tmp_path / "not mounted" / "00003")


@pytest.mark.parametrize(
    "damage",
    [
        "cut",
        "written over",
        "gone",
        "link",
        "link inside",
        "garbled record",
        "half a record",
        "other rows",
        "path outside",
    ],
)
def test_a_damaged_shard_is_not_finished(damage: str, shard_dir: Path, tmp_path: Path) -> None:
    """A shard whose record or files are not as they were written counts as unfinished."""
    output = begin_shard(shard_dir)
    record = finish_shard(ROWS, output, SPEC)
    note, file = shard_dir / "record.json", shard_dir / record.files[0][0]
    spec = SPEC
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "written over":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        written = file.stat().st_mtime_ns
        file.write_bytes(content)
        os.utime(file, ns=(written, written + 10**9))  # the clock of a file system may tick slowly
    elif damage == "gone":
        file.unlink()
    elif damage == "link":
        file.rename(tmp_path / "moved")
        file.symlink_to(tmp_path / "moved")
    elif damage == "link inside":
        file.rename(file.with_name("moved"))
        file.symlink_to("moved")
    elif damage == "garbled record":
        note.write_text("{")
    elif damage == "half a record":
        note.write_text(json.dumps({"spec": {"index": 3, "start": 30, "stop": 40}, "rows": 10}))
    elif damage == "other rows":
        spec = ShardSpec(3, 30, 41)
    else:
        file.rename(tmp_path / "moved")
        note.write_text(note.read_text().replace(record.files[0][0], "../../moved"))
    assert read_record(shard_dir, spec) is None


@pytest.mark.parametrize("how", ["touched", "copied", "of the first release"])
def test_a_whole_shard_stays_finished(how: str, shard_dir: Path) -> None:
    """Neither a new time of its file, nor a record that has no checksum, makes a whole shard run again."""
    record = finish_shard(ROWS, begin_shard(shard_dir), SPEC)
    note, file = shard_dir / "record.json", shard_dir / record.files[0][0]
    if how == "touched":
        os.utime(file, (0, 0))
    elif how == "copied":
        file.write_bytes(file.read_bytes())
    else:
        note.write_text(json.dumps({k: v for k, v in json.loads(note.read_text()).items() if k != "sums"}))
    found = read_record(shard_dir, SPEC)
    assert found is not None
    assert (found.rows, found.files) == (record.rows, record.files)


def test_nested_columns_survive_the_record(shard_dir: Path) -> None:
    """The features of a record are those of its rows, nested ones and their order included."""
    rows = Dataset.from_list([{"b": {"y": [1], "x": None}, "a": [{"k": "v"}]}])
    output = begin_shard(shard_dir)
    finish_shard(rows, output, SPEC)
    record = read_record(shard_dir, SPEC)
    assert record is not None
    features = Features.from_dict(record.features)
    assert features.arrow_schema == rows.features.arrow_schema
    assert features == rows.features
