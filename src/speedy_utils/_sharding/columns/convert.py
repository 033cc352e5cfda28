"""Rows, columns and frames of other libraries as Arrow tables, with the types that ``datasets`` gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from ..._validation import shorten
from .cast import CastError, as_json, cast_table, check_name, feature_of
from .unify import MisfitError, is_json, is_value, leaves, list_parts, make_list, unify

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features


@dataclass(frozen=True)
class Batch:
    """Some rows of the output: a table, and what ``datasets`` calls its columns."""

    table: pa.Table
    features: Features


def row_bytes(row: Mapping[str, Any]) -> int:
    """Return about how many bytes a row takes in Arrow, without converting it."""
    size = 0
    for value in row.values():  # inlined for what most rows hold, as it costs something for each row
        kind = type(value)
        if kind is str or kind is bytes:
            size += len(value)
        elif kind in _NUMBERS:
            size += 8
        else:
            size += _value_bytes(value)
    return size


def _value_bytes(value: Any) -> int:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value) + 4
    if kind in _NUMBERS or value is None:
        return 8
    if kind is list or kind is tuple:
        if value and type(value[0]) in _NUMBERS and type(value[-1]) in _NUMBERS:  # as a rule, so are all
            return 8 * len(value)
        return 4 + sum(map(_value_bytes, value))
    if isinstance(value, Mapping):
        return sum(map(_value_bytes, value.values()))
    size = getattr(value, "nbytes", None)  # an array, a tensor
    if size is None:
        width_and_height = getattr(value, "size", None)  # an image
        if isinstance(width_and_height, tuple) and len(width_and_height) == 2:
            return 4 * int(width_and_height[0]) * int(width_and_height[1])
    return size if isinstance(size, int) else 64


_NUMBERS = (int, float, bool)


def batch_of_rows(rows: Sequence[Mapping[Any, Any]], features: Features | None, first_row: int) -> Batch:
    """Convert rows; a row that lacks a column that others have is null there.

    Args:
        rows: At least one.
        features: The columns that they must have; None to find out.
        first_row: The number of the first one, for errors.

    Raises:
        TypeError: They have no columns.
        CastError: A value fits no column.
        MisfitError: Two rows don't fit together.
    """
    # With features a row that is empty is null in all columns.
    names = dict.fromkeys(name for row in rows for name in row) or dict.fromkeys(features or ())
    if not names:
        raise TypeError(_NO_COLUMNS)
    for name in names:
        if not isinstance(name, str):
            place = next(place for place, row in enumerate(rows) if name in row)
            reason = f"the name of a column must be a str, not {shorten(name)}"
            raise CastError(str(name), reason, first_row + place, rows[place])
    columns = {name: [row.get(name) for row in rows] for name in names}
    return batch_of_columns(columns, features, first_row)


def batch_of_columns(columns: Mapping[str, Any], features: Features | None, first_row: int) -> Batch:
    """Convert columns of equal length; otherwise as :func:`batch_of_rows`."""
    import pyarrow as pa
    from datasets import Features

    if features is not None:
        for name in columns:
            check_name(name, features)
    arrays, found = {}, {}
    for name, values in columns.items():
        feature = None if features is None else features[name]
        arrays[name], found[name] = _convert(values, name, feature, first_row)
    return Batch(pa.table(arrays), Features(found))


def _convert(values: Any, name: str, feature: Any, first_row: int) -> tuple[pa.Array, Any]:
    """Return a column as an array, and its feature."""
    import pyarrow as pa
    from datasets.arrow_writer import OptimizedTypedSequence, TypedSequence

    try:
        if feature is not None:
            if _is_encoded(feature):
                values = [_encode(value, feature) for value in values]
            typed = TypedSequence(values)
        else:
            typed = OptimizedTypedSequence(values, col=name)
        array = pa.array(typed)
        found = typed.get_inferred_type()
    except Exception as error:  # values and their encoders are of any library
        plain = feature is None or not _is_encoded(feature)
        if plain and any(map(_is_number_array, values)):  # of several dtypes, which Arrow refuses
            lists = [value.tolist() if _is_number_array(value) else value for value in values]
            return _convert(lists, name, feature, first_row)
        if isinstance(error, OverflowError) and (unsigned := _unsigned(values)) is not None:
            array, found = unsigned
            return (array, found) if feature is None else (_fit(array, feature, name, first_row), feature)
        if len(values) == 1:
            raise CastError(name, f"{type(error).__name__}: {error}", first_row, values[0]) from error
        return _convert_one_by_one(values, name, feature, first_row)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if feature is None:
        return array, found
    return _fit(array, feature, name, first_row, encoded=True), feature


def _is_number_array(value: Any) -> bool:
    import numpy as np

    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf"


def _unsigned(values: Sequence[Any]) -> tuple[pa.Array, Any] | None:
    """Convert whole numbers, also inside of lists and dicts, of which one is beyond int64: to uint64.

    Hashes are such numbers, and Arrow by itself tries no more than int64. None if that is of no help.
    """
    import pyarrow as pa
    from datasets import Value

    missing = pa.array([value is None for value in values])
    there = [value for value in values if value is not None]
    with suppress(OverflowError, CastError, TwoRowsError, pa.ArrowException):
        if all(type(value) is int for value in there):  # Arrow would make 2 of 2.5
            return pa.array(values, pa.uint64()), Value("uint64")
        if all(isinstance(value, (list, tuple)) for value in there):
            inside, found = _convert([each for value in there for each in value], "", None, 0)
            ends = accumulate(len(value or ()) for value in values)
            offsets = pa.array([0, *ends], pa.int32())
            return pa.ListArray.from_arrays(offsets, inside, mask=missing), make_list(found, -1, large=False)
        if all(isinstance(value, Mapping) for value in there):
            names = dict.fromkeys(name for value in there for name in value)
            parts = {
                name: _convert([(value or {}).get(name) for value in values], "", None, 0) for name in names
            }
            arrays = [array for array, _ in parts.values()]
            struct = pa.StructArray.from_arrays(arrays, list(names), mask=missing)
            return struct, {name: found for name, (_, found) in parts.items()}
    return None


def _convert_one_by_one(values: Any, name: str, feature: Any, first_row: int) -> tuple[pa.Array, Any]:
    """Convert values that don't fit into one array; the error names the first that does not fit."""
    import pyarrow as pa
    from datasets import Features, Value

    arrays: list[pa.Array] = []
    kinds: list[Any] = []
    common: Any = Value("null")
    for row, value in enumerate(values, start=first_row):
        array, kind = _convert([value], name, feature, row)
        try:
            common = unify(common, kind, name)
        except MisfitError as misfit:
            other = next(place for place, each in enumerate(kinds) if _clash(each, kind))
            shown = shorten(values[other], 120), shorten(value, 120)
            raise TwoRowsError(misfit, first_row + other, shown[0], row, shown[1]) from None
        arrays.append(array)
        kinds.append(kind)
    if feature is not None:
        return pa.concat_arrays(arrays), feature
    columns = Features({name: common})
    fitting = [_fit(array, columns[name], name, row) for row, array in enumerate(arrays, start=first_row)]
    return pa.concat_arrays(fitting), common


def _fit(array: pa.Array, feature: Any, name: str, first_row: int, *, encoded: bool = False) -> pa.Array:
    import pyarrow as pa
    from datasets import Features

    column = cast_table(
        pa.table({name: array}), Features({name: feature}), first_row=first_row, encoded=encoded
    )[name]
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _clash(ours: Any, theirs: Any) -> bool:
    try:
        unify(ours, theirs)
    except MisfitError:
        return True
    return False


class TwoRowsError(Exception):
    """Two rows of one shard whose values have no type in common.

    Args:
        misfit: The types.
        row: The number of the one row.
        shown: What its column holds, as text.
        other_row: The number of the other.
        other_shown: What the column holds there.
    """

    def __init__(self, misfit: MisfitError, row: int, shown: str, other_row: int, other_shown: str) -> None:
        super().__init__(f"{misfit}: row {row:,} holds {shown}, and row {other_row:,} {other_shown}")


def _is_encoded(feature: Any) -> bool:
    """Return whether values of a feature are stored in another form: images, class labels, JSON, arrays."""
    return not all(map(is_value, leaves(feature)))


def _encode(value: Any, feature: Any) -> Any:
    """Encode a value for storage; plain values stay as they are, so that a cast can see what would change."""
    if value is None:
        return None
    if is_json(feature):
        return as_json(value) if feature.decode else value
    if isinstance(feature, dict):
        if not isinstance(value, Mapping):
            return value
        return {key: _encode(each, feature[key]) if key in feature else each for key, each in value.items()}
    parts = list_parts(feature)
    if parts:
        return [_encode(each, parts.item) for each in value] if _is_encoded(parts.item) else value
    return feature.encode_example(value) if hasattr(feature, "encode_example") else value


def is_table(value: object) -> bool:
    """Return whether a value is a table of any library.

    Known are ``datasets.Dataset``, Arrow's tables, record batches and readers, pandas' frames, and what
    exports itself as an Arrow stream, as polars' frames do.
    """
    import pyarrow as pa
    from datasets import Dataset

    return (
        isinstance(value, Dataset)
        or _is_pandas(value)
        or isinstance(value, pa.RecordBatch)
        or (hasattr(value, "__arrow_c_stream__") and not isinstance(value, type))
    )


def _is_pandas(value: object) -> bool:
    return type(value).__name__ == "DataFrame" and type(value).__module__.partition(".")[0] == "pandas"


def tables_of(value: Any) -> Iterator[Batch]:
    """Yield the batches of a table, for which :func:`is_table` is true.

    Raises:
        TypeError: It is one column and no table, or its library can't turn it into Arrow.
        CastError: A column has a type that ``datasets`` does not know.
    """
    import pyarrow as pa
    from datasets import Dataset

    if isinstance(value, Dataset):
        for table in value.with_format("arrow").iter(1_000):
            yield Batch(table, value.features)
        if not len(value):
            yield Batch(value.features.arrow_schema.empty_table(), value.features)
    elif isinstance(value, pa.RecordBatchReader):
        for batch in value:
            yield batch_of_table(pa.Table.from_batches([batch]))
    else:
        try:
            if _is_pandas(value):
                # An index with a name is data, one without numbers the rows.
                named = any(name is not None for name in value.index.names)
                table = pa.Table.from_pandas(value, preserve_index=named)
            else:
                table = pa.table(value)
        except pa.ArrowException as error:
            reason = ": ".join(map(str, error.args))
            raise TypeError(
                f"{shorten(value, 80)} of type {type(value).__name__} is no table for Arrow: {reason}"
            ) from None
        yield batch_of_table(table)


_NO_COLUMNS = "a row must have at least one column"


def batch_of_table(table: pa.Table) -> Batch:
    """Name the columns of a table as ``datasets`` does, after what it has no name for was cast.

    Raises:
        TypeError: It has rows and no columns.
        CastError: A column has a type that ``datasets`` does not know, or the name of another one.
    """
    from datasets import Features

    if table.num_rows and not table.num_columns:
        raise TypeError(_NO_COLUMNS)

    for place, (name, kind) in enumerate(zip(table.column_names, table.schema.types, strict=True)):
        if table.column_names.index(name) != place:
            raise CastError(name, "two columns have this name")
        plain = _plain(kind)
        if plain != kind:
            table = table.set_column(place, name, table.column(place).cast(plain))
    try:
        features = Features.from_arrow_schema(table.schema)
    except (NotImplementedError, ValueError, TypeError, KeyError):
        features = None
    if features is None or features.arrow_schema != table.schema:  # those of a table that it was made from
        table = table.replace_schema_metadata(None)
        features = Features(dict(map(_named_feature, table.schema)))
    return Batch(table, features)


def _named_feature(field: pa.Field) -> tuple[str, Any]:
    try:
        return field.name, feature_of(field.type)
    except (NotImplementedError, ValueError, TypeError, KeyError) as error:
        raise CastError(field.name, f"datasets has no such type ({str(error).rstrip('.')})") from error


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without dictionaries and views, which ``datasets`` does not know."""
    import pyarrow as pa

    if isinstance(kind, pa.DictionaryType):
        return _plain(kind.value_type)
    return {"string_view": pa.large_string(), "binary_view": pa.large_binary()}.get(str(kind), kind)
