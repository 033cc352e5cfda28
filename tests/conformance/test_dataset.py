"""``multi_process_dataset``: any dataset in, one dataset out, exact, and nothing lost on the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    Sequence,
    Value,
    concatenate_datasets,
    load_from_disk,
)
from datasets.utils import are_progress_bars_disabled
from hypothesis import given, settings
from hypothesis import strategies as st

from speedy_utils import multi_process_dataset, report_progress, track
from speedy_utils._api import multi_process_dataset as dataset_sharding
from speedy_utils._engines.sequential import SequentialEngine
from speedy_utils._engines.task import Attempt
from speedy_utils._sharding.saved_dataset import silence_datasets
from speedy_utils.errors import BusyError, FailedShardsError, MergeError, ResumeError


@pytest.fixture
def shown(shown: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Record what dataset runs show."""
    monkeypatch.setattr(dataset_sharding, "display_here", shown)
    return shown


@pytest.fixture(params=["mp", "seq"])
def local(request: pytest.FixtureRequest) -> str:
    """Each backend that needs no Ray."""
    return str(request.param)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the output is to appear, in a folder of its own."""
    return tmp_path / "results" / "out"


def numbered(rows: int) -> dict[str, list[Any]]:
    """Columns of known content."""
    return {"text": [f"row {i}" for i in range(rows)], "id": list(range(rows))}


def ids(path: str | Path) -> list[int]:
    """The ``id`` column of a saved dataset."""
    return list(load_from_disk(str(path))["id"])


def upper(dataset: Any, output_path: str) -> str:
    """Write each row in upper case."""
    rows = [{"text": str(row["text"]).upper(), "id": int(row["id"])} for row in track(dataset)]
    Dataset.from_list(rows).save_to_disk(output_path)
    return output_path


def same(dataset: Any, output_path: str) -> Any:
    """Give the rows back."""
    return dataset


def never(dataset: Any, output_path: str) -> Any:
    """Stand for work that must not start."""
    raise AssertionError("work was started")


def beside(out: Path) -> list[str]:
    """What lies where the output is to appear."""
    return sorted(os.listdir(out.parent)) if out.parent.exists() else []


def saved(dataset: Dataset, folder: Path, shards: int = 1) -> Dataset:
    """The same rows, memory-mapped."""
    with silence_datasets():
        dataset.save_to_disk(str(folder), num_shards=shards)
    return load_from_disk(str(folder))


# --- Any dataset -----------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Path], Dataset]] = {
    "mapped": lambda folder: saved(Dataset.from_dict(numbered(23)), folder),
    "many files": lambda folder: saved(Dataset.from_dict(numbered(23)), folder, shards=9),
    "in memory": lambda folder: Dataset.from_dict(numbered(23)),
    "kept in memory": lambda folder: load_from_disk(
        str(saved(Dataset.from_dict(numbered(23)), folder) and folder), keep_in_memory=True
    ),
    "mapped, shuffled": lambda folder: saved(Dataset.from_dict(numbered(23)), folder).shuffle(seed=1),
    "in memory, shuffled": lambda folder: Dataset.from_dict(numbered(23)).shuffle(seed=1),
    "filtered": lambda folder: saved(Dataset.from_dict(numbered(60)), folder).filter(
        lambda row: row["id"] % 3 == 0
    ),
    "selected backwards": lambda folder: saved(Dataset.from_dict(numbered(23)), folder).select(
        range(22, -1, -1)
    ),
    "put together": lambda folder: concatenate_datasets(
        [saved(Dataset.from_dict(numbered(9)), folder), Dataset.from_dict(numbered(14))]
    ),
    "numpy format": lambda folder: saved(Dataset.from_dict(numbered(23)), folder).with_format("numpy"),
    "some columns": lambda folder: Dataset.from_dict({**numbered(23), "more": [0] * 23}).with_format(
        None, columns=["id", "text"]
    ),
    "transformed": lambda folder: Dataset.from_dict(numbered(23)).with_transform(
        lambda batch: {"id": batch["id"], "text": [text[::-1] for text in batch["text"]]}
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_dataset_is_processed_in_order(kind: str, local: str, shown: Any, tmp_path: Path) -> None:
    """Every kind of dataset gives the rows that a plain loop over it gives, in its order."""
    with silence_datasets():
        dataset = KINDS[kind](tmp_path / "data")
    expected = [{"text": str(row["text"]).upper(), "id": row["id"]} for row in dataset]
    path = multi_process_dataset(dataset, upper, tmp_path / "out", num_workers=2, num_shards=4, backend=local)
    assert load_from_disk(path)[:] == Dataset.from_list(expected)[:]
    assert (shown.last.done, shown.last.total) == (len(dataset), len(dataset))


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["mapped", "in memory, shuffled", "filtered"])
def test_any_dataset_reaches_ray_workers(kind: str, ray_session: None, shown: Any, tmp_path: Path) -> None:
    """Memory-mapped, shuffled and filtered datasets arrive whole in Ray workers."""
    test_any_dataset_is_processed_in_order(kind, "ray", shown, tmp_path)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 40), shards=st.integers(1, 12), keep=st.integers(1, 5), workers=st.integers(1, 3))
def test_the_output_is_what_one_loop_would_write(
    tmp_path_factory: pytest.TempPathFactory, rows: int, shards: int, keep: int, workers: int
) -> None:
    """However many rows, shards, workers and dropped rows: the output is that of one loop over all rows."""

    def some(dataset: Any, output_path: str) -> Dataset:
        return dataset.select([i for i, row in enumerate(track(dataset)) if row["id"] % keep == 0])

    features = Features({"text": Value("string"), "id": Value("int64")})
    dataset = Dataset.from_dict(numbered(rows), features=features)
    path = multi_process_dataset(
        dataset,
        some,
        tmp_path_factory.mktemp("property") / "out",
        num_workers=workers,
        num_shards=shards,
        backend="mp",
        progress=False,
    )
    assert ids(path) == list(range(0, rows, keep))


def test_more_shards_than_rows_is_one_shard_a_row(local: str, shown: Any, out: Path) -> None:
    """Asked for more shards than there are rows, each row is a shard."""
    multi_process_dataset(
        Dataset.from_dict(numbered(3)), upper, out, num_workers=2, num_shards=10, backend=local
    )
    assert ids(out) == [0, 1, 2]
    assert (shown.last.tasks_done, shown.last.tasks_total, shown.last.task_unit) == (3, 3, "shards")


@pytest.mark.parametrize("columns", [{"text": [], "id": []}, {}])
def test_an_empty_dataset_gives_an_empty_output(
    backend: str, shown: Any, out: Path, columns: dict[str, list[Any]]
) -> None:
    """A dataset without rows is processed once, for its columns, and gives a dataset that loads."""

    def typed(dataset: Any, output_path: str) -> Dataset:
        return Dataset.from_dict({"n": []}, features=Features({"n": Value("int64")}))

    path = multi_process_dataset(Dataset.from_dict(columns), typed, out, num_workers=2, backend=backend)
    assert (len(load_from_disk(path)), load_from_disk(path).column_names) == (0, ["n"])
    assert (shown.last.done, shown.last.total) == (0, 0)
    assert beside(out) == ["out"]


def test_rows_that_no_shard_keeps_give_an_empty_output(local: str, out: Path) -> None:
    """Where every row is dropped, by functions that lose the columns too, the output still loads."""
    dataset = Dataset.from_dict(numbered(6))
    multi_process_dataset(
        dataset, lambda shard, path: Dataset.from_list([]), out, num_workers=2, backend=local, progress=False
    )
    assert len(load_from_disk(str(out))) == 0


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_dataset_may_be_given_by_its_path(
    as_path: Callable[[Path], Any], local: str, out: Path, tmp_path: Path
) -> None:
    """The path of a saved dataset stands for the dataset."""
    saved(Dataset.from_dict(numbered(5)), tmp_path / "data")
    multi_process_dataset(
        as_path(tmp_path / "data"), upper, out, num_workers=2, backend=local, progress=False
    )
    assert ids(out) == list(range(5))


def test_relative_paths_are_those_of_the_caller(
    backend: str, shown: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths of input and output mean the caller's folder, wherever the workers run."""
    saved(Dataset.from_dict(numbered(5)), tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert multi_process_dataset("data", upper, "a/out", num_workers=2, backend=backend) == "a/out"
    assert ids(tmp_path / "a" / "out") == list(range(5))
    multi_process_dataset(load_from_disk("data"), same, Path("b"), num_workers=2, backend=backend)
    assert ids(tmp_path / "b") == list(range(5))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (DatasetDict({"train": Dataset.from_dict(numbered(2))}), r'dataset\["train"\]'),
        (IterableDataset.from_generator(lambda: iter([{"a": 1}])), r"IterableDataset.*streaming=True"),
        ([{"a": 1}], r"Dataset\.from_list"),
        ({"a": [1]}, r"Dataset\.from_dict"),
        ((row for row in [{"a": 1}]), r"Dataset\.from_generator"),
        (None, r"datasets\.Dataset or the path"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_a_type_error_before_any_work(value: Any, says: str, out: Path) -> None:
    """What is no dataset is a TypeError that says what to pass, and nothing is made on disk."""
    with pytest.raises(TypeError, match=says):
        multi_process_dataset(value, never, out, backend="seq")
    assert beside(out) == []


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
    options: dict[str, Any], error: type[Exception], says: str, out: Path
) -> None:
    """An argument of a wrong type or value is named in the error, and nothing is made on disk."""
    arguments: dict[str, Any] = {
        "dataset": Dataset.from_dict(numbered(2)),
        "process_func": never,
        "output_path": out,
        "backend": "seq",
        **options,
    }
    with pytest.raises(error, match=says):
        multi_process_dataset(**arguments)
    assert beside(out) == []


# --- Shipping --------------------------------------------------------------------------------------------


@pytest.fixture
def parcels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each shard takes on its way to a worker."""
    import ray

    sizes: list[int] = []
    submit = SequentialEngine.submit

    def weigh(engine: SequentialEngine, attempt: Attempt, item: Any) -> None:
        sizes.append(len(ray.cloudpickle.dumps(item)))
        submit(engine, attempt, item)

    monkeypatch.setattr(SequentialEngine, "submit", weigh)
    return sizes


@pytest.mark.parametrize(
    ("kind", "most"),
    # Older versions of datasets pickle a table in memory twice.
    [("mapped", 5_000), ("mapped, shuffled", 20_000), ("in memory", 220_000)],
)
def test_a_shard_ships_what_it_needs(
    kind: str, most: int, parcels: list[int], out: Path, tmp_path: Path
) -> None:
    """A mapped shard travels as file names, a shuffled one with its order, one in memory with its rows."""
    dataset = Dataset.from_dict({"text": ["x" * 100] * 10_000})  # a megabyte; 100 kB a shard
    if "mapped" in kind:
        dataset = saved(dataset, tmp_path / "data")
    if "shuffled" in kind:
        dataset = dataset.shuffle(seed=1)
    multi_process_dataset(dataset, same, out, num_workers=1, num_shards=10, backend="seq", progress=False)
    assert len(parcels) == 10
    assert max(parcels) <= most


class Costly:
    """An argument that notes each time it is pickled, and arrives as a word."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __reduce__(self) -> tuple[Any, ...]:
        with self.notes.open("a") as file:
            file.write("x")
        return (str, ("arrived",))


@pytest.mark.ray
def test_arguments_are_shipped_once(ray_session: None, shown: Any, tmp_path: Path) -> None:
    """What is in process_func_kwargs is sent once a run, not once a shard."""

    def process(dataset: Any, output_path: str, *, costly: str) -> Dataset:
        return Dataset.from_dict({"word": [costly] * len(dataset)})

    pickled = []
    for shards in (1, 6):
        notes = tmp_path / f"notes{shards}"
        path = multi_process_dataset(
            Dataset.from_dict(numbered(6)),
            process,
            tmp_path / f"out{shards}",
            {"costly": Costly(notes)},
            num_workers=2,
            num_shards=shards,
        )
        assert list(load_from_disk(path)["word"]) == ["arrived"] * 6
        pickled.append(notes.read_text())
    assert pickled[0] == pickled[1]


# --- Seed and debug --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [True, False])
def test_a_seed_shuffles(mapped: bool, local: str, shown: Any, out: Path, tmp_path: Path) -> None:
    """With a seed the output is in the order of ``shuffle(seed=…)``, and the input's folder is untouched."""
    dataset = Dataset.from_dict(numbered(30))
    if mapped:
        dataset = saved(dataset, tmp_path / "data")
        files = sorted((tmp_path / "data").iterdir())
    multi_process_dataset(dataset, upper, out, num_workers=2, num_shards=4, seed=7, backend=local)
    if mapped:
        assert sorted((tmp_path / "data").iterdir()) == files
    assert ids(out) == list(dataset.shuffle(seed=7)["id"]) != list(range(30))


def test_debug_takes_the_first_rows(local: str, shown: Any, tmp_path: Path) -> None:
    """With debug only the first ``debug_size`` rows are processed and counted, after a shuffle if any."""
    dataset = Dataset.from_dict(numbered(30))
    for name, options, expected in [
        ("few", {"debug_size": 7}, list(range(7))),
        ("all", {"debug_size": 99}, list(range(30))),
        ("usual", {}, list(range(30))),
        ("shuffled", {"debug_size": 7, "seed": 1}, list(dataset.shuffle(seed=1)["id"])[:7]),
    ]:
        path = multi_process_dataset(
            dataset, upper, tmp_path / name, num_workers=2, backend=local, debug=True, **options
        )
        assert ids(path) == expected
        assert shown.last_of_all.total == len(expected)
        assert shown.last_of_all.desc == f"Processing {len(expected)} items"


# --- What process_func gives back ------------------------------------------------------------------------


def test_all_ways_to_give_rows_back(backend: str, shown: Any, tmp_path: Path) -> None:
    """A returned path, None after writing to output_path, and a Dataset give the same output."""
    elsewhere = tmp_path / "elsewhere"

    def text_path(dataset: Any, output_path: str) -> Any:
        dataset.save_to_disk(output_path)
        return output_path

    def path(dataset: Any, output_path: str) -> Any:
        return Path(text_path(dataset, output_path))

    def other_path(dataset: Any, output_path: str) -> Any:
        return text_path(dataset, str(elsewhere / str(dataset[0]["id"])))

    def nothing(dataset: Any, output_path: str) -> Any:
        text_path(dataset, output_path)

    def rows(dataset: Any, output_path: str) -> Any:
        return dataset

    def some_ways(dataset: Any, output_path: str) -> Any:
        return [nothing, rows, path][dataset[0]["id"] // 4](dataset, output_path)

    dataset = Dataset.from_dict(numbered(12))
    for way in (text_path, path, other_path, nothing, rows, some_ways):
        if backend == "ray" and way in (text_path, path):
            continue  # to be quick
        out = multi_process_dataset(
            dataset, way, tmp_path / way.__name__, num_workers=2, num_shards=3, backend=backend
        )
        assert load_from_disk(out)[:] == dataset[:], way.__name__
    assert sorted(os.listdir(elsewhere)) == ["0", "4", "8"]


def gives(value: Any) -> Callable[..., Any]:
    """A function that gives a value back for the second shard, and rows for the others."""

    def process(dataset: Any, output_path: str) -> Any:
        return value if dataset[0]["id"] == 2 else dataset

    return process


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("/nowhere/at/all", "'/nowhere/at/all', but nothing exists there"),
        (os.path.dirname(__file__), "no dataset that can be loaded at"),
        (None, "returned None, but wrote nothing"),
        (3, "returned 3 of type int"),
        ([{"text": "a"}], "of type list"),
    ],
    ids=["no path", "no dataset", "None", "int", "list"],
)
def test_what_is_no_dataset_is_an_error_that_names_the_shard(
    value: Any, says: str, local: str, shown: Any, out: Path
) -> None:
    """A result that is no dataset fails its shard with the reason and the cure; the others are kept."""
    with pytest.raises(FailedShardsError, match=r"1 of 3 shards failed") as caught:
        multi_process_dataset(
            Dataset.from_dict(numbered(6)), gives(value), out, num_workers=2, num_shards=3, backend=local
        )
    (error,) = caught.value.errors
    assert (error.index, error.attempts) == (1, 1)
    assert says in str(caught.value)
    assert "shard 1 (rows 2-3)" in str(caught.value)
    assert "Return the path of a folder that Dataset.save_to_disk wrote" in str(caught.value)
    assert beside(out) == ["out.partial"]
    assert len(list(out.parent.glob("out.partial/shards/*/record.json"))) == 2


def test_a_dataset_dict_given_back_is_an_error_that_says_so(local: str, out: Path) -> None:
    """A saved DatasetDict is told apart from a Dataset."""

    def process(dataset: Any, output_path: str) -> None:
        DatasetDict({"train": dataset}).save_to_disk(output_path)

    with pytest.raises(FailedShardsError, match="several splits, a DatasetDict; save one of them"):
        multi_process_dataset(
            Dataset.from_dict(numbered(2)), process, out, num_workers=1, backend=local, progress=False
        )


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"n": [1]}, {"n": ["a"]}, "shard 1 (rows 1-1): column 'n' is string, but int64 in shard 0"),
        ({"n": [1]}, {"n": [1.5]}, "column 'n' is float64, but int64"),
        ({"n": [[1]]}, {"n": [["a"]]}, "column 'n[]' is string, but int64"),
        ({"n": [1]}, {"m": [1]}, "shard 1 (rows 1-1) has no column 'n'"),
        ({"n": [1]}, {"n": [1], "m": [1]}, "shard 1 (rows 1-1) has a column 'm', which shard 0"),
    ],
    ids=["type", "number", "list", "other column", "more columns"],
)
def test_shards_that_do_not_fit_name_column_and_types_and_stay(
    first: Any, second: Any, says: str, local: str, shown: Any, out: Path
) -> None:
    """Features that don't fit are told with shard, column and both types; no shard is lost."""

    def process(dataset: Any, output_path: str) -> Dataset:
        return Dataset.from_dict(second if dataset[0]["id"] else first)

    with pytest.raises(MergeError) as caught:
        multi_process_dataset(
            Dataset.from_dict(numbered(2)), process, out, num_workers=2, backend=local, num_shards=2
        )
    assert says in str(caught.value)
    assert beside(out) == ["out.partial"]
    assert len(list(out.parent.glob("out.partial/shards/*/record.json"))) == 2


def test_a_null_column_takes_the_type_of_another_shard(local: str, shown: Any, out: Path) -> None:
    """A column without a value in the first shard, and a list without items, take another shard's type."""

    def process(dataset: Any, output_path: str) -> Dataset:
        if dataset[0]["id"] == 0:
            return Dataset.from_list([{"n": None, "tags": []}])
        return Dataset.from_list([{"n": dataset[0]["id"], "tags": ["a"]}])

    dataset = Dataset.from_dict(numbered(3))
    multi_process_dataset(dataset, process, out, num_workers=2, num_shards=3, backend=local)
    merged = load_from_disk(str(out))
    assert merged.features == Features({"n": Value("int64"), "tags": Sequence(Value("string"))})
    assert list(merged["n"]) == [None, 1, 2]
    assert list(merged["tags"]) == [[], ["a"], ["a"]]


# --- Exact items -----------------------------------------------------------------------------------------


def reports_nothing(dataset: Any, output_path: str) -> Any:
    """Report nothing."""
    return dataset


def reports_by_index(dataset: Any, output_path: str) -> Any:
    """Report hundred items at each hundredth row, so 200 of 133."""
    for i, _ in enumerate(dataset):
        if i % 100 == 0:
            report_progress(100)
    return dataset


def reports_too_little(dataset: Any, output_path: str) -> Any:
    """Report less than was done."""
    report_progress(3)
    return dataset


def filters(dataset: Any, output_path: str) -> Any:
    """Keep every second row."""
    return Dataset.from_list([row for row in track(dataset) if row["id"] % 2])


def breaks_off(dataset: Any, output_path: str) -> Any:
    """Leave the loop early."""
    for row in track(dataset):
        if row["id"] % 100 == 10:
            break
    return dataset


def takes_batches(dataset: Any, output_path: str) -> Any:
    """Report whole batches."""
    for _ in track(dataset.iter(40), size=lambda batch: len(batch["id"])):
        pass
    return dataset


HABITS = [reports_nothing, reports_by_index, reports_too_little, filters, breaks_off, takes_batches]


@pytest.mark.parametrize("process", HABITS, ids=lambda function: function.__name__)
def test_a_shard_counts_for_its_rows(
    backend: str, shown: Any, out: Path, process: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a function reports or drops, the bar ends at the rows of the input, and never goes beyond."""
    multi_process_dataset(
        Dataset.from_dict(numbered(530)),
        process,
        out,
        num_workers=2,
        num_shards=4,
        backend=backend,
        poll_interval=0.01,
    )
    assert (shown.last.done, shown.last.total, shown.last.unit) == (530, 530, "items")
    assert (shown.last.tasks_done, shown.last.tasks_total) == (4, 4)
    done = [snapshot.done for snapshot in shown.snapshots]
    assert done == sorted(done)
    assert len(load_from_disk(str(out))) == (265 if process is filters else 530)
    assert shown.only.closed
    assert shown.last.rate == 530 / shown.last.elapsed
    # 200 of 133 rows were reported
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (process is reports_by_index)


def test_the_work_of_several_steps_has_a_line_each(local: str, shown: Any, out: Path) -> None:
    """Named stages get lines of their own, beside the items of the run."""

    def process(dataset: Any, output_path: str) -> Any:
        rows = [dict(row) for row in track(dataset, desc="Read")]
        return Dataset.from_list(list(track(rows, desc="Write")))

    multi_process_dataset(
        Dataset.from_dict(numbered(50)), process, out, num_workers=2, num_shards=3, backend=local
    )
    assert [(stage.name, stage.done, stage.total) for stage in shown.last.lines] == [
        ("Read", 50, 50),
        ("Write", 50, 50),
    ]


def test_numpy_numbers_cut_a_dataset(local: str, shown: Any, out: Path) -> None:
    """NumPy's integers will do wherever a number is asked for."""
    numbers: Any = {"num_workers": 2, "num_shards": 3, "seed": 7, "debug_size": 10, "max_retries": 1}
    plain = {name: np.int64(number) for name, number in numbers.items()}
    multi_process_dataset(Dataset.from_dict(numbered(20)), upper, out, backend=local, debug=True, **plain)
    assert len(set(ids(out))) == 10


def test_without_progress_nothing_else_changes(local: str, shown: Any, tmp_path: Path) -> None:
    """``progress=False`` draws nothing, and the output is the same."""
    dataset = Dataset.from_dict(numbered(20))
    paths = [
        multi_process_dataset(
            dataset, upper, tmp_path / str(progress), num_workers=2, backend=local, progress=progress
        )
        for progress in (True, False)
    ]
    assert len(shown.displays) == 1
    assert load_from_disk(paths[0])[:] == load_from_disk(paths[1])[:]


# --- Failures and resuming -------------------------------------------------------------------------------


class Calls:
    """Notes, in files that every worker can write, which shards were started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def take(self) -> list[int]:
        """The first rows of the shards that were started since the last time."""
        found = list(self.folder.iterdir())
        for file in found:
            file.unlink()
        return sorted(int(file.name.split("-")[0]) for file in found)


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    """The shards that were started."""
    return Calls(tmp_path / "calls")


@pytest.fixture
def fragile(calls: Calls, tmp_path: Path) -> Callable[..., Any]:
    """A function that fails at rows 13 and 25 until the file ``mended`` is there."""
    folder, mended = calls.folder, tmp_path / "mended"

    def process(dataset: Any, output_path: str, **options: Any) -> Any:
        (folder / f"{dataset[0]['id']}-{uuid.uuid4()}").touch()
        for row in track(dataset):
            if row["id"] in (13, 25) and not mended.exists():
                raise ValueError(f"row {row['id']} is bad")
        return dataset

    return process


def test_one_failing_shard_does_not_stop_the_others(
    backend: str, shown: Any, out: Path, tmp_path: Path, calls: Calls, fragile: Any
) -> None:
    """Failed shards are listed with rows, attempts and traceback; the same call then runs only those."""
    dataset = Dataset.from_dict(numbered(40))

    def run() -> str:
        return multi_process_dataset(dataset, fragile, out, num_workers=2, num_shards=4, backend=backend)

    with pytest.raises(FailedShardsError) as caught:
        run()
    first, second = caught.value.errors
    assert (first.index, str(first.item), first.attempts) == (1, "shard 1 (rows 10-19)", 1)
    assert (second.index, str(second.item), second.attempts) == (2, "shard 2 (rows 20-29)", 1)
    assert isinstance(first.__cause__, ValueError)
    for part in (
        f"2 of 4 shards failed; the 2 finished ones are kept in {str(out) + '.partial'!r}",
        "shard 1 (rows 10-19) failed after 1 attempt: ValueError: row 13 is bad",
        "shard 2 (rows 20-29) failed after 1 attempt: ValueError: row 25 is bad",
        'raise ValueError(f"row',
    ):
        assert part in str(caught.value)
    assert calls.take() == [0, 10, 20, 30]
    assert beside(out) == ["out.partial"]
    # 20 of finished shards, and what the failed ones had done
    assert (shown.last.done, shown.last.total) == (20 + 3 + 5, 40)
    assert (shown.last.tasks_done, shown.last.tasks_failed, shown.last.tasks_total) == (2, 2, 4)

    (tmp_path / "mended").touch()
    start = time.monotonic()
    assert run() == str(out)
    took = time.monotonic() - start
    assert calls.take() == [10, 20]
    assert ids(out) == list(range(40))
    again = shown.displays[1].snapshots
    assert (again[0].done, again[0].initial, again[0].tasks_done) == (20, 20, 2)
    assert again[0].rate == 0
    assert (again[-1].done, again[-1].total, again[-1].tasks_done, again[-1].tasks_total) == (40, 40, 4, 4)
    assert 0 < again[-1].elapsed <= took
    assert again[-1].rate == pytest.approx(20 / again[-1].elapsed)
    assert beside(out) == ["out"]


def test_a_shard_is_cleared_before_it_runs_again(local: str, shown: Any, out: Path, tmp_path: Path) -> None:
    """What a failed attempt had written is gone when the shard runs again, and its output_path is free."""

    def process(dataset: Any, output_path: str) -> None:
        Dataset.from_dict({"id": [7] if not (tmp_path / "mended").exists() else [1]}).save_to_disk(
            output_path
        )
        if not (tmp_path / "mended").exists():
            raise ValueError("after it wrote")

    dataset = Dataset.from_dict(numbered(1))
    with pytest.raises(FailedShardsError):
        multi_process_dataset(dataset, process, out, num_workers=1, backend=local)
    (tmp_path / "mended").touch()
    multi_process_dataset(dataset, process, out, num_workers=1, backend=local)
    assert ids(out) == [1]


@pytest.fixture
def interrupted(local: str, shown: Any, out: Path, calls: Calls, fragile: Any, tmp_path: Path) -> Any:
    """A call whose first run left two of four shards unfinished, and which would succeed now."""
    mended = tmp_path / "mended"

    def run(**options: Any) -> str:
        arguments: dict[str, Any] = {
            "dataset": Dataset.from_dict(numbered(40)),
            "process_func": fragile,
            "process_func_kwargs": {"size": 1},
            "num_workers": 2,
            "num_shards": 4,
        }
        return multi_process_dataset(output_path=out, backend=local, **{**arguments, **options})

    with pytest.raises(FailedShardsError):
        run()
    calls.take()
    mended.touch()
    return run


def test_resume_false_starts_over(interrupted: Any, out: Path, calls: Calls) -> None:
    """With ``resume=False`` an interrupted run is given up, and all shards run again."""
    interrupted(resume=False)
    assert calls.take() == [0, 10, 20, 30]
    assert ids(out) == list(range(40))


@pytest.mark.parametrize("workers", [1, 3])
def test_another_number_of_workers_resumes(interrupted: Any, out: Path, calls: Calls, workers: int) -> None:
    """Where num_shards is left open the plan of the interrupted run is kept, also with other workers."""
    interrupted(num_shards=None, num_workers=workers)
    assert calls.take() == [10, 20]
    assert ids(out) == list(range(40))


def other_function(dataset: Any, output_path: str, **options: Any) -> Any:
    """Do the same under another name."""
    return dataset


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "function": ({"process_func": other_function}, "process_func is .*other_function; it was .*fragile"),
    "argument": ({"process_func_kwargs": {"size": 2}}, "the argument 'size' has changed"),
    "new argument": ({"process_func_kwargs": {"size": 1, "more": 2}}, "the argument 'more' is new"),
    "no argument": ({"process_func_kwargs": None}, "the argument 'size' is gone"),
    "dataset": (
        {"dataset": Dataset.from_dict({**numbered(40), "text": ["other"] * 40})},
        "the dataset is another one",
    ),
    "seed": ({"seed": 1}, "the dataset is another one"),
    "rows": ({"dataset": Dataset.from_dict(numbered(41))}, "the dataset has 41 rows; it had 40"),
    "debug": ({"debug": True, "debug_size": 20}, "the dataset has 20 rows; it had 40"),
    "num_shards": ({"num_shards": 5}, "num_shards is 5; it was 4"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("local", ["seq"], indirect=True)
def test_a_call_that_differs_says_what_changed_and_the_ways_on(
    interrupted: Any, out: Path, calls: Calls, change: str
) -> None:
    """A changed function, argument, dataset or cut is refused before any work, and overwrite starts over."""
    options, says = CHANGES[change]
    with pytest.raises(ResumeError, match=says) as caught:
        interrupted(**options)
    assert "pass overwrite=True" in str(caught.value)
    assert 'resume="trust"' in str(caught.value)
    assert calls.take() == []
    assert len(list(out.parent.glob("out.partial/shards/*/record.json"))) == 2
    interrupted(**options, overwrite=True)
    if change != "function":
        assert len(calls.take()) == (5 if change == "num_shards" else 4)
    assert beside(out) == ["out"]


def test_trust_keeps_the_finished_shards_of_another_function(
    interrupted: Any, out: Path, calls: Calls
) -> None:
    """With ``resume="trust"`` finished shards are kept although the function has changed."""
    folder = calls.folder

    def mended(dataset: Any, output_path: str, **options: Any) -> Any:
        (folder / f"{dataset[0]['id']}-{uuid.uuid4()}").touch()
        return dataset

    interrupted(process_func=mended, resume="trust")
    assert calls.take() == [10, 20]
    assert ids(out) == list(range(40))


@pytest.mark.parametrize("change", ["rows", "num_shards"])
@pytest.mark.parametrize("local", ["seq"], indirect=True)
def test_another_cut_can_not_be_trusted(interrupted: Any, calls: Calls, change: str) -> None:
    """Shards of other rows are refused even with ``resume="trust"``."""
    options, says = CHANGES[change]
    with pytest.raises(ResumeError, match=says):
        interrupted(**options, resume="trust")
    assert calls.take() == []


def test_a_run_that_died_before_its_merge_only_merges(
    local: str, shown: Any, out: Path, calls: Calls, fragile: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Where all shards were finished the same call starts no work, shows all as done, and merges."""
    (tmp_path / "mended").touch()
    dataset = Dataset.from_dict(numbered(40))
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(dataset_sharding, "merge_shards", die)
        with pytest.raises(KeyboardInterrupt):
            multi_process_dataset(dataset, fragile, out, num_workers=2, num_shards=4, backend=local)
    assert len(calls.take()) == 4
    multi_process_dataset(dataset, fragile, out, num_workers=2, num_shards=4, backend=local)
    assert calls.take() == []
    assert {snapshot.done for snapshot in shown.displays[1].snapshots} == {40}
    assert ids(out) == list(range(40))


# --- The output's place ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dataset", "file", "folder"])
def test_what_exists_is_refused_before_any_work(kind: str, local: str, shown: Any, out: Path) -> None:
    """An output_path that exists is a FileExistsError before any work, and stays as it is."""
    out.parent.mkdir()
    if kind == "dataset":
        saved(Dataset.from_dict({"old": [1]}), out)
    elif kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        multi_process_dataset(Dataset.from_dict(numbered(4)), never, out, num_workers=1, backend=local)
    assert beside(out) == ["out"]
    assert shown.displays == []


def test_overwrite_replaces_the_old_data_only_when_the_new_is_whole(
    local: str, shown: Any, out: Path, tmp_path: Path
) -> None:
    """The old data can be read as long as the new is not whole, and after a run that failed."""
    out.parent.mkdir()
    saved(Dataset.from_dict({"id": [77]}), out)

    def process(dataset: Any, output_path: str) -> Any:
        if ids(out) != [77]:
            raise AssertionError("the old data is gone")
        if not (tmp_path / "mended").exists() and dataset[0]["id"]:
            raise ValueError("not yet")
        return dataset

    dataset = Dataset.from_dict(numbered(4))
    with pytest.raises(FailedShardsError, match="not yet"):
        multi_process_dataset(dataset, process, out, num_workers=2, backend=local, overwrite=True)
    assert ids(out) == [77]
    (tmp_path / "mended").touch()
    multi_process_dataset(dataset, process, out, num_workers=2, backend=local, overwrite=True)
    assert ids(out) == [0, 1, 2, 3]
    assert shown.displays[1].snapshots[0].initial == 2
    assert beside(out) == ["out"]


def test_the_output_appears_whole(local: str, shown: Any, out: Path) -> None:
    """As long as shards are processed nothing is at output_path."""
    seen = []

    def process(dataset: Any, output_path: str) -> Any:
        seen.append(beside(out))
        return dataset

    multi_process_dataset(
        Dataset.from_dict(numbered(6)), process, out, num_workers=2, num_shards=3, backend=local
    )
    assert seen == [["out.partial"]] * 3
    assert beside(out) == ["out"]


def test_a_run_inside_a_run_on_the_same_output_is_refused(local: str, shown: Any, out: Path) -> None:
    """A second run on the same output_path is refused, also in the same process; the first one goes on."""
    dataset = Dataset.from_dict(numbered(2))

    def process(rows: Any, output_path: str) -> Any:
        with pytest.raises(BusyError, match=f"process {os.getpid()} on"):
            multi_process_dataset(dataset, never, out, num_workers=1, backend="seq")
        return rows

    multi_process_dataset(dataset, process, out, num_workers=1, backend=local)
    assert ids(out) == [0, 1]


HOLDER = """
import pathlib, sys, time
from datasets import Dataset
from speedy_utils import multi_process_dataset
def process(dataset, output_path):
    pathlib.Path("started").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return dataset
if __name__ == "__main__":
    multi_process_dataset(Dataset.from_dict({"id": [0, 1]}), process, "out", num_workers=1, backend="mp",
                          overwrite=True)
"""


def test_a_second_program_on_the_same_output_is_refused(
    tmp_path: Path, until: Callable[..., Any], shown: Any
) -> None:
    """While another program works on an output_path a run there is refused, whatever its options."""
    (tmp_path / "holder.py").write_text(HOLDER)
    holder = subprocess.Popen([sys.executable, "holder.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: (tmp_path / "started").exists() or holder.poll() is not None)
        for options in ({}, {"resume": "trust"}, {"resume": False, "overwrite": True}):
            with pytest.raises(BusyError, match=f"process {holder.pid} on"):
                multi_process_dataset(
                    Dataset.from_dict({"id": [0, 1]}), never, tmp_path / "out", backend="seq", **options
                )
        (tmp_path / "go").touch()
        _, errors = holder.communicate(timeout=240)
    finally:
        holder.kill()
        holder.wait()
    assert holder.returncode == 0, errors
    assert ids(tmp_path / "out") == [0, 1]
    assert "100% 2/2" in errors


# --- What is shown ---------------------------------------------------------------------------------------


def test_merging_is_shown(local: str, shown: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While shards are merged the bar is full and says what the run is busy with."""
    merge = dataset_sharding.merge_shards
    merging = threading.Event()

    def look(snapshot: Any) -> None:
        if snapshot.phase == "merging":
            assert snapshot.done == snapshot.total == 10
            merging.set()

    def merge_when_shown(*args: Any) -> Path:
        assert merging.wait(240)
        return merge(*args)

    shown.hook = look
    monkeypatch.setattr(dataset_sharding, "merge_shards", merge_when_shown)
    multi_process_dataset(
        Dataset.from_dict(numbered(10)), upper, out, num_workers=2, backend=local, poll_interval=0.01
    )
    assert [shown.last.phase, shown.last.final] == ["", True]


@pytest.mark.ray
def test_starting_ray_is_shown(ray_session: None, shown: Any, out: Path, monkeypatch: Any) -> None:
    """While the engine starts the bar is there, empty, and says so."""
    from speedy_utils._ray import runtime

    connect = runtime.connect
    starting = threading.Event()

    def connect_when_shown(workers: int) -> None:
        assert starting.wait(240)
        connect(workers)

    shown.hook = lambda snapshot: starting.set() if snapshot.phase == "starting Ray" else None
    monkeypatch.setattr(runtime, "connect", connect_when_shown)
    multi_process_dataset(Dataset.from_dict(numbered(4)), upper, out, num_workers=2, poll_interval=0.01)
    phases = [snapshot.phase for snapshot in shown.snapshots]
    assert "starting Ray" in phases
    assert all(snapshot.done == 0 for snapshot in shown.snapshots if snapshot.phase == "starting Ray")


def test_bars_of_datasets_stay_off_the_terminal(
    local: str, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What ``datasets`` would draw in workers and while merging is not seen; afterwards it is again."""

    def process(dataset: Any, output_path: str) -> Any:
        mapped = dataset.map(lambda row: {"text": row["text"].upper()}, load_from_cache_file=False)
        mapped = mapped.filter(lambda row: row["id"] != 3, load_from_cache_file=False)
        mapped.save_to_disk(output_path)

    multi_process_dataset(
        Dataset.from_dict(numbered(10)),
        process,
        out,
        num_workers=2,
        num_shards=3,
        backend=local,
        progress=False,
    )
    assert tuple(capfd.readouterr()) == ("", "")
    assert len(ids(out)) == 9
    assert not are_progress_bars_disabled()


STRAY = """
from datasets import Dataset
from speedy_utils import multi_process_dataset
def process(dataset, output_path):
    dataset.map(lambda row: {"id": row["id"] + 1}).save_to_disk(output_path)
if __name__ == "__main__":
    multi_process_dataset(Dataset.from_dict({"id": [0, 1, 2]}), process, "out", num_workers=2, backend="seq")
"""


def test_bars_of_datasets_are_lines_of_the_run(driver: Any) -> None:
    """What datasets count in a shard's function shows in the run's own lines; no bar of theirs is drawn."""
    done = driver(STRAY, env={"HF_DATASETS_DISABLE_PROGRESS_BARS": None})
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1)[1] for line in done.stderr.splitlines()]
    names = [line.partition(":")[0] for line in lines]
    assert names[-2:] == ["Map", "Processing 3 items"], done.stderr
    assert set(names) == {"Map", "Processing 3 items"}  # saving is no work on the items
    assert "100% 3/3" in lines[-2]


@pytest.mark.parametrize("local", ["mp"], indirect=True)
def test_formats_reach_the_function(local: str, out: Path) -> None:
    """A shard has the format of the dataset, so a function sees the values it would see without us."""
    kinds = set()

    def process(dataset: Any, output_path: str) -> Any:
        kinds.update(type(row["id"]) for row in track(dataset))
        kinds.add(type(dataset[0]["id"]))
        return dataset

    dataset = Dataset.from_dict(numbered(10)).with_format("numpy")
    multi_process_dataset(dataset, process, out, num_workers=2, num_shards=3, backend=local, progress=False)
    assert kinds == {np.int64}
    assert load_from_disk(str(out)).format["type"] is None
