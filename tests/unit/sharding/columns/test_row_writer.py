"""Rows become Arrow files as they come, with types that hold all of them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, Features, Value

from speedy_utils._sharding.columns import row_writer
from speedy_utils._sharding.columns.cast import CastError
from speedy_utils._sharding.columns.convert import TwoRowsError
from speedy_utils._sharding.columns.returned import holds_rows, write_returned, write_rows
from speedy_utils._sharding.columns.row_writer import RowWriter, stored_tables
from speedy_utils._sharding.saved_dataset import SavedDataset
from speedy_utils.errors import ShardError


def write(folder: Path, *items: Any, features: Features | None = None) -> SavedDataset:
    """Write rows or tables, each as a batch of its own."""
    writer = RowWriter(folder / "saved", features)
    for item in items:
        writer.add(item)
        writer._write_gathered()
    return writer.close()


def stored(saved: SavedDataset) -> list[dict[str, Any]]:
    """What the files hold, in order."""
    return [row for file in saved.files for table in stored_tables(file) for row in table.to_pylist()]


ROWS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"i": 1, "f": 0.5, "t": "a", "b": True, "n": None, "y": b"\x00"}],
    "nested": [{"m": [{"role": "user", "parts": [1, 2]}]}, {"m": []}, {"m": None}],
    "a key fewer": [{"a": 1, "b": 2}, {"a": 1}, {"b": 3}],
    "times": [{"d": datetime.date(2020, 1, 2), "t": datetime.datetime(2020, 1, 2, 3, 4, 5, 6)}],
    "arrays": [{"x": np.arange(6, dtype="float32").reshape(2, 3)}, {"x": np.ones((1, 3), "float32")}],
    "tokens": [{"input_ids": [1, 2]}, {"input_ids": [2**40]}],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("at_once", [True, False])
def test_rows_are_stored_as_from_list_stores_them(
    rows: list[dict[str, Any]], at_once: bool, tmp_path: Path
) -> None:
    """Whether rows come as one batch or each as its own, they are stored as ``Dataset.from_list`` does."""
    names = dict.fromkeys(name for row in rows for name in row)
    expected = Dataset.from_list([{name: row.get(name) for name in names} for row in rows])
    whole = write_returned(rows, tmp_path / "whole", None, "shard 0")
    saved = whole if at_once else write(tmp_path, *rows)
    assert stored(saved) == expected.data.to_pylist()
    assert saved.features == expected.features
    assert saved.rows == len(rows)


BATCHES: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "an integer, then a float": ([{"s": 1}, {"s": 0.5}], {"s": "double"}),
    "null, then a text": ([{"s": None}, {"s": "a"}], {"s": "string"}),
    "an empty struct, then a key": ([{"m": {}}, {"m": {"k": 1}}], {"m": "struct<k: int64>"}),
    "other keys": ([{"m": {"a": 1}}, {"m": {"b": "x"}}], {"m": "struct<a: int64, b: string>"}),
    "in lists": ([{"m": [{"a": 1}]}, {"m": [{"a": 0.5}]}], {"m": "list<item: struct<a: double>>"}),
    "a new column": ([{"a": 1}, {"a": 2, "tools": ["x"]}], {"a": "int64", "tools": "list<item: string>"}),
    "tokens beyond 32 bits": (
        [{"input_ids": [1]}, {"input_ids": [2**40]}],
        {"input_ids": "list<item: int64>"},
    ),
}


@pytest.mark.parametrize(("rows", "types"), BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("turned", [False, True])
def test_batches_of_other_types_are_widened(
    rows: list[dict[str, Any]], types: dict[str, str], turned: bool, tmp_path: Path
) -> None:
    """What an earlier batch held in a narrower type is written again in the type that holds both."""
    rows = rows[::-1] if turned else rows
    saved = write(tmp_path, *rows)
    if not turned:  # the other way round struct keys have another order
        assert {field.name: str(field.type) for field in saved.features.arrow_schema} == types
    whole = pa.concat_tables(table for file in saved.files for table in stored_tables(file))
    assert whole.schema == saved.features.arrow_schema
    for given, kept in zip(rows, whole.to_pylist(), strict=True):
        assert without_nulls(kept) == without_nulls(given)


def without_nulls(value: Any) -> Any:
    """A value without the keys that are null, which say the same as keys that are not there."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("batches", [1, 2])
def test_rows_that_do_not_fit_are_both_shown(batches: int, tmp_path: Path) -> None:
    """The error names the column within its struct, both types, both rows and what they hold."""
    rows = [{"m": {"q": "s"}}, {"m": {"q": "t"}}, {"m": {"q": 3}}]
    with pytest.raises(TwoRowsError) as caught:
        write(tmp_path, *rows) if batches > 1 else write_or_raise(rows, tmp_path)
    assert str(caught.value) == (
        "column 'm.q' is int64 and string: row 0 holds {'q': 's'}, and row 2 {'q': 3}"
    )


def write_or_raise(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write rows as one batch."""
    writer = RowWriter(folder / "saved")
    for row in rows:
        writer.add(row)
    writer.close()


def test_an_integer_that_no_float_holds_is_an_error(tmp_path: Path) -> None:
    """Beside a float an integer stays the same number, or the error names its row."""
    with pytest.raises(CastError, match=r"row 1, column 's': .*9007199254740993"):
        write(tmp_path, {"s": 1}, {"s": 2**53 + 1}, {"s": 0.5})


FEATURES = Features({"n": Value("int32"), "m": {"a": Value("string"), "b": Value("float32")}})


def test_features_fix_the_columns(tmp_path: Path) -> None:
    """With features each row has their columns and types; what it lacks is null."""
    saved = write(tmp_path, {"n": 2.0, "m": {"b": 1}}, {"m": {"a": "x"}}, features=FEATURES)
    assert saved.features == FEATURES
    assert stored(saved) == [{"n": 2, "m": {"a": None, "b": 1.0}}, {"n": None, "m": {"a": "x", "b": None}}]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"n": 2.5}, "row 1, column 'n': .*2.5"),
        ({"n": 2**40}, "row 1, column 'n': .*1099511627776"),
        ({"n": "2"}, "row 1, column 'n': string can't become int32"),
        ({"m": {"a": 3}}, "row 1, column 'm.a': int64 can't become string"),
        ({"m": {"c": 3}}, "row 1, column 'm.c': there is no such key among a, b"),
        ({"x": 1}, "column 'x': there is no such column in features, which has n, m"),
    ],
    ids=str,
)
def test_features_change_no_value(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    """A value that would change, and a name that the features lack, are errors that name row and column."""
    with pytest.raises(CastError, match=says):
        write(tmp_path, {"n": 1}, row, features=FEATURES)


TABLES = {
    "an Arrow table": pa.table({"n": [1, 2]}),
    "a record batch": pa.record_batch({"n": [1, 2]}),
    "a reader": pa.table({"n": [1, 2]}).to_reader(),
    "a DataFrame": pd.DataFrame({"n": [0, 1, 2]}).query("n > 0"),
    "a Dataset": Dataset.from_dict({"n": [1, 2]}),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_tables_of_any_library_come_between_rows(table: Any, tmp_path: Path) -> None:
    """A table that is yielded is many rows at once; the index of a DataFrame without a name is no column."""
    saved = write_rows(iter([{"n": 0}, table, {"n": 3}]), tmp_path / "saved", None, "shard 0")
    assert stored(saved) == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]


NOT_TABLES: dict[str, tuple[Any, str]] = {
    "a column": (pa.chunked_array([[1, 2]]), "of type ChunkedArray is no table for .*non-struct type int64"),
    "mixed types": (pd.DataFrame({"a": [1, "x"]}), "is no table for Arrow: .*'x'.*for column a"),
    "a name twice": (pa.table([[1], [2]], names=["a", "a"]), "column 'a': two columns have this name"),
    "a map": (pa.table({"a": [1], "m": pa.array([[]], pa.map_("string", "int8"))}), "column 'm': datasets"),
}


@pytest.mark.parametrize(("table", "says"), NOT_TABLES.values(), ids=NOT_TABLES.keys())
@pytest.mark.parametrize("yielded", [True, False])
def test_what_can_be_no_table_is_named(table: Any, says: str, yielded: bool, tmp_path: Path) -> None:
    """A table that can't be stored is an error that names the shard and what is wrong, however it came."""
    assert holds_rows(table)
    write = write_rows if yielded else write_returned
    with pytest.raises(ShardError, match=f"(?s)shard 0: process_func (yielded|returned) .*{says}"):
        write(iter([table]) if yielded else table, tmp_path / "saved", None, "shard 0")


EMPTY: dict[str, Any] = {
    "a DataFrame": pd.DataFrame({"n": pd.Series([], dtype="str")}),
    "a table": pa.table({"n": pa.array([], "string")}),
    "a Dataset": Dataset.from_dict({"n": []}, features=Features({"n": Value("string")})),
    "a DataFrame of nothing": pd.DataFrame(),
}


@pytest.mark.parametrize("empty", EMPTY.values(), ids=EMPTY.keys())
def test_a_table_without_rows_has_no_say(empty: Any, tmp_path: Path) -> None:
    """The types of a table without rows, as a filter leaves it, do not matter beside those of rows."""
    saved = write(tmp_path, empty, {"n": 1}, empty)
    assert stored(saved) == [{"n": 1}]
    assert saved.features == Features({"n": Value("int64")})


def test_columns_are_kept_where_there_are_no_rows(tmp_path: Path) -> None:
    """Where nothing has rows, a table and a dict of columns still say which columns there are."""
    assert list(write(tmp_path, EMPTY["a DataFrame"]).features) == ["n"]
    assert list(write_returned({"n": [], "m": []}, tmp_path / "dict", None, "shard 0").features) == ["n", "m"]


HASHES: dict[str, list[Any]] = {
    "above int64": [2**64 - 1, None, 0],
    "in lists": [[2**63, 1], None, [], [None]],
    "in dicts": [{"x": 2**63, "note": "a"}, None, {"x": 1, "note": None}],
    "deeper": [{"x": [{"y": [2**64 - 1]}, None]}, {"x": None}, {"x": []}],
}


@pytest.mark.parametrize("hashes", HASHES.values(), ids=HASHES.keys())
@pytest.mark.parametrize("at_once", [True, False])
def test_hashes_are_unsigned(hashes: list[Any], at_once: bool, tmp_path: Path) -> None:
    """Numbers of 64 bits without a sign keep their values, wherever they are, also beside small ones."""
    rows = [{"h": value} for value in hashes]
    saved = write_returned(rows, tmp_path / "saved", None, "shard 0") if at_once else write(tmp_path, *rows)
    assert stored(saved) == rows
    assert "uint64" in str(saved.features)
    fixed = write_returned(rows, tmp_path / "fixed", saved.features, "shard 0")
    assert stored(fixed) == rows


def test_arrays_of_several_dtypes_are_one_column(tmp_path: Path) -> None:
    """Arrays whose dtypes differ, as that of an empty one does, fit together as lists of numbers do."""
    rows = [{"x": np.arange(2)}, {"x": np.array([])}, {"x": None}, {"x": np.ones(1, "float32")}, {"x": [3]}]
    saved = write_returned(rows, tmp_path / "saved", None, "shard 0")
    assert [row["x"] for row in stored(saved)] == [[0, 1], [], None, [1], [3]]
    assert "float64" in str(saved.features)
    again = write_returned(rows, tmp_path / "again", saved.features, "shard 0")
    assert stored(again) == stored(saved)


def test_an_integer_beyond_64_bits_names_its_row(tmp_path: Path) -> None:
    """What fits into no integer of Arrow is an error with its row, also where hashes are about it."""
    with pytest.raises(
        CastError, match=r"row 1, column 'h': OverflowError.*the row holds 18446744073709551616"
    ):
        write_or_raise([{"h": 2**63}, {"h": 2**64}], tmp_path / "saved")
    with pytest.raises(ShardError, match=r"row 1, column 'h': .*-1"):
        write_returned([{"h": 2**63}, {"h": -1}], tmp_path / "other", None, "shard 0")


def test_advice_to_give_features_is_for_who_has_not(tmp_path: Path) -> None:
    """The error of rows that don't fit to ``features`` does not say to give some."""
    with pytest.raises(ShardError, match=r"no such column in features, which has n, m$"):
        write_returned([{"x": 1}], tmp_path / "saved", FEATURES, "shard 0")


def test_a_categorical_is_its_values(tmp_path: Path) -> None:
    """A dictionary array, as pandas' categories make, is stored as the values it stands for."""
    saved = write(tmp_path, pa.table({"c": pa.array(["a", "b", "a"]).dictionary_encode()}))
    assert [row["c"] for row in stored(saved)] == ["a", "b", "a"]


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more rows are held than weigh 8 MB, whatever their number, also where a table is larger."""
    monkeypatch.setattr(row_writer, "BATCH_BYTES", 10_000)
    held: list[int] = []
    writer = RowWriter(tmp_path / "saved")
    for number in range(300):
        writer.add({"text": "x" * 1_000, "nested": [{"n": number}], "array": np.zeros(10)})
        held.append(len(writer._gathered))
    writer.add(pa.table({"text": ["y" * 1_000] * 50}))
    saved = writer.close()
    assert max(held) < 10
    sizes = [table.nbytes for file in saved.files for table in stored_tables(file)]
    assert max(sizes) < 20_000
    assert saved.rows == 350


def test_a_dict_that_is_filled_again_is_another_row(tmp_path: Path) -> None:
    """A generator may yield one dict again and again with other values."""

    def rows() -> Iterator[dict[str, int]]:
        row = {"n": 0}
        for row["n"] in range(3):
            yield row

    assert stored(write_rows(rows(), tmp_path / "saved", None, "shard 0")) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_generator_is_closed_where_a_row_does_not_fit(tmp_path: Path) -> None:
    """The generator's own clean-up runs before the error is raised."""
    ends = []

    def rows() -> Iterator[Any]:
        try:
            yield 3
        finally:
            ends.append("closed")

    with pytest.raises(ShardError, match=r"shard 0: process_func yielded .* 3 of type int is no row"):
        write_rows(rows(), tmp_path / "saved", None, "shard 0")
    assert ends == ["closed"]


def test_a_row_without_columns_needs_features(tmp_path: Path) -> None:
    """An empty row is null in all columns of the features, and an error without; so is a wrong name."""
    assert stored(write(tmp_path, {}, features=FEATURES)) == [dict.fromkeys(FEATURES)]
    with pytest.raises(ShardError, match="a row must have at least one column"):
        write_returned([{}], tmp_path / "other", None, "shard 0")
    with pytest.raises(CastError, match=r"row 1, column '2': the name .* not 2; the row holds {2: 0}"):
        write_or_raise([{"a": 1}, {2: 0}], tmp_path / "named")  # type: ignore[dict-item]


def test_no_rows_need_no_folder(tmp_path: Path) -> None:
    """A generator that yields nothing leaves a dataset without files; with features it has their columns."""
    assert write_rows(iter([]), tmp_path / "saved", None, "shard 0").files == []
    assert write_rows(iter([]), tmp_path / "saved", FEATURES, "shard 0").features == FEATURES
    assert not (tmp_path / "saved").exists()
