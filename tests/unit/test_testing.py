"""The kit for users' tests does what it promises."""

from __future__ import annotations

import pytest
from support.threads import in_thread

from speedy_utils import Snapshot, StageSnapshot, report_progress, track, tracked
from speedy_utils._state.ledger import RUN_ITEMS, Report
from speedy_utils.testing import FailingSink, FakeClock, RecordingDisplay, RecordingSink


def test_clock_moves_when_asked() -> None:
    """A fake clock starts at zero and moves only forward, by what it is asked to."""
    clock = FakeClock()
    assert clock() == clock() == 0
    clock.advance(1.5)
    clock.advance(0)
    with pytest.raises(ValueError, match="seconds must be at least 0, not -1"):
        clock.advance(-1)
    assert clock() == 1.5


def test_sink_collects_what_its_block_counts() -> None:
    """A sink's block is a task: what is counted in it, by whatever means, can be asked for at any time."""
    with RecordingSink() as sink:
        report_progress(2)
        assert (sink.done, sink.counters) == (2, {})
        list(track("abc", desc="Read"))
        tracked(total=5)(lambda: None)()
        in_thread(report_progress)
        report_progress(0, tokens=5)
        report_progress(0, tokens=0.5)
        report_progress(0, desc="Read", bytes=9)
    report_progress(100, tokens=100)
    assert (sink.done, sink.stages, sink.totals) == (8, {"Read": 3}, {"Read": 3})
    assert sink.counters == {None: {"tokens": 5.5}, "Read": {"bytes": 9}}


def test_sink_may_be_used_again_also_after_an_error() -> None:
    """An exception passes the block, which ends, and the blocks of one sink add up."""
    sink = RecordingSink()

    def failing() -> None:
        with sink:
            report_progress(3)
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failing()
        report_progress(100)
    assert sink.done == 6


def test_sink_keeps_reports() -> None:
    """As a reporter's sink it keeps every state in order."""
    sink, reports = RecordingSink(), [Report(0, 1, {RUN_ITEMS: n}) for n in range(3)]
    assert sink.send(reports[:1], {})
    assert sink.send(reports[1:], {None: (1.0, 0.0)})
    assert (sink.reports, sink.lost()) == (reports, False)


def test_failing_sink_fails() -> None:
    """A failing sink raises the very exception that it was given, and counts how often."""
    error = OSError("mine")
    sink = FailingSink(error)
    for _ in range(2):
        with pytest.raises(OSError, match="mine") as caught:
            sink.send([], {})
        assert caught.value is error
    assert sink.calls == 2
    with pytest.raises(ConnectionError, match="this sink fails"):
        FailingSink().send([], {})


def test_display_keeps_snapshots() -> None:
    """A recording display keeps all it was shown, and notes that it was closed."""
    display, snapshots = RecordingDisplay(), [Snapshot(StageSnapshot("Run", n, 2)) for n in (1, 2)]
    for snapshot in snapshots:
        display.show(snapshot)
    assert (display.snapshots, display.last, display.closed) == (snapshots, snapshots[1], False)
    display.close()
    assert display.closed
