"""Cast columns so that no value changes, or say which value would.

``datasets`` and pyarrow cast more than is safe: ``Dataset.from_list(rows, features=...)`` makes 2.5 an
integer 2, and drops what the features do not name. Here a number stays the same number, a text the same text;
what is missing becomes null, and what has no place is an error. Only a float may lose digits, where the
caller asks for a narrower float.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..._validation import shorten
from .unify import holds, is_json, is_label, list_parts, make_list

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features


class CastError(ValueError):
    """A value that has no place in a column, or would change.

    Args:
        column: Where, for example ``messages[].content``.
        reason: What is wrong with it.
        row: The first row where it is so, from 0; None if it is so in all rows.
        value: What the column holds in that row.
    """

    def __init__(self, column: str, reason: str, row: int | None = None, value: object = None) -> None:
        super().__init__(column, reason, row, value)
        self.column = column
        self.reason = reason
        self.row = row
        self.value = value

    def __str__(self) -> str:
        text = f"column {self.column!r}: {self.reason}"
        return (
            text
            if self.row is None
            else f"row {self.row:,}, {text}; the row holds {shorten(self.value, 120)}"
        )


def cast_table(table: pa.Table, features: Features, *, first_row: int = 0, encoded: bool = False) -> pa.Table:
    """Cast a table to columns, by name; a column that it lacks is null.

    Args:
        table: The table.
        features: The columns.
        first_row: The number of its first row, for the error.
        encoded: Whether a text in place of JSON is JSON already, and not a text to be said in JSON.

    Raises:
        CastError: It has a column that ``features`` lacks, or a value that would change.
    """
    import pyarrow as pa

    schema = features.arrow_schema
    if table.schema == schema and not holds(features, is_label):
        return table.replace_schema_metadata(schema.metadata)
    for name in table.column_names:
        check_name(name, features)
    arrays = []
    for name, feature in features.items():
        if name not in table.column_names:
            arrays.append(_nulls(table.num_rows, schema.field(name).type))
            continue
        row, chunks = first_row, []
        for chunk in table.column(name).chunks:
            chunks.append(_cast_rows(chunk, feature, name, row, encoded))
            row += len(chunk)
        arrays.append(pa.chunked_array(chunks, schema.field(name).type))
    return pa.Table.from_arrays(arrays, schema=schema)


def check_name(name: str, features: Features) -> None:
    """Raise CastError if columns have none of this name."""
    if name not in features:
        raise CastError(name, f"there is no such column in features, which has {', '.join(features)}")


def fits(columns: Features, wanted: Features) -> bool:
    """Return whether rows of some columns need no cast to others."""
    return columns == wanted or (columns.arrow_schema == wanted.arrow_schema and not holds(wanted, is_label))


def _cast_rows(array: pa.Array, feature: Any, column: str, first_row: int, encoded: bool) -> pa.Array:
    """Cast the rows of a column; the error names the first row that can't be cast."""
    import pyarrow as pa

    try:
        return _cast(array, feature, column, encoded)
    # What a feature's own cast, or Arrow's, raises for a value that does not fit.
    except (CastError, pa.ArrowException, TypeError, ValueError, OverflowError, KeyError) as error:
        # Half of the rows again and again, until one is left.
        if len(array) > 1:
            middle = len(array) // 2
            _cast_rows(array.slice(0, middle), feature, column, first_row, encoded)
            _cast_rows(array.slice(middle), feature, column, first_row + middle, encoded)
        where = error.column if isinstance(error, CastError) else column
        reason = error.reason if isinstance(error, CastError) else str(error).strip()
        value = array[0].as_py() if len(array) == 1 else None
        raise CastError(where, reason, first_row if len(array) == 1 else None, value) from None


def _cast(array: pa.Array, feature: Any, column: str, encoded: bool) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    target = arrow_type(feature)
    if array.type == target and not holds(feature, is_label):
        return array
    if array.null_count == len(array):
        return _nulls(len(array), target)
    if is_json(feature):
        if encoded and _kind(array.type) == _kind(pa.string()):
            return pa.ExtensionArray.from_storage(target, array.cast(target.storage_type))
        return _to_json(array, target, column)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if hasattr(feature, "cast_storage"):  # an image, a class label and the like
        stored = feature.cast_storage(array)
        if is_label(feature) and pc.any(pc.less(stored, -1)).as_py():
            raise CastError(column, f"there is no such label among {feature.num_classes}")
        return stored
    if isinstance(target, pa.ExtensionType):  # Array2D and the like
        stored = _cast(array, feature_of(target.storage_type), column, encoded)
        return pa.ExtensionArray.from_storage(target, stored)
    if pa.types.is_struct(target) and pa.types.is_struct(array.type):
        return _cast_struct(array, feature, target, column, encoded)
    parts = list_parts(feature)
    if parts and re.match(r"(large_|fixed_size_)?list<", str(array.type)):
        return _cast_list(array, parts.item, target, column, encoded)
    if isinstance(array, pa.DictionaryArray):
        return _cast(array.dictionary_decode(), feature, column, encoded)
    return _cast_values(array, target, column)


def _cast_struct(
    array: pa.StructArray, feature: Any, target: pa.StructType, column: str, encoded: bool
) -> pa.StructArray:
    import pyarrow as pa

    fields = _fields(feature, target)
    # Unlike field(), flatten() hides what lies below a null.
    children = dict(zip([field.name for field in array.type], array.flatten(), strict=True))
    for name in children:
        if name not in fields:
            raise CastError(f"{column}.{name}", f"there is no such key among {', '.join(fields) or 'none'}")
    arrays = [
        _cast(children[field.name], fields[field.name], f"{column}.{field.name}", encoded)
        if field.name in children
        else _nulls(len(array), field.type)
        for field in target
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(target), mask=array.is_null())


def _fields(feature: Any, stored: pa.StructType) -> Any:
    """Return the features of the keys of what is stored as a struct."""
    if isinstance(feature, dict):
        return feature
    items = getattr(feature, "feature", None)
    if isinstance(items, dict):  # Sequence({...}) of datasets 3 is stored as a struct of lists
        return {key: make_list(each, feature.length, large=False) for key, each in items.items()}
    return feature_of(stored)  # a translation


def _cast_list(array: Any, item: Any, target: pa.DataType, column: str, encoded: bool) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = _cast(array.flatten(), item, f"{column}[]", encoded)  # without what lies below a null
    lengths = pc.list_value_length(array)
    ends = pc.cumulative_sum(pc.fill_null(pc.cast(lengths, pa.int64()), 0))
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    if pa.types.is_list(target):
        return pa.ListArray.from_arrays(offsets.cast(pa.int32()), values, type=target, mask=array.is_null())
    if pa.types.is_fixed_size_list(target) and pc.any(pc.not_equal(lengths, target.list_size)).as_py():
        raise CastError(column, f"a list must have {target.list_size} values")
    plain = pa.LargeListArray.from_arrays(
        offsets, values, type=pa.large_list(target.value_field), mask=array.is_null()
    )
    return pc.cast(plain, target)


def _to_json(array: pa.Array, target: Any, column: str) -> pa.Array:
    """Write each value as JSON; a text too, as it would be read as what it says."""
    import pyarrow as pa

    try:
        texts = [None if value is None else as_json(value) for value in array.to_pylist()]
    except (TypeError, ValueError) as error:
        raise CastError(column, f"it can't be said in JSON ({error})") from None
    return pa.ExtensionArray.from_storage(target, pa.array(texts, target.storage_type))


def as_json(value: object) -> str:
    """Return a value as JSON.

    Raises:
        TypeError: It is nothing that JSON can say.
        ValueError: It is a number that JSON can't say.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _cast_values(array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
    """Cast plain values within their kind; Arrow itself refuses what does not fit, or has decimals."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = [_kind(array.type), _kind(target)]
    zones = getattr(array.type, "tz", None) is None, getattr(target, "tz", None) is None
    if kinds[0] is None or kinds[0] != kinds[1] or zones[0] != zones[1]:
        raise CastError(column, f"{array.type} can't become {target} without changing values")
    if pa.types.is_boolean(target):
        raise CastError(column, f"{array.type} can't become {target} without changing values")
    if pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.int8())
    if pa.types.is_float16(target) and pa.types.is_integer(array.type):
        array = pc.cast(array, pa.float32())
    cast = pc.cast(array, target)
    if pa.types.is_floating(array.type) and pa.types.is_floating(target):
        both = pc.xor(pc.is_inf(pc.cast(array, pa.float64())), pc.is_inf(pc.cast(cast, pa.float64())))
        if pc.any(both).as_py():
            raise CastError(column, f"it is beyond {target}")
    return cast


_KINDS = (
    r"u?int\d+|halffloat|float|double|bool",
    r"(large_)?string(_view)?",
    r"(large_)?binary(_view)?|fixed_size_binary.*",
    *("date.*", r"time(32|64).*", "timestamp.*", "duration.*", "decimal.*"),
)
"""Patterns of the names of types within which a value may be cast."""


def _kind(stored: pa.DataType) -> str | None:
    return next((kind for kind in _KINDS if re.fullmatch(kind, str(stored))), None)


def arrow_type(feature: Any) -> pa.DataType:
    """Return the Arrow type of a feature."""
    from datasets import Features

    return Features({"x": feature}).arrow_schema.field("x").type


def feature_of(kind: pa.DataType) -> Any:
    """Return the feature of an Arrow type; ``datasets`` raises for one that it does not know."""
    import pyarrow as pa
    from datasets import Features

    return Features.from_arrow_schema(pa.schema({"x": kind}))["x"]


def _nulls(rows: int, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(kind, pa.ExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.nulls(rows, kind.storage_type))
    return pa.nulls(rows, kind)
