"""Tasks that are tried again after an exception, and tasks that run for too long, on each backend."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import TaskError, multi_process, report_progress


class BusyError(Exception):
    """The error of a server; it holds what can't be sent to another process."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code, self.lock = code, threading.Lock()


def two(item: Any) -> int:
    """Any item stands for two."""
    return 2


@pytest.fixture
def failing(tmp_path: Path) -> Callable[[int, int, BaseException], int]:
    """Return what raises an error the first few times that it is called for an item, and counts."""

    def call(item: int, times: int, error: BaseException) -> int:
        report_progress(1)
        calls = tmp_path / str(item)
        before = len(calls.read_text()) if calls.exists() else 0
        if before < times:
            calls.write_text("x" * (before + 1))
            raise error
        report_progress(1)
        return item

    return call


def test_a_few_of_many_calls_fail_twice(
    backend: str,
    recorder: Recorder,
    failing: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All results are there, all counts are exact, each retry is counted, and the first of them is logged."""

    def call(item: int) -> int:
        return failing(item, 2 if item % 100 in (7, 50, 51) else 0, ConnectionError("reset"))

    results = multi_process(
        call,
        range(10_000),
        backend=backend,
        num_workers=2,
        total_items=two,
        retry_on=(ConnectionError,),
        retry_wait=0.01,
        progress=recorder,
    )
    assert results == [*range(10_000)]
    assert (recorder.last.done, recorder.last.total, recorder.last.retries) == (20_000, 20_000, 600)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (10_000, 0)
    assert max(snapshot.done for snapshot in recorder.snapshots) <= 20_000
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "attempt 2 of 4: ConnectionError: reset" in line


def test_retries_are_bounded_and_other_exceptions_have_none(
    backend: str, recorder: Recorder, failing: Callable[..., int]
) -> None:
    """A task fails for good after max_retries, or with an exception that is not named."""

    def call(item: int) -> int:
        return failing(item, 9, OSError("no") if item else ValueError("no"))

    errors = multi_process(
        call,
        range(2),
        backend=backend,
        num_workers=1,
        on_error="continue",
        max_retries=2,
        retry_on=OSError,
        retry_wait=0,
        progress=recorder,
    )
    assert [(error.index, error.attempts) for error in errors] == [(0, 1), (1, 3)]
    assert (recorder.last.tasks_failed, recorder.last.retries) == (2, 2)


def test_functions_decide_about_exceptions_that_can_not_be_sent(
    backend: str, recorder: Recorder, failing: Callable[..., int]
) -> None:
    """They are asked where the exception is, so they see all of it; and they say how long to wait."""

    def call(item: int) -> int:
        return failing(item, 1, BusyError(code=429 if item else 400))

    results = multi_process(
        call,
        range(2),
        backend=backend,
        num_workers=1,
        on_error="continue",
        retry_on=lambda error: error.code == 429,
        retry_wait=lambda attempt, error: 0.001 * attempt * error.code,
        progress=recorder,
    )
    assert isinstance(results[0], TaskError)
    assert (results[0].attempts, results[0].reason) == (1, "BusyError: code 400") or "code 400" in str(
        results[0]
    )
    assert (results[1], recorder.last.retries) == (1, 1)


def test_a_function_that_fails_is_no_retry(backend: str) -> None:
    """What retry_on or retry_wait raise is said with the exception that they were asked about."""

    def call(item: int) -> int:
        raise OSError("no")

    with pytest.raises(TaskError, match=r"OSError: no \(and retry_on or retry_wait raised KeyError: 'code'"):
        multi_process(call, [0], backend=backend, retry_on=lambda error: {}["code"])


def test_waiting_holds_no_worker(backend: str, tmp_path: Path, recorder: Recorder) -> None:
    """While a task waits for its next attempt the others run, and what it had counted is taken back."""
    waits_for = [str(tmp_path / str(item)) for item in (1, 2)]

    def call(item: int) -> int:
        report_progress(1)
        if item:
            Path(tmp_path, str(item)).touch()
        elif not all(Path(each).exists() for each in waits_for):
            error = ConnectionError("429")
            error.retry_after = 0.3  # type: ignore[attr-defined]
            raise error
        return item

    results = multi_process(
        call,
        range(3),
        backend=backend,
        num_workers=1,
        retry_on=(ConnectionError,),
        retry_wait=0,
        total_items=3,
        progress=recorder,
    )
    assert results == [0, 1, 2]
    assert (recorder.last.done, recorder.last.retries) == (3, 1)


def test_a_run_says_that_it_waits_to_try_again(recorder: Recorder, failing: Callable[..., int]) -> None:
    """The line says so while no task runs."""
    error = ConnectionError("429")
    error.retry_after = 0.5  # type: ignore[attr-defined]
    multi_process(
        lambda item: failing(item, 1, error),
        range(1),
        backend="threads",
        retry_on=ConnectionError,
        retry_wait=0,
        poll_interval=0.01,
        progress=recorder,
    )
    assert any(snapshot.phase == "waiting to try 1 task again" for snapshot in recorder.snapshots)


@pytest.mark.parametrize("retried", [False, True])
def test_a_task_that_runs_for_too_long_ends(
    backend: str, recorder: Recorder, tmp_path: Path, retried: bool
) -> None:
    """It fails with a TimeoutError that says where it stood, or is tried again; the others go on."""
    mark = tmp_path / "tried"

    def call(item: int) -> int:
        if item == 2 and not (retried and mark.exists()):
            mark.touch()
            while True:
                pass
        return item

    results = multi_process(
        call,
        range(4),
        backend=backend,
        num_workers=2,
        on_error="continue",
        task_timeout=0.5,
        retry_on=(TimeoutError,) if retried else (),
        retry_wait=0,
        progress=recorder,
    )
    found = results[2]
    assert results[:2] + results[3:] == [0, 1, 3]
    if retried:
        assert (found, recorder.last.retries) == (2, 1)
        return
    assert isinstance(found, TaskError)
    assert type(found.__cause__) is TimeoutError
    assert found.reason.startswith("TimeoutError: it ran for longer than task_timeout=0.5 seconds, and stood")
    assert "in call" in found.reason
    assert found.traceback.rstrip().endswith(found.reason.partition(" [")[0])


def test_a_coroutine_that_runs_for_too_long_is_cancelled(backend: str, tmp_path: Path) -> None:
    """It can clean up, and its task fails with a TimeoutError."""

    async def call(item: int) -> int:
        import asyncio

        try:
            await asyncio.sleep(600 * item)
        finally:
            (tmp_path / str(item)).touch()
        return item

    limit = 3.0 if backend == "ray" else 0.5  # its workers may take that long to import asyncio
    results = multi_process(
        call, range(2), backend=backend, num_workers=2, on_error="continue", task_timeout=limit
    )
    assert results[0] == 0
    assert type(results[1].__cause__) is TimeoutError
    assert (tmp_path / "1").exists()


def test_a_thread_that_can_not_be_ended_is_replaced(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """On threads a call that does not return is given up, with a warning, and the others go on."""
    release = threading.Lock()
    release.acquire()

    def call(item: int) -> int:
        if item == 1:
            release.acquire()
            release.release()
        return item

    results = multi_process(
        call,
        range(5),
        backend="threads",
        num_workers=1,
        on_error="continue",
        task_timeout=0.2,
        chunksize=3,
        progress=recorder,
    )
    release.release()
    assert type(results.pop(1).__cause__) is TimeoutError
    assert results == [0, 2, 3, 4]
    assert any("task 1 can't be ended" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retry_on": "OSError"}, TypeError),
        ({"retry_wait": -1}, ValueError),
        ({"task_timeout": 0}, ValueError),
    ],
)
def test_wrong_limits_are_refused_before_the_start(options: dict[str, Any], error: type[Exception]) -> None:
    """An argument that can't be meant is an error that names it, before anything runs."""
    with pytest.raises(error, match=next(iter(options))):
        multi_process(time.sleep, [0], backend="seq", **options)
