"""``multi_process_dataset``: columns that differ from shard to shard, and columns that are fixed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_from_disk
from support.recorder import Recorder
from support.rows import names, never, numbered

from speedy_utils import multi_process_dataset, track
from speedy_utils.errors import FailedShardsError, MergeError

HAS_JSON = hasattr(datasets, "Json")


def by_shard(rows: list[list[dict[str, Any]]], whole: bool) -> Callable[..., Any]:
    """A function that gives each shard of one row its own output, yielded or as a dataset."""

    def yields(dataset: Any) -> Iterator[Any]:
        yield from rows[dataset[0]["id"]]

    def returns(dataset: Any) -> Dataset:
        return Dataset.from_list(rows[dataset[0]["id"]])

    return returns if whole else yields


def without_nulls(value: Any) -> Any:
    """A value without the keys that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


CALL = {"name": "look", "arguments": {"q": "x"}}
FITTING: dict[str, list[list[dict[str, Any]]]] = {
    "an integer and a float": [[{"score": 1}], [{"score": 0.5}]],
    "an empty struct": [[{"m": {}}], [{"m": {"k": 1}}]],
    "struct keys": [[{"m": {"a": 1, "b": "x"}}], [{"m": {"a": 2}}], [{"m": {"c": [1]}}]],
    "chats": [
        [{"messages": [{"role": "user", "content": "hi"}]}],
        [{"messages": [{"role": "assistant", "content": None, "calls": [CALL]}], "tools": ["look"]}],
        [{"messages": []}],
    ],
}


@pytest.mark.parametrize("rows", FITTING.values(), ids=FITTING.keys())
@pytest.mark.parametrize("whole", [False, True], ids=["yielded", "returned"])
def test_columns_that_differ_are_mended(
    rows: list[list[dict[str, Any]]], whole: bool, local: str, out: Path
) -> None:
    """Types of shards widen to hold all of them; keys that a shard lacks are null there; no value changes."""
    process = by_shard(rows, whole)
    multi_process_dataset(
        numbered(len(rows)), process, out, num_workers=2, num_shards=len(rows), backend=local, progress=False
    )
    kept = [without_nulls(row) for row in load_from_disk(str(out))]
    assert kept == [without_nulls(row) for part in rows for row in part]


def test_a_column_that_shards_lack_is_said(local: str, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A column that is null in whole shards may be a name that was mistyped, so it is named in the log."""
    process = by_shard([[{"a": 1}], [{"a": 2, "b": "x"}]], whole=False)
    multi_process_dataset(
        numbered(2), process, out, num_workers=1, num_shards=2, backend=local, progress=False
    )
    assert load_from_disk(str(out))[:] == {"a": [1, 2], "b": [None, "x"]}
    assert "column 'b' is null in 1 of 2 shards, which lack it, such as shard 0 (rows 0-0)" in caplog.text


MISFIT = [[{"q": "s"}], [{"q": 3}], *([{"q": str(i)}] for i in range(6))]
SAYS = (
    "shard 1 (rows 1-1): column 'q' is int64 (row 0 holds 3), "
    "but string in shard 0 (rows 0-0) (row 0 holds 's')"
)


def test_a_misfit_stops_the_run_with_the_second_shard(backend: str, recorder: Recorder, out: Path) -> None:
    """The error comes early and shows both values; no more shards are started, and the finished ones stay."""
    with pytest.raises(MergeError) as caught:
        multi_process_dataset(
            numbered(8),
            by_shard(MISFIT, whole=False),
            out,
            num_workers=1,
            num_shards=8,
            backend=backend,
            progress=recorder,
        )
    assert SAYS in str(caught.value)
    assert "no more shards were started; 2 of 8 shards are finished, and kept" in str(caught.value)
    assert recorder.last.tasks_done == 2
    assert names(out.parent / "out.partial" / "shards") == ["00000", "00001"]


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "in a struct"])
@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_an_integer_that_no_float_holds_stops_the_run(
    place: int, nested: bool, local: str, recorder: Recorder, out: Path
) -> None:
    """It is found when the second shard finishes, whichever has the floats, and not when all are merged."""
    values = [[0.5], [1, 2**53 + 1]] if place else [[1, 2**53 + 1], [0.5]]
    rows: list[list[dict[str, Any]]] = [
        [{"n": {"k": value} if nested else value} for value in part] for part in [*values, *[[3]] * 6]
    ]
    with pytest.raises(MergeError) as caught:
        multi_process_dataset(
            numbered(8),
            by_shard(rows, whole=False),
            out,
            num_workers=1,
            num_shards=8,
            backend=local,
            progress=recorder,
        )
    assert f"shard {place} (rows {place}-{place}): row 1, column" in str(caught.value)
    assert "9007199254740993" in str(caught.value)
    assert recorder.last.tasks_done == 2


def test_a_misfit_can_be_left_for_later(local: str, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With ``on_column_mismatch="warn"`` all shards run, and none is merged; later none is started."""
    options: dict[str, Any] = {"num_workers": 1, "num_shards": 8, "backend": local, "progress": False}
    process = by_shard(MISFIT, whole=False)
    with caplog.at_level(logging.WARNING), pytest.raises(MergeError, match="nothing was merged"):
        multi_process_dataset(numbered(8), process, out, on_column_mismatch="warn", **options)
    assert SAYS in caplog.text
    assert len(names(out.parent / "out.partial" / "shards")) == 8
    with pytest.raises(MergeError, match="no shard was started; 8 of 8 shards are finished"):
        multi_process_dataset(numbered(8), process, out, **options)


@pytest.mark.skipif(not HAS_JSON, reason="these datasets have no Json")
def test_features_mend_what_no_type_holds(local: str, out: Path) -> None:
    """The same call with ``features=`` keeps the finished shards, casts them, and runs the others."""
    options: dict[str, Any] = {"num_workers": 1, "num_shards": 8, "backend": local, "progress": False}
    process = by_shard(MISFIT, whole=False)
    with pytest.raises(MergeError):
        multi_process_dataset(numbered(8), process, out, **options)
    multi_process_dataset(numbered(8), process, out, features=Features({"q": datasets.Json()}), **options)
    assert load_from_disk(str(out))["q"][:] == [row["q"] for part in MISFIT for row in part]


@pytest.mark.skipif(not HAS_JSON, reason="these datasets have no Json")
def test_json_in_one_shard_holds_the_others(local: str, out: Path) -> None:
    """Rows that one shard made with ``on_mixed_types="use_json"`` fit beside structs of others."""

    def process(dataset: Any) -> Dataset:
        first = dataset[0]["id"] == 0
        calls = (
            [{"args": [{"q": "s"}]}] if first else [{"args": [{"q": 3}, {"z": "a"}]}, {"args": [{"q": "t"}]}]
        )
        return Dataset.from_list(calls, on_mixed_types="use_json")

    multi_process_dataset(
        numbered(2), process, out, num_workers=1, num_shards=2, backend=local, progress=False
    )
    assert [row["args"] for row in load_from_disk(str(out))] == [
        [{"q": "s"}],
        [{"q": 3}, {"z": "a"}],
        [{"q": "t"}],
    ]


SCHEMA = pa.schema({"id": pa.int32(), "score": pa.float32(), "note": pa.string()})


@pytest.mark.parametrize("whole", [False, True], ids=["yielded", "returned"])
def test_features_fix_the_columns(whole: bool, local: str, out: Path) -> None:
    """With ``features=``, here an Arrow schema, each shard has these columns; one that it lacks is null."""
    rows: list[list[dict[str, Any]]] = [[{"id": 1, "score": 2}], [{"score": 0.5, "id": 3.0}], [{"id": None}]]
    multi_process_dataset(
        numbered(3),
        by_shard(rows, whole),
        out,
        num_workers=2,
        num_shards=3,
        backend=local,
        features=SCHEMA,
        progress=False,
    )
    result = load_from_disk(str(out))
    assert result.features == Features(
        {"id": Value("int32"), "score": Value("float32"), "note": Value("string")}
    )
    assert result[:] == {"id": [1, 3, None], "score": [2.0, 0.5, None], "note": [None] * 3}


@pytest.mark.parametrize("whole", [False, True], ids=["yielded", "returned"])
@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": 1.0}, {"id": 2.5}], "row 1, column 'id': .*2.5"),
        ([{"ids": 1}], "column 'ids': there is no such column in features, which has id, score, note"),
    ],
    ids=["a value", "a name"],
)
def test_features_change_no_value(rows: Any, says: str, whole: bool, local: str, out: Path) -> None:
    """A value that would change, and a column that the features lack, fail their shard and are named."""
    with pytest.raises(FailedShardsError, match=says):
        multi_process_dataset(
            numbered(2),
            by_shard([[{"id": 0}], rows], whole),
            out,
            num_workers=1,
            num_shards=2,
            backend=local,
            features=SCHEMA,
            progress=False,
        )


@pytest.mark.parametrize(
    ("value", "error"), [({}, ValueError), ("int64", TypeError), ({"n": "int64"}, TypeError)]
)
def test_features_that_are_none_are_refused_before_any_work(value: Any, error: Any, out: Path) -> None:
    """``features`` must be some columns, and ``on_column_mismatch`` one of two words."""
    with pytest.raises(error, match=r"features(\['n'\])? must"):
        multi_process_dataset(numbered(1), never, out, backend="seq", features=value)
    with pytest.raises(ValueError, match="on_column_mismatch must be"):
        multi_process_dataset(numbered(1), never, out, backend="seq", on_column_mismatch="skip")  # type: ignore[arg-type]
    assert names(out.parent) == []


@pytest.mark.parametrize("features", [None, Features({"id": Value("int64"), "score": Value("float64")})])
def test_a_corrected_function_runs_the_missing_shard_alone(
    features: Any, local: str, recorder: Recorder, out: Path
) -> None:
    """After a bug in one of 16 shards the corrected function runs that shard alone; all types are right."""
    options: dict[str, Any] = {"num_workers": 2, "num_shards": 16, "backend": local, "progress": recorder}

    def broken(dataset: Any) -> Iterator[Any]:
        for row in track(dataset):
            if row["id"] == 21:
                raise ZeroDivisionError
            yield {"id": row["id"], "score": 1}

    def corrected(dataset: Any) -> Iterator[Any]:
        # A comment, and a line that prints.
        print(end="")
        for row in track(dataset):
            yield {"id": row["id"], "score": 1 if row["id"] != 21 else 0.5}

    with pytest.raises(FailedShardsError, match="1 of 16 shards failed"):
        multi_process_dataset(numbered(32), broken, out, **options)
    multi_process_dataset(numbered(32), corrected, out, resume="trust", features=features, **options)
    assert recorder.runs[1][0].initial == 30
    result = load_from_disk(str(out))
    assert result.features == Features({"id": Value("int64"), "score": Value("float64")})
    assert result["id"][:] == list(range(32))
    assert result["score"][:] == [0.5 if i == 21 else 1.0 for i in range(32)]


def test_finished_shards_that_can_not_be_cast_run_again(
    local: str, recorder: Recorder, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``features=`` and ``overwrite=True`` the shards of wrong values run again, and no others."""
    options: dict[str, Any] = {"num_workers": 1, "num_shards": 8, "backend": local, "progress": recorder}
    with pytest.raises(MergeError, match="overwrite=True: shards that can't be cast run again"):
        multi_process_dataset(numbered(8), by_shard(MISFIT, whole=False), out, **options)

    def corrected(dataset: Any) -> Iterator[Any]:
        yield {"q": str(dataset[0]["id"])}

    options |= {"resume": "trust", "features": Features({"q": Value("string")})}
    with pytest.raises(MergeError, match="no shard was started; 2 of 8 shards are finished"):
        multi_process_dataset(numbered(8), corrected, out, **options)
    multi_process_dataset(numbered(8), corrected, out, overwrite=True, **options)
    assert load_from_disk(str(out))["q"][:] == ["s", *(str(i) for i in range(1, 8))]
    assert recorder.last.initial == 1
    assert "shard 1 (rows 1-1): row 0, column 'q': int64 can't become string" in caplog.text


def test_labels_of_finished_shards_are_in_their_range(local: str, out: Path) -> None:
    """Integers of finished shards become labels if each is one; else the row is named, and what to do."""
    options: dict[str, Any] = {"num_workers": 1, "num_shards": 3, "backend": local, "progress": False}
    rows = [[{"y": 1}, {"y": 0}], [{"y": -1}, {"y": 2}], [{}]]
    process = by_shard(rows, whole=False)
    with pytest.raises(FailedShardsError, match="1 of 3 shards failed"):
        multi_process_dataset(numbered(3), process, out, **options)
    rows[2] = [{"y": 1}]
    few, enough = (Features({"y": ClassLabel(num_classes=count)}) for count in (2, 3))
    with pytest.raises(MergeError, match=r"shard 1 \(rows 1-1\): row 1, column 'y': .*; the row holds 2"):
        multi_process_dataset(numbered(3), process, out, resume="trust", features=few, **options)
    multi_process_dataset(numbered(3), process, out, resume="trust", features=enough, **options)
    result = load_from_disk(str(out))
    assert result.features == enough
    assert result["y"][:] == [1, 0, -1, 2, 1]


@pytest.mark.parametrize("whole", [False, True], ids=["yielded", "returned"])
@pytest.mark.parametrize("label", [2, -2])
def test_labels_are_in_their_range(label: int, whole: bool, local: str, out: Path) -> None:
    """A label that ``features=`` does not have fails its shard, also if the shard's column was an integer."""
    with pytest.raises(FailedShardsError, match=r"row 1, column 'y(.k)?': "):
        multi_process_dataset(
            numbered(1),
            by_shard([[{"y": {"k": 1}}, {"y": {"k": label}}]], whole),
            out,
            num_workers=1,
            backend=local,
            features=Features({"y": {"k": ClassLabel(num_classes=2)}}),
            progress=False,
        )
