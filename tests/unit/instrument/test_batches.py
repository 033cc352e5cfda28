"""An unnamed loop over batches counts for their rows, where these can be known."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import dataset as arrow_dataset
from support.errors import Boom
from support.tasks import a_task
from tqdm import tqdm

from speedy_utils import track
from speedy_utils._instrument import batches as looking
from speedy_utils._instrument.batches import EvenBatches, known_batches
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric

ROWS, SIZE = 250, 40
"""Six whole batches, and a short one of ten rows."""

ENDS = [*range(0, ROWS, SIZE), ROWS]
"""What is counted before the first batch, and after each."""

NUMBERS = list(range(ROWS))

SHARD = datasets.Dataset.from_dict({"n": NUMBERS})
TABLE = pa.table({"n": NUMBERS})
FRAME = pd.DataFrame({"n": NUMBERS})


def parquet(folder: Path) -> Path:
    """Write the rows to a file."""
    pq.write_table(TABLE, folder / "rows.parquet")
    return folder / "rows.parquet"


def frames() -> Iterator[pd.DataFrame]:
    """Yield data frames."""
    for start in range(0, ROWS, SIZE):
        yield FRAME[start : start + SIZE]


BATCHES: dict[str, Callable[[Path], Iterable[Any]]] = {
    "Dataset.iter": lambda _: SHARD.iter(SIZE),
    "with a format": lambda _: SHARD.with_format("numpy").iter(SIZE),
    "selected": lambda _: SHARD.select(NUMBERS[::-1]).iter(SIZE),
    "IterableDataset.iter": lambda _: SHARD.to_iterable_dataset().iter(SIZE),
    "enumerated": lambda _: enumerate(SHARD.iter(SIZE)),
    "mapped": lambda _: map(len, SHARD.iter(SIZE)),
    "zipped": lambda _: zip(range(100), SHARD.iter(SIZE), strict=False),
    "sliced": lambda _: islice(SHARD.iter(SIZE), 100),
    "Table.to_batches": lambda _: TABLE.to_batches(SIZE),
    "RecordBatchReader": lambda _: TABLE.to_reader(SIZE),
    "ParquetFile.iter_batches": lambda folder: pq.ParquetFile(parquet(folder)).iter_batches(SIZE),
    "a dataset of pyarrow": lambda _: arrow_dataset.dataset(TABLE).to_batches(batch_size=SIZE),
    "a list of frames": lambda _: list(frames()),
    "read_csv": lambda _: pd.read_csv(io.StringIO(FRAME.to_csv()), chunksize=SIZE),
}


@pytest.mark.parametrize("source", BATCHES.values(), ids=BATCHES)
def test_tracked_batches_count_for_their_rows(
    source: Callable[[Path], Iterable[Any]], tmp_path: Path
) -> None:
    """In a task of rows, each batch counts for its rows once the loop comes back; the last may be short."""
    with a_task(ROWS) as task:
        seen = [task.done for _ in track(source(tmp_path))]
        assert [*seen, task.raw] == ENDS


@pytest.mark.parametrize("source", BATCHES.values(), ids=BATCHES)
def test_bars_over_batches_count_for_their_rows(
    source: Callable[[Path], Iterable[Any]], tmp_path: Path
) -> None:
    """A captured bar counts likewise: what it goes through says how many rows its elements stand for."""
    with a_task(ROWS) as task:
        seen = []
        for _ in tqdm(source(tmp_path), miniters=1, mininterval=0):
            seen.append(task.done)
        assert [*seen, task.raw] == ENDS


def test_frames_of_a_generator_count_for_their_rows() -> None:
    """``track`` looks at the first element: if it is a table or a data frame, its rows count."""
    with a_task(ROWS) as task:
        assert [task.done for _ in track(frames())] == ENDS[:-1]
        assert task.raw == ROWS


@pytest.mark.parametrize(
    "source", [lambda: iter(NUMBERS), lambda: (n for n in NUMBERS)], ids=["iterator", "generator"]
)
@pytest.mark.parametrize("stop", [0, 1, 2, 100, None])
def test_rows_count_one_by_one_after_a_look_at_the_first(
    source: Callable[[], Iterable[int]], stop: int | None
) -> None:
    """Elements that are no tables count one by one from the first on, and none is read ahead."""
    items = source()
    with a_task(ROWS) as task:
        loop = track(items)
        for n in loop:
            assert task.done == n
            if n == stop:
                break
        del loop
        assert task.raw == (ROWS if stop is None else stop)
    assert list(items) == ([] if stop is None else NUMBERS[stop + 1 :])


def test_a_source_that_fails_at_first_may_go_on() -> None:
    """An exception for the first element counts nothing, and ends no iterator that can go on after it."""

    class Stumbles:
        at = -1

        def __iter__(self) -> Stumbles:
            return self

        def __next__(self) -> int:
            self.at += 1
            if self.at == 0:
                raise Boom
            if self.at == 3:
                raise StopIteration
            return self.at

    with a_task(ROWS) as task:
        loop = track(Stumbles())
        with pytest.raises(Boom):
            next(loop)
        assert list(loop) == [1, 2]
        assert task.raw == 2


def test_a_table_is_freed_before_the_next_is_read() -> None:
    """A loop over tables holds no more of them than plain iteration."""
    alive: set[int] = set()

    class Frame(pd.DataFrame):  # type: ignore[misc]  # pandas is not typed here
        def __del__(self) -> None:
            alive.discard(id(self))

    def source() -> Iterator[Frame]:
        for _ in range(4):
            assert not alive
            frame = Frame({"n": [1, 2]})
            alive.add(id(frame))
            yield frame
            del frame

    with a_task(8) as task:
        for frame in track(source()):
            del frame
        assert task.raw == 8


@pytest.mark.parametrize("wrap", [track, tqdm])
def test_short_batches_that_are_dropped_do_not_count(wrap: Callable[..., Iterable[Any]]) -> None:
    """``drop_last_batch=True`` leaves the short batch out, and its rows uncounted."""
    with a_task(ROWS) as task:
        for _ in wrap(SHARD.iter(SIZE, drop_last_batch=True)):
            pass
        assert task.raw == 240


def test_a_bar_has_its_own_iterable_again_once_its_loop_runs() -> None:
    """A reader whose tables are counted as they pass is what code finds in ``bar.iterable``."""
    reader = TABLE.to_reader(SIZE)
    with a_task(ROWS):
        bar = tqdm(reader)
        for _ in bar:
            assert bar.iterable is reader


@pytest.mark.parametrize("wrap", [track, tqdm])
def test_elements_of_a_named_stage_count_as_ever(wrap: Callable[..., Iterable[Any]]) -> None:
    """A stage with a name counts elements, also where they are batches of rows."""
    with a_task(ROWS) as task:
        for _ in wrap(SHARD.iter(SIZE), desc="Batches"):
            pass
        assert task.reporter.raw_counts()[Key("Batches", Metric.ITEMS)] == 7


@pytest.mark.parametrize("wrap", [track, tqdm])
@pytest.mark.parametrize(("total", "done"), [(3, 3), (7, 7), (ROWS, ROWS)])
def test_in_a_task_of_other_items_batches_count_if_their_rows_are_its_items(
    wrap: Callable[..., Iterable[Any]], total: int, done: int
) -> None:
    """Where a task's total is no number of rows, elements count, unless the batches have as many rows."""
    batches = [FRAME[:100], FRAME[100:200], FRAME[200:]] if total == 3 else SHARD.iter(SIZE)
    with a_task(total, rows=False) as task:
        for _ in wrap(batches):
            pass
        assert task.reporter.raw_counts()[RUN_ITEMS] == done


@pytest.mark.parametrize("wrap", [track, tqdm])
def test_size_and_scale_of_the_user_come_first(wrap: Callable[..., Iterable[Any]]) -> None:
    """``track(size=)`` and ``tqdm(unit_scale=)`` say themselves how much an element counts."""
    options: dict[str, Any] = {"size": lambda _: 2} if wrap is track else {"unit_scale": 2}
    with a_task(ROWS) as task:
        for _ in wrap(SHARD.iter(SIZE), **options):
            pass
        assert task.raw == 14


class Sampler:
    """As torch's samplers: a number of rows, in batches or not."""

    def __init__(self, sampler: Any, batch_size: int | None = None, drop_last: bool = False) -> None:
        self.sampler, self.drop_last = sampler, drop_last
        if batch_size is not None:
            self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.sampler)


class Stream:
    """As torch's ``IterableDataset``, or its sampler: of no length."""

    def __len__(self) -> int:
        raise TypeError


class DataLoader:
    """As torch's, with the attributes that are looked at."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        *,
        batch_sampler: Any = None,
        sampler: Any = None,
        drop_last: bool = False,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler or (dataset if isinstance(dataset, Stream) else Sampler(dataset))
        if batch_sampler is None and batch_size is not None:
            batch_sampler = Sampler(self.sampler, batch_size, drop_last)
        elif batch_sampler is not None:
            batch_size, drop_last = None, False
        self.batch_size, self.batch_sampler, self.drop_last = batch_size, batch_sampler, drop_last

    def __iter__(self) -> LoaderIterator:
        return LoaderIterator(self)


class LoaderIterator:
    """As the iterator over such a loader."""

    def __init__(self, loader: DataLoader) -> None:
        self._dataset, self._drop_last = loader.dataset, loader.drop_last
        self._index_sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler

    def __iter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> None:
        raise StopIteration


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **names: Any) -> None:
    """Put a module that has some names in the place of one that is not installed."""
    stand = ModuleType(module)
    vars(stand).update(names)
    monkeypatch.setitem(sys.modules, module, stand)


LOADERS: dict[str, tuple[Callable[[type[Any], type[Any]], Any], tuple[int, int | None] | None]] = {
    "batch_size": (lambda loader, _: loader(SHARD, 40), (40, 250)),
    "drop_last": (lambda loader, _: loader(SHARD, 40, drop_last=True), (40, 240)),
    "batch_sampler": (
        lambda loader, batch: loader(SHARD, batch_sampler=batch(NUMBERS, 40, False)),
        (40, 250),
    ),
    "batch_sampler, drop_last": (
        lambda loader, batch: loader(SHARD, batch_sampler=batch(NUMBERS, 40, True)),
        (40, 240),
    ),
    "batches by the sampler": (
        lambda loader, batch: loader(SHARD, batch_size=None, sampler=batch(NUMBERS, 40, False)),
        (40, 250),
    ),
    "no batches": (lambda loader, _: loader(SHARD, batch_size=None), None),
}


@pytest.fixture(autouse=True)
def _classes_anew() -> None:
    """Look for the classes of libraries anew: a stand-in may be in the place of one."""
    looking._loaded_of.cache_clear()
    looking._how_to_look.cache_clear()


def check_loader(loader: Any, expected: tuple[int, int | None] | None) -> None:
    """Check what is known of a loader, and of an iterator over it."""
    for source in (loader, iter(loader), enumerate(loader)):
        batches = known_batches(source)
        if expected is None:
            assert batches is None
        else:
            assert batches is not None
            assert (batches.rows(1), batches.total) == expected


@pytest.mark.parametrize("kind", LOADERS)
def test_loaders_of_torch_say_how_many_rows_they_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``DataLoader`` is known by its batch size, or by that of its sampler: here those of stand-ins."""
    stand_in(monkeypatch, "torch.utils.data", DataLoader=DataLoader)
    stand_in(monkeypatch, "torch.utils.data.dataloader", _BaseDataLoaderIter=LoaderIterator)
    make, expected = LOADERS[kind]
    check_loader(make(DataLoader, Sampler), expected)
    check_loader(DataLoader(Stream(), 40), (40, None))


@pytest.mark.parametrize("kind", LOADERS)
def test_loaders_of_the_real_torch_say_so_too(kind: str) -> None:
    """The same with torch itself, where it is installed."""
    torch = pytest.importorskip("torch.utils.data")
    make, expected = LOADERS[kind]
    check_loader(make(torch.DataLoader, torch.BatchSampler), expected)
    check_loader(torch.DataLoader(SHARD.to_iterable_dataset(), 40), (40, None))


def test_pipelines_of_tensorflow_say_how_many_rows_they_batch() -> None:
    """A batch of TensorFlow is known through the steps after it: here those of stand-ins."""

    def step(name: str, source: object, **attributes: Any) -> Any:
        kind = type(
            name, (), {"__module__": "tensorflow.python.data.ops.dataset_ops", "__len__": lambda _: 250}
        )
        made = kind()
        vars(made).update(_input_dataset=source, **attributes)
        return made

    rows = step("_RangeDataset", None)
    batched = step("_BatchDataset", rows, _batch_size=40, _drop_remainder=False)
    batches = known_batches(step("_PrefetchDataset", step("_ParallelMapDataset", batched)))
    assert batches is not None
    assert (batches.rows(7), batches.total) == (250, 250)
    assert known_batches(step("_UnbatchDataset", batched)) is None
    assert known_batches(rows) is None


def test_what_fails_to_be_looked_at_is_no_batch() -> None:
    """Attributes of other libraries may be missing or raise: then elements count."""
    frames = [FRAME, None]
    assert known_batches(frames) is None
    assert EvenBatches(3, None).rows(4) == 12
