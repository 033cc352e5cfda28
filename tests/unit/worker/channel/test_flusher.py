"""The flusher sends what changed, and nothing that goes wrong with it hurts the work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest
from support.counts import Fixed
from support.waiting import wait_until

from speedy_utils._state.ledger import ENDED, RUN_ITEMS, Report
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.channel.flusher import (
    END_DELAY_S,
    END_TIMEOUT_S,
    RESEND_AFTER_S,
    Flusher,
)
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock, RecordingSink


class HandFlusher(Flusher):
    """A flusher whose thread does nothing: the test flushes."""

    def _run(self) -> None:
        pass


class Sink(RecordingSink):
    """A recording sink that may be busy, lose what it was sent last, or fail."""

    interval = 0.001

    def __init__(self) -> None:
        super().__init__()
        self.timings: list[StageTimings] = []
        self.busy = self.loses = self.fails = False
        self.arrives = True

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
        """Keep the reports and timings, unless an earlier report is on its way."""
        if self.fails:
            raise OSError("cable cut")
        if self.busy and not last:
            return False
        self.timings.append(timings)
        return super().send(reports, timings, last=last)

    def lost(self) -> bool:
        """Return what the test has set."""
        return self.loses

    def settled(self) -> bool:
        """Return the same."""
        return self.arrives


def counts(sink: RecordingSink) -> list[int]:
    """Return the counts that a sink was sent, in order."""
    return [int(report.counts[RUN_ITEMS]) for report in sink.reports]


@pytest.mark.parametrize(
    ("actions", "sent"),
    [
        pytest.param("flush, flush, count, flush, flush", [0, 1], id="only changes"),
        pytest.param("count, flush, take back, flush, flush", [1, 0], id="also what was taken back"),
        pytest.param("flush, wait, flush", [0], id="nothing before it is time to send again"),
        pytest.param("flush, wait, wait, flush, flush", [0, 0], id="once when it is"),
        pytest.param("busy, count, flush, count, flush", [], id="nothing to a busy sink"),
        pytest.param(
            "busy, count, flush, count, flush, idle, flush, flush", [2], id="the newest state later"
        ),
        pytest.param("flush, loses, flush, keeps, flush", [0, 0], id="at once what is known to be lost"),
        pytest.param("count, remove last, flush", [1], id="the last state on request"),
        pytest.param("count, flush, remove last", [1, 1], id="the last state also if it is unchanged"),
        pytest.param("busy, count, remove last", [1], id="the last state even to a busy sink"),
        pytest.param("count, remove, remove last, flush", [], id="nothing once removed"),
    ],
)
def test_what_is_sent(actions: str, sent: list[int]) -> None:
    """A sink is sent the newest state if that changed, was lost, is the last, or was sent long ago."""
    clock = FakeClock()
    flusher, reporter, sink = HandFlusher(clock), Reporter(0), Sink()
    flusher.add(reporter, sink)
    for action in actions.split(", "):
        match action:
            case "flush":
                flusher.flush()
            case "wait":
                clock.advance(RESEND_AFTER_S - 0.01)
            case "count":
                reporter.own.n += 1
            case "take back":
                reporter.own.n -= 1
                reporter.take_backs += 1
            case "busy" | "idle":
                sink.busy = action == "busy"
            case "loses" | "keeps":
                sink.loses = action == "loses"
            case _:
                flusher.remove(reporter, last=action == "remove last")
    assert counts(sink) == sent


def test_what_is_sent_again_is_a_later_reading() -> None:
    """Unchanged counts are sent again under a new number: so the driver learns that their worker is there."""
    clock = FakeClock()
    flusher, reporter, sink = HandFlusher(clock), Reporter(0), Sink()
    flusher.add(reporter, sink)
    for _ in range(3):
        flusher.flush()
        clock.advance(RESEND_AFTER_S)
    reporter.own.n += 1
    flusher.flush()
    first, again, once_more, changed = (report.reading for report in sink.reports)
    assert first < again < once_more < changed


@pytest.mark.parametrize(
    ("broken", "cause"), [("sink", "OSError: cable cut"), ("part", "ValueError: no count")]
)
def test_what_fails_is_logged_once_and_sent_later(
    caplog: pytest.LogCaptureFixture, broken: str, cause: str
) -> None:
    """A sink or a part that fails is logged once, with its cause and the task, and hurts no other task."""

    class Broken(Fixed):
        def read(self) -> int:
            raise ValueError("no count")

    flusher, reporter, sink, good = HandFlusher(), Reporter(7), Sink(), Sink()
    sink.fails, part = broken == "sink", Broken(0) if broken == "part" else Fixed(0)
    reporter.own.open(part)
    flusher.add(reporter, sink)
    flusher.add(Reporter(8), good)
    for _ in range(3):
        flusher.flush()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"the progress of task 7 can't be sent ({cause})")
    assert (counts(sink), counts(good)) == ([], [0])
    sink.fails = False
    reporter.own.close(part, 0)
    flusher.flush()
    assert (counts(sink), len(caplog.records)) == ([0], 1)


def test_timings_are_sent_with_the_state() -> None:
    """A sink gets how long ago a task started work on items, from the first state that has some."""
    clock, sink = FakeClock(), Sink()
    flusher, reporter = HandFlusher(clock), Reporter(0, clock=clock)
    flusher.add(reporter, sink)
    flusher.flush()
    clock.advance(1)
    reporter.own.n += 1
    flusher.flush()
    assert sink.timings == [{}, {None: (1, 0)}]


def test_without_a_thread_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If no thread can be started the task does not fail, and the next one tries again."""
    flusher, sink, reporter = Flusher(), Sink(), Reporter(1)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        flusher.add(Reporter(0), sink)
    assert caplog.messages == ["progress is not sent before tasks have ended: can't start new thread"]
    reporter.own.n += 3
    flusher.add(reporter, sink)
    wait_until(lambda: 3 in counts(sink))
    flusher.remove(reporter)


def test_thread_sends_by_itself_ends_when_idle_and_starts_again() -> None:
    """The thread ends once there is no reporter, and a new reporter starts another."""
    flusher = Flusher()
    for task in range(2):
        before = set(threading.enumerate())
        reporter, sink = Reporter(task), Sink()
        flusher.add(reporter, sink)
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
        reporter.own.n += 3
        wait_until(lambda: 3 in counts(sink))  # noqa: B023 - it is this turn's
        flusher.remove(reporter)
        thread.join(240)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("actions", "ended"),
    [
        pytest.param("flush, wait, flush, wait, flush", [True], id="once the outcome should be there"),
        pytest.param("wait, next, flush", [], id="not when the next task has started"),
        pytest.param(
            "lost, wait, flush, wait, flush, kept, wait, flush", [True] * 2, id="until it has arrived"
        ),
        pytest.param("busy, wait, flush, idle, wait, flush", [True], id="also when the sink was busy"),
        pytest.param("lost, wait, timeout, flush, flush", [], id="not for ever"),
    ],
)
def test_a_process_without_another_task_says_that_its_last_one_has_ended(
    actions: str, ended: list[bool]
) -> None:
    """Its outcome may have been lost: then the driver waits for it, and the process for another task."""
    clock = FakeClock()
    flusher, reporter, sink = HandFlusher(clock), Reporter(0), Sink()
    with flusher.sending_outcome(reporter, sink) as sending:
        flusher.flush()  # it packs
        sending.sending_s = 1.0
    assert [ENDED in report.counts for report in sink.reports] == [False]
    for action in actions.split(", "):
        match action:
            case "flush":
                flusher.flush()
            case "wait":
                clock.advance(max(RESEND_AFTER_S, END_DELAY_S + 1.0))
            case "timeout":
                clock.advance(END_TIMEOUT_S)
            case "next":
                flusher.add(Reporter(1), Sink())
            case "lost" | "kept":
                sink.arrives = action == "kept"
            case _:
                sink.busy, sink.arrives = action == "busy", action == "idle"
    assert [True for report in sink.reports if ENDED in report.counts] == ended


def test_the_end_of_a_task_is_not_kept_for_an_actor_that_was_never_there() -> None:
    """In a run that is over before its actor starts, idle processes soon ask for it no more."""
    clock = FakeClock()
    flusher, sink = HandFlusher(clock), Sink()
    sink.busy = True
    with flusher.sending_outcome(Reporter(0), sink):
        pass
    clock.advance(END_DELAY_S)
    flusher.flush()
    sink.busy = False
    clock.advance(RESEND_AFTER_S)
    flusher.flush()
    assert sink.reports == []
