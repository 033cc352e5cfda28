"""Large data in items: a forked worker has it already, and slices travel without the rest of their table.

Arrow pickles the whole buffers that a slice points into, so each of ten shards of an in-memory dataset would
bring all rows. Its stream format holds the rows of the slice alone.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..task import Arguments

MIN_SAVED_BYTES = 100_000
"""Bytes that must be saved; for fewer a slice is pickled as Arrow does it."""

MIN_INHERITED_BYTES = 50_000
"""The size of data that is inherited: what is smaller travels as fast."""

MAX_PARTS = 100
"""How many values an item may have for data to be looked for among them."""

Place = tuple[int, tuple[Any, ...]]
"""Where data is in the items of a run: the task, and the keys that lead to it in its item, at most one."""


def inherited_places(first: int, items: Sequence[Any]) -> dict[int, Place]:
    """Return where a forked worker finds the data of items, by its `id`.

    Args:
        first: The task of the first of them.
        items: The items of tasks side by side.
    """
    return {
        id(value): (task, keys)
        for task, item in enumerate(items, first)
        for keys, value in _parts(item)
        if _is_data(value)
    }


def inherit(items: Sequence[Any]) -> None:
    """Let :func:`inherited` find data in the items of this process's run."""
    global _items
    _items = items


_items: Sequence[Any] = ()


def inherited(task: int, keys: tuple[Any, ...]) -> Any:
    """Return data at its place; a copy of what tasks may change, as if it had travelled."""
    value = _items[task]
    if keys:
        value = value.item if isinstance(value, Arguments) else value
        value = value[keys[0]]
    kind = _package(value)
    return copy.copy(value) if kind == "datasets" or (kind == "numpy" and value.flags.writeable) else value


def _parts(item: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield (), item
    values = item.item if isinstance(item, Arguments) else item
    if isinstance(values, (tuple, list, dict)) and len(values) <= MAX_PARTS:
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        yield from (((key,), value) for key, value in pairs)


def _is_data(value: Any) -> bool:
    package = _package(value)
    module: Any = sys.modules.get(package)
    if package == "numpy":
        known = type(value) in (module.ndarray, module.memmap) and not value.dtype.hasobject
    elif package == "pyarrow":
        known = isinstance(value, (module.Table, module.RecordBatch, module.ChunkedArray, module.Array))
    elif package == "datasets":
        return bool(isinstance(value, module.Dataset))
    else:
        return bool(getattr(type(value), "inheritable", False))
    return bool(known and value.nbytes >= MIN_INHERITED_BYTES)


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def reduce_slice(value: Any) -> tuple[Any, ...] | None:
    """Return how a slice of a table is pickled; None if Arrow pickles a value as well, or it is no table."""
    import pyarrow as pa

    if not isinstance(value, (pa.Table, pa.RecordBatch)):
        return None
    if value.get_total_buffer_size() < 2 * value.nbytes + MIN_SAVED_BYTES:
        return None
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, value.schema) as writer:
        writer.write(value)
    return read_slice, (stream.getvalue(), isinstance(value, pa.RecordBatch))


def read_slice(data: Any, is_batch: bool) -> Any:
    """Return the table, or the batch, of a stream."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as reader:
        table = reader.read_all()
    if not is_batch:
        return table
    # A table without rows has no batch.
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)
