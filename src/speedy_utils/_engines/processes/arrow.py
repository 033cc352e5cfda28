"""Slices of Arrow tables: they travel without the rest of their table.

Arrow pickles the whole buffers that a slice points into, so each of ten shards of an in-memory dataset would
bring all rows. Its stream format holds the rows of the slice alone.
"""

from __future__ import annotations

from typing import Any

MIN_SAVED_BYTES = 100_000
"""Bytes that must be saved; for fewer a slice is pickled as Arrow does it."""


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
