"""Slices of a table in memory, in a form that is cheap to pickle.

A slice shares the buffers of the table it comes from, and pickling it writes those whole.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.table import Table


def bytes_in_memory(table: Table) -> int:
    """Return how many bytes of a table are in memory, and so travel with its pickle."""
    from datasets.table import MemoryMappedTable

    return sum(
        part.nbytes for row in _blocks(table) for part in row if not isinstance(part, MemoryMappedTable)
    )


def _blocks(table: Table) -> list[list[Any]]:
    """Return the parts of a table, each either in memory or memory-mapped."""
    from datasets.table import ConcatenationTable

    return table.blocks if isinstance(table, ConcatenationTable) else [[table]]


def compact(table: Table) -> Table:
    """Copy the parts in memory so that they hold their own rows and nothing else.

    Arrow's stream format cuts the buffers to the slice.
    """
    import pyarrow as pa
    from datasets.table import ConcatenationTable, InMemoryTable, MemoryMappedTable

    def copy(part: Any) -> Any:
        if isinstance(part, MemoryMappedTable):
            return part
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.schema) as stream:
            stream.write_table(part.table)
        return InMemoryTable.from_buffer(sink.getvalue())

    if isinstance(table, ConcatenationTable):
        return ConcatenationTable.from_blocks([[copy(part) for part in row] for row in table.blocks])
    return copy(table)


def compact_in_pickles(table: Table) -> Table:
    """Let a table be as from :func:`compact` where it is pickled, and copy nothing until then."""
    from datasets.table import ConcatenationTable, MemoryMappedTable

    if isinstance(table, ConcatenationTable):
        blocks = [[compact_in_pickles(part) for part in row] for row in table.blocks]
        return ConcatenationTable(table.table, blocks)
    return table if isinstance(table, MemoryMappedTable) else _slice_type()(table.table)


@functools.cache
def _slice_type() -> Any:
    from datasets.table import InMemoryTable

    class Slice(InMemoryTable):  # type: ignore[misc]  # datasets has no types
        """Some of the rows of a table in memory, and so are slices of it."""

        def slice(self, *args: Any, **options: Any) -> Table:
            return Slice(self.fast_slice(*args, **options))

        def replace_schema_metadata(self, *args: Any, **options: Any) -> Table:  # each new Dataset does
            return Slice(self.table.replace_schema_metadata(*args, **options))

        def __reduce__(self) -> tuple[Any, ...]:
            return InMemoryTable, (compact(self).table,)

    return Slice
