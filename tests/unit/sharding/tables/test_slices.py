"""Slices of tables in memory share their rows, and bring those alone where they are pickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from datasets import Dataset, concatenate_datasets

from speedy_utils._sharding.tables.slices import compact_in_pickles

ROWS = 10_000


@pytest.mark.parametrize("with_mapped", [False, True])
def test_a_slice_is_copied_only_where_it_is_pickled(with_mapped: bool, tmp_path: Path) -> None:
    """So is a slice of it, and what lies on disk is not copied at all."""
    rows = Dataset.from_dict({"text": [f"{number:0100}" for number in range(ROWS)]})  # a megabyte
    memory = rows.data.table.column("text").chunk(0).buffers()[2].address
    if with_mapped:
        Dataset.from_dict({"text": ["mapped"]}).save_to_disk(tmp_path)
        rows = concatenate_datasets([rows, Dataset.load_from_disk(str(tmp_path))])
    shard = Dataset(compact_in_pickles(rows.data.slice(ROWS - 1_000)), info=rows.info)
    assert shard.data.table.column("text").chunk(0).buffers()[2].address == memory
    part = shard.select(range(990, len(shard)))
    for each, most in ((shard, 150_000), (part, 10_000)):
        pickled = pickle.dumps(each)
        assert len(pickled) < most
        assert pickle.loads(pickled)[:] == each[:]
