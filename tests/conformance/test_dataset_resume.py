"""``multi_process_dataset``: failures, and what the same call does after them."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.recorder import Recorder
from support.rows import ids, names, numbered

from speedy_utils import multi_process_dataset, report_progress, track
from speedy_utils.errors import FailedShardsError, ResumeError


class Calls:
    """Notes, in files that every worker can write, which shards were started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def take(self) -> list[int]:
        """Return the first rows of the shards that were started since the last time."""
        found = list(self.folder.iterdir())
        for file in found:
            file.unlink()
        return sorted(int(file.name.split("-")[0]) for file in found)


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    """Return the shards that were started."""
    return Calls(tmp_path / "calls")


@pytest.fixture
def fragile(calls: Calls, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that fails at rows 13 and 25 until the file ``mended`` is there."""
    folder, mended = calls.folder, tmp_path / "mended"

    def process(dataset: Any, output_path: str, **options: Any) -> Any:
        (folder / f"{dataset[0]['id']}-{uuid.uuid4()}").touch()
        for row in track(dataset):
            if row["id"] in (13, 25) and not mended.exists():
                raise ValueError(f"row {row['id']} is bad")
        return dataset

    return process


def test_one_failing_shard_does_not_stop_the_others(
    backend: str, recorder: Recorder, out: Path, tmp_path: Path, calls: Calls, fragile: Any
) -> None:
    """Failed shards are listed with rows, attempts and traceback; the same call then runs only those."""
    dataset = numbered(40)

    def run() -> str:
        return multi_process_dataset(
            dataset, fragile, out, num_workers=2, num_shards=4, backend=backend, progress=recorder
        )

    with pytest.raises(FailedShardsError) as caught:
        run()
    first, second = caught.value.errors
    assert (first.index, str(first.item), first.attempts) == (1, "shard 1 (rows 10-19)", 1)
    assert (second.index, str(second.item), second.attempts) == (2, "shard 2 (rows 20-29)", 1)
    assert isinstance(first.__cause__, ValueError)
    for part in (
        f"2 of 4 shards failed; 2 of 4 shards are finished, and kept in {str(out) + '.partial'!r}",
        'with resume="trust" also after process_func was corrected',
        "shard 1 (rows 10-19) failed after 1 attempt: ValueError: row 13 is bad",
        "The same in 1 more: shard 2\n  - shard 2 (rows 20-29): ValueError: row 25 is bad",
        'raise ValueError(f"row',
    ):
        assert part in str(caught.value)
    assert calls.take() == [0, 10, 20, 30]
    assert names(out.parent) == ["out.partial"]
    # 20 of finished shards, and what the failed ones had done
    assert (recorder.last.done, recorder.last.total) == (20 + 3 + 5, 40)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed, recorder.last.tasks_total) == (2, 2, 4)

    (tmp_path / "mended").touch()
    start = time.monotonic()
    assert run() == str(out)
    took = time.monotonic() - start
    assert calls.take() == [10, 20]
    assert ids(out) == list(range(40))
    again = recorder.runs[1]
    assert (again[0].done, again[0].initial, again[0].tasks_done) == (20, 20, 2)
    assert again[0].rate == 0
    assert (again[-1].done, again[-1].total, again[-1].tasks_done, again[-1].tasks_total) == (40, 40, 4, 4)
    assert 0 < again[-1].elapsed <= took
    assert again[-1].rate >= 20 / again[-1].elapsed  # merging is on the clock, and not in the rate
    assert names(out.parent) == ["out"]


def test_a_run_of_which_nothing_is_kept_says_what_to_do(local: str, out: Path) -> None:
    """If no shard is finished the error says so, and how less is lost; the number of shards is then free."""

    def process(dataset: Any) -> Any:
        raise ValueError("a bug")

    options: dict[str, Any] = {"num_workers": 1, "backend": local, "progress": False}
    with pytest.raises(FailedShardsError) as caught:
        multi_process_dataset(numbered(40), process, out, num_shards=2, **options)
    assert str(caught.value).startswith(
        "2 of 2 shards failed; none of 2 shards is finished, so nothing is kept. "
        "With more of them, such as num_shards=8, less is lost"
    )
    with pytest.raises(FailedShardsError) as caught:
        multi_process_dataset(numbered(2), process, out, num_shards=8, **options)
    assert "2 of 2 shards failed; none of 2 shards is finished, so nothing is kept\n" in str(caught.value)


class Loads:
    """A class whose calls would load a model."""

    def __init__(self, dataset: Any) -> None:
        """Take the shard."""
        raise ValueError("not today")


@pytest.mark.parametrize(
    ("rows", "options", "shards"),
    [
        (900, {}, 8),
        (450, {}, 4),
        (90, {}, 2),
        (900, {"ray_options": {"num_gpus": 0.5}}, 2),
        (900, {"process_func": Loads}, 2),
        (900, {"num_shards": 3}, 3),
    ],
    ids=["large", "smaller", "small", "GPUs", "a class", "given"],
)
def test_each_worker_gets_four_shards_by_default(
    rows: int, options: dict[str, Any], shards: int, recorder: Recorder, out: Path
) -> None:
    """Of a small dataset it gets fewer, and one if each shard may load a model."""
    arguments: dict[str, Any] = {"process_func": lambda dataset: dataset, **options}
    with suppress(FailedShardsError):
        multi_process_dataset(
            numbered(rows), output_path=out, num_workers=2, backend="seq", progress=recorder, **arguments
        )
    assert recorder.last.tasks_total == shards


def test_a_shard_is_cleared_before_it_runs_again(local: str, out: Path, tmp_path: Path) -> None:
    """What a failed attempt had written is gone when the shard runs again, and its output_path is free."""

    def process(dataset: Any, output_path: str) -> None:
        mended = (tmp_path / "mended").exists()
        Dataset.from_dict({"id": [1 if mended else 7]}).save_to_disk(output_path)
        if not mended:
            raise ValueError("after it wrote")

    options: Any = {"num_workers": 1, "backend": local, "progress": False}
    with pytest.raises(FailedShardsError):
        multi_process_dataset(numbered(1), process, out, **options)
    (tmp_path / "mended").touch()
    multi_process_dataset(numbered(1), process, out, **options)
    assert ids(out) == [1]


@pytest.fixture
def interrupted(local: str, out: Path, calls: Calls, fragile: Any, tmp_path: Path) -> Any:
    """Return a call whose first run left two of four shards unfinished, and which would succeed now."""
    mended = tmp_path / "mended"

    def run(**options: Any) -> str:
        arguments: dict[str, Any] = {
            "dataset": numbered(40),
            "process_func": fragile,
            "process_func_kwargs": {"size": 1},
            "num_workers": 2,
            "num_shards": 4,
            "progress": False,
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
    """If num_shards is left open the plan of the interrupted run is kept, also with other workers."""
    interrupted(num_shards=None, num_workers=workers)
    assert calls.take() == [10, 20]
    assert ids(out) == list(range(40))


def other_function(dataset: Any, output_path: str, **options: Any) -> Any:
    """Do the same under another name."""
    return dataset


CHANGES: dict[str, tuple[dict[str, Any], str, list[int]]] = {
    "function": ({"process_func": other_function}, "process_func is .*other_function; it was .*fragile", []),
    "argument": ({"process_func_kwargs": {"size": 2}}, "the argument 'size' is 2; it was 1", [0, 10, 20, 30]),
    "dataset": (
        {"dataset": Dataset.from_dict({"id": list(range(40)), "text": ["other"] * 40})},
        "the dataset is another one",
        [0, 10, 20, 30],
    ),
    "seed": ({"seed": 1}, "the dataset is another one", sorted(numbered(40).shuffle(seed=1)[::10]["id"])),
    "rows": ({"dataset": numbered(41)}, "the dataset has 41 rows; it had 40", [0, 11, 21, 31]),
    "debug": (
        {"debug": True, "debug_size": 20},
        "the dataset has 20 rows; it had 40",
        [0, 5, 10, 15],
    ),
    "num_shards": ({"num_shards": 5}, "num_shards is 5; it was 4", [0, 8, 16, 24, 32]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("local", ["seq"], indirect=True)
def test_a_call_that_differs_says_what_changed_and_the_ways_on(
    interrupted: Any, out: Path, calls: Calls, change: str
) -> None:
    """A changed function, argument, dataset or cut is refused before any work, and overwrite starts over."""
    options, says, started = CHANGES[change]
    with pytest.raises(ResumeError, match=says) as caught:
        interrupted(**options)
    assert "overwrite=True" in str(caught.value)
    assert 'resume="trust"' in str(caught.value)
    assert calls.take() == []
    assert len(list(out.parent.glob("out.partial/shards/*/record.json"))) == 2
    interrupted(**options, overwrite=True)
    assert calls.take() == started
    assert names(out.parent) == ["out"]


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
    options, says, _ = CHANGES[change]
    with pytest.raises(ResumeError, match=says):
        interrupted(**options, resume="trust")
    assert calls.take() == []


def test_a_run_that_stopped_at_its_merge_only_merges(
    local: str, recorder: Recorder, out: Path, calls: Calls, tmp_path: Path
) -> None:
    """If all shards are finished the same call starts no work, shows all as done, and merges."""
    folder = calls.folder

    def process(dataset: Any, output_path: str) -> Any:
        (folder / f"{dataset[0]['id']}-{uuid.uuid4()}").touch()
        out.touch()  # stands in the way of the output
        return dataset

    options: Any = {"num_workers": 2, "num_shards": 4, "backend": local, "progress": recorder}
    with pytest.raises(FileExistsError):
        multi_process_dataset(numbered(40), process, out, **options)
    assert len(calls.take()) == 4
    out.unlink()
    multi_process_dataset(numbered(40), process, out, **options)
    assert calls.take() == []
    assert {snapshot.done for snapshot in recorder.runs[1]} == {40}
    assert ids(out) == list(range(40))


def test_a_resumed_run_says_so_and_ends_with_the_lines_of_an_undisturbed_one(
    local: str, recorder: Recorder, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What kept shards have counted is counted on, and the log and the lines say that they were kept."""
    mended = tmp_path / "mended"

    def process(dataset: Any) -> Any:
        for row in track(dataset, desc="Tokenize"):
            report_progress(0, tokens=10)
            if row["id"] == 13 and not mended.exists():
                raise ValueError("row 13")
            yield row

    options: Any = {"num_workers": 2, "num_shards": 4, "backend": local, "progress": recorder}
    with pytest.raises(FailedShardsError):
        multi_process_dataset(numbered(40), process, out, **options)
    mended.touch()
    multi_process_dataset(numbered(40), process, out, **options)
    assert re.search(r"resumed: 3 of 4 shards kept from .*\d\d:\d\d, 1 to run", caplog.text)
    multi_process_dataset(numbered(40), process, tmp_path / "undisturbed", **options)
    resumed, undisturbed = recorder.runs[1][-1], recorder.runs[2][-1]
    assert (resumed.tasks_kept, undisturbed.tasks_kept) == (3, 0)
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d", resumed.kept_from)
    for line, expected in zip(resumed.lines, undisturbed.lines, strict=True):
        assert (line.name, line.done, line.total) == (expected.name, expected.done, expected.total)
        assert line.counters == expected.counters
        assert line.initial == 30
