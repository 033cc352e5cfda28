"""Fetch the rows of a Hugging Face dataset in Arrow batches, the same rows that plain iteration yields.

Plain iteration slices and converts the table once per row, which costs far more than most loop bodies.
Converting a slice of many rows at once gives the same objects, as long as values are yielded as they are
stored. Rows that are decoded, formatted or transformed on the way out are left to plain iteration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

_BATCH_BYTES = 1 << 20
"""The most Arrow bytes that are converted at once; more gains no speed.

Python objects take several times the memory of their Arrow bytes (a bool 64 times), so a batch of large rows
has to stay far below what a worker can spare.
"""

_MAX_SUMMED_CHUNKS = 64
"""In tables of more chunks, the size is estimated from every :data:`_SAMPLE_STEP`-th row.

A shuffled dataset makes tables with one chunk per row. Adding up their sizes would cost more than converting
them.
"""

_SAMPLE_STEP = 16


_LEAF_TYPES = (
    "is_null",
    "is_primitive",
    "is_decimal",
    "is_string",
    "is_large_string",
    "is_binary",
    "is_large_binary",
    "is_fixed_size_binary",
)


def row_batches(dataset: object, batch_size: int = 1000) -> Iterator[Iterable[Any]] | None:
    """Return the rows that ``iter(dataset)`` yields, in lists, or None if plain iteration must be used."""
    # If the module is not loaded, this is none of its datasets. It is named in full, as people call modules
    # of their own ``datasets``.
    known = getattr(sys.modules.get("datasets.arrow_dataset"), "Dataset", None)
    # A subclass may have changed any part of what iterating means, hence the exact type. An IterableDataset
    # runs its generator and its transforms while it is iterated, and must not be driven ahead of the loop.
    if type(dataset) is not known:
        return None
    source: Any = dataset
    style = source.format
    # Tensor and data frame formats choose dtypes from the values that they convert together, and a transform
    # is a function of its batch. Their rows are only right if each is converted alone.
    if style["type"] is not None or style["format_kwargs"]:
        return None
    features = source.features
    columns = list(features) if style["output_all_columns"] else list(style["columns"])
    schema = source.data.schema
    if not columns or not all(_is_stored_plainly(features[name]) for name in columns):
        return None
    if not all(_converts_value_by_value(schema.field(name).type) for name in columns):
        return None
    return _batches(source, source.with_format("arrow", columns=columns), batch_size)


def _is_stored_plainly(feature: Any) -> bool:
    """Return whether values of ``feature`` are yielded as they are stored, with nothing to decode."""
    if isinstance(feature, dict):
        return all(map(_is_stored_plainly, feature.values()))
    if isinstance(feature, (list, tuple)):
        return all(map(_is_stored_plainly, feature))
    if hasattr(feature, "decode_example") and getattr(feature, "decode", True):
        return False
    item = getattr(feature, "feature", None)
    return item is None or _is_stored_plainly(item)


def _converts_value_by_value(arrow_type: Any) -> bool:
    """Return whether Arrow converts each value of this type on its own, whatever its neighbours are.

    Extension types don't: a null in an ``Array2D`` column changes the numbers in all rows around it.
    """
    types: Any = import_module("pyarrow.types")
    if types.is_struct(arrow_type):
        return all(_converts_value_by_value(arrow_type.field(i).type) for i in range(arrow_type.num_fields))
    if types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type):
        return _converts_value_by_value(arrow_type.value_type)
    return any(getattr(types, check)(arrow_type) for check in _LEAF_TYPES)


def _batches(dataset: Any, arrow: Any, batch_size: int) -> Iterator[list[Any]]:
    """Yield the rows of ``dataset``, in lists, converted from ``arrow``: the same rows in Arrow's format."""
    total = len(dataset)
    if not total:
        return
    # The first row comes from ``datasets`` itself: it has the order of the keys, and it comes at once.
    first = dataset[0]
    keys = list(first)
    yield [first]
    del first
    for start in range(1, total, batch_size):
        row = start
        for table in _pieces(arrow[start : start + batch_size].select(keys)):
            rows = _converted(table)
            if rows is None:
                # As with plain iteration, the loop gets all rows before the bad one, and then the error.
                yield from ([dataset[i]] for i in range(row, row + table.num_rows))
            else:
                yield rows
                del rows
            row += table.num_rows


def _converted(table: Any) -> list[Any] | None:
    """Return the rows of ``table``, or None if Python can't hold a value, say a date in the year 20000."""
    if table.column(0).num_chunks > _MAX_SUMMED_CHUNKS:
        table = table.combine_chunks()
    try:
        rows: list[Any] = table.to_pylist()
    except (ArithmeticError, LookupError, ValueError):
        return None
    return rows


def _pieces(table: Any) -> Iterator[Any]:
    """Cut ``table`` into pieces that are small enough to convert at once. Nothing is copied."""
    rows = table.num_rows
    size = _nbytes(table) if rows > 1 else 0
    if size <= _BATCH_BYTES:
        yield table
        return
    # The rows may differ in size, so a piece may still be too large.
    step = max(1, rows * _BATCH_BYTES // size)
    for start in range(0, rows, step):
        yield from _pieces(table.slice(start, step))


def _nbytes(table: Any) -> int:
    """Return the size of ``table``, or an estimate of it."""
    if table.column(0).num_chunks <= _MAX_SUMMED_CHUNKS:
        return int(table.nbytes)
    sample = range(0, table.num_rows, _SAMPLE_STEP)
    return sum(int(table.slice(i, 1).nbytes) for i in sample) * _SAMPLE_STEP
