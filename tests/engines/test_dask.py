"""One bar for Dask: each task has a key, and what runs again under it counts once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from support import foreign_work
from support.recorder import Recorder

from speedy_utils import report_progress, tracking

ITEMS = range(1, 9)


def _again(n: int, mark: str) -> int:
    report_progress(n)
    if n in (3, 5) and not Path(f"{mark}{n}").exists():
        Path(f"{mark}{n}").touch()
        if n == 3:
            raise ValueError("once")
        time.sleep(0.5)  # the flusher writes what was counted
        os._exit(1)
    report_progress(n)
    return n


@pytest.mark.filterwarnings("default")  # those of a Dask that is newer or older than Python expects
def test_dask_counts_each_task_once(tmp_path: Path, recorder: Recorder) -> None:
    """Bound calls in workers of a cluster add up; those of a worker that is killed, or raised, run again."""
    distributed: Any = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        with tracking(total=28, progress=recorder) as run:
            assert client.gather(client.map(run.bind(foreign_work.mixed), ITEMS)) == [*ITEMS]
            assert run.snapshot().done == 28
        with tracking(total=72, progress=recorder) as run:
            calls = client.map(run.bind(_again), ITEMS, mark=str(tmp_path / "mark"), retries=3)
            assert client.gather(calls) == [*ITEMS]
    assert [(snapshots[-1].done, snapshots[-1].complete) for snapshots in recorder.runs] == [
        (28, True),
        (72, True),
    ]
