"""``track(shard)`` in a dataset run: rows that can't be read are skipped, and errors name their row."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from support.recorder import Recorder
from support.rows import ids, names, numbered

from speedy_utils import multi_process_dataset, track
from speedy_utils.errors import FailedShardsError

BAD = (3, 13, 14, 25)


def unreadable(rows: int) -> Dataset:
    """Return rows of which some can't be read."""
    bad_ids = BAD  # a worker need not have this module

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        bad = [i for i in batch["id"] if i in bad_ids]
        if bad:
            raise OSError(f"image {bad[0]} is truncated")
        return batch

    return numbered(rows).with_transform(transform)


def skip(dataset: Any) -> Any:
    """Yield the rows that can be read."""
    for row in track(dataset, on_bad_row="skip"):
        yield {"id": row["id"]}


def listed(out: Path) -> list[dict[str, Any]]:
    """Return the rows that were skipped."""
    return [json.loads(line) for line in (out / "bad_rows.jsonl").read_text("utf-8").splitlines()]


ALL_LISTED = [
    {"row": row, "shard": row // 10, "item": row % 10, "reason": f"OSError: image {row} is truncated"}
    for row in BAD
]


def test_bad_rows_are_skipped_counted_and_listed(
    backend: str, recorder: Recorder, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All other rows are in the output; the bad ones are listed there with their place in the input."""
    multi_process_dataset(
        unreadable(40), skip, out, num_workers=2, num_shards=4, backend=backend, progress=recorder
    )
    assert ids(out) == [i for i in range(40) if i not in BAD]
    assert listed(out) == ALL_LISTED
    assert recorder.last.done == recorder.last.total == 40
    assert recorder.last.run_line.counters == {"bad_rows": 4}
    assert f"skipped 4 bad rows, listed in {out / 'bad_rows.jsonl'}" in caplog.messages
    # Another run replaces it all.
    multi_process_dataset(
        numbered(4), skip, out, num_workers=1, backend=backend, progress=False, overwrite=True
    )
    assert ids(out) == [0, 1, 2, 3]
    assert "bad_rows.jsonl" not in names(out)


def test_bad_rows_of_lost_attempts_and_of_a_resumed_run(
    backend: str, recorder: Recorder, out: Path, tmp_path: Path
) -> None:
    """A row is listed and counted once, also if its shard was started twice, or finished by another call."""
    lost, mended = tmp_path / "lost", tmp_path / "mended"

    def work(dataset: Any) -> Any:
        for row in track(dataset, on_bad_row="skip"):
            if row["id"] == 19 and not lost.exists():
                lost.touch()
                sys.exit("the worker is lost")
            if row["id"] == 29 and not mended.exists():
                raise ValueError("a bug")
            yield {"id": row["id"]}

    def run() -> None:
        multi_process_dataset(
            unreadable(40), work, out, num_workers=2, num_shards=4, backend=backend, progress=recorder
        )

    with pytest.raises(FailedShardsError, match=r"1 of 4 shards failed"):
        run()
    assert lost.exists()
    mended.touch()
    run()
    assert listed(out) == ALL_LISTED
    assert ids(out) == [i for i in range(40) if i not in BAD]
    assert recorder.last.done == 40
    assert recorder.last.run_line.counters == {"bad_rows": 4}


def test_error_names_the_row_of_the_input(backend: str, out: Path) -> None:
    """The row is that of the input, for rows that can't be read and for errors of the loop's body."""

    def work(dataset: Any) -> Any:
        for row in track(dataset):
            if row["id"] == 36:
                raise KeyError("label")
            yield {"id": row["id"]}

    with pytest.raises(FailedShardsError) as caught:
        multi_process_dataset(
            unreadable(40), work, out, num_workers=2, num_shards=4, backend=backend, progress=False
        )
    assert [(error.index, error.reason) for error in caught.value.errors] == [
        (0, "OSError: image 3 is truncated, at row 3 of the input"),
        (1, "OSError: image 13 is truncated, at row 13 of the input"),
        (2, "OSError: image 25 is truncated, at row 25 of the input"),
        (3, "KeyError: 'label', at row 36 of the input"),
    ]


@pytest.mark.parametrize("seed", [None, 7])
def test_rows_of_the_shard_in_other_forms(local: str, out: Path, seed: int | None) -> None:
    """Rows in another format and columns are the input's; of others no place in the input is claimed."""

    def work(dataset: Any) -> Any:
        def fail(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            raise OSError("truncated")

        for form in (
            dataset.with_transform(fail),
            dataset.select_columns(["id"]).with_transform(fail),
            dataset.select(range(len(dataset))[::-1]).with_transform(fail),
            dataset.filter(lambda row: row["id"] % 2 == 0).with_transform(fail),
        ):
            list(track(form, desc="try", on_bad_row="skip"))
        return dataset

    multi_process_dataset(
        numbered(8), work, out, num_shards=2, num_workers=1, backend=local, progress=False, seed=seed
    )
    found = listed(out)
    assert sorted(line["row"] for line in found if line["row"] is not None) == list(range(8))
    assert all(line["row"] in (None, 4 * line["shard"] + line["item"]) for line in found)
    assert len([line for line in found if line["row"] is None]) == 8 + 4
    assert len(load_from_disk(str(out))) == 8
