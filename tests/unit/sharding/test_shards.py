"""Cutting a dataset into shards that are cheap to ship."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from datasets import Array2D, Dataset, DatasetDict, Features, IterableDataset, Value, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st

from speedy_utils import multi_process_dataset
from speedy_utils._sharding.saved_dataset import silence_datasets
from speedy_utils._sharding.shards import LazyShards, ShardSpec, cut_shard, plan_shards, resolve_dataset

ROWS = 20_000


def table(rows: int = ROWS) -> dict[str, list[Any]]:
    """Columns of known content, about 50 bytes a row."""
    return {"text": [f"row {i:06d} " * 3 for i in range(rows)], "id": list(range(rows))}


@pytest.fixture(scope="module")
def in_memory() -> Dataset:
    """A dataset whose table is in memory."""
    return Dataset.from_dict(table())


@pytest.fixture(scope="module")
def mapped(in_memory: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same rows, memory-mapped from three files."""
    folder = tmp_path_factory.mktemp("mapped") / "dataset"
    with silence_datasets():
        in_memory.save_to_disk(str(folder), num_shards=3)
    return load_from_disk(str(folder))


def shipped(shard: Dataset) -> tuple[Dataset, int]:
    """What arrives in a worker, and how many bytes it took."""
    parcel = pickle.dumps(shard, protocol=5)
    return pickle.loads(parcel), len(parcel)


@given(rows=st.integers(0, 3_000), shards=st.integers(1, 200))
def test_a_plan_covers_every_row_once_in_order_with_even_shards(rows: int, shards: int) -> None:
    """A plan covers every row once and in order, and shard sizes differ by at most one."""
    plan = plan_shards(rows, shards)
    assert [row for spec in plan for row in range(spec.start, spec.stop)] == list(range(rows))
    assert [spec.index for spec in plan] == list(range(len(plan)))
    sizes = [spec.num_rows for spec in plan]
    assert max(sizes) - min(sizes) <= 1
    assert len(plan) == max(1, min(rows, shards))


@pytest.mark.parametrize(("rows", "shards"), [(10, 0), (10, -1), (-1, 3)])
def test_a_plan_out_of_range_is_refused(rows: int, shards: int) -> None:
    """Less than one shard, or less than no rows, is a ValueError."""
    with pytest.raises(ValueError, match=r"num_(shards|rows) must"):
        plan_shards(rows, shards)


def test_a_shard_names_its_rows() -> None:
    """Error messages name a shard by its number and by its first and last row."""
    assert str(ShardSpec(3, 3_000, 4_000)) == "shard 3 (rows 3,000-3,999)"
    assert str(ShardSpec(0, 0, 0)) == "shard 0 (no rows)"


# How many bytes a shard of 1,000 rows may take on its way, beside how many of its rows.
SHIPPED: dict[str, tuple[Callable[[Dataset, Dataset], Dataset], int, int]] = {
    "mapped: file names": (lambda mapped, memory: mapped, 4_000, 0),
    "shuffled: its order too": (lambda mapped, memory: mapped.shuffle(seed=1), 24_000, 0),
    "an order in memory": (lambda mapped, memory: mapped.shuffle(seed=1, keep_in_memory=True), 24_000, 0),
    "in memory: its rows": (lambda mapped, memory: memory, 4_000, 2_300),
    "in memory, shuffled": (lambda mapped, memory: memory.shuffle(seed=1), 4_000, 2_300),
    "a column in memory: its slice": (
        lambda mapped, memory: mapped.add_column("more", [1] * ROWS),
        24_000,
        0,
    ),
}


@pytest.mark.parametrize(("make", "most_bytes", "most_rows"), SHIPPED.values(), ids=SHIPPED.keys())
def test_a_shard_ships_what_it_needs(
    make: Callable[[Dataset, Dataset], Dataset],
    most_bytes: int,
    most_rows: int,
    mapped: Dataset,
    in_memory: Dataset,
) -> None:
    """A shard of each kind of dataset arrives with its rows, and takes no more bytes than they need."""
    dataset = make(mapped, in_memory)
    arrived, size = shipped(cut_shard(dataset, ShardSpec(1, 1_000, 2_000)))
    assert arrived[:] == dataset[1_000:2_000]
    assert size < most_bytes + most_rows * in_memory.data.nbytes / ROWS


def test_shards_are_cut_where_they_are_needed(in_memory: Dataset, tmp_path: Path) -> None:
    """The sequence of shards has each with its folder, named as errors name it; its rows alone travel."""
    specs = plan_shards(ROWS, 8)
    shards = LazyShards(in_memory, specs[1:], lambda spec: tmp_path / str(spec.index), 8)
    assert len(shards) == 7
    assert repr(list(shards)) == repr(list(shards[:])) == str([*map(str, specs[1:])]).replace("'", "")
    sent = pickle.dumps(shards[0])
    assert len(sent) < in_memory.data.nbytes / 3  # older versions of datasets pickle a table in memory twice
    for shard in (shards[0], pickle.loads(sent)):
        assert shard.dataset()["id"][:] == list(range(specs[1].start, specs[1].stop))
    assert shards[0].folder == tmp_path / "1"


@settings(max_examples=15, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["plain", "shuffled", "filtered", "selected"]))
def test_shards_in_a_row_are_the_dataset(data: st.DataObject, kind: str) -> None:
    """The shards of any plan, laid end to end, are the dataset row by row."""
    rows = data.draw(st.integers(0, 60))
    dataset = Dataset.from_dict(table(rows))
    with silence_datasets():
        if kind == "shuffled":
            dataset = dataset.shuffle(seed=3)
        elif kind == "filtered":
            dataset = dataset.filter(lambda row: row["id"] % 3 != 0)
        elif kind == "selected":
            dataset = dataset.select(data.draw(st.lists(st.integers(0, rows - 1))) if rows else [])
    plan = plan_shards(len(dataset), data.draw(st.integers(1, 9)))
    arrived = [shipped(cut_shard(dataset, spec))[0] for spec in plan]
    assert [row for shard in arrived for row in shard] == list(dataset)
    assert all(shard.features == dataset.features for shard in arrived)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_shard_keeps_format_and_transform(in_memory: Dataset, shuffled: bool) -> None:
    """A shard has the format, the chosen columns, or the transform of the dataset it was cut from."""
    dataset = in_memory.shuffle(seed=2) if shuffled else in_memory
    spec = ShardSpec(0, 10, 20)
    numbers = dataset.with_format("numpy", columns=["id"], output_all_columns=True)
    assert cut_shard(numbers, spec).format == numbers.format
    assert cut_shard(numbers, spec)[0]["id"].dtype == "int64"
    loud = dataset.with_transform(lambda batch: {"text": [text.upper() for text in batch["text"]]})
    assert cut_shard(loud, spec)[0] == {"text": dataset[10]["text"].upper()}


def test_a_shard_keeps_extension_types() -> None:
    """Columns that datasets types by itself come through the copying of a slice."""
    features = Features({"grid": Array2D((2, 2), "int32"), "name": Value("large_string")})
    dataset = Dataset.from_dict({"grid": [[[i, i], [i, i]] for i in range(50)], "name": ["x"] * 50}, features)
    arrived, _ = shipped(cut_shard(dataset, ShardSpec(0, 7, 9)))
    assert arrived.features == features
    # As NumPy: datasets before 3.6 can't turn them into lists with newer versions of pyarrow.
    assert arrived.with_format("numpy")[:]["grid"].tolist() == [[[7, 7], [7, 7]], [[8, 8], [8, 8]]]


def test_a_path_is_loaded(mapped: Dataset, tmp_path: Path) -> None:
    """A path that save_to_disk wrote stands for its dataset, a Dataset for itself."""
    with silence_datasets():
        mapped.select(range(5)).save_to_disk(str(tmp_path / "five"))
    assert resolve_dataset(tmp_path / "five")["id"][:] == list(range(5))
    assert resolve_dataset(str(tmp_path / "five")).num_rows == 5
    assert resolve_dataset(mapped) is mapped


def test_a_path_without_a_dataset_says_so(tmp_path: Path) -> None:
    """A path that leads to no dataset is named, with what to pass instead."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"No saved dataset at .*save_to_disk"):
            resolve_dataset(path)


def test_a_saved_dataset_without_a_file_says_how_to_save_it(tmp_path: Path) -> None:
    """An empty dataset that was saved without a data file is an error that says how to save it."""
    with silence_datasets():
        Dataset.from_dict({"a": []}).save_to_disk(str(tmp_path / "empty"))
    state = json.loads((tmp_path / "empty" / "state.json").read_text())
    (tmp_path / "empty" / "state.json").write_text(json.dumps({**state, "_data_files": []}))
    with pytest.raises(ValueError, match="num_shards=1"):
        resolve_dataset(tmp_path / "empty")


def test_a_dataset_dict_names_its_splits(tmp_path: Path) -> None:
    """A DatasetDict, also a saved one, is a TypeError that lists the splits."""
    both = DatasetDict(train=Dataset.from_dict({"a": [1]}), test=Dataset.from_dict({"a": [2]}))
    with pytest.raises(TypeError, match=r'dataset\["train"\].*train, test'):
        resolve_dataset(both)
    with silence_datasets():
        both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(TypeError, match=r"loaded from .*train, test"):
        resolve_dataset(tmp_path / "both")


@pytest.mark.parametrize(
    ("given_", "hint"),
    [
        (IterableDataset.from_generator(lambda: iter([])), "from_generator"),
        ([{"a": 1}], "from_list"),
        ({"a": [1]}, "from_dict"),
        (pd.DataFrame({"a": [1]}), "from_pandas"),
        (pa.table({"a": [1]}), r"Dataset\(table\)"),
        (iter("rows"), "from_generator"),
        (3, "3 of type int"),
        (None, "None of type NoneType"),
    ],
)
def test_anything_else_is_a_type_error_with_the_cure(given_: object, hint: str) -> None:
    """What is no dataset is named by its type, with the constructor that makes a dataset of it."""
    with pytest.raises(TypeError, match=hint):
        resolve_dataset(given_)


@pytest.fixture
def ctrl_c_while_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C where datasets takes it for arguments of a transform that can't be hashed."""
    from datasets.fingerprint import Hasher

    def update(hasher: Hasher, value: object) -> None:
        if isinstance(value, range) or value == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Hasher, "update", update)
    monkeypatch.setattr("datasets.fingerprint._CACHING_ENABLED", False)  # it logs nothing then


@pytest.mark.usefixtures("ctrl_c_while_hashing")
def test_ctrl_c_while_a_shard_is_cut_is_not_swallowed(in_memory: Dataset) -> None:
    """Ctrl-C that datasets swallows while it cuts a shard ends the run all the same."""
    with pytest.raises(KeyboardInterrupt):
        cut_shard(in_memory, ShardSpec(0, 0, 10))


@pytest.mark.usefixtures("ctrl_c_while_hashing")
@pytest.mark.parametrize("options", [{"seed": 1}, {"debug": True, "debug_size": 10}], ids=str)
def test_ctrl_c_while_rows_are_chosen_is_not_swallowed(
    in_memory: Dataset, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Nor is Ctrl-C while the rows are shuffled or shortened; nothing is left on disk."""
    with pytest.raises(KeyboardInterrupt):
        multi_process_dataset(
            in_memory, lambda shard, path: shard, tmp_path / "out", backend="seq", progress=False, **options
        )
    assert not list(tmp_path.iterdir())
