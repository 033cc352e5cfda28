"""The poller reads first, every so often and last, and no failure of a display reaches the work."""

from __future__ import annotations

import _thread
import logging
import math
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from tqdm import tqdm

from speedy_utils import (
    ProgressPoller,
    Snapshot,
    StageSnapshot,
)
from speedy_utils._run.poller import MAX_STRETCHED_S, READING_SHARE
from speedy_utils.testing import RecordingDisplay

LONG = 3_600.0


class Counter:
    """A source that counts its readings."""

    def __init__(self) -> None:
        self.readings = 0
        self.reached = threading.Event()

    def snapshot(self) -> Snapshot:
        """The number of readings so far."""
        self.readings += 1
        if self.readings == 5:
            self.reached.set()
        return Snapshot(StageSnapshot("Readings", self.readings, None))


class FailingDisplay(RecordingDisplay):
    """Raises when it is shown something, and when it is closed."""

    def show(self, snapshot: Snapshot) -> None:
        """Note it, and raise."""
        super().show(snapshot)
        raise OSError("no terminal")

    def close(self) -> None:
        """Note it, and raise."""
        super().close()
        raise OSError("no terminal")


def test_first_and_last_reading_are_shown() -> None:
    """However long the interval, the first state and the last one are shown, and the display is closed."""
    source, display = Counter(), RecordingDisplay()
    with ProgressPoller(source, display, LONG):
        pass
    assert [snapshot.done for snapshot in display.snapshots] == [1, 2]
    assert display.closed


def test_a_display_that_hangs_delays_the_start_for_a_moment_only() -> None:
    """Starting waits until something was shown, but no longer than it is allowed to."""
    go = threading.Event()

    class Hanging(RecordingDisplay):
        def show(self, snapshot: Snapshot) -> None:
            assert go.wait(60)
            super().show(snapshot)

    display = Hanging()
    poller = ProgressPoller(Counter(), display, LONG).start(0.01)
    assert display.snapshots == []
    go.set()
    poller.stop()
    assert len(display.snapshots) == 2


def test_ctrl_c_before_anything_is_shown_ends_the_thread() -> None:
    """A caller that is interrupted before the first reading leaves no thread and no open display behind."""

    class InterruptingDisplay(RecordingDisplay):
        def show(self, snapshot: Snapshot) -> None:
            super().show(snapshot)
            if len(self.snapshots) == 1:
                _thread.interrupt_main()

    display = InterruptingDisplay()
    with pytest.raises(KeyboardInterrupt):
        ProgressPoller(Counter(), display, LONG).start(30)
    assert display.closed
    assert "speedy_utils-poller" not in {thread.name for thread in threading.enumerate()}


def test_readings_go_on_by_themselves() -> None:
    """Between first and last there is a reading every interval."""
    source, display = Counter(), RecordingDisplay()
    with ProgressPoller(source, display, 0.001):
        assert source.reached.wait(30)
    assert [snapshot.done for snapshot in display.snapshots] == list(range(1, source.readings + 1))


def test_the_end_is_shown_once() -> None:
    """A reading that was under way when the run ended is the last that is shown."""

    class Ended(Counter):
        def snapshot(self) -> Snapshot:
            return replace(super().snapshot(), final=self.readings > 1)

    source, display = Ended(), RecordingDisplay()
    with ProgressPoller(source, display, 0.001):
        assert source.reached.wait(30)
    assert [(snapshot.done, snapshot.final) for snapshot in display.snapshots] == [(1, False), (2, True)]
    assert display.closed


def test_only_the_pollers_thread_touches_the_display() -> None:
    """Showing and closing happen in one thread, which has ended when the poller has stopped."""
    threads = []

    class Noting(RecordingDisplay):
        def show(self, snapshot: Snapshot) -> None:
            threads.append(threading.current_thread())

        def close(self) -> None:
            threads.append(threading.current_thread())

    with ProgressPoller(Counter(), Noting(), LONG):
        pass
    (thread,) = set(threads)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_failing_display_is_warned_of_once_and_the_source_still_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A display that fails is logged once, with its cause; it is left alone, and the reading goes on."""
    source, display = Counter(), FailingDisplay()
    with ProgressPoller(source, display, 0.001):
        assert source.reached.wait(30)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "can't be shown (OSError: no terminal); the work goes on" in record.message
    assert len(display.snapshots) == 1
    assert display.closed


def test_failing_source_is_warned_of_once_and_read_again(caplog: pytest.LogCaptureFixture) -> None:
    """A source that fails is logged once, with its cause, and shown as soon as it answers again."""

    class Flaky(Counter):
        def snapshot(self) -> Snapshot:
            snapshot = super().snapshot()
            if snapshot.done < 4:
                raise TimeoutError("no answer")
            return snapshot

    source, display = Flaky(), RecordingDisplay()
    poller = ProgressPoller(source, display, LONG)
    for _ in range(5):
        poller.poll()
    assert [snapshot.done for snapshot in display.snapshots] == [4, 5]
    (record,) = caplog.records
    assert "can't be read (TimeoutError: no answer)" in record.message


def test_stopping_twice_or_unstarted_is_fine() -> None:
    """Only the first stop does anything."""
    display = RecordingDisplay()
    ProgressPoller(Counter(), display, LONG).stop()
    assert display.snapshots == []
    poller = ProgressPoller(Counter(), display, LONG).start()
    poller.stop()
    poller.stop()
    assert len(display.snapshots) == 2


def test_exception_in_the_block_passes_after_the_last_reading() -> None:
    """A block that fails still ends with a last reading."""
    display = RecordingDisplay()
    with pytest.raises(ZeroDivisionError), ProgressPoller(Counter(), display, LONG):
        _ = 1 / 0
    assert len(display.snapshots) == 2
    assert display.closed


@pytest.mark.parametrize("interval", [0, -1, math.nan, math.inf])
def test_interval_must_be_above_zero(interval: float) -> None:
    """An interval that is no time to wait is an error that shows it."""
    with pytest.raises(ValueError, match=f"poll_interval must be above 0 seconds.* not {interval}"):
        ProgressPoller(Counter(), RecordingDisplay(), interval)


@pytest.mark.parametrize("interval", ["1", None, True])
def test_interval_must_be_a_number(interval: Any) -> None:
    """An interval that is no number is an error that shows it."""
    with pytest.raises(TypeError, match=f"poll_interval must be a number of seconds, not {interval!r}"):
        ProgressPoller(Counter(), RecordingDisplay(), interval)


def test_ctrl_c_while_it_starts_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poller that is interrupted once its thread runs ends, and closes the display."""
    display, start = RecordingDisplay(), threading.Thread.start
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ProgressPoller(Counter(), display, LONG).start()
    (thread,) = started
    thread.join(60)
    assert display.closed


def test_ctrl_c_that_left_tqdms_lock_taken_does_not_hang() -> None:
    """A thread that is interrupted while it has tqdm's lock releases it, and the last reading is shown."""

    class Drawing(RecordingDisplay):
        def show(self, snapshot: Snapshot) -> None:
            """Draw as tqdm does."""
            with tqdm.get_lock():  # type: ignore[no-untyped-call]
                super().show(snapshot)

    display, free = Drawing(), []

    def other() -> None:
        with tqdm.get_lock():  # type: ignore[no-untyped-call]
            free.append(True)

    def interrupted() -> None:
        with ProgressPoller(Counter(), display, 0.001):
            tqdm.get_lock().acquire()  # type: ignore[no-untyped-call]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert display.closed
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(60)
    assert free == [True]


def test_readings_that_take_long_come_less_often() -> None:
    """With thousands of workers the thread takes a part of a core, and the bar is seconds old at most."""

    class Busy(Counter):
        def snapshot(self) -> Snapshot:
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass
            return super().snapshot()

    poller = ProgressPoller(Busy(), RecordingDisplay(), 0.01)
    poller.poll()
    assert 0.05 / READING_SHARE <= poller.next_interval() <= MAX_STRETCHED_S
    cheap = ProgressPoller(Counter(), RecordingDisplay(), 3.0)
    cheap.poll()
    assert cheap.next_interval() == 3.0
