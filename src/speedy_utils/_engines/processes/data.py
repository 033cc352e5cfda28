"""How large data gets to another process: a forked worker has it already, and else it is copied once.

- Arrow pickles the whole buffers that a slice points into, so each of ten shards of an in-memory dataset
  would bring all rows. Its stream format holds the rows of the slice alone.
- The memory of arrays and tables is no part of the pickle of what is sent. It follows, from where it lies to
  where it is going to lie.
- What all tasks share is in a file of the run's folder, which workers map: they have it once together.
"""

from __future__ import annotations

import copy
import mmap
import os
import pickle
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ..task import Arguments

MIN_SAVED_BYTES = 100_000
"""Bytes that must be saved; for fewer a slice is pickled as Arrow does it."""

MIN_INHERITED_BYTES = 50_000
"""The size of data that is inherited: what is smaller travels as fast."""

MIN_APART_BYTES = 64_000
"""The size of memory that follows a pickle: what is smaller is copied into it as fast."""

MIN_MAPPED_BYTES = 1_000_000
"""The size of memory that is mapped by all workers."""

_ALIGNMENT = 64
"""Where memory begins in the file: at multiples of these bytes, as Arrow has it."""

_MOST_AT_ONCE = 1 << 30
"""Bytes that are read or written by one call: macOS refuses 2 GB."""

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


class _Sizes(tuple[int, ...]):
    """The bytes of the parts of memory that follow the next message."""

    __slots__ = ()


def send(connection: Connection, value: Any) -> None:
    """Send a value. The memory of its arrays is not copied for that."""
    apart: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        if (memory := memoryview(buffer)).nbytes < MIN_APART_BYTES or not memory.contiguous:
            return True
        apart.append(buffer.raw())
        return False

    message = pickle.dumps(value, protocol=5, buffer_callback=is_small)
    if apart:
        connection.send_bytes(pickle.dumps(_Sizes(each.nbytes for each in apart)))
    connection.send_bytes(message)
    for memory in apart:
        _send_memory(connection, memory)


def receive(connection: Connection) -> Any:
    """Return the next value that the other side has sent.

    Raises:
        EOFError: It has closed its end, or died.
        OSError: As above.
    """
    value = _unpickled(connection.recv_bytes())
    if type(value) is not _Sizes:
        return value
    message = connection.recv_bytes()
    buffers = [_receive_memory(connection, size) for size in value]
    return _unpickled(message, buffers)


def _unpickled(data: bytes, buffers: Iterable[Any] = ()) -> Any:
    return pickle.loads(data, buffers=buffers)  # noqa: S301 - it came through a connection of the run


def _send_memory(connection: Connection, memory: memoryview) -> None:
    if not hasattr(os, "readv"):  # Windows, where it is no file
        connection.send_bytes(memory)
        return
    while memory.nbytes:
        memory = memory[os.write(connection.fileno(), memory[:_MOST_AT_ONCE]) :]


def _receive_memory(connection: Connection, size: int) -> Any:
    # Numpy's is not filled with zeros, which would take longer than what comes.
    empty = getattr(sys.modules.get("numpy"), "empty", None)
    memory = memoryview(bytearray(size) if empty is None else empty(size, "u1"))
    if not hasattr(os, "readv"):  # as above
        connection.recv_bytes_into(memory)
        return memory
    left = memory
    while left.nbytes:
        count = os.readv(connection.fileno(), [left[:_MOST_AT_ONCE]])
        if not count:
            raise EOFError
        left = left[count:]
    return memory


class Mapped(NamedTuple):
    """A pickle whose large memory is in a file.

    Attributes:
        data: The pickle.
        path: The file.
        parts: Where each part of its memory begins there, and its size; empty if the pickle has all.
    """

    data: bytes
    path: str = ""
    parts: tuple[tuple[int, int], ...] = ()

    def load(self) -> Any:
        """Return the value. A process that writes to its memory changes a copy of its own."""
        if not self.parts:
            return _unpickled(self.data)
        with open(self.path, "rb") as file:
            memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        buffers = [memory[start : start + size] for start, size in self.parts]
        return _unpickled(self.data, buffers)


NOTHING = Mapped(b"")
"""What is not pickled, as it is inherited."""


def pickle_mapped(value: Any, path: Path) -> Mapped:
    """Pickle a value, with its large memory in a file if there is room.

    Args:
        value: The value.
        path: The file to be made. It takes half of the room that is left there at most.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts, end = [], 0
    for buffer in buffers:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + memoryview(buffer).nbytes
        parts.append((start, end - start))
    try:
        if MIN_MAPPED_BYTES <= end <= shutil.disk_usage(path.parent).free // 2:
            with path.open("wb") as file:
                for (start, _), buffer in zip(parts, buffers, strict=True):
                    file.seek(start)
                    file.write(buffer.raw())
            return Mapped(data, str(path), tuple(parts))
    except (OSError, BufferError):  # there is less room than it said, or memory with gaps
        path.unlink(missing_ok=True)
    return Mapped(pickle.dumps(value, protocol=5))
