"""Slices of Arrow tables travel without the rest of their table."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from speedy_utils._engines.payload.shipment import pack_item, pack_result
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
