"""Tasks that are cancelled at any moment, and what they leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.recorder import Recorder, ignore
from tqdm import std

from speedy_utils import UNFINISHED, Interrupted, Snapshot, multi_process, report_progress
from speedy_utils._engines.in_process import threads
from speedy_utils._engines.in_process.threads import ThreadEngine
from speedy_utils._engines.task import TaskSettings, run_chunk
from speedy_utils._instrument.tqdm import capture as tqdm_capture
from speedy_utils._interrupts import Cancelled
from speedy_utils._worker import context
from speedy_utils._worker.chunk_reporter import ChunkReporter
from speedy_utils._worker.context import in_task
from speedy_utils._worker.reporter import Reporter
from speedy_utils._worker.tally import Tally
from speedy_utils.testing import RecordingSink


def make_bar(total: int) -> None:
    """Make a bar."""
    std.tqdm(total=total)


@pytest.mark.parametrize(
    ("location", "step", "sends"),
    [
        (context.flusher, "add", True),
        (context.flusher, "remove", True),
        (context.flusher, "remove", False),
        (tqdm_capture, "_patch_tqdm", False),
        (tqdm_capture._TaskBars, "close", False),
    ],
)
def test_a_task_that_is_cancelled_at_any_moment_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, location: Any, step: str, sends: bool
) -> None:
    """A task that is interrupted while it starts to count, or ends, leaves no reporter, route or bars."""
    interrupted: list[None] = []
    original = getattr(location, step)

    def interrupt(*args: Any) -> None:
        if step in ("add", "_patch_tqdm") or interrupted:
            original(*args)
        if not interrupted:
            interrupted.append(None)
            raise Cancelled

    monkeypatch.setattr(location, step, interrupt)
    chunk = ChunkReporter(lambda total: Reporter(0, total=total))
    with pytest.raises(Cancelled):
        run_chunk(make_bar, [1], {}, chunk, TaskSettings(), RecordingSink() if sends else None)
    assert not context._active
    assert not context.flusher._routes
    assert not tqdm_capture._tasks


def test_what_a_task_leaves_bound_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ctrl-C interrupts a task of "seq" before it has unbound its tally, later runs draw all the same."""

    @contextmanager
    def never_unbinding(tally: Tally) -> Iterator[None]:
        context.current.set(tally)
        yield

    monkeypatch.setattr("speedy_utils._engines.task.counting", never_unbinding)
    multi_process(abs, range(2), backend="seq", progress=False)
    assert context.current.get() is None
    assert not in_task()


def test_a_second_ctrl_c_leaves_no_thread_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it comes before the tasks of "threads" have been cancelled, they are cancelled at the close."""
    begun = threading.Barrier(2)
    threads: list[threading.Thread] = []

    def task(i: int) -> None:
        threads.append(threading.current_thread())
        begun.wait(240)
        if i == 0:
            raise ValueError("as if Ctrl-C was pressed here")
        while True:
            pass

    def interrupted(engine: ThreadEngine) -> None:
        raise Cancelled

    monkeypatch.setattr(ThreadEngine, "cancel", interrupted)
    with pytest.raises(Cancelled):
        multi_process(task, range(2), backend="threads", num_workers=2, progress=False)
    for thread in threads:
        thread.join(240)
        assert not thread.is_alive()


def test_what_had_ended_in_a_thread_that_goes_on_counts_with_its_items(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    """A thread that can't be interrupted leaves the results of its chunk, and what these had counted."""
    monkeypatch.setattr(threads, "CANCEL_GRACE_S", 0.05)
    closed = threading.Lock()

    def task(i: int) -> int:
        report_progress(5)
        if i == 40:
            closed.acquire(timeout=240)
        return i

    def press(snapshot: Snapshot) -> None:
        if snapshot.done >= 205:
            os.kill(os.getpid(), signal.SIGINT)
            recorder.hook = ignore

    recorder.hook = press
    with closed:
        with pytest.raises(Interrupted) as caught:
            multi_process(
                *(task, range(60)),
                backend="threads",
                num_workers=1,
                chunksize=60,
                progress=recorder,
                poll_interval=0.02,
            )
        assert caught.value.results == [*range(40)] + [UNFINISHED] * 20
        assert (recorder.last.done, recorder.last.tasks_done) == (205, 40)
