"""The items of tasks are what one would think, or an error that says what was probably meant."""

from __future__ import annotations

from collections import UserString, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from speedy_utils._api.arguments.items import task_items


class Frame:
    """A data frame as polars has it, which need not be installed."""

    def __iter__(self) -> Any:
        raise AssertionError("it was iterated")

    def to_dicts(self) -> list[dict[str, int]]:
        """Return the rows."""
        return []


PolarsLike = type("DataFrame", (Frame,), {})
DATA = {"a": [1, 2], "b": [3, 4]}


@pytest.mark.parametrize(
    ("items", "hint"),
    [
        ("text", "[text] for one task, or text.splitlines()"),
        (UserString("text"), "[text]"),
        (b"data", "[data] for one task"),
        (bytearray(b"data"), "[data] for one task"),
        (memoryview(b"data"), "[data] for one task"),
        (pd.DataFrame(DATA), 'df.to_dict("records")'),
        (type("Mine", (pd.DataFrame,), {})(DATA), 'df.to_dict("records")'),
        (PolarsLike(), "df.to_dicts()"),
        (pa.table(DATA), "table.to_pylist()"),
        (pa.RecordBatch.from_pydict(DATA), "table.to_pylist()"),
        (DatasetDict(train=Dataset.from_dict(DATA)), "splits, ['train']: give the rows of one"),
        (5, "not 5 (int): give range(5)"),
        (None, "not None (NoneType)"),
        (print, "builtin_function_or_method"),
        (np.array(5), "has no dimension: give [x]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_collection_of_items_is_refused(items: Any, hint: str) -> None:
    """The error names the argument, its type, and the way to write what was probably meant."""
    with pytest.raises(TypeError, match=r"^items ") as caught:
        task_items(items)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "items",
    [
        ["text"],
        ("a", b"b"),
        range(3),
        (n for n in range(3)),
        {1},
        deque([1, 2]),
        DATA,
        DATA.items(),
        DATA.values(),
        np.arange(6).reshape(3, 2),
        pd.Series([1, 2]),
        pd.DataFrame(DATA).iterrows(),
        Dataset.from_dict(DATA),
        pa.chunked_array([[1, 2]]),
        [],
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_yields_items_is_taken(items: Iterable[Any]) -> None:
    """Sequences as they are, all others as a list of what they yield."""
    taken = task_items(items)
    assert taken is items or isinstance(taken, list)
    assert len(taken) == len(list(taken))
