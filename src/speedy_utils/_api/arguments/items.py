"""The items of a run of tasks: what has one for each task, and what only seems to."""

from __future__ import annotations

from collections import UserString
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..._engines.payload.refs import resolve
from ..._engines.task import Arguments
from ..._validation import shorten


def task_items(items: Iterable[Any]) -> Sequence[Any]:
    """Return the items as a sequence; what is none is read to its end.

    Raises:
        TypeError: They can't be iterated, or iterating them yields something else than one would think, such
            as the characters of a string. A mapping yields its keys, as everywhere in Python.

    Example:
        >>> task_items(range(3)), task_items(n * n for n in (1, 2))
        (range(0, 3), [1, 4])
        >>> task_items("some text")
        Traceback (most recent call last):
        ...
        TypeError: items is a str, which would be a task for each of its characters: give [text] for \
one task, or text.splitlines() for one a line
    """
    checked_items(items)
    return items if isinstance(items, Sequence) else list(items)


def checked_items(items: Any) -> None:
    """Check that items are what they seem to be, without reading any.

    Raises:
        TypeError: As for :func:`task_items`.
    """
    if mistake := _mistake(items):
        raise TypeError(f"items {mistake}")


class SelectedItems(Sequence[Any]):
    """Some items of a sequence, each looked up when it is asked for.

    Args:
        items: The sequence.
        positions: The positions of the items in it.

    Example:
        >>> list(SelectedItems("abcde", [1, 3]))
        ['b', 'd']
    """

    def __init__(self, items: Sequence[Any], positions: Sequence[int]) -> None:
        self._items = items
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        return self._items[self._positions[index]]


def star_calls(items: Iterable[Any]) -> Iterator[Arguments]:
    """Yield what each of some items gives to a function as its arguments.

    Raises:
        TypeError: An item is neither a tuple of arguments nor a mapping of keywords.

    Example:
        >>> [call.unpack() for call in star_calls([(1, 2), {"a": 1}])]
        [((1, 2), {}), ((), {'a': 1})]
    """
    for index, each in enumerate(items):
        item = resolve(each)
        if isinstance(item, (str, bytes)) or not isinstance(item, Iterable):
            raise TypeError(
                f"with star=True, item {index:,} must be a tuple of arguments or a mapping of keywords, not "
                f"{shorten(item)} ({type(item).__name__})"
            )
        yield Arguments(item if isinstance(item, Mapping) else tuple(map(resolve, item)))


def _mistake(items: Any) -> str:
    """Return what is wrong with items, and what was probably meant; "" if nothing is."""
    kind = type(items)
    would_be = f"is a {kind.__qualname__}, which would be a task for each of its"
    names = {base.__name__ for base in kind.__mro__}
    if isinstance(items, (str, UserString)):
        return f"{would_be} characters: give [text] for one task, or text.splitlines() for one a line"
    if isinstance(items, (bytes, bytearray, memoryview)):
        return f"{would_be} bytes: give [data] for one task"
    if "DataFrame" in names:  # of pandas, polars and those that are like them; none need be installed
        rows = "df.to_dicts()" if hasattr(items, "to_dicts") else 'df.to_dict("records")'
        return f"{would_be} columns: give {rows} for one a row"
    if names & {"Table", "RecordBatch"} and hasattr(items, "to_pylist"):  # of pyarrow
        return f"{would_be} columns: give table.to_pylist() for one a row"
    if names & {"DatasetDict", "IterableDatasetDict"}:
        return f"{would_be} splits, {shorten(list(items), 80)}: give the rows of one, dataset[split]"
    if not hasattr(kind, "__iter__") and not hasattr(kind, "__getitem__"):
        meant = f": give range({items}) for the numbers from 0 on" if type(items) is int else ""
        return (
            f"must be an iterable with one item for each task, not {shorten(items)} ({kind.__name__}){meant}"
        )
    if getattr(items, "ndim", None) == 0:  # an array of NumPy's, or a tensor
        return f"must be an iterable, not {shorten(items)}, which has no dimension: give [x] for one task"
    return ""
