"""Rows fetched in Arrow batches are the rows that plain iteration yields."""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speedy_utils._instrument.rows import dataset_rows as rows_module
from speedy_utils._instrument.rows.dataset_rows import row_batches


def same(left: Any, right: Any) -> bool:
    """Equality which also asks for equal types and equal key order at every depth."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (float, np.floating)):
        return (math.isnan(left) and math.isnan(right)) or (
            left == right and math.copysign(1, left) == math.copysign(1, right)
        )
    if isinstance(left, datetime.datetime):
        return bool(left == right and left.tzinfo == right.tzinfo)
    return bool(left == right)


def fetched(dataset: Dataset, batch_size: int = 1000) -> list[Any]:
    """All rows of the batches."""
    batches = row_batches(dataset, batch_size)
    assert batches is not None, "fell back to plain iteration"
    return list(itertools.chain.from_iterable(batches))


def assert_fetched_as_iterated(dataset: Dataset) -> None:
    """Compare the batches of several sizes with plain iteration."""
    plain = list(dataset)
    for batch_size in (1, 3, 1000):
        rows = fetched(dataset, batch_size)
        assert same(rows, plain), (rows, plain)


def sequence_of(feature: Any) -> Any:
    """A list feature. Where datasets has no List, a Sequence of a dict would be a dict of lists."""
    return datasets.List(feature) if hasattr(datasets, "List") else [feature]


UTC = datetime.timezone.utc
WHEN = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)

# One column each: its feature and some values. All columns hold a null as well.
COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "bool": (Value("bool"), [True, False]),
    "int8": (Value("int8"), [-128, 127]),
    "int64": (Value("int64"), [2**63 - 1, -(2**53) - 1]),
    "uint64": (Value("uint64"), [2**64 - 1, 0]),
    "float16": (Value("float16"), [np.float16(0.1), np.float16("nan")]),
    "float32": (Value("float32"), [0.1, float("nan"), -0.0]),
    "float64": (Value("float64"), [0.1, float("nan"), float("-inf"), -0.0]),
    "string": (Value("string"), ["", "naïve \N{SNOWMAN}\0"]),
    "large_string": (Value("large_string"), ["a", "b" * 100]),
    "binary": (Value("binary"), [b"", b"\xff\0"]),
    "large_binary": (Value("large_binary"), [b"x", b"y"]),
    "date32": (Value("date32"), [datetime.date(1, 1, 1), datetime.date(9999, 12, 31)]),
    "date64": (Value("date64"), [datetime.date(1970, 1, 1), datetime.date(2024, 2, 29)]),
    "time32": (Value("time32[s]"), [datetime.time(1, 2, 3)]),
    "time64": (Value("time64[us]"), [datetime.time(1, 2, 3, 4)]),
    "timestamp_s": (Value("timestamp[s]"), [WHEN.replace(microsecond=0)]),
    "timestamp_ns": (Value("timestamp[ns]"), [pd.Timestamp(1_709_209_815_123_456_789), WHEN]),
    "timestamp_tz": (Value("timestamp[us, tz=Europe/Paris]"), [WHEN.replace(tzinfo=UTC)]),
    "timestamp_utc": (Value("timestamp[us, tz=UTC]"), [WHEN.replace(tzinfo=UTC)]),
    "duration_us": (Value("duration[us]"), [datetime.timedelta(days=-1, microseconds=3)]),
    "duration_ns": (Value("duration[ns]"), [pd.Timedelta(1_000_000_007)]),
    "decimal128": (Value("decimal128(10, 2)"), [decimal.Decimal("1.50"), decimal.Decimal("-3.00")]),
    "decimal256": (Value("decimal256(50, 3)"), [decimal.Decimal("1.500")]),
    "null": (Value("null"), [None]),
    "label": (ClassLabel(names=["no", "yes"]), [0, 1, -1]),
    "struct": (
        {"b": Value("int32"), "a": {"x": Value("string")}},
        [{"b": 1, "a": None}, {"b": None, "a": {"x": "y"}}],
    ),
    "lists": (sequence_of(sequence_of(Value("int64"))), [[[1, None], [], None], []]),
    "fixed_list": (datasets.Sequence(Value("float32"), length=2), [[0.1, None], [1.0, float("nan")]]),
    "large_list": (datasets.LargeList(Value("string")), [["a", None], []]),
    "list_of_dicts": (
        [{"role": Value("string"), "n": [Value("int8")]}],
        [[{"role": "u", "n": [1]}, {"role": None, "n": None}], []],
    ),
    "dict_of_lists": (
        datasets.Sequence({"a": Value("int64"), "b": Value("string")}),
        [{"a": [1, 2], "b": ["x", None]}],
    ),
    "translation": (datasets.Translation(languages=["en", "fr"]), [{"en": "cat", "fr": "chat"}]),
    "undecoded_image": (Image(decode=False), [{"bytes": b"\0", "path": None}]),
}


def column(name: str, length: int = 7) -> Dataset:
    """A dataset of one of the ``COLUMNS``, made from a table so that nothing encodes the values anew."""
    feature, values = COLUMNS[name]
    features = Features({name: feature})
    data = list(itertools.islice(itertools.cycle([*values, None]), length))
    table = pa.table({name: pa.array(data, features.arrow_schema.field(name).type)})
    return Dataset(table.replace_schema_metadata(features.arrow_schema.metadata))


def texts(length: int = 50) -> Dataset:
    """A dataset of a string, a number and a list per row."""
    return Dataset.from_dict(
        {
            "text": [f"line {i}" * (i % 4) for i in range(length)],
            "label": list(range(length)),
            "tags": [[str(i)] * (i % 3) for i in range(length)],
        }
    )


@pytest.mark.parametrize("name", COLUMNS)
def test_each_kind_of_column_is_fetched_exactly(name: str) -> None:
    """A column of any stored type keeps values and types, also one gathered from a chunk per row."""
    assert_fetched_as_iterated(column(name))
    shuffled = column(name, 200).shuffle(seed=3)
    assert same(fetched(shuffled), list(shuffled))


VIEWS: dict[str, Callable[[Dataset], Dataset]] = {
    "shuffle": lambda d: d.shuffle(seed=1),
    "select scattered": lambda d: d.select([4, 4, 0, 49, 7]),
    "select contiguous": lambda d: d.select(range(10, 30)),
    "select of shuffle": lambda d: d.shuffle(seed=1).select(range(10, 30)),
    "filter": lambda d: d.filter(lambda row: row["label"] % 3 == 0),
    "reversed": lambda d: d.select(range(49, -1, -1)),
    "flatten indices": lambda d: d.shuffle(seed=1).flatten_indices(),
    "shard": lambda d: d.shard(3, 1),
    "skip": lambda d: d.skip(45),
    "concatenate": lambda d: datasets.concatenate_datasets([d, d.shuffle(seed=2)]),
    "many chunks": lambda d: datasets.concatenate_datasets([d.take(1)] * 90),
    "select columns": lambda d: d.select_columns(["tags", "text"]),
    "rename": lambda d: d.rename_column("text", "zzz"),
    "python format": lambda d: d.with_format("python"),
    "format columns": lambda d: d.with_format(columns=["tags", "text"]),
    "output all columns": lambda d: d.with_format(columns=["tags"], output_all_columns=True),
    "format columns shuffle": lambda d: d.with_format(columns=["label"]).shuffle(seed=1),
    "format reset": lambda d: d.with_format("numpy").with_format(None),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_of_a_dataset_are_fetched_exactly(view: Callable[[Dataset], Dataset]) -> None:
    """Selections, orders, concatenations and column subsets are followed as plain iteration follows them."""
    assert_fetched_as_iterated(view(texts()))


def test_a_memory_mapped_dataset_is_fetched_exactly(tmp_path: Path) -> None:
    """A dataset loaded from disk in several files is fetched over the file borders."""
    texts().save_to_disk(str(tmp_path / "saved"), num_shards=3)
    assert_fetched_as_iterated(datasets.load_from_disk(str(tmp_path / "saved")))


def test_rows_don_t_share_objects() -> None:
    """Changing a row, or a list within it, leaves all other rows and the dataset alone."""
    dataset = Dataset.from_dict({"a": [[{"k": [1]}]] * 5})
    for row in fetched(dataset):
        assert row == {"a": [{"k": [1]}]}
        row["a"][0]["k"].append(2)
        row["a"].append("more")
        row["new"] = 1
    assert fetched(dataset) == list(dataset)


def test_batches_are_full_if_rows_are_small() -> None:
    """Small rows come by the thousand, after a first one that comes at once, and each comes once."""
    rows = [{"n": i} for i in range(2500)]
    batches = [list(batch) for batch in row_batches(Dataset.from_list(rows)) or ()]
    assert [len(batch) for batch in batches] == [1, 1000, 1000, 499]
    assert list(itertools.chain(*batches)) == rows


@pytest.mark.parametrize("shuffled", [False, True], ids=["in-order", "shuffled"])
def test_big_rows_come_in_small_batches(shuffled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a batch are bounded, also where big rows follow many small ones."""
    monkeypatch.setattr(rows_module, "_BATCH_BYTES", 10_000)
    dataset = Dataset.from_dict({"blob": [b"x" * n for n in [1] * 500 + [2_000] * 200 + [50_000] * 3]})
    if shuffled:
        dataset = dataset.shuffle(seed=5)
    batches = [list(batch) for batch in row_batches(dataset) or ()]
    assert list(itertools.chain(*batches)) == list(dataset)
    bound = 200_000 if shuffled else 10_000  # sizes of gathered tables are estimated, hence some slack
    assert all(len(batch) == 1 or sum(len(row["blob"]) for row in batch) <= bound for batch in batches)


def ending(rows: Iterator[Any]) -> tuple[list[Any], str]:
    """What came before the error, and the error."""
    seen: list[Any] = []
    try:
        for row in rows:
            seen.append(row)
    except (ValueError, OverflowError) as error:
        return seen, repr(error)
    return seen, ""


BAD_VALUES: dict[str, pa.Array] = {
    "utf8": pa.array([b"a"] * 90 + [b"\xff"] + [b"c"] * 30).cast(pa.binary()).view(pa.string()),
    "year": pa.array([1] * 90 + [2**50] + [3] * 30).cast(pa.timestamp("s")),
    "date": pa.array([1] * 90 + [2**30] + [3] * 30, pa.int32()).cast(pa.date32()),
}


@pytest.mark.parametrize("shuffled", [False, True], ids=["in-order", "shuffled"])
@pytest.mark.parametrize("bad", BAD_VALUES.values(), ids=BAD_VALUES)
@pytest.mark.parametrize("batch_bytes", [50, 10_000], ids=["pieces", "whole"])
def test_a_value_that_python_can_t_hold_fails_at_its_own_row(
    bad: pa.Array, batch_bytes: int, shuffled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows before the bad one are yielded, then comes the error that plain iteration raises."""
    monkeypatch.setattr(rows_module, "_BATCH_BYTES", batch_bytes)
    dataset = Dataset(pa.table({"v": bad}))
    if shuffled:
        dataset = dataset.shuffle(seed=1)
    plain = ending(iter(dataset))
    assert plain[1]
    assert same(ending(itertools.chain.from_iterable(row_batches(dataset) or ())), plain)


def loud() -> Dataset:
    """A dataset with a custom feature, which has its own decoding."""
    dataset = texts()
    features = dataset.features.copy()
    features["text"] = type(
        "Loud", (), {"dtype": "string", "decode": True, "decode_example": lambda self, value: "LOUD"}
    )()
    dataset.info.features = features
    return dataset


def empty(feature: Any, value: Any = None) -> Dataset:
    """A dataset of one row with a null somewhere in it."""
    return Dataset.from_dict({"i": [value]}, features=Features({"i": feature}))


LEFT_ALONE: dict[str, Callable[[], Any]] = {
    "numpy": lambda: texts().with_format("numpy"),
    "pandas": lambda: texts().with_format("pandas"),
    "arrow": lambda: texts().with_format("arrow"),
    "mixed": lambda: texts().with_format("numpy", columns=["label"], output_all_columns=True),
    "transform": lambda: texts().with_transform(lambda batch: 1 / 0),
    "lazy": lambda: texts().with_format(None, lazy=True),
    "array2d": lambda: empty(datasets.Array2D((2, 2), "int32")),
    "array2d dynamic": lambda: empty(datasets.Array2D((None, 2), "int32")),
    "custom feature": loud,
    "image": lambda: empty(Image()),
    "images": lambda: empty(sequence_of(Image()), [None]),
    "nested image": lambda: empty({"j": Image()}, {"j": None}),
    "subclass": lambda: type("Overridden", (Dataset,), {})(texts().data),
    "no format columns": lambda: texts().with_format(columns=[]),
    "no columns": lambda: texts().remove_columns(["text", "label", "tags"]),
    "iterable": lambda: texts().to_iterable_dataset(),
    "dataset dict": lambda: datasets.DatasetDict({"train": texts()}),
    "column": lambda: texts()["text"],
    "list": lambda: [{"a": 1}],
    "iterator": lambda: iter(texts()),
    "none": lambda: None,
}


@pytest.mark.parametrize("make", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_isn_t_surely_equal_is_left_to_plain_iteration(make: Callable[[], Any]) -> None:
    """Decoded, formatted, transformed and lazy rows are never fetched in batches, nor tried."""
    assert row_batches(make()) is None


def test_a_column_that_needs_decoding_matters_only_where_it_is_yielded() -> None:
    """A view without the image column is fetched in batches."""
    features = Features({"i": Image(), "n": Value("int64")})
    dataset = Dataset.from_dict({"i": [None] * 3, "n": [1, 2, 3]}, features=features)
    assert row_batches(dataset.with_format(columns=["n"], output_all_columns=True)) is None
    assert_fetched_as_iterated(dataset.with_format(columns=["n"]))


def test_fetching_leaves_the_dataset_as_it_was() -> None:
    """The format and the fingerprint of the user's dataset stay."""
    dataset = texts().with_format(columns=["text"])
    before = dataset.format, dataset._fingerprint
    fetched(dataset)
    assert (dataset.format, dataset._fingerprint) == before


def test_other_objects_don_t_import_datasets() -> None:
    """Where datasets was never imported it stays so, also next to a user's own module of that name."""
    code = f"""
import runpy, sys, types
rows = runpy.run_path({str(rows_module.__file__)!r})
own = types.ModuleType("datasets")
own.Dataset = type("Dataset", (), {{}})
for step in range(2):
    for obj in ([1], own.Dataset(), iter("ab")):
        assert rows["row_batches"](obj) is None
    assert not {{"datasets", "pyarrow"}} & set(sys.modules) or step
    sys.modules["datasets"] = own
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


NAMES = st.sampled_from(["a", "b", "zeta", "with space", "0"])
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Value("bool"), st.booleans()),
    (Value("int8"), st.integers(-128, 127)),
    (Value("int64"), st.integers(-(2**63), 2**63 - 1)),
    (Value("uint64"), st.integers(0, 2**64 - 1)),
    (Value("float32"), st.floats(width=32)),
    (Value("float64"), st.floats()),
    (Value("string"), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    (Value("binary"), st.binary(max_size=5)),
    (Value("timestamp[us]"), st.datetimes()),
    (Value("date32"), st.dates()),
    (Value("null"), st.none()),
    (ClassLabel(names=["no", "yes"]), st.integers(0, 1)),
]
# A feature, paired with the strategy of its values.
Kind = tuple[Any, "st.SearchStrategy[Any]"]


def struct_of(fields: dict[str, Kind]) -> Kind:
    """A dict of nullable values."""
    values = {name: st.none() | value for name, (_, value) in fields.items()}
    return {name: feature for name, (feature, _) in fields.items()}, st.fixed_dictionaries(values)


def list_of(item: Kind) -> Kind:
    """A short list of nullable items."""
    return sequence_of(item[0]), st.lists(st.none() | item[1], max_size=3)


KINDS: st.SearchStrategy[Kind] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(struct_of) | inner.map(list_of),
    max_leaves=4,
)


@st.composite
def any_dataset(draw: st.DrawFn) -> Dataset:
    """Any schema, any rows, seen through any selection of rows and columns."""
    columns = draw(st.dictionaries(NAMES, KINDS, min_size=1, max_size=3))
    features = Features({name: feature for name, (feature, _) in columns.items()})
    length = draw(st.integers(0, 6))
    arrays = {
        name: pa.array(
            draw(st.lists(st.none() | values, min_size=length, max_size=length)),
            features.arrow_schema.field(name).type,
        )
        for name, (_, values) in columns.items()
    }
    dataset = Dataset(pa.table(arrays).replace_schema_metadata(features.arrow_schema.metadata))
    if length and draw(st.booleans()):
        dataset = dataset.select(draw(st.lists(st.integers(0, length - 1), max_size=80)))
    if draw(st.booleans()):
        subset = draw(st.lists(st.sampled_from(list(columns)), min_size=1, unique=True))
        dataset = dataset.with_format(columns=subset, output_all_columns=draw(st.booleans()))
    return dataset


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(dataset=any_dataset(), batch_size=st.integers(1, 100))
def test_any_stored_dataset_is_fetched_exactly(dataset: Dataset, batch_size: int) -> None:
    """Whatever the schema, the rows and the view: batches hold what plain iteration yields."""
    assert same(fetched(dataset, batch_size), list(dataset))
