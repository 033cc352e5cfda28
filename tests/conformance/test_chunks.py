"""Items that travel together are items of their own, on each backend."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.backends import AT_ONCE
from support.recorder import Recorder

from speedy_utils import ProgressActor, TaskError, multi_process, report_progress, set_progress_context


def test_a_chunk_runs_in_one_worker_one_item_after_another(
    backend: str, recorder: Recorder, tmp_path: Path
) -> None:
    """With chunksize=5 each five run side by side; they count, and fail, as single ones do."""

    def task(i: int) -> tuple[int, int, int]:
        report_progress(2)
        number = len(list(tmp_path.iterdir()))
        (tmp_path / str(i)).touch()
        if i == 7:
            raise ValueError(f"no {i}")
        return i, os.getpid(), threading.get_ident() if number < 0 else 0

    options: Any = {"backend": backend, "num_workers": 2, "progress": recorder, "poll_interval": 0.05}
    results = multi_process(
        task, range(23), chunksize=5, total_items=lambda _: 2, on_error="continue", **options
    )
    error = results.pop(7)
    assert isinstance(error, TaskError)
    assert (error.index, error.item, error.attempts, error.reason) == (7, 7, 1, "ValueError: no 7")
    assert [result[0] for result in results] == [i for i in range(23) if i != 7]
    for start in range(0, 23, 5):
        assert len({pid for i, pid, _ in results if start <= i < start + 5}) == 1
    last = recorder.last
    assert (last.done, last.total, last.tasks_done, last.tasks_failed) == (46, 46, 22, 1)


@pytest.mark.parametrize("unbinds", [True, False])
def test_a_binding_ends_with_its_item(backend: str, recorder: Recorder, unbinds: bool) -> None:
    """An item may bind its thread to something else: the next one of the chunk counts for itself again."""

    def task(i: int, unbinds: bool) -> None:
        report_progress(3)
        set_progress_context(ProgressActor())
        report_progress(1000)
        if unbinds or i == 5:  # none is left for other tests
            set_progress_context(None)

    options: Any = {"backend": backend, "num_workers": 1, "progress": recorder}
    multi_process(task, range(6), chunksize=6, unbinds=unbinds, **options)
    assert (recorder.last.done, recorder.last.tasks_done) == (18, 6)


@pytest.mark.parametrize("chunksize", [None, 1, 100])
def test_many_small_items(backend: str, recorder: Recorder, chunksize: int | None) -> None:
    """Each comes back in its place, and counts once, however many travel together."""
    count = 200 if (backend, chunksize) == ("ray", 1) else 5_000
    options: Any = {"backend": backend, "num_workers": 2, "progress": recorder}
    results = multi_process(lambda i: -i, range(count), chunksize=chunksize, **options)
    assert results == [-i for i in range(count)]
    assert (recorder.last.done, recorder.last.tasks_done) == (count, count)


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_items_behind_one_that_hangs_run_elsewhere(
    backend: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """An item waits for all others, also for those of its chunk: they go to a worker that is free, once."""

    def task(i: int) -> int:
        if i == 60:
            until(lambda: len(list(tmp_path.iterdir())) == 199)
        (tmp_path / str(i)).touch(exist_ok=False)
        return i

    options: Any = {"backend": backend, "num_workers": 2, "progress": False}
    assert multi_process(task, range(200), **options) == [*range(200)]


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_a_worker_that_is_lost_in_a_chunk(backend: str, recorder: Recorder, tmp_path: Path) -> None:
    """What it had not sent runs again; an item that always ends its worker fails alone, after its retries."""

    def task(i: int) -> int:
        if i == 33:
            with (tmp_path / "tried").open("a") as file:
                file.write("x")
            if backend == "threads":
                raise SystemExit(3)
            os._exit(3)
        report_progress(1)
        return i

    options: Any = {"backend": backend, "num_workers": 2, "progress": recorder, "max_retries": 1}
    results = multi_process(
        task, range(100), chunksize=50, total_items=lambda _: 1, on_error="continue", **options
    )
    assert isinstance(results[33], TaskError)
    assert results[:33] + results[34:] == [i for i in range(100) if i != 33]
    assert (recorder.last.done, recorder.last.tasks_done, recorder.last.tasks_failed) == (99, 99, 1)
    assert 2 <= len((tmp_path / "tried").read_text()) <= 4
