"""Loops over batches move the bar of a dataset run by their rows, or in proportion, on every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.recorder import Recorder
from support.screen import EmulatedTerminal
from tqdm import tqdm

from speedy_utils import FailedShardsError, Snapshot, multi_process_dataset, track
from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.terminal.screen import Screen

ROWS = 1_000

LOOPS: dict[str, Callable[[Any], Any]] = {
    "track, known batches": lambda shard: track(shard.iter(70)),
    "tqdm, known batches": lambda shard: tqdm(shard.iter(70), mininterval=0, miniters=1),
    "track, in proportion": lambda shard: track(range(20)),
    "tqdm, in proportion": lambda shard: tqdm(iter(range(20)), total=20, mininterval=0, miniters=1),
}


@pytest.fixture
def shard() -> Dataset:
    """Return the rows of a run of one shard."""
    return Dataset.from_dict({"id": range(ROWS)})


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_over_batches_moves_the_bar_as_far_as_it_is(
    loop: str, backend: str, shard: Dataset, recorder: Recorder, until: Any, tmp_path: Path
) -> None:
    """After ten of the batches the terminal shows their rows, and at the end exactly all."""
    make, seen, known = LOOPS[loop], tmp_path / "seen", "known" in loop
    terminal = EmulatedTerminal(100, 10)
    bars = BarDisplay(Screen(terminal, size=terminal.size), leave=True)
    expected = "70%" if known else "50%"

    def draw(snapshot: Snapshot) -> None:
        bars.show(snapshot)
        if expected in terminal.lines()[-1]:
            seen.touch()

    def work(dataset: Any, output_path: str) -> Any:
        for number, _ in enumerate(make(dataset)):
            if number == 10:
                until(seen.exists)
        return dataset

    recorder.hook = draw
    multi_process_dataset(
        shard,
        work,
        tmp_path / "out",
        num_shards=1,
        num_workers=1,
        backend=backend,
        poll_interval=0.02,
        progress=recorder,
    )
    bars.close()
    done = [snapshot.done for snapshot in recorder.snapshots]
    assert done == sorted(done)
    assert ROWS not in [snapshot.done for snapshot in recorder.snapshots if not snapshot.tasks_done] or known
    assert f"{ROWS:,}/{ROWS:,}" in terminal.lines()[-1]


def test_a_shard_that_fails_is_left_with_what_it_counted(
    backend: str, shard: Dataset, recorder: Recorder, until: Any, tmp_path: Path
) -> None:
    """What was shown in proportion is taken back when the task fails: it has reported ten elements."""
    seen = tmp_path / "seen"

    def touch(snapshot: Snapshot) -> None:
        if snapshot.done == 500:
            seen.touch()

    def work(dataset: Any, output_path: str) -> Any:
        for number in track(range(20)):
            if number == 10:
                until(seen.exists)
                raise ValueError(number)

    recorder.hook = touch
    with pytest.raises(FailedShardsError):
        multi_process_dataset(
            shard,
            work,
            tmp_path / "out",
            num_shards=1,
            num_workers=1,
            backend=backend,
            poll_interval=0.02,
            progress=recorder,
        )
    assert recorder.last.done == 10


@pytest.mark.parametrize("wrap", [track, tqdm])
def test_a_second_pass_is_reported_when_it_begins(
    wrap: Callable[..., Any],
    backend: str,
    shard: Dataset,
    recorder: Recorder,
    until: Any,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """The first pass counts all rows; one warning then says which loop is not counted, and how to name it."""
    seen = tmp_path / "seen"

    def touch(snapshot: Snapshot) -> None:
        if "begins another loop" in caplog.text:
            seen.touch()

    def work(dataset: Any, output_path: str) -> Any:
        for number in range(2):
            for _ in wrap(dataset):
                if number == 1:
                    until(seen.exists)
        return dataset

    recorder.hook = touch
    multi_process_dataset(
        shard,
        work,
        tmp_path / "out",
        num_shards=2,
        num_workers=1,
        backend=backend,
        poll_interval=0.02,
        progress=recorder,
    )
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "speedy_utils"]
    assert warning.startswith("task 0 has counted all its items, and begins another loop without a name (")
    assert f"{Path(__file__).name}:" in warning
    assert 'track(rows, desc="Pass 2")' in warning


def test_a_small_part_is_reported_once(
    backend: str, shard: Dataset, recorder: Recorder, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Batches that are not known count for one each: the first task that returns with few says what to do."""

    def work(dataset: Any, output_path: str) -> Any:
        for _ in track(dataset[start : start + 50] for start in range(0, len(dataset), 50)):
            pass
        return dataset

    multi_process_dataset(
        shard, work, tmp_path / "out", num_shards=2, num_workers=1, backend=backend, progress=recorder
    )
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "speedy_utils"]
    assert warning == (
        "task 0 reported 10 of 500 items and returned: all of them count now. "
        "If a loop goes over batches, say how many each stands for: track(batches, size=len)"
    )
