"""Write rows to Arrow files as they come, so that the memory they take does not grow with their number.

Rows are gathered until they weigh about 8 MB, and then written. An Arrow file has one type for each column,
so where a later batch needs a wider one, the file is closed and another one begun; at the end the files
with narrower types are written again, batch by batch::

    saved/data-00000.arrow      score: int64      written again as float64 at the end
    saved/data-00001.arrow      score: float64
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._validation import shorten
from ..saved_dataset import SavedDataset, in_parts
from .cast import cast_table
from .convert import Batch, TwoRowsError, batch_of_columns, batch_of_rows, is_table, row_bytes, tables_of
from .unify import MisfitError, unify_columns

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

BATCH_BYTES = 8 << 20
"""About how many bytes of rows are gathered, or cast, at once."""

_BATCH_ROWS = 10_000


class RowWriter:
    """Writes the rows of one shard.

    Args:
        folder: A folder to be made, for the files.
        features: The columns of the output; None if they are to be found out.
    """

    def __init__(self, folder: Path, features: Features | None = None) -> None:
        from datasets import Features

        self._folder = folder
        self._wanted = features
        self._features = Features() if features is None else features
        self._files: list[tuple[Path, Features, int]] = []
        self._open: _ArrowFile | None = None
        self._rows = 0
        self._columns_without_rows = self._features
        self._gathered: list[Mapping[str, Any]] = []
        self._gathered_bytes = 0
        self._samples: dict[str, tuple[int, str]] = {}

    def add(self, item: Any) -> None:
        """Write a row, or a table of any library.

        Raises:
            TypeError: It is neither.
            CastError: A value fits no column.
            TwoRowsError: It does not fit to a row that was written before.
        """
        if type(item) is dict or isinstance(item, Mapping):
            self._gathered.append(dict(item))  # the caller may fill the same dict again
            self._gathered_bytes += row_bytes(item)
            if self._gathered_bytes >= BATCH_BYTES or len(self._gathered) >= _BATCH_ROWS:
                self._write_gathered()
            return
        if not is_table(item):
            raise TypeError(
                f"{shorten(item, 80)} of type {type(item).__name__} is no row: rows are dicts, and come one "
                "by one, or many at once as an Arrow table, a record batch or a DataFrame"
            )
        for batch in tables_of(item):
            self.add_batch(batch)

    def add_batch(self, batch: Batch) -> None:
        """Write a table; otherwise as :meth:`add`."""
        self._write_gathered()
        self._write(batch)

    def add_columns(self, columns: Mapping[str, Any]) -> None:
        """Write a dict of columns of equal length.

        Raises:
            TypeError: It is none.
        """
        lengths = {}
        for name, values in columns.items():
            if not hasattr(values, "__len__") or isinstance(values, (str, bytes, Mapping)):
                raise TypeError(
                    f"a dict that is returned holds columns, but {name!r} is {shorten(values, 80)} of type "
                    f"{type(values).__name__}; return a list of rows, or yield them"
                )
            lengths[name] = len(values)
        if len(set(lengths.values())) > 1:
            raise TypeError(f"the columns have different lengths: {lengths}")
        start, rows = 0, max(lengths.values(), default=0)
        if not rows:  # there may be names all the same
            self._write(batch_of_columns(columns, self._wanted, self._rows))
        while start < rows:
            count = min(_BATCH_ROWS, rows - start)
            part = {name: values[start : start + count] for name, values in columns.items()}
            while count > 1 and row_bytes(part) > BATCH_BYTES:
                count //= 2
                part = {name: values[:count] for name, values in part.items()}
            self._write(batch_of_columns(part, self._wanted, self._rows))
            start += count

    def _write_gathered(self) -> None:
        if self._gathered:
            rows, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._write(batch_of_rows(rows, self._wanted, self._rows))

    def _write(self, batch: Batch) -> None:
        if not batch.table.num_rows:
            self._columns_without_rows = batch.features
            return
        if self._wanted is None:
            try:
                features = unify_columns(self._features, batch.features)
            except MisfitError as misfit:
                raise self._two_rows(misfit, batch.table) from None
            if features != self._features:
                self._close_file()
                self._features = features
            self._note_samples(batch.table)
        for table in in_parts(batch.table, BATCH_BYTES):
            fitting = cast_table(table, self._features, first_row=self._rows)
            if self._open is None:
                self._folder.mkdir(exist_ok=True)
                path = self._folder / f"data-{len(self._files):05d}.arrow"
                self._files.append((path, self._features, self._rows))
                self._open = _ArrowFile(path, self._features)
            self._open.write(fitting)
            self._rows += table.num_rows

    def _note_samples(self, table: pa.Table) -> None:
        """Keep a value of each column, to show it beside one that does not fit."""
        for name in table.column_names:
            if name not in self._samples and (found := first_value(table.column(name))) is not None:
                self._samples[name] = self._rows + found[0], shorten(found[1], 120)

    def _two_rows(self, misfit: MisfitError, table: pa.Table) -> Exception:
        row, shown = self._samples.get(misfit.name, (0, "None"))
        place, value = first_value(table.column(misfit.name)) or (0, None)
        return TwoRowsError(misfit, row, shown, self._rows + place, shorten(value, 120))

    def _close_file(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def close(self) -> SavedDataset:
        """Write what is left, and return what was written; it has no fingerprint yet.

        Raises:
            CastError: A value does not keep in the type that later rows need.
        """
        self._write_gathered()
        self._close_file()
        if not self._rows and self._wanted is None:
            self._features = self._columns_without_rows
        for path, features, first_row in self._files:
            if features.arrow_schema != self._features.arrow_schema:
                narrow = path.with_suffix(".narrow")
                os.replace(path, narrow)
                rewrite(narrow, path, self._features, first_row)
                narrow.unlink()
        return SavedDataset(
            files=[path for path, _, _ in self._files],
            schemas=[self._features.arrow_schema for _ in self._files],
            rows=self._rows,
            features=self._features,
            fingerprint="",
            split=None,
            info={},
        )

    def abandon(self) -> None:
        """Close the files without writing what is left. Idempotent."""
        self._gathered = []
        self._close_file()


class _ArrowFile:
    """An Arrow file in the making, written as ``save_to_disk`` writes: files that rows name are embedded."""

    def __init__(self, path: Path, features: Features) -> None:
        import pyarrow as pa
        from datasets.arrow_writer import ArrowWriter

        self._sink = pa.OSFile(str(path), "wb")
        self._writer = ArrowWriter(stream=self._sink, features=features, embed_local_files=True)

    def write(self, table: pa.Table) -> None:
        if table.num_rows:
            self._writer.write_table(table, table.num_rows)

    def close(self) -> None:
        try:
            self._writer.finalize(close_stream=False)
        finally:
            self._sink.close()


def rewrite(source: Path, target: Path, features: Features, first_row: int = 0) -> int:
    """Write the rows of an Arrow file to another one, cast batch by batch.

    Args:
        source: The file.
        target: The file to be made.
        features: Its columns.
        first_row: The number of its first row, for the error.

    Returns:
        The number of the row after its last.

    Raises:
        CastError: A value would change.
    """
    out = _ArrowFile(target, features)
    try:
        for table in stored_tables(source):
            out.write(cast_table(table, features, first_row=first_row))
            first_row += table.num_rows
    finally:
        out.close()
    return first_row


def stored_tables(file: Path) -> Iterator[pa.Table]:
    """Yield the rows of an Arrow file in tables of about :data:`BATCH_BYTES`, without reading it whole."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            yield from in_parts(pa.Table.from_batches([batch]), BATCH_BYTES)


def first_value(column: Any) -> tuple[int, object] | None:
    """Return the first row of a column that is not null, and its value."""
    row = 0
    for chunk in column.chunks:
        if chunk.null_count < len(chunk):
            place = chunk.is_valid().index(True).as_py()
            return row + place, chunk[place].as_py()
        row += len(chunk)
    return None
