"""While the last tasks run, what is waited for is named, and the time that is left is that of the slowest."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from support.backends import AT_ONCE
from support.recorder import Recorder
from support.rows import numbered
from support.waiting import wait_until

from speedy_utils import Snapshot, multi_process_dataset, track


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_the_slow_shard_is_named(backend: str, recorder: Recorder, tmp_path: Path, out: Path) -> None:
    """Of two shards the one that takes longer is named, with its rows, as far as it is; the run goes on."""
    flag = tmp_path / "flag"

    def look(snapshot: Snapshot) -> None:
        if snapshot.waiting_for is not None and snapshot.waiting_for.done == 5:
            flag.touch()

    def process(dataset: Dataset) -> list[dict[str, int]]:
        rows = []
        for row in track(dataset):
            rows.append(row)
            if row["id"] == 15:
                wait_until(flag.exists)
        return rows

    recorder.hook = look
    multi_process_dataset(
        numbered(20), process, str(out), backend=backend, num_workers=2, num_shards=2, progress=recorder
    )
    named = [snapshot.waiting_for for snapshot in recorder.snapshots if snapshot.waiting_for is not None]
    task = next(task for task in named if task.done == 5)
    assert (task.index, task.item, task.total) == (1, "shard 1 (rows 10-19)", 10)
    assert task.node
    assert recorder.last.waiting_for is None
    assert recorder.last.eta == 0
