"""Casts that change no value, and errors that name what would change."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import (
    Array2D,
    ClassLabel,
    Features,
    Image,
    LargeList,
    Translation,
    TranslationVariableLanguages,
    Value,
)

from speedy_utils._sharding.columns.cast import CastError, cast_table
from speedy_utils._sharding.columns.convert import batch_of_rows
from speedy_utils._sharding.columns.unify import make_list

JSON = datasets.Json() if hasattr(datasets, "Json") else None


def sliced(array: pa.Array) -> pa.Array:
    """The same values as a slice of a longer array."""
    return pa.concat_arrays([array.slice(0, 1), array, array.slice(0, 1)]).slice(1, len(array))


def array_of(kind: Any, *values: Any) -> pa.Array:
    """An array with a null before its last value."""
    return pa.array([*values[:-1], None, values[-1]], kind)


def values(column: pa.ChunkedArray) -> list[Any]:
    """What a column holds; older extension arrays do not tell it themselves."""
    chunks = [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in column.chunks]
    return [value for chunk in chunks for value in chunk.to_pylist()]


def fixed(item: str, length: int) -> Any:
    """A list of fixed length."""
    return make_list(Value(item), length, large=False)


NOON = datetime.datetime(2020, 1, 1, 12)
CASTS: dict[str, tuple[pa.Array, Any]] = {
    "a wider integer": (array_of(pa.int8(), 1, -2), Value("int64")),
    "a narrower integer": (array_of(pa.int64(), 1, -2), Value("int8")),
    "a whole float": (array_of(pa.float64(), 1.0, -2.0), Value("int32")),
    "an integer as a float": (array_of(pa.int64(), 1, 2**53), Value("float64")),
    "a float that keeps": (array_of(pa.float64(), 0.5, float("inf")), Value("float32")),
    "a longer decimal": (
        array_of(pa.decimal128(3, 2), Decimal("1.25"), Decimal("-0.5")),
        Value("decimal256(40, 3)"),
    ),
    "a large text": (array_of(pa.large_string(), "a", "b"), Value("string")),
    "bytes": (array_of(pa.binary(), b"a", b"b"), Value("large_binary")),
    "categories": (array_of(pa.string(), "a", "b").dictionary_encode(), Value("string")),
    "a coarser time": (array_of(pa.timestamp("us"), NOON, NOON), Value("timestamp[s]")),
    "only nulls": (pa.array([None, None], pa.string()), Value("int8")),
    "a list": (array_of(pa.list_(pa.int8()), [1, None], []), LargeList(Value("int64"))),
    "a large list": (array_of(pa.large_list(pa.int64()), [1], [2, 3]), fixed("int8", -1)),
    "a list that becomes fixed": (array_of(pa.list_(pa.int8()), [1, 2], [3, 4]), fixed("int64", 2)),
    "a list that was fixed": (array_of(pa.list_(pa.int8(), 2), [1, 2], [3, 4]), fixed("int64", -1)),
    "keys in another order": (
        array_of(pa.struct({"a": pa.int8(), "b": pa.string()}), {"a": 1, "b": "x"}, {"a": None, "b": "y"}),
        {"b": Value("string"), "a": Value("int64")},
    ),
    "structs in lists": (
        array_of(pa.list_(pa.struct({"a": pa.int8()})), [{"a": 1}, None], []),
        make_list({"a": Value("float64")}, -1, large=False),
    ),
    "rows of numbers": (
        array_of(pa.list_(pa.list_(pa.int64())), [[1, 2]], [[3, 4]]),
        Array2D((1, 2), "int32"),
    ),
    "numbers of labels": (array_of(pa.int8(), 0, 1), ClassLabel(names=["no", "yes"])),
}


@pytest.mark.parametrize(("array", "feature"), CASTS.values(), ids=CASTS.keys())
def test_values_keep(array: pa.Array, feature: Any) -> None:
    """After a cast each value is equal to what it was, nulls included, also in a slice of an array."""
    features = Features({"c": feature})
    for each in (array, sliced(array)):
        cast = cast_table(pa.table({"c": each}), features)
        assert cast.schema == features.arrow_schema
        assert values(cast["c"]) == array.to_pylist()
        cast.validate(full=True)


LOSSES: dict[str, tuple[pa.Array, Any, str]] = {
    "decimals": (pa.array([1.0, 2.5]), Value("int64"), "row 11, column 'c': .*2.5.*; the row holds 2.5"),
    "no number": (pa.array([1.0, float("nan")]), Value("int64"), "row 11, column 'c': "),
    "too large": (pa.array([1, 300]), Value("int8"), "row 11, column 'c': .*300"),
    "beyond a float": (pa.array([1, 2**53 + 1]), Value("float64"), "row 11, .*9007199254740993"),
    "beyond a narrow float": (pa.array([1.0, 1e300]), Value("float32"), "row 11, .*beyond float"),
    "a text": (pa.array([None, "1"]), Value("int64"), "row 11, column 'c': string can't become int64"),
    "a number": (pa.array([None, 1]), Value("string"), "row 11, column 'c': int64 can't become string"),
    "a number for a truth value": (
        pa.array([0, 1]),
        Value("bool"),
        "row 10, column 'c': int64 can't become bool",
    ),
    "a finer time": (pa.array([NOON, NOON.replace(microsecond=1)]), Value("timestamp[s]"), "row 11, "),
    "a time zone": (pa.array([NOON]), Value("timestamp[us, tz=UTC]"), "row 10, .*can't become"),
    "the length of a list": (pa.array([[1, 2], [1]]), fixed("int64", 2), "row 11, .* must have 2 values"),
    "an item": (pa.array([[1], [2.5]]), fixed("int64", -1), "row 11, column 'c': .*2.5"),
    "a key": (pa.array([None, {"a": 1}]), {"b": Value("int8")}, "row 11, column 'c.a': there is no such key"),
    "a label": (pa.array([0, 7], pa.int8()), ClassLabel(names=["no"]), "row 11, column 'c': .*7"),
    "a struct": (pa.array([{"a": 1}]), Value("int64"), "row 10, column 'c': struct<a: int64> can't become"),
}


@pytest.mark.parametrize(("array", "feature", "says"), LOSSES.values(), ids=LOSSES.keys())
def test_a_value_that_would_change_is_named(array: pa.Array, feature: Any, says: str) -> None:
    """The error names the first row that can't be cast, the place in its column, and what the row holds."""
    with pytest.raises(CastError, match=says):
        cast_table(pa.table({"c": array}), Features({"c": feature}), first_row=10)


def test_columns_are_cast_by_name() -> None:
    """A column that the table lacks is null, and one that the features lack is an error that names it."""
    table = pa.table({"b": [1], "a": ["x"]})
    features = Features({"a": Value("string"), "n": Value("int8"), "b": Value("int64")})
    assert cast_table(table, features).to_pylist() == [{"a": "x", "n": None, "b": 1}]
    with pytest.raises(CastError, match=r"column 'b': there is no such column in features, which has a$"):
        cast_table(table, Features({"a": Value("string")}))


def test_translations_are_encoded() -> None:
    """The translations of ``datasets`` are stored as structs, and cast like them."""
    names = ["de", "en"]
    features = Features({"fixed": Translation(names), "free": TranslationVariableLanguages(languages=names)})
    rows = [{"fixed": {"en": "a", "de": "b"}, "free": {"en": ["a", "c"], "de": "b"}}, {"fixed": None}]
    table = cast_table(batch_of_rows(rows, features, 0).table, features)
    assert table.schema == features.arrow_schema
    free = {"language": ["de", "en", "en"], "translation": ["b", "a", "c"]}
    assert table.to_pylist() == [{"fixed": {"de": "b", "en": "a"}, "free": free}, dict.fromkeys(features)]


def test_labels_and_arrays_are_encoded() -> None:
    """Rows hold what a feature encodes, the name of a label or an array; plain values stay as they are."""
    labels = make_list(ClassLabel(names=["no", "yes"]), -1, large=False)
    features = Features({"labels": labels, "grid": Array2D((1, 2), "float32"), "n": Value("int8")})
    rows: list[dict[str, Any]] = [{"labels": ["yes", 0], "grid": np.ones((1, 2)), "n": 1}, {"n": None}]
    table = cast_table(batch_of_rows(rows, features, 0).table, features)
    assert [values(table[name])[0] for name in features] == [[1, 0], [[1.0, 1.0]], 1]
    assert [values(table[name])[1] for name in features] == [None] * 3
    with pytest.raises(CastError, match=r"row 1, column 'labels': .*maybe"):
        batch_of_rows([{"labels": ["yes"]}, {"labels": ["maybe"]}], features, 0)


def test_pictures_are_encoded() -> None:
    """A picture is stored as a file's bytes, whether the features say that it is one or not."""
    picture = pytest.importorskip("PIL.Image").new("RGB", (2, 2), "red")
    for features in (None, Features({"image": Image()})):
        batch = batch_of_rows([{"image": picture}, {"image": None}], features, 0)
        assert batch.features == Features({"image": Image()})
        first, second = batch.table["image"].to_pylist()
        assert first["bytes"].startswith(b"\x89PNG")
        assert second is None


@pytest.mark.skipif(JSON is None, reason="these datasets have no Json")
def test_json_says_a_text_as_a_text() -> None:
    """A text cast to JSON is read back as that text, also if it looks like a number; rows hold any values."""
    features = Features({"c": JSON})
    for values in (["3", "a", None], [{"a": 1}, None, {"a": None}], [1, None, 0.5]):
        cast = cast_table(pa.table({"c": pa.array(values)}), features)
        yielded = cast_table(batch_of_rows([{"c": each} for each in values], features, 0).table, features)
        for table in (cast, yielded):
            assert [features["c"].decode_example(each) for each in table["c"].to_pylist()] == values
    mixed: list[Any] = [{"a": 1}, "3", [1, "b"], 2, None]
    stored = cast_table(batch_of_rows([{"c": each} for each in mixed], features, 0).table, features)
    assert [features["c"].decode_example(each) for each in stored["c"].to_pylist()] == mixed
    with pytest.raises(CastError, match="can't be said in JSON"):
        cast_table(pa.table({"c": pa.array([float("nan")])}), features)
