"""What ``process_func`` returns or yields, written as the rows of its shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ShardError
from ..saved_dataset import SavedDataset
from .cast import CastError
from .convert import Batch, TwoRowsError, batch_of_table, is_table
from .row_writer import BATCH_BYTES, RowWriter, stored_tables

if TYPE_CHECKING:
    from datasets import Features

_PARQUET = b"PAR1"

_CANT_WRITE = (CastError, TwoRowsError, TypeError)
_YIELDED = "process_func yielded rows that can't be written"


def holds_rows(result: object) -> bool:
    """Return whether a result is rows itself: a list of rows, a dict of columns, or any table."""
    from datasets import DatasetDict

    if isinstance(result, DatasetDict):  # several datasets
        return False
    return isinstance(result, (list, tuple, Mapping)) or is_table(result)


def is_parquet(path: Path) -> bool:
    """Return whether a path leads to a Parquet file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_PARQUET)) == _PARQUET


def write_rows(rows: Iterator[Any], folder: Path, features: Features | None, name: str) -> SavedDataset:
    """Write rows and tables as they come; what the iterator itself raises is raised.

    Args:
        rows: They; closed if one of them can't be written.
        folder: A folder to be made.
        features: The columns of the output, or None.
        name: What the shard is called.

    Raises:
        ShardError: One of them can't be written. The message names it.
    """
    writer = RowWriter(folder, features)
    try:
        for item in rows:
            try:
                writer.add(item)
            except _CANT_WRITE as error:  # noqa: PERF203 - what the iterator itself raises is the user's own
                raise _write_error(name, _YIELDED, error, features) from None
        with _named(name, _YIELDED, features):
            return writer.close()
    finally:
        writer.abandon()
        close = getattr(rows, "close", None)
        if close is not None:
            close()


def write_returned(result: Any, folder: Path, features: Features | None, name: str) -> SavedDataset:
    """Write rows that were returned as a whole; otherwise as :func:`write_rows`."""
    with _writer(folder, features, name, "process_func returned rows that can't be written") as writer:
        if isinstance(result, Mapping):
            writer.add_columns(result)
        elif isinstance(result, (list, tuple)):
            for item in result:
                writer.add(item)
        else:
            writer.add(result)
        return writer.close()


def write_parquet(file: Path, folder: Path, features: Features | None, name: str) -> SavedDataset:
    """Write the rows of a Parquet file; otherwise as :func:`write_rows`."""
    what = f"process_func left rows in {str(file)!r} that can't be written"
    with _writer(folder, features, name, what) as writer:
        for batch in _batches_of_parquet(file):
            writer.add_batch(batch)
        return writer.close()


def write_saved(saved: SavedDataset, folder: Path, features: Features, name: str) -> SavedDataset:
    """Write the rows of a saved dataset again, cast to other columns; otherwise as :func:`write_rows`."""
    with _writer(folder, features, name, "process_func left rows that don't fit") as writer:
        for file in saved.files:
            for table in stored_tables(file):
                writer.add_batch(Batch(table, saved.features))
        return replace(writer.close(), split=saved.split, info=saved.info)


def _batches_of_parquet(path: Path) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        size = sum(file.metadata.row_group(place).total_byte_size for place in range(file.num_row_groups))
        rows = max(1, min(10_000, file.metadata.num_rows * BATCH_BYTES // max(1, size)))
        for batch in file.iter_batches(rows):
            table = pa.Table.from_batches([batch])
            yield batch_of_table(table.replace_schema_metadata(file.schema_arrow.metadata))


@contextmanager
def _writer(folder: Path, features: Features | None, name: str, what: str) -> Iterator[RowWriter]:
    """Make a writer, and name the shard whose rows can't be written."""
    writer = RowWriter(folder, features)
    try:
        with _named(name, what, features):
            yield writer
    finally:
        writer.abandon()


@contextmanager
def _named(name: str, what: str, features: Features | None) -> Iterator[None]:
    """Name the shard whose rows can't be written."""
    try:
        yield
    except _CANT_WRITE as error:
        raise _write_error(name, what, error, features) from None


def _write_error(name: str, what: str, error: Exception, features: Features | None) -> ShardError:
    import datasets

    advice = ""
    if features is None and not isinstance(error, TypeError):
        advice = ". Make the columns and types of all rows the same, or fix them by features="
    if isinstance(error, TwoRowsError) and hasattr(datasets, "Json"):
        advice += "; values of mixed types fit into a column of datasets.Json()"
    return ShardError(f"{name}: {what}: {error}{advice}")
