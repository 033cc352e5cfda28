"""What happens when tasks fail, on each backend."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.backends import AT_ONCE, RAY
from support.recorder import Recorder

from speedy_utils import Snapshot, TaskError, multi_process, report_progress, track


def fails_at_two(i: int) -> int:
    """Report ten and return, except for 2."""
    if i == 2:
        report_progress(3)
        raise ValueError("two is too many")
    report_progress(10)
    return i


def ten(item: Any) -> int:
    """Any item stands for ten."""
    return 10


def test_a_failure_tells_what_failed(backend: str) -> None:
    """The error names the task, its item and its attempts, and has the exception as its cause."""
    with pytest.raises(TaskError) as caught:
        multi_process(fails_at_two, range(4), backend=backend, num_workers=1)
    error = caught.value
    assert (error.index, error.item, error.attempts) == (2, 2, 1)
    assert error.reason == "ValueError: two is too many"
    assert type(error.__cause__) is ValueError
    assert error.__cause__.args == ("two is too many",)
    assert "in fails_at_two" in error.traceback
    assert 'raise ValueError("two is too many")' in error.traceback
    assert "in _run_tasks" not in error.traceback
    for part in ("task 2", "item 2", "1 attempt", error.reason):
        assert part in str(error)
    shown = "".join(traceback.format_exception(error))  # what a program prints that ends by it
    assert shown.count('raise ValueError("two is too many")') == 1
    assert "in run_attempt" not in shown
    assert "in _call" not in shown


def test_a_failure_ends_the_run_at_its_true_state(backend: str, recorder: Recorder) -> None:
    """The bar of a run that failed ends short of its total, with what was finished."""
    with pytest.raises(TaskError):
        multi_process(
            fails_at_two, range(4), backend=backend, num_workers=1, total_items=ten, progress=recorder
        )
    assert (recorder.last.done, recorder.last.total) == (23, 40)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (2, 1)
    assert recorder.last.final


def test_after_a_failure_no_task_starts(backend: str, tmp_path: Path) -> None:
    """The first failure keeps the tasks from starting that have not."""

    def task(i: int) -> None:
        (tmp_path / str(i)).touch()
        fails_at_two(i)

    with pytest.raises(TaskError):
        multi_process(task, range(20), backend=backend, num_workers=1)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [0, 1, 2]


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_a_failure_stops_the_tasks_that_run(
    backend: str,
    recorder: Recorder,
    tmp_path: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
) -> None:
    """The first failure interrupts the tasks that are running, soon."""

    def task(i: int) -> None:
        if i == 0:
            try:
                (tmp_path / "started").touch()
                for _ in range(6000):
                    time.sleep(0.01)
                (tmp_path / "finished").touch()
            finally:
                (tmp_path / "ended").touch()
        until((tmp_path / "started").exists)
        raise ValueError

    start = time.monotonic()
    with pytest.raises(TaskError):
        multi_process(task, range(2), backend=backend, num_workers=2, progress=recorder)
    assert time.monotonic() - start < here(15)
    if backend == "threads":  # a Ray worker may also be killed
        until((tmp_path / "ended").exists)
    assert not (tmp_path / "finished").exists()


def test_with_continue_the_other_tasks_run(
    backend: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """With on_error="continue" the error takes the place of the result and is logged; the bar ends short."""
    results = multi_process(
        fails_at_two,
        range(5),
        backend=backend,
        num_workers=2,
        on_error="continue",
        total_items=ten,
        progress=recorder,
    )
    assert [results[i] for i in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert isinstance(results[2], TaskError)
    assert (results[2].index, results[2].item, results[2].attempts) == (2, 2, 1)
    assert type(results[2].__cause__) is ValueError
    assert (recorder.last.done, recorder.last.total) == (43, 50)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed, recorder.last.tasks_total) == (4, 1, 5)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.startswith("task 2 (item 2) failed after 1 attempt: ValueError: two is too many\n\nTraceback")


def test_with_continue_all_tasks_may_fail(backend: str, recorder: Recorder) -> None:
    """A run of which every task fails returns their errors."""

    def fail(i: int) -> None:
        raise KeyError(i)

    results = multi_process(
        fail, range(4), backend=backend, num_workers=2, on_error="continue", progress=recorder
    )
    assert [result.index for result in results] == [0, 1, 2, 3]
    assert [result.__cause__.args for result in results] == [(0,), (1,), (2,), (3,)]
    assert (recorder.last.done, recorder.last.total, recorder.last.tasks_failed) == (0, 4, 4)


def test_an_exception_is_not_retried(backend: str, recorder: Recorder, tmp_path: Path) -> None:
    """An exception of the function would come again: its task runs once, whatever max_retries says."""

    def task(i: int) -> None:
        with (tmp_path / "calls").open("a") as file:
            file.write("x")
        raise OSError("no")

    with pytest.raises(TaskError):
        multi_process(task, [0], backend=backend, max_retries=5, progress=recorder)
    assert (tmp_path / "calls").read_text() == "x"
    assert recorder.last.retries == 0


def test_sys_exit_is_the_loss_of_a_worker(backend: str, recorder: Recorder, tmp_path: Path) -> None:
    """A task that calls sys.exit() is started again, up to max_retries times, and then fails."""

    def task(i: int) -> int:
        if i == 1:
            with (tmp_path / "calls").open("a") as file:
                file.write("x")
            report_progress(4)
            sys.exit(7)
        return i

    results = multi_process(
        task,
        range(3),
        backend=backend,
        num_workers=2,
        on_error="continue",
        max_retries=2,
        total_items=ten,
        progress=recorder,
    )
    assert (results[0], results[2]) == (0, 2)
    error = results[1]
    assert isinstance(error, TaskError)
    assert (error.index, error.attempts) == (1, 3)
    assert "sys.exit(7)" in error.reason
    assert "3 attempts" in str(error)
    assert (tmp_path / "calls").read_text() == "xxx"
    assert (recorder.last.done, recorder.last.total) == (24, 30)
    assert (recorder.last.tasks_failed, recorder.last.retries) == (1, 2)


def test_sys_exit_may_succeed_the_next_time(
    backend: str, recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that is started again and succeeds counts once, and one line says why."""

    def task(i: int) -> int:
        for done, _ in enumerate(track(range(10))):
            if i == 1 and done == 5 and not (tmp_path / "left").exists():
                (tmp_path / "left").touch()
                sys.exit("enough")
        return i

    results = multi_process(
        task, range(3), backend=backend, num_workers=2, total_items=ten, progress=recorder
    )
    assert results == [0, 1, 2]
    (line,) = [record.getMessage() for record in caplog.records if "runs again" in record.getMessage()]
    assert line.startswith("task 1 (item 1) runs again, attempt 2 of 4: sys.exit('enough') in the function")
    assert (recorder.last.done, recorder.last.total, recorder.last.retries) == (30, 30, 1)


def test_without_retries_one_loss_is_a_failure(backend: str) -> None:
    """With max_retries=0 a task is started once."""
    with pytest.raises(TaskError, match=r"after 1 attempt: sys\.exit\(None\)") as caught:
        multi_process(lambda i: sys.exit(), [0], backend=backend, max_retries=0)
    assert caught.value.attempts == 1


class OddError(Exception):
    """Pickles, and can't be unpickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"odd {first} and {second}")


class LockedError(Exception):
    """Can't be pickled."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class MuteError(Exception):
    """Can't be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class BadRepr:
    """Can't be shown either."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class NosyError(Exception):
    """Fails where it is asked for anything that it has not, such as its notes."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def noted() -> Exception:
    """An error with something to say beside what it was."""
    error = ValueError("the cause")
    vars(error)["__notes__"] = ["a note"]  # what add_note() makes, which Python 3.10 has not
    return error


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (noted, "ValueError: the cause"),
        (lambda: OddError(1, 2), "odd 1 and 2"),
        (lambda: NosyError("nosy"), "NosyError"),
        (lambda: SyntaxError("bad", ("f", 1, 1, b"text")), "SyntaxError"),
        (LockedError, "locked"),
        (MuteError, "MuteError"),
        (lambda: ValueError(BadRepr()), "ValueError"),
    ],
    ids=["notes", "odd __init__", "bad __getattr__", "bad text", "unpicklable", "mute", "bad repr"],
)
def test_odd_exceptions_are_described_too(backend: str, make: Callable[[], Exception], reason: str) -> None:
    """An exception that can't be sent, or shown, still gives an error that says what it was."""

    def task(i: int) -> None:
        raise make()

    with pytest.raises(TaskError) as caught:
        multi_process(task, [0], backend=backend)
    assert reason in caught.value.reason
    assert "in task" in caught.value.traceback
    assert reason in str(caught.value)


class StopEverything(BaseException):
    """Not meant to be caught by ``except Exception``."""


@pytest.mark.parametrize("kind", [StopEverything, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt])
def test_other_base_exceptions_are_failures_of_their_task(
    backend: str, recorder: Recorder, kind: type[BaseException]
) -> None:
    """An exception that is no Exception fails its task like any other; but see the next test."""
    if backend == "seq" and kind is KeyboardInterrupt:
        return

    def task(i: int) -> int:
        if i == 1:
            raise kind("enough")
        return i

    results = multi_process(
        task, range(3), backend=backend, num_workers=2, on_error="continue", progress=recorder
    )
    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], TaskError)
    assert "enough" in results[1].reason
    assert type(results[1].__cause__) is kind
    assert recorder.last.tasks_failed == 1


def test_a_keyboard_interrupt_in_the_callers_thread_ends_the_run(recorder: Recorder) -> None:
    """On "seq" the thread of the function is the caller's, so a KeyboardInterrupt of its own is Ctrl-C."""

    def task(i: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        multi_process(task, range(4), backend="seq", on_error="continue", progress=recorder)
    assert recorder.last.final
    assert recorder.last.done == 0


class Unreadable:
    """Can be sent, and not be read by who gets it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return json.loads, ("no JSON",)


@pytest.mark.parametrize("backend", [RAY, "processes"], indirect=True)
def test_what_can_not_travel_fails_its_task_alone(backend: str, recorder: Recorder) -> None:
    """An item, a result or an exception that can't be sent, or read, is the failure of its task."""
    items = [threading.Lock() if i == 9 else Unreadable() if i == 25 else i for i in range(40)]

    def task(item: Any) -> Any:
        if item == 3:
            raise LockedError
        if item == 12:
            return threading.Lock()
        return Unreadable() if item == 30 else item

    results = multi_process(
        task, items, backend=backend, num_workers=2, on_error="continue", progress=recorder
    )
    failed = {i: result.reason for i, result in enumerate(results) if isinstance(result, TaskError)}
    assert sorted(failed) == [3, 9, 12, 25, 30]
    assert [each for each in results if not isinstance(each, TaskError)] == [
        i for i in range(40) if i not in failed
    ]
    assert "item can't be sent to a worker: item is a _thread.lock. Make it inside func, or use" in failed[9]
    assert failed[12].startswith("its result can't be sent back: result is a _thread.lock: return plain")
    assert failed[25].startswith("its item could not be read in a worker: JSONDecodeError: ")
    assert failed[30].startswith("its result could not be read: JSONDecodeError: ")
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (35, 5)


def test_a_message_of_megabytes_is_shortened(backend: str) -> None:
    """What is too long is left out, and what terminals obey is; the exception itself is whole."""

    def task(i: int) -> None:
        link = "\x1b]8;;https://x.org\x1b\\link\x1b]8;;\x1b\\"
        raise ValueError(f"\x1b[31m{link}" + "x" * 3_000_000 + "\x1b[0m\x1b[2K\r\n" + "y\n" * 1_000_000)

    with pytest.raises(TaskError) as caught:
        multi_process(task, [0], backend=backend)
    error = caught.value
    assert error.reason.startswith("ValueError: linkxxx")
    assert " … (4,999,016 characters) … " in error.reason
    assert len(error.reason) < 1_100
    assert "in task" in error.traceback
    assert len(error.traceback) < 11_000
    assert not {"\x1b", "\r", "\a"} & set(str(error))
    assert len(str(error.__cause__)) > 5_000_000


class NeededError(Exception):
    """Takes more than its message, and can't be pickled whole."""

    def __init__(self, message: str, *, code: int, held: Any = None) -> None:
        super().__init__(message, held)
        self.code, self.held = code, held


@pytest.mark.parametrize("held", [False, True], ids=["plain", "lock"])
def test_an_exception_keeps_its_type(backend: str, held: bool) -> None:
    """The cause has the type and what can be sent, also with a required argument, or with a lock in it."""

    def task(i: int) -> None:
        raise NeededError("no", code=402, held=threading.Lock() if held else None)

    with pytest.raises(TaskError) as caught:
        multi_process(task, [0], backend=backend)
    cause = caught.value.__cause__
    assert type(cause) is NeededError
    assert (cause.code, cause.args[0]) == (402, "no")


def test_an_item_that_can_not_be_shown_is_no_trouble(backend: str) -> None:
    """The error of a task names its item even where the item's own repr fails."""
    with pytest.raises(TaskError) as caught:
        multi_process(len, [BadRepr()], backend=backend)
    assert "BadRepr whose repr raised RuntimeError" in str(caught.value)


def test_the_exceptions_own_cause_is_in_the_traceback(backend: str) -> None:
    """The worker's traceback shows what the exception was raised from."""

    def task(i: int) -> None:
        try:
            {}["missing"]
        except KeyError as error:
            raise RuntimeError("wrapped") from error

    with pytest.raises(TaskError) as caught:
        multi_process(task, [0], backend=backend)
    assert "KeyError: 'missing'" in caught.value.traceback
    assert "RuntimeError: wrapped" in caught.value.traceback


def test_a_failing_display_is_reported_once_and_work_goes_on(
    backend: str,
    recorder: Recorder,
    tmp_path: Path,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If the display fails the run goes on without it, with one warning that has the cause."""

    def fail(snapshot: Snapshot) -> None:
        if len(recorder.snapshots) > 1:
            (tmp_path / "failed").touch()
            raise OSError("the terminal is gone")

    def task(i: int) -> int:
        until((tmp_path / "failed").exists)
        return i

    recorder.hook = fail
    results = multi_process(
        task, range(4), backend=backend, num_workers=1, poll_interval=0.01, progress=recorder
    )
    assert results == [0, 1, 2, 3]
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "OSError: the terminal is gone" in warning.getMessage()
    assert len(recorder.snapshots) == 2


def test_a_run_works_after_a_failed_one(backend: str, recorder: Recorder) -> None:
    """A failure leaves nothing behind that would disturb the next run."""
    with pytest.raises(TaskError):
        multi_process(
            fails_at_two, range(4), backend=backend, num_workers=2, total_items=ten, progress=recorder
        )
    assert multi_process(abs, range(4), backend=backend, num_workers=2, progress=recorder) == [0, 1, 2, 3]
    assert (recorder.last.done, recorder.last.total) == (4, 4)
