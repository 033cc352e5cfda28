"""The shards a dataset run works on: which rows each one has, and how it travels to a worker.

A shard is a contiguous range of rows. Cutting one costs nothing, and pickling it costs at most its
own rows: memory-mapped data travels as file names, data in memory as a copy of the slice alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

from .._interrupts import delaying_ctrl_c, keeping_ctrl_c
from .saved_dataset import in_parts, silence_datasets
from .tables.slices import bytes_in_memory, compact, compact_in_pickles

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import Table

# How many shards a worker gets by default, and how many rows each of these has, at the least.
_SHARDS_PER_WORKER = 4
_LEAST_ROWS = 100

# How many rows are fetched at once to apply an indices mapping: the batch ``datasets`` itself writes in.
_GATHER_ROWS = 1_000

# How many bytes are joined then, at most, but for a row that is larger.
_GATHER_BYTES = 64 << 20


@dataclass(frozen=True)
class ShardSpec:
    """Which rows of the dataset a shard has: ``start`` up to, not including, ``stop``."""

    index: int
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        """The number of rows of the shard."""
        return self.stop - self.start

    def __repr__(self) -> str:
        """Name the shard the way error messages do."""
        rows = f"rows {self.start:,}-{self.stop - 1:,}" if self.num_rows else "no rows"
        return f"shard {self.index} ({rows})"


def plan_shards(num_rows: int, num_shards: int) -> list[ShardSpec]:
    """Cut ``num_rows`` rows into contiguous shards whose sizes differ by at most one.

    No shard is empty, so there are never more shards than rows. The exception is a dataset without
    rows: it gets one empty shard, because only ``process_func`` knows the columns of the output.

    Args:
        num_rows: Rows of the dataset.
        num_shards: Shards wanted, at least one.

    Returns:
        The shards in the order of the rows.

    Raises:
        ValueError: If ``num_shards`` is less than one or ``num_rows`` is negative.
    """
    if num_shards < 1:
        raise ValueError(f"num_shards must be at least 1, got {num_shards}")
    if num_rows < 0:
        raise ValueError(f"num_rows must not be negative, got {num_rows}")
    num_shards = max(1, min(num_shards, num_rows))
    size, longer = divmod(num_rows, num_shards)
    # The first ``longer`` shards have one row more.
    bounds = [index * size + min(index, longer) for index in range(num_shards + 1)]
    return [ShardSpec(index, bounds[index], bounds[index + 1]) for index in range(num_shards)]


def default_shards(num_rows: int, workers: int, *, one_each: bool = False) -> int:
    """Return how many shards to cut by default: as many for each worker, so that all end together.

    Args:
        num_rows: Rows of the dataset. Of a small one each worker gets fewer shards, down to one.
        workers: How many shards are processed at once.
        one_each: Whether each worker gets one in any case, as beginning one takes long.

    Example:
        >>> default_shards(2_900_000, 64), default_shards(500, 2), default_shards(50, 2)
        (256, 4, 2)
    """
    most = 1 if one_each else _SHARDS_PER_WORKER
    return workers * max(1, min(most, num_rows // (workers * _LEAST_ROWS)))


@dataclass(frozen=True)
class Shard:
    """Where a shard lies in the dataset that a run processes, from :func:`current_shard`.

    With ``seed`` these are positions in the shuffled dataset, with ``debug`` in the shortened one.

    Attributes:
        index: Which shard it is, from 0.
        start: The position of its first row.
        stop: The position after its last row.
        num_shards: How many shards there are.
        rows: How many rows the dataset has.

    Example:
        >>> from speedy_utils import Shard
        >>> shard = Shard(index=1, start=40, stop=80, num_shards=3, rows=100)
        >>> f"part {shard.index + 1} of {shard.num_shards}, {shard.stop - shard.start} rows"
        'part 2 of 3, 40 rows'
    """

    index: int
    start: int
    stop: int
    num_shards: int
    rows: int


Shard.__module__ = "speedy_utils"

_here: ContextVar[Shard | None] = ContextVar("speedy_utils_shard", default=None)
_under_way: list[Shard] = []  # of this process


def current_shard() -> Shard | None:
    """Return where the shard lies whose ``process_func`` is running; None outside of one.

    It is known in the function itself, also while it yields, in coroutines, and in child processes that are
    forked. A thread that the function starts knows it if the process works on one shard at a time, as
    on Ray.

    Returns:
        The shard's index, its first and last row, and how many shards and rows there are.

    Example:
        >>> import tempfile
        >>> from datasets import Dataset, load_from_disk
        >>> from speedy_utils import current_shard, multi_process_dataset
        >>> def number(dataset):
        ...     for i, row in enumerate(dataset, start=current_shard().start):
        ...         yield {"id": i, "word": row["word"]}
        >>> words = Dataset.from_dict({"word": ["one", "bar", "only"]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = multi_process_dataset(
        ...         words, number, f"{folder}/out", num_shards=2, backend="seq", progress=False
        ...     )
        ...     load_from_disk(out)["id"][:]
        [0, 1, 2]
        >>> current_shard() is None
        True
    """
    shard, under_way = _here.get(), _under_way[:2]
    return under_way[0] if shard is None and len(under_way) == 1 else shard


current_shard.__module__ = "speedy_utils"


@contextmanager
def working_on(shard: Shard) -> Iterator[None]:
    """Let :func:`current_shard` return a shard, until the block ends."""
    token = _here.set(shard)
    _under_way.append(shard)
    try:
        yield
    finally:
        _under_way.remove(shard)
        _here.reset(token)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard on its way to a worker. Where it is pickled for that, its rows alone travel.

    Attributes:
        rows: All rows, or those of the shard alone.
        spec: Which of them it has.
        folder: The folder for what becomes of them.
        place: Where it lies.
        is_cut: Whether there are only the rows of the shard.
    """

    rows: Dataset
    spec: ShardSpec
    folder: Path
    place: Shard
    is_cut: bool = False

    inheritable: ClassVar = True
    """A forked worker has it already."""

    def dataset(self) -> Dataset:
        """Return the rows of the shard."""
        return self.rows if self.is_cut else cut_shard(self.rows, self.spec, travels=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the rows of the shard alone."""
        rows = self.rows if self.is_cut else cut_shard(self.rows, self.spec)
        return ShardTask, (rows, self.spec, self.folder, self.place, True)

    def __repr__(self) -> str:
        """Name the shard the way error messages do."""
        return str(self.spec)


class LazyShards(Sequence[ShardTask]):
    """The shards to process.

    Args:
        dataset: All rows.
        specs: Which shards.
        folder_of: Returns the folder of a shard.
        num_shards: How many shards the dataset has.
    """

    def __init__(
        self,
        dataset: Dataset,
        specs: Sequence[ShardSpec],
        folder_of: Callable[[ShardSpec], Path],
        num_shards: int,
    ) -> None:
        self._dataset = dataset
        self._specs = specs
        self._folder_of = folder_of
        self._num_shards = num_shards

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._specs)

    @overload
    def __getitem__(self, index: int) -> ShardTask: ...
    @overload
    def __getitem__(self, index: slice) -> LazyShards: ...
    def __getitem__(self, index: int | slice) -> ShardTask | LazyShards:
        """Return a shard, or a part of the sequence."""
        if isinstance(index, slice):
            return LazyShards(self._dataset, self._specs[index], self._folder_of, self._num_shards)
        spec = self._specs[index]
        place = Shard(spec.index, spec.start, spec.stop, self._num_shards, len(self._dataset))
        return ShardTask(self._dataset, spec, self._folder_of(spec), place)


@keeping_ctrl_c()
def import_datasets() -> None:
    """Import ``datasets``, which takes seconds; Ctrl-C waits for that."""
    with delaying_ctrl_c():
        import datasets  # noqa: F401 - it is there for later imports


def resolve_dataset(dataset: object) -> Dataset:
    """Turn what a caller passed as ``dataset`` into a ``datasets.Dataset``.

    Args:
        dataset: A ``Dataset``, or the path of a folder that ``Dataset.save_to_disk`` wrote.

    Returns:
        The dataset; one given by its path is memory-mapped.

    Raises:
        TypeError: If it is anything else; the message says what to pass instead.
        FileNotFoundError: If the path leads to no saved dataset.
        ValueError: If the dataset carries a search index, or was saved so that it can't be loaded.
    """
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, load_from_disk

    given = dataset
    if isinstance(dataset, (str, os.PathLike)):
        location = os.fsdecode(dataset)
        try:
            with silence_datasets():
                dataset = load_from_disk(location)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"No saved dataset at {location!r} ({error}). Pass the path of a folder that "
                "Dataset.save_to_disk wrote, or a Dataset; one from the Hub comes from "
                "datasets.load_dataset(..., split=...), and one from a file of rows from "
                'datasets.load_dataset("json", data_files=..., split="train"), or "csv", or "parquet".'
            ) from error
        except IndexError as error:
            # What ``datasets`` raises for a dataset without rows that was saved without num_shards=1.
            raise ValueError(
                f"The dataset at {location!r} has no rows and was saved without a data file, so it can't be "
                "loaded; save it again with save_to_disk(..., num_shards=1)."
            ) from error
    if isinstance(dataset, Dataset):
        if dataset.list_indexes():
            raise ValueError(
                f"The dataset has search indexes ({', '.join(dataset.list_indexes())}), which can't be cut "
                "into shards: remove them with dataset.drop_index(name) first."
            )
        return dataset
    where = f" (loaded from {os.fsdecode(given)!r})" if isinstance(given, (str, os.PathLike)) else ""
    if isinstance(dataset, (DatasetDict, IterableDatasetDict)):
        splits = [str(name) for name in dataset]
        example = f'dataset["{splits[0]}"]' if splits else 'dataset["train"]'
        raise TypeError(
            f"dataset is a {type(dataset).__name__}{where}, which holds several datasets. Pass one split, "
            f"for example {example}; its splits are: {', '.join(splits) or 'none'}."
        )
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            "dataset is an IterableDataset, whose rows can't be counted or cut. Load it without "
            "streaming=True, or store its rows first: "
            "Dataset.from_generator(lambda: iter(dataset), features=dataset.features)."
        )
    raise TypeError(
        f"dataset must be a datasets.Dataset or the path of a saved one, not {_describe(dataset)}"
    )


@keeping_ctrl_c()
def cut_shard(dataset: Dataset, spec: ShardSpec, *, travels: bool = True) -> Dataset:
    """Cut one shard out of a dataset, in a form that is cheap to pickle, if it travels.

    Rows, order, features, format and transform are those of the dataset. Memory-mapped data is shipped
    as file names and offsets, a shuffled or filtered memory-mapped dataset with the shard's part of the
    indices mapping in addition (8 bytes a row). Only data in memory is copied, the shard's rows alone.

    Args:
        dataset: The whole dataset.
        spec: Which rows.
        travels: Whether it is going to be pickled. Else rows in their order are copied only if it is.

    Returns:
        The shard.
    """
    from datasets import Dataset

    shard = dataset.select(range(spec.start, spec.stop))
    # Private: there is no public way to tell a dataset with an indices mapping from one without, and
    # the mapping is what makes a shard of a shuffled table carry the whole table.
    data, indices = shard.data, shard._indices
    if indices is not None and bytes_in_memory(data) > data.nbytes * len(shard) / max(1, data.num_rows):
        # Row by row the shard weighs less than the whole table under a mapping.
        data, indices = _gather_rows(shard), None
    elif not (bytes_in_memory(data) or (indices is not None and bytes_in_memory(indices))):
        return shard
    else:
        form = compact if travels else compact_in_pickles
        data, indices = form(data), None if indices is None else form(indices)
    slim = Dataset(
        data,
        info=shard.info,
        split=shard.split,
        indices_table=indices,
        fingerprint=shard._fingerprint,  # private, but the same rows are to have the same fingerprint
    )
    form = shard.format
    return slim.with_format(
        form["type"],
        columns=form["columns"],
        output_all_columns=form["output_all_columns"],
        **form["format_kwargs"],
    )


def _describe(value: object) -> str:
    """Name a value that is no dataset, with the plain way to make one of it if there is one."""
    kind = type(value)
    # With its module: other libraries have classes named Dataset too.
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, dict):
        return f"a {name}: make one with Dataset.from_dict(...)"
    if isinstance(value, (list, tuple)):
        return f"a {name}: make one with Dataset.from_list(...)"
    if kind.__name__ == "DataFrame":
        library = "polars" if kind.__module__.startswith("polars.") else "pandas"
        return f"a {name}: make one with Dataset.from_{library}(...)"
    if kind.__name__ == "Table" and kind.__module__.startswith("pyarrow."):
        return f"a {name}: make one with Dataset(table)"
    if callable(value) or isinstance(value, Iterator):
        return f"a {name}: make one with Dataset.from_generator(...)"
    return f"{value!r} of type {name}" if value is None or isinstance(value, (int, float)) else f"a {name}"


def _gather_rows(shard: Dataset) -> Table:
    """Apply a shard's indices mapping and return its rows as a table of their own."""
    import pyarrow as pa
    from datasets.table import InMemoryTable

    batches: Iterator[pa.Table] = shard.with_format("arrow").iter(_GATHER_ROWS)
    # Each batch arrives as one slice per row of the original buffers. Joined they must not exceed the 2 GB
    # that Arrow's offsets reach.
    tables = [part.combine_chunks() for batch in batches for part in in_parts(batch, _GATHER_BYTES)]
    return InMemoryTable(pa.concat_tables(tables) if tables else shard.data.table.slice(0, 0))
