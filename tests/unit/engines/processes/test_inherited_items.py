"""Forked workers take data from what they share with the program; a task sees no change of another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

PROGRAM = """
import multiprocessing
import numpy as np
import pyarrow as pa
from datasets import Dataset
from speedy_utils import multi_process

SIZE = 20_000

def place(data, _=None):
    if isinstance(data, dict):
        data = data["data"]
    if isinstance(data, Dataset):
        data = data.data.table
    if isinstance(data, pa.Table):
        return data.column(0).chunk(0).buffers()[1].address
    return data.__array_interface__["data"][0]

def grow(array):
    array += 1
    return float(array[0])

def add(item, sums):
    sums += item
    return float(sums[0])

def name_columns(dataset):
    columns = dataset.column_names
    dataset.set_format("numpy", columns=[])
    return columns, dataset.format["columns"]

def run(function, items, **options):
    return multi_process(function, items, num_workers=1, backend="processes", progress=False, **options)

multiprocessing.set_start_method(METHOD)
frozen, own = np.zeros(2 * SIZE), np.zeros(SIZE)
frozen.flags.writeable = False
table, rows = pa.table({"a": own}), Dataset.from_dict({"a": [1.0] * SIZE})
items = [table, rows, frozen, frozen[SIZE:], {"data": table}, own, frozen[:10]]
print([here == there for here, there in zip(map(place, items), run(place, items))])
print(run(place, [(table, 1)], star=True) == [place(table)])
print(run(grow, [own, own, np.zeros(SIZE)], chunksize=1), own[0])
print(run(add, [1, 2], sums=(sums := np.zeros(200_000))), sums[0])
print(run(name_columns, [rows] * 2, chunksize=1), rows.format["columns"])
"""


@pytest.mark.parametrize(("method", "inherits"), [("fork", True), ("forkserver", False)])
def test_data_are_inherited_by_forks(method: str, inherits: bool, driver: Callable[..., Any]) -> None:
    """Tables, datasets and arrays that are read-only are those of the program; others are copied.

    A worker may write to what all tasks share; neither the program nor another worker sees it.
    """
    done = driver(f"METHOD = {method!r}\n{PROGRAM}")
    assert done.stdout.splitlines() == [
        str([inherits] * 5 + [False, False]),
        str(inherits),
        "[1.0, 1.0, 1.0] 0.0",
        "[1.0, 3.0] 0.0",
        "[(['a'], []), (['a'], [])] ['a']",
    ], done.stderr
