"""``multi_process_dataset``: functions that yield rows, and that ask where their shard lies."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk
from support.recorder import Recorder
from support.rows import ids, names, numbered, saved

from speedy_utils import Shard, current_shard, multi_process_dataset, report_progress, track, tracked
from speedy_utils._sharding.saved_dataset import silence_datasets


def yields_rows(dataset: Any) -> Iterator[Any]:
    """Yield rows, one by one."""
    for row in track(dataset):
        yield {"id": row["id"], "text": row["text"].upper()}


def yields_tables(dataset: Any, output_path: str) -> Iterator[Any]:
    """Yield batches as Arrow tables."""
    yield from track(dataset.with_format("arrow").iter(3), size=len)


def filters(dataset: Any) -> Iterator[Any]:
    """Drop rows after they were counted."""
    for row in track(dataset):
        if row["id"] % 2:
            yield row


@tracked(total="dataset")
def counts_by_itself(dataset: Any) -> Iterator[Any]:
    """Yield rows in a counted generator function."""
    yield from dataset


class Reader:
    """An object that can be called, and yields rows."""

    def __call__(self, dataset: Any) -> Iterator[Any]:
        """Report each row by hand."""
        for row in dataset:
            report_progress()
            yield row


def takes_more(keep: str, dataset: Any) -> Iterator[Any]:
    """Take the shard as its second argument."""
    for row in track(dataset):
        yield {keep: row[keep]}


GENERATORS: list[Any] = [
    yields_rows,
    yields_tables,
    filters,
    counts_by_itself,
    Reader(),
    functools.partial(takes_more, "id"),
    lambda dataset: (row for row in track(dataset)),
]


@pytest.mark.parametrize(
    "process", GENERATORS, ids=lambda each: getattr(each, "__name__", type(each).__name__)
)
def test_yielded_rows_are_the_output(backend: str, recorder: Recorder, out: Path, process: Any) -> None:
    """What the calls yield is the output, in order; the bar ends at exactly the rows of the input."""
    multi_process_dataset(
        numbered(100), process, out, num_workers=2, num_shards=3, backend=backend, progress=recorder
    )
    assert ids(out) == [i for i in range(100) if process is not filters or i % 2]
    assert (recorder.last.done, recorder.last.total, recorder.last.tasks_done) == (100, 100, 3)


def test_an_error_while_yielding_fails_the_shard(local: str, out: Path) -> None:
    """What a generator raises is the shard's failure, with its traceback, and no row of it is kept."""

    def breaks(dataset: Any) -> Iterator[Any]:
        for row in track(dataset):
            if row["id"] == 3 and not (out.parent / "mended").exists():
                raise ValueError("not yet")
            yield row

    def run() -> None:
        multi_process_dataset(
            numbered(6), breaks, out, num_workers=1, num_shards=2, backend=local, progress=False
        )

    with pytest.raises(
        RuntimeError, match=r"shard 1 \(rows 3-5\) failed after 1 attempt: ValueError: not yet"
    ):
        run()
    (out.parent / "mended").touch()
    run()
    assert ids(out) == list(range(6))


def test_a_shard_knows_where_it_lies(backend: str, out: Path) -> None:
    """``current_shard()``, also in threads and coroutines, and a parameter ``start`` tell the place."""

    async def in_coroutine() -> Shard | None:
        await asyncio.sleep(0)
        return current_shard()

    def place(dataset: Any, start: int) -> Iterator[Any]:
        with ThreadPoolExecutor(1) as pool:
            in_thread = pool.submit(current_shard).result()
        shard = current_shard()
        assert shard is not None
        assert shard == in_thread == asyncio.run(in_coroutine())
        for i, row in enumerate(dataset, start):
            yield {"id": row["id"], "position": i, "shard": [shard.index, shard.start, shard.stop]}
        assert current_shard() == shard == Shard(shard.index, start, start + len(dataset), 3, 7)

    multi_process_dataset(
        numbered(7), place, out, num_workers=1, num_shards=3, backend=backend, progress=False
    )
    result = load_from_disk(str(out))
    assert list(result["position"]) == list(result["id"]) == list(range(7))
    assert [list(each) for each in result["shard"]] == [[0, 0, 3]] * 3 + [[1, 3, 5]] * 2 + [[2, 5, 7]] * 2
    assert current_shard() is None


def test_positions_are_those_of_the_shuffled_rows(local: str, out: Path) -> None:
    """With ``seed`` a shard's start is a position in the shuffled dataset."""

    def place(dataset: Any, start: int) -> Iterator[Any]:
        for i, row in enumerate(dataset, start):
            yield {"position": i, "id": row["id"]}

    multi_process_dataset(numbered(9), place, out, num_workers=2, seed=1, backend=local, progress=False)
    assert list(load_from_disk(str(out))["position"]) == list(range(9))
    assert ids(out) == numbered(9).shuffle(seed=1)["id"][:]


def test_a_parquet_file_is_an_output(local: str, out: Path) -> None:
    """A Parquet file at output_path, or one whose path is returned, is the shard's output."""

    def process(dataset: Any, output_path: str) -> str | None:
        path = f"{output_path}.parquet" if dataset[0]["id"] else output_path
        pq.write_table(dataset.with_format("arrow")[:], path)
        return path if dataset[0]["id"] else None

    multi_process_dataset(
        numbered(6), process, out, num_workers=2, num_shards=2, backend=local, progress=False
    )
    assert load_from_disk(str(out))[:] == numbered(6)[:]


def test_transforms_of_a_shard_leave_nothing_beside_the_input(
    local: str, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """``map`` and ``filter`` cache in the run's folder; what another dataset caches lies where it did."""
    dataset = saved(numbered(20), tmp_path / "in")
    other = saved(numbered(3), tmp_path / "other")
    before = names(tmp_path / "in")
    cached = []

    def process(rows: Any) -> Any:
        def upper(row: Any) -> dict[str, Any]:
            return {"text": row["text"].upper()}

        other.map(upper)
        kept = rows.map(upper).filter(lambda row: row["id"] % 2)
        cached.extend(file["filename"] for file in kept.cache_files)
        return kept

    with silence_datasets():
        multi_process_dataset(
            dataset, process, out, num_workers=2, num_shards=4, backend=local, progress=False
        )
    assert load_from_disk(str(out))["text"][:] == [f"ROW {i}" for i in range(1, 20, 2)]
    assert names(tmp_path / "in") == before
    assert len(names(tmp_path / "other")) == len(before) + 1
    assert cached
    assert all(name.startswith(f"{out}.partial/") for name in cached)


BIG_ROWS = """
import resource, sys
from datasets import Dataset
from speedy_utils import multi_process_dataset, track
from speedy_utils._sharding.columns import returned

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def process(shard):
    for row in track(shard):
        yield {"audio": bytes([row["id"] % 256]) * 1_000_000}

before = peak()
rows = Dataset.from_dict({"id": list(range(250))})
multi_process_dataset(rows, process, sys.argv[1], num_shards=int(sys.argv[2]), backend="seq", progress=False)
print(peak() - before)
"""


@pytest.mark.parametrize("shards", [1, 64])
def test_memory_does_not_grow_with_the_shards(shards: int, out: Path) -> None:
    """250 rows of 1 MB each, in one shard or in many, take less than 200 MB above the bare import."""
    ended = subprocess.run(
        [sys.executable, "-c", BIG_ROWS, str(out), str(shards)],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert float(ended.stdout) < 200
    assert len(load_from_disk(str(out))) == 250
