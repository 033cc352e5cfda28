"""How many rows the elements of a loop stand for, where that can be known: batches of datasets and loaders.

No library is imported for it. An object of a library can only be there if the library is loaded, so its
classes are looked up among the loaded modules.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from itertools import accumulate, chain, islice
from types import GeneratorType
from typing import Any, Protocol, TypeVar

from .._interrupts import interruptible
from .._worker.code.user_code import called_in_a_loop
from .._worker.tally import Tally

T = TypeVar("T")


class Batches(Protocol):
    """How many rows the elements of a loop stand for.

    Attributes:
        total: Rows of all of them; None if that is not known.
    """

    total: int | None

    def rows(self, elements: int, /) -> int:
        """Return the rows of the first few elements."""
        ...


class EvenBatches:
    """Batches of one size, of which the last may be short.

    Args:
        size: Rows of a batch.
        total: Rows in all; None if that is not known.
        drop_last: Whether a short batch at the end is left out.

    Example:
        >>> EvenBatches(32, 100).rows(4)
        100
    """

    __slots__ = ("_size", "total")

    def __init__(self, size: int, total: int | None, *, drop_last: bool = False) -> None:
        self._size = size
        self.total = total // size * size if drop_last and total is not None else total

    def rows(self, elements: int) -> int:
        """Return the rows of the first few batches."""
        rows = elements * self._size
        return rows if self.total is None else min(rows, self.total)


class ListedTables:
    """A list of tables or data frames, each with a length of its own.

    Args:
        tables: The list.
    """

    __slots__ = ("_ends", "total")

    def __init__(self, tables: Sequence[Any]) -> None:
        self._ends = [0, *accumulate(map(len, tables))]
        self.total: int | None = self._ends[-1]

    def rows(self, elements: int) -> int:
        """Return the rows of the first few tables."""
        return self._ends[min(elements, len(self._ends) - 1)]


def batches_counted_in_rows(iterable: object, tally: Tally) -> Batches | None:
    """Return how many rows the elements of a loop count for; None if each counts for one item.

    In a named stage elements count. So they do in a task whose items are no rows, as in
    ``multi_process(f, frames)``, unless the batches have just as many rows as the task has items.
    """
    if tally.stage is not None or not tally.limit:
        return None
    batches = known_batches(iterable)
    if batches is None or not (tally.reporter.total_is_rows or batches.total == tally.limit):
        return None
    if batches.total is None:  # a stream: its last batch may be short
        batches.total = tally.limit
    return batches


def may_be_all(tally: Tally) -> bool:
    """Return whether an unnamed loop or bar that the user's code makes now may be all that a tally counts.

    If it then has another total than the tally, its share in its own total is that of the tally.
    """
    return bool(tally.limit and not tally.used and not tally.n) and not called_in_a_loop()


def proportion(done: int, total: int, whole: int) -> int:
    """Return how many of ``whole`` items are finished once ``done`` of ``total`` are."""
    return min(done, total) * whole // total


def known_batches(iterable: object) -> Batches | None:
    """Return how many rows the elements of ``iterable`` stand for; None if they are no batches that we know.

    It is only looked at: nothing is read from it.
    """
    with suppress(Exception):  # attributes of other libraries' objects, which may be missing or fail
        for source in _sources(iterable) if type(iterable) in _ONE_FOR_ONE else (iterable,):
            kind: type[Any] = type(source)
            look = _how_to_look(kind, len(sys.modules))  # type: ignore[arg-type]  # classes are hashable
            if look is not None and (batches := look(source)) is not None:
                return batches
    return None


@functools.lru_cache(maxsize=1024)
def _how_to_look(kind: type, modules: int) -> Callable[[Any], Batches | None] | None:  # noqa: ARG001 - a key
    """Return what looks at sources of a type; None if they are no batches.

    Args:
        kind: The type.
        modules: How many modules are loaded; with another one the type may be known.
    """
    if issubclass(kind, GeneratorType):
        return _of_dataset
    if issubclass(kind, (list, tuple)):
        return _of_table_list
    if issubclass(kind, _loaded(_LOADERS)):
        return _of_torch_loader
    if issubclass(kind, _loaded(_READERS)):
        return _of_table_reader
    return _of_tf_dataset if kind.__module__.startswith("tensorflow.") else None


def rows_in(element: object) -> int | None:
    """Return the rows of a table or data frame; None if it is something else."""
    return len(element) if isinstance(element, _loaded(_TABLES)) and isinstance(element, Sized) else None


@interruptible
def counted_tables(iterable: Iterable[T], count: Callable[[int], None]) -> Iterator[T]:
    """Iterate over tables, and tell how many rows each has once the loop comes back for the next one."""
    for table in iterable:
        yield table
        rows = rows_in(table)
        count(1 if rows is None else rows)
        del table  # before the next is fetched


def is_dataset(iterable: object) -> bool:
    """Return whether an iterable is a Hugging Face dataset, whose elements are rows."""
    return isinstance(iterable, _loaded(_DATASETS))


def is_empty(iterable: object) -> bool:
    """Return whether an iterable is known to have no elements."""
    return isinstance(iterable, Sized) and _length(iterable) == 0


def yields_arrow_tables(iterable: object) -> bool:
    """Return whether ``iterable`` is a reader of pyarrow's, whose tables say how many rows they have."""
    if isinstance(iterable, _loaded((("pyarrow", "RecordBatchReader"),))):
        return True
    # ParquetFile.iter_batches(), Dataset.to_batches() and Scanner.to_batches() are generators of Cython.
    kind, name = type(iterable), getattr(iterable, "__qualname__", "")
    compiled = kind.__name__ == "generator" and kind is not GeneratorType
    return compiled and "batches" in name and "pyarrow" in sys.modules


_LOADERS = (("torch.utils.data", "DataLoader"), ("torch.utils.data.dataloader", "_BaseDataLoaderIter"))
_READERS = (("pandas.io.parsers.readers", "TextFileReader"), ("pandas.io.json._json", "JsonReader"))
_TABLES = (("pyarrow", "Table"), ("pyarrow", "RecordBatch"), ("pandas", "DataFrame"), ("polars", "DataFrame"))
_DATASETS = (("datasets.arrow_dataset", "Dataset"), ("datasets.iterable_dataset", "IterableDataset"))
_ONE_FOR_ONE = (enumerate, islice, map, zip)
"""Each of their elements takes one from what they go through."""


def _loaded(names: tuple[tuple[str, str], ...]) -> tuple[Any, ...]:
    """Return those of some classes whose modules are loaded."""
    return _loaded_of(names, len(sys.modules))


@functools.lru_cache(maxsize=64)
def _loaded_of(names: tuple[tuple[str, str], ...], modules: int) -> tuple[Any, ...]:  # noqa: ARG001 - a key
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def _sources(iterable: object) -> Iterator[object]:
    """Yield an iterable, and what it goes through, as ``enumerate(loader)`` goes through a loader."""
    yield iterable
    if type(iterable) in _ONE_FOR_ONE:
        for inner in gc.get_referents(iterable):  # map and zip have a tuple of iterators
            yield from chain.from_iterable(map(_sources, inner if type(inner) is tuple else [inner]))


def _length(sized: object) -> int | None:
    """Return a length, if there is one: a loader over a stream has ``__len__``, which fails."""
    with suppress(Exception):
        return len(sized)  # type: ignore[arg-type]  # if it has none, that is a TypeError
    return None


def _of_dataset(source: GeneratorType[Any, Any, Any]) -> Batches | None:
    """Know the batches of ``Dataset.iter(batch_size)``, a generator that has its arguments as locals."""
    if source.gi_frame is None or source.gi_code.co_name != "iter":
        return None
    if source.gi_code not in [kind.iter.__code__ for kind in _loaded(_DATASETS)]:
        return None
    names: dict[str, Any] = source.gi_frame.f_locals
    return EvenBatches(
        names["batch_size"], _length(names["self"]), drop_last=names.get("drop_last_batch", False)
    )


def _of_torch_loader(source: Any) -> Batches | None:
    """Know the batches of a ``DataLoader``, and of an iterator over one."""
    if hasattr(source, "_index_sampler") and not hasattr(source, "batch_size"):  # an iterator
        sampler, size = source._index_sampler, None
        drop_last, dataset = source._drop_last, source._dataset
    else:
        size, sampler = source.batch_size, source.batch_sampler
        sampler = source.sampler if sampler is None else sampler
        drop_last, dataset = source.drop_last, source.dataset
    # With batch_size=None it is the sampler that makes batches, if that does.
    size = getattr(sampler, "batch_size", None) if size is None else size
    if type(size) is not int or size < 1:
        return None
    rows = _length(getattr(sampler, "sampler", None))
    drop_last = drop_last or getattr(sampler, "drop_last", False)
    return EvenBatches(size, _length(dataset) if rows is None else rows, drop_last=drop_last)


_TF_KEEPS_ELEMENTS = ("AssertCardinality", "Cache", "Map", "Options", "Prefetch", "Shuffle")
"""Steps of a TensorFlow pipeline after which an element still stands for one batch."""


def _of_tf_dataset(source: Any) -> Batches | None:
    """Know the batches of ``dataset.batch()`` of TensorFlow, and of ``Dataset.to_tf_dataset()``."""
    while getattr(source, "_batch_size", None) is None:
        name = type(source).__name__
        if not any(step in name for step in _TF_KEEPS_ELEMENTS) or "FlatMap" in name:
            return None
        source = source._input_dataset
    drop_last = bool(getattr(source, "_drop_remainder", False))
    return EvenBatches(int(source._batch_size), _length(source._input_dataset), drop_last=drop_last)


def _of_table_reader(source: Any) -> Batches | None:
    """Know the data frames of pandas' readers, as ``read_csv(chunksize=1000)`` returns one."""
    size = getattr(source, "chunksize", None)
    return EvenBatches(size, None) if type(size) is int and size > 0 else None


def _of_table_list(source: Sequence[Any]) -> Batches | None:
    """Know the rows of tables in a list."""
    if not source or rows_in(source[0]) is None:
        return None
    return ListedTables(source) if all(rows_in(table) is not None for table in source) else None
