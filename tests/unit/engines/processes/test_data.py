"""Large data: slices of Arrow tables, memory that is sent apart, and memory that processes share."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from speedy_utils._engines.payload.shipment import pack_item, pack_result
from speedy_utils._engines.processes.data import (
    MIN_MAPPED_BYTES,
    Mapped,
    pickle_mapped,
    receive,
    send,
)
from speedy_utils._engines.processes.worker import ProcessPickler

TABLE = pa.table(
    {
        "text": [f"{number:0100}" for number in range(20_000)],
        "kind": pa.array(["a", "b"] * 10_000).dictionary_encode(),
        "parts": [[number, None] for number in range(20_000)],
    },
    metadata={"key": "value"},
)


@pytest.mark.parametrize("value", [TABLE, TABLE.to_batches()[0], Dataset(TABLE)])
@pytest.mark.parametrize(("start", "length"), [(19_990, 10), (7, 0), (0, 20_000)])
@pytest.mark.parametrize("pack", [pack_item, pack_result])
def test_a_slice_brings_its_own_rows_alone(value: Any, start: int, length: int, pack: Any) -> None:
    """Tables, batches and in-memory datasets: equal, and the size is that of their rows."""
    part = (
        value.select(range(start, start + length))
        if isinstance(value, Dataset)
        else value.slice(start, length)
    )
    sent = pickle.dumps(pack(ProcessPickler, part), protocol=5)
    assert len(sent) < 200_000 + 400 * length  # the whole table has 2.5 MB
    found = pickle.loads(sent).load()
    if isinstance(value, Dataset):
        found, part = found.data.table, part.data.table
    assert type(found) is type(part)
    assert found.equals(part)
    assert found.schema.equals(part.schema, check_metadata=True)


FROZEN = np.arange(MIN_MAPPED_BYTES // 8)
FROZEN.flags.writeable = False
LARGE = {
    "own": np.arange(300_000),
    "frozen": FROZEN,
    "by columns": np.asfortranarray(np.ones((1_000, 90))),
    "every third": np.arange(300_000)[::3],
    "small": np.arange(3),
    "none": np.arange(0),
    "text": "text",
}


def is_same(found: dict[str, Any]) -> bool:
    """Return whether values are those of LARGE, and arrays can be written to as those can."""
    return found.keys() == LARGE.keys() and all(
        np.array_equal(found[name], value)
        and (name == "text" or found[name].flags.writeable == value.flags.writeable)
        for name, value in LARGE.items()
        if name != "every third"  # a copy has no gaps
    )


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    """Return the two ends of a connection."""
    here, there = Pipe()
    with here, there:
        yield here, there


@pytest.mark.parametrize("posix", [True, False])
def test_memory_is_sent_apart_from_its_pickle(
    posix: bool, pipe: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values arrive as they were, large or small, and also where a connection is no file."""
    here, there = pipe
    if not posix:
        monkeypatch.delattr(os, "readv", raising=False)
    with ThreadPoolExecutor(1) as pool:
        for value in (LARGE, "text", LARGE):
            sent = pool.submit(send, here, value)
            found = receive(there)
            sent.result()
            assert found == "text" if value == "text" else is_same(found)


def test_a_sender_that_dies_amid_its_memory(pipe: tuple[Connection, Connection]) -> None:
    """The other side has closed its end; what has come until then is worth nothing."""
    here, there = pipe
    with ThreadPoolExecutor(1) as pool, socket.socket(fileno=os.dup(here.fileno())) as end:
        sent = pool.submit(send, here, np.zeros(1_000_000))
        assert there.poll(60)
        end.shutdown(socket.SHUT_RDWR)
        with pytest.raises(EOFError):
            receive(there)
        with pytest.raises(BrokenPipeError):
            sent.result()


class Disk(NamedTuple):
    """What `shutil.disk_usage` returns."""

    free: int


@pytest.mark.parametrize("room", ["enough", "too little", "less than it said"])
def test_shared_memory_is_mapped_where_there_is_room(
    room: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process changes a copy of its own; with little room, the pickle has all."""
    if room == "too little":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(MIN_MAPPED_BYTES * 3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if room == "less than it said":
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIN_MAPPED_BYTES, limits[1]))
    try:
        mapped = pickle_mapped(LARGE, tmp_path / "shared")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    packed: Mapped = pickle.loads(pickle.dumps(mapped))
    assert (tmp_path / "shared").exists() == bool(packed.parts) == (room == "enough")
    assert (len(packed.data) < MIN_MAPPED_BYTES) == (room == "enough")
    first, second = packed.load(), packed.load()
    first["own"][:] = 0
    assert is_same(second)
    assert is_same(packed.load())
    assert all(start % 64 == 0 for start, _ in packed.parts)
