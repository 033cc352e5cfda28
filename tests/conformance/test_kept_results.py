"""What had finished when a run stopped is kept, on each backend and whatever stopped it."""

from __future__ import annotations

import os
import pickle
import signal
import time
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import UNFINISHED, Interrupted, Snapshot, TaskError, multi_process

FINISHED = 5


def square(i: int) -> int:
    """Return a square, but from 5 on only after a minute."""
    for _ in range(6000 if i >= FINISHED else 0):
        time.sleep(0.01)
    return i * i


def negated(i: int) -> int:
    """Return a number's negative."""
    return -i


def send_when_finished(number: int) -> Any:
    """Return what sends this process a signal, once the bar has shown that five tasks are done."""
    sent: list[int] = []

    def look(snapshot: Snapshot) -> None:
        if snapshot.tasks_done == FINISHED and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)

    return look


def test_a_failure_keeps_what_was_finished(backend: str) -> None:
    """The error of a task holds the results of those that had finished, in place, and says how many."""

    def task(i: int) -> int:
        if i == 3:
            raise ValueError(f"no {i}")
        return i * i

    with pytest.raises(TaskError) as caught:
        multi_process(task, range(6), backend=backend, num_workers=1, progress=False)
    results = caught.value.results
    assert results == [0, 1, 4, UNFINISHED, UNFINISHED, UNFINISHED]
    assert str(caught.value).endswith("\n\n3 of 6 results are kept in error.results")
    assert pickle.loads(pickle.dumps(caught.value)).results == results


def test_ctrl_c_keeps_what_was_finished(backend: str, recorder: Recorder) -> None:
    """Ctrl-C raises a KeyboardInterrupt with the results of exactly the tasks that had finished."""
    recorder.hook = send_when_finished(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        multi_process(
            square, range(1_000), backend=backend, num_workers=2, progress=recorder, poll_interval=0.02
        )
    assert caught.value.results == [0, 1, 4, 9, 16] + [UNFINISHED] * 995
    assert str(caught.value) == "stopped: 5 of 1,000 results are kept in error.results"
    assert recorder.last.tasks_done == FINISHED


def test_ctrl_c_in_the_middle_of_many_calls_keeps_those_that_the_bar_counts(
    backend: str, recorder: Recorder
) -> None:
    """Wherever Ctrl-C comes among many calls, the results are those of the tasks that count as done."""
    calls = 300_000
    pressed: list[int] = []

    def press(snapshot: Snapshot) -> None:
        if snapshot.tasks_done > calls // 3 and not pressed:
            pressed.append(snapshot.tasks_done)
            os.kill(os.getpid(), signal.SIGINT)

    recorder.hook = press
    with pytest.raises(Interrupted) as caught:
        multi_process(
            negated, range(calls), backend=backend, num_workers=2, progress=recorder, poll_interval=0.001
        )
    finished = {i: each for i, each in enumerate(caught.value.results) if each is not UNFINISHED}
    assert finished == {i: -i for i in finished}
    assert recorder.last.tasks_done == len(finished)
    assert pressed[0] <= len(finished) < calls


@pytest.mark.parametrize("backend", ["processes", "threads", "seq"], indirect=True)
def test_a_program_may_catch_sigterm_with_the_results(backend: str, recorder: Recorder) -> None:
    """SIGTERM goes the way of Ctrl-C: a program that catches it gets the results, and goes on."""
    recorder.hook = send_when_finished(signal.SIGTERM)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a Ray of another test has its own
    try:
        with pytest.raises(Interrupted) as caught:
            multi_process(
                square, range(9), backend=backend, num_workers=2, progress=recorder, poll_interval=0.02
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.results == [0, 1, 4, 9, 16] + [UNFINISHED] * 4


class StopError(BaseException):
    """Raised by a handler of the program's own."""


@pytest.mark.parametrize("backend", ["processes", "threads"], indirect=True)
def test_any_other_end_keeps_what_was_finished(
    backend: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that comes into the run from elsewhere gets the results too, and the log says so."""

    def stop(number: int, frame: Any) -> None:
        raise StopError

    before = signal.signal(signal.SIGUSR1, stop)
    recorder.hook = send_when_finished(signal.SIGUSR1)
    try:
        with pytest.raises(StopError) as caught:
            multi_process(
                square, range(9), backend=backend, num_workers=2, progress=recorder, poll_interval=0.02
            )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value.results == [0, 1, 4, 9, 16] + [UNFINISHED] * 4  # type: ignore[attr-defined]
    assert "stopped: 5 of 9 results are kept in error.results" in caplog.messages
