"""The kit for users' tests does what it promises."""

from __future__ import annotations

import threading

import pytest

from speedy_utils import Snapshot, StageSnapshot, report_progress, testing, track, tracked
from speedy_utils._state.ledger import RUN_ITEMS, Report
from speedy_utils.testing import FailingSink, FakeClock, RecordingDisplay, RecordingSink


def test_kit_names_what_it_has() -> None:
    """``__all__`` names the public part of the kit."""
    assert testing.__all__ == ["FailingSink", "FakeClock", "RecordingDisplay", "RecordingSink"]
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_clock_moves_when_asked() -> None:
    """A fake clock starts at zero and moves only forward, by what it is asked to."""
    clock = FakeClock()
    assert clock() == clock() == 0
    clock.advance(1.5)
    clock.advance(0)
    assert clock() == 1.5
    with pytest.raises(ValueError, match="seconds must be at least 0, not -1"):
        clock.advance(-1)
    assert clock() == 1.5


def test_sink_collects_what_its_block_counts() -> None:
    """A sink's block is a task: what is counted in it, by whatever means, can be asked for at any time."""
    with RecordingSink() as sink:
        report_progress(2)
        assert sink.done == 2
        list(track("abc", desc="Read"))
        tracked(total=5)(lambda: None)()
        thread = threading.Thread(target=report_progress)
        thread.start()
        thread.join()
    report_progress(100)
    assert (sink.done, sink.stages, sink.totals) == (8, {"Read": 3}, {"Read": 3})


def test_sink_collects_counters_by_stage() -> None:
    """What is counted beside the items can be asked for by stage; None is the task's own."""
    with RecordingSink() as sink:
        assert sink.counters == {}
        report_progress(1, tokens=5)
        report_progress(1, tokens=0.5)
        report_progress(1, desc="Read", bytes=9)
    assert sink.counters == {None: {"tokens": 5.5}, "Read": {"bytes": 9}}


def test_sink_ends_with_its_block_also_on_an_error() -> None:
    """An exception passes the block, which ends, and what was counted is kept."""
    sink = RecordingSink()

    def failing() -> None:
        with sink:
            report_progress(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    report_progress(100)
    assert sink.done == 1


def test_sink_may_be_used_again() -> None:
    """Two blocks with one sink add up."""
    sink = RecordingSink()
    for _ in range(2):
        with sink:
            report_progress(3)
    assert sink.done == 6


def test_nested_sinks_are_apart() -> None:
    """The inner block counts for the inner sink only."""
    with RecordingSink() as outer:
        report_progress(1)
        with RecordingSink() as inner:
            report_progress(2)
        report_progress(4)
    assert (outer.done, inner.done) == (5, 2)


def test_sink_keeps_reports() -> None:
    """As a reporter's sink it keeps every state in order."""
    sink, reports = RecordingSink(), [Report(0, 1, {RUN_ITEMS: n}) for n in range(3)]
    assert sink.send(reports[:1], {})
    assert sink.send(reports[1:], {None: (1.0, 0.0)})
    assert sink.reports == reports


def test_failing_sink_fails() -> None:
    """A failing sink raises what it was given, and counts how often."""
    with pytest.raises(ConnectionError, match="this sink fails"):
        FailingSink().send([], {})
    sink, error = FailingSink(OSError("mine")), None
    for _ in range(2):
        with pytest.raises(OSError, match="mine") as caught:
            sink.send([], {})
        assert error in (None, caught.value)
        error = caught.value
    assert sink.calls == 2


def test_display_keeps_snapshots() -> None:
    """A recording display keeps all it was shown, and notes that it was closed."""
    display = RecordingDisplay()
    assert (display.snapshots, display.closed) == ([], False)
    first, second = (Snapshot(StageSnapshot("Run", n, 2)) for n in (1, 2))
    display.show(first)
    display.show(second)
    display.close()
    assert display.snapshots == [first, second]
    assert (display.last, display.closed) == (second, True)


def test_code_can_be_tested_without_any_of_it() -> None:
    """Instrumented code works as it is outside a run."""

    @tracked
    def shout(words: list[str]) -> list[str]:
        report_progress(0)
        return [word.upper() for word in track(words, desc="Shout")]

    assert shout(["a", "b"]) == ["A", "B"]
