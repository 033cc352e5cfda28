"""``multi_process_dataset``: any dataset in, in order, cheap to ship; wrong arguments are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import (
    Dataset,
    Features,
    Value,
    concatenate_datasets,
    load_from_disk,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle
from support.recorder import Recorder
from support.rows import ids, names, never, numbered, same, saved, upper

from speedy_utils import multi_process_dataset, track
from speedy_utils._sharding.saved_dataset import silence_datasets

KINDS: dict[str, Callable[[Path], Dataset]] = {
    "mapped": lambda folder: saved(numbered(23), folder),
    "many files": lambda folder: saved(numbered(23), folder, shards=9),
    "in memory": lambda folder: numbered(23),
    "kept in memory": lambda folder: load_from_disk(
        str(saved(numbered(23), folder) and folder), keep_in_memory=True
    ),
    "mapped, shuffled": lambda folder: saved(numbered(23), folder).shuffle(seed=1),
    "in memory, shuffled": lambda folder: numbered(23).shuffle(seed=1),
    "filtered": lambda folder: saved(numbered(60), folder).filter(lambda row: row["id"] % 3 == 0),
    "selected backwards": lambda folder: saved(numbered(23), folder).select(range(22, -1, -1)),
    "put together": lambda folder: concatenate_datasets([saved(numbered(9), folder), numbered(14)]),
    "numpy format": lambda folder: saved(numbered(23), folder).with_format("numpy"),
    "some columns": lambda folder: (
        numbered(23).add_column("more", [0] * 23).with_format(None, columns=["id", "text"])
    ),
    "transformed": lambda folder: numbered(23).with_transform(
        lambda batch: {"id": batch["id"], "text": [text[::-1] for text in batch["text"]]}
    ),
}


def check_in_order(dataset: Dataset, backend: str, out: Path) -> None:
    """Check that a dataset's output is what a plain loop over it would write, and its bar exact."""
    expected = [{"text": str(row["text"]).upper(), "id": row["id"]} for row in dataset]
    recorder = Recorder()
    path = multi_process_dataset(
        dataset, upper, out, num_workers=2, num_shards=4, backend=backend, progress=recorder
    )
    assert load_from_disk(path)[:] == Dataset.from_list(expected)[:]
    assert (recorder.last.done, recorder.last.total) == (len(dataset), len(dataset))


@pytest.mark.parametrize("kind", KINDS)
def test_any_dataset_is_processed_in_order(kind: str, local: str, out: Path, tmp_path: Path) -> None:
    """Every kind of dataset gives the rows that a plain loop over it gives, in its order."""
    with silence_datasets():
        dataset = KINDS[kind](tmp_path / "data")
    check_in_order(dataset, local, out)


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["mapped", "in memory, shuffled", "filtered"])
def test_any_dataset_reaches_ray_workers(kind: str, ray_session: None, out: Path, tmp_path: Path) -> None:
    """Memory-mapped, shuffled and filtered datasets arrive whole in Ray workers."""
    with silence_datasets():
        dataset = KINDS[kind](tmp_path / "data")
    check_in_order(dataset, "ray", out)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 40), shards=st.integers(1, 12), keep=st.integers(1, 5), workers=st.integers(1, 3))
def test_the_output_is_what_one_loop_would_write(
    tmp_path_factory: pytest.TempPathFactory, rows: int, shards: int, keep: int, workers: int
) -> None:
    """However many rows, shards, workers and dropped rows: the output is that of one loop over all rows."""

    def some(dataset: Any, output_path: str) -> Dataset:
        return dataset.select([i for i, row in enumerate(track(dataset)) if row["id"] % keep == 0])

    features = Features({"text": Value("string"), "id": Value("int64")})
    dataset = Dataset.from_dict(numbered(rows).to_dict(), features=features)
    path = multi_process_dataset(
        dataset,
        some,
        tmp_path_factory.mktemp("property") / "out",
        num_workers=workers,
        num_shards=shards,
        backend="threads",
        progress=False,
    )
    assert ids(path) == list(range(0, rows, keep))


def test_more_shards_than_rows_is_one_shard_a_row(local: str, recorder: Recorder, out: Path) -> None:
    """Asked for more shards than there are rows, each row is a shard."""
    multi_process_dataset(
        numbered(3), upper, out, num_workers=2, num_shards=10, backend=local, progress=recorder
    )
    assert ids(out) == [0, 1, 2]
    assert (recorder.last.tasks_done, recorder.last.tasks_total, recorder.last.task_unit) == (3, 3, "shards")


@pytest.mark.parametrize("columns", [{"text": [], "id": []}, {}])
def test_an_empty_dataset_gives_an_empty_output(
    backend: str, recorder: Recorder, out: Path, columns: dict[str, list[Any]]
) -> None:
    """A dataset without rows is processed once, for its columns, and gives a dataset that loads."""

    def typed(dataset: Any, output_path: str) -> Dataset:
        return Dataset.from_dict({"n": []}, features=Features({"n": Value("int64")}))

    path = multi_process_dataset(
        Dataset.from_dict(columns), typed, out, num_workers=2, backend=backend, progress=recorder
    )
    assert (len(load_from_disk(path)), load_from_disk(path).column_names) == (0, ["n"])
    assert (recorder.last.done, recorder.last.total) == (0, 0)
    assert names(out.parent) == ["out"]


def test_relative_paths_are_those_of_the_caller(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths of input and output mean the caller's folder, wherever the workers run."""
    saved(numbered(5), tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    options: Any = {"num_workers": 2, "backend": backend, "progress": False}
    assert multi_process_dataset("data", upper, "a/out", **options) == str(tmp_path / "a" / "out")
    assert ids(tmp_path / "a" / "out") == list(range(5))
    multi_process_dataset(load_from_disk("data"), same, Path("b"), **options)
    assert ids(tmp_path / "b") == list(range(5))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"process_func": 3}, TypeError, "process_func must be callable"),
        ({"backend": "rya"}, ValueError, "backend must be one of"),
        ({"num_workers": 0}, ValueError, "num_workers"),
        ({"num_shards": 0}, ValueError, "num_shards"),
        ({"num_shards": 1.5}, TypeError, "num_shards"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": "x"}, TypeError, "seed"),
        ({"debug_size": 0}, ValueError, "debug_size"),
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"poll_interval": 0}, ValueError, "poll_interval"),
        ({"desc": 3}, TypeError, "desc"),
        ({"resume": "maybe"}, ValueError, "resume"),
        ({"dataset": [{"a": 1}]}, TypeError, r"dataset must be .*make one with Dataset\.from_list"),
        ({"dataset": "none"}, FileNotFoundError, "No saved dataset at"),
        ({"process_func_kwargs": "abc"}, TypeError, "process_func_kwargs"),
        ({"process_func_kwargs": [("a", 1)]}, TypeError, "process_func_kwargs"),
        ({"ray_options": 3}, TypeError, "ray_options"),
        ({"output_path": 3}, TypeError, "output_path"),
        ({"output_path": b"out"}, TypeError, "output_path"),
        ({"output_path": ""}, ValueError, "output_path"),
        ({"output_path": "s3://bucket/out"}, ValueError, "output_path"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_before_any_work(
    options: dict[str, Any], error: type[Exception], says: str, out: Path, tmp_path: Path
) -> None:
    """An argument of a wrong type or value is named in the error, and nothing is left on disk."""
    arguments: dict[str, Any] = {
        "dataset": numbered(2),
        "process_func": never,
        "output_path": out,
        "backend": "seq",
        **options,
    }
    with pytest.raises(error, match=says):
        multi_process_dataset(**arguments)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "most"),
    # Older versions of datasets pickle a table in memory twice.
    [("mapped", 5_000), ("mapped, shuffled", 20_000), ("in memory", 220_000)],
)
def test_a_shard_ships_what_it_needs(kind: str, most: int, out: Path, tmp_path: Path) -> None:
    """A mapped shard travels as file names, a shuffled one with its order, one in memory with its rows."""
    sizes = []

    def weigh(dataset: Any, output_path: str) -> Any:
        sizes.append(len(cloudpickle.dumps(dataset)))
        return dataset

    dataset = Dataset.from_dict({"text": ["x" * 100] * 10_000})  # a megabyte; 100 kB a shard
    if "mapped" in kind:
        dataset = saved(dataset, tmp_path / "data")
    if "shuffled" in kind:
        dataset = dataset.shuffle(seed=1)
    multi_process_dataset(dataset, weigh, out, num_workers=1, num_shards=10, backend="seq", progress=False)
    assert len(sizes) == 10
    assert max(sizes) <= most


class Costly:
    """An argument that notes each time it is pickled, and arrives as a word."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __reduce__(self) -> tuple[Any, ...]:
        with self.notes.open("a") as file:
            file.write("x")
        return (str, ("arrived",))


@pytest.mark.ray
def test_arguments_are_shipped_once(ray_session: None, tmp_path: Path) -> None:
    """The values of process_func_kwargs are sent once a run, not once a shard."""

    def process(dataset: Any, output_path: str, *, costly: str) -> Dataset:
        return Dataset.from_dict({"word": [costly] * len(dataset)})

    pickled = []
    for shards in (1, 6):
        notes = tmp_path / f"notes{shards}"
        path = multi_process_dataset(
            numbered(6),
            process,
            tmp_path / f"out{shards}",
            {"costly": Costly(notes)},
            num_workers=2,
            num_shards=shards,
            progress=False,
        )
        assert list(load_from_disk(path)["word"]) == ["arrived"] * 6
        pickled.append(notes.read_text())
    assert pickled[0] == pickled[1]


@pytest.mark.parametrize("mapped", [True, False])
def test_a_seed_shuffles(mapped: bool, local: str, out: Path, tmp_path: Path) -> None:
    """With a seed the output is in the order of ``shuffle(seed=…)``, and the input's folder is untouched."""
    dataset = numbered(30)
    if mapped:
        dataset = saved(dataset, tmp_path / "data")
        files = sorted((tmp_path / "data").iterdir())
    multi_process_dataset(
        dataset, upper, out, num_workers=2, num_shards=4, seed=7, backend=local, progress=False
    )
    if mapped:
        assert sorted((tmp_path / "data").iterdir()) == files
    assert ids(out) == list(dataset.shuffle(seed=7)["id"]) != list(range(30))


@pytest.mark.parametrize(
    ("options", "rows"),
    [({"debug_size": 7}, 7), ({"debug_size": 99}, 30), ({}, 30), ({"debug_size": 7, "seed": 1}, 7)],
    ids=["few", "all", "usual", "shuffled"],
)
def test_debug_takes_the_first_rows(
    options: dict[str, Any], rows: int, local: str, recorder: Recorder, out: Path
) -> None:
    """With debug only the first ``debug_size`` rows are processed and counted, after a shuffle if any."""
    dataset = numbered(30)
    multi_process_dataset(
        dataset, upper, out, num_workers=2, backend=local, debug=True, progress=recorder, **options
    )
    ordered = dataset.shuffle(seed=1) if "seed" in options else dataset
    assert ids(out) == list(ordered["id"])[:rows]
    assert (recorder.last.total, recorder.last.desc) == (rows, f"Processing {rows} items")


@pytest.mark.parametrize("local", ["threads"], indirect=True)
def test_formats_reach_the_function(local: str, out: Path) -> None:
    """A shard has the format of the dataset, so a function sees the values it would see without us."""
    kinds = set()

    def process(dataset: Any, output_path: str) -> Any:
        kinds.update(type(row["id"]) for row in track(dataset))
        kinds.add(type(dataset[0]["id"]))
        return dataset

    dataset = numbered(10).with_format("numpy")
    multi_process_dataset(dataset, process, out, num_workers=2, num_shards=3, backend=local, progress=False)
    assert kinds == {np.int64}
    assert load_from_disk(str(out)).format["type"] is None


def test_numpy_numbers_cut_a_dataset(local: str, out: Path) -> None:
    """NumPy's integers will do wherever a number is asked for."""
    numbers: Any = {"num_workers": 2, "num_shards": 3, "seed": 7, "debug_size": 10, "max_retries": 1}
    plain = {name: np.int64(number) for name, number in numbers.items()}
    multi_process_dataset(numbered(20), upper, out, backend=local, debug=True, progress=False, **plain)
    assert len(set(ids(out))) == 10
