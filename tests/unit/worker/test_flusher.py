"""The flusher sends what changed, and nothing that goes wrong with it hurts the work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest
from support.counts import Fixed
from support.waiting import wait_until

from speedy_utils._state.ledger import RUN_ITEMS, Report
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.flusher import RESEND_AFTER_S, Flusher
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock, RecordingSink


class HandFlusher(Flusher):
    """A flusher whose thread does nothing: the test flushes."""

    def _run(self) -> None:
        pass


class Sink(RecordingSink):
    """A recording sink that may be busy, lose what it was sent last, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.timings: list[StageTimings] = []
        self.busy = self.loses = self.fails = False

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


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def flusher(clock: FakeClock) -> Flusher:
    """A flusher that sends only when the test calls it."""
    return HandFlusher(clock)


def counts(sink: RecordingSink) -> list[int]:
    """The own counts that a sink was sent, in order."""
    return [int(report.counts[RUN_ITEMS]) for report in sink.reports]


def test_only_changes_are_sent(flusher: Flusher) -> None:
    """An unchanged state is sent once; zero is announced at once."""
    reporter, sink = Reporter(0), RecordingSink()
    flusher.add(reporter, sink)
    flusher.flush()
    flusher.flush()
    reporter.own.n += 2
    flusher.flush()
    flusher.flush()
    assert counts(sink) == [0, 2]


def test_unchanged_state_is_sent_again_after_two_seconds(flusher: Flusher, clock: FakeClock) -> None:
    """A sink that was restarted gets the states of idle tasks again within the resend interval."""
    sink = RecordingSink()
    flusher.add(Reporter(0), sink)
    flusher.flush()
    clock.advance(RESEND_AFTER_S - 0.01)
    flusher.flush()
    assert len(sink.reports) == 1
    clock.advance(0.01)
    flusher.flush()
    flusher.flush()
    assert len(sink.reports) == 2


def test_busy_sink_gets_the_newest_state_later(flusher: Flusher) -> None:
    """States that a sink does not take are dropped for the newest one, not queued."""
    reporter, sink = Reporter(0), Sink()
    flusher.add(reporter, sink)
    sink.busy = True
    for _ in range(3):
        reporter.own.n += 1
        flusher.flush()
    assert sink.reports == []
    sink.busy = False
    flusher.flush()
    flusher.flush()
    assert counts(sink) == [3]


def test_last_state_is_sent_on_request(flusher: Flusher) -> None:
    """A reporter that is removed sends its final state if asked to, and nothing after."""
    reporter, other, sink = Reporter(0), Reporter(1), RecordingSink()
    flusher.add(reporter, sink)
    flusher.add(other, sink)
    reporter.own.n = other.own.n = 5
    flusher.remove(reporter, last=True)
    flusher.remove(other)
    flusher.remove(other, last=True)
    flusher.flush()
    (report,) = sink.reports
    assert (report.task, report.counts[RUN_ITEMS]) == (0, 5)


def test_last_state_is_sent_even_to_a_busy_sink(flusher: Flusher) -> None:
    """The final state can't wait for an earlier one to arrive: there is no later for it."""
    reporter, sink = Reporter(0), Sink()
    flusher.add(reporter, sink)
    sink.busy = True
    reporter.own.n += 5
    flusher.remove(reporter, last=True)
    assert counts(sink) == [5]


@pytest.mark.parametrize(
    ("broken", "cause"), [("sink", "OSError: cable cut"), ("part", "ValueError: no count")]
)
def test_what_fails_is_logged_once_and_sent_later(
    flusher: Flusher, caplog: pytest.LogCaptureFixture, broken: str, cause: str
) -> None:
    """A sink or a part that fails is logged once, with its cause and the task, and hurts no other task."""

    class Broken(Fixed):
        def read(self) -> int:
            raise ValueError("no count")

    reporter, sink, good = Reporter(7), Sink(), RecordingSink()
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


def test_without_a_thread_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If no thread can be started the task does not fail, and the next one tries again."""
    flusher, sink = Flusher(), RecordingSink()

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        flusher.add(Reporter(0), sink)
    assert [record.message for record in caplog.records] == [
        "progress is not sent before tasks have ended: can't start new thread"
    ]
    reporter = Reporter(1)
    reporter.own.n += 3
    flusher.add(reporter, sink)
    wait_until(lambda: any(report.counts.get(RUN_ITEMS) == 3 for report in sink.reports))
    flusher.remove(reporter)


def test_a_state_that_is_known_to_be_lost_goes_again_at_once(flusher: Flusher) -> None:
    """A state whose receiver was gone is sent once more without delay, changed or not."""
    sink = Sink()
    flusher.add(Reporter(0), sink)
    flusher.flush()
    flusher.flush()
    assert counts(sink) == [0]
    sink.loses = True
    flusher.flush()
    assert counts(sink) == [0, 0]
    sink.loses = False
    flusher.flush()
    assert counts(sink) == [0, 0]


def test_timings_are_sent_with_the_state(flusher: Flusher, clock: FakeClock) -> None:
    """A sink gets how long ago a task started work on items, from the first state that has some."""
    reporter, sink = Reporter(0, clock=clock), Sink()
    flusher.add(reporter, sink)
    flusher.flush()
    clock.advance(1)
    reporter.own.n += 1
    flusher.flush()
    assert sink.timings == [{}, {None: (1, 0)}]


def test_thread_sends_by_itself_ends_when_idle_and_starts_again() -> None:
    """The thread ends once there is no reporter, and a new reporter starts another."""
    flusher = Flusher()
    for task in range(2):
        arrived = threading.Event()

        class Signal(RecordingSink):
            interval = 0.001

            def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
                if reports[0].counts[RUN_ITEMS] == 3:
                    arrived.set()  # noqa: B023 - it is this turn's
                return True

        before = set(threading.enumerate())
        reporter = Reporter(task)
        flusher.add(reporter, Signal())
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
        reporter.own.n += 3
        assert arrived.wait(240)
        flusher.remove(reporter)
        thread.join(240)
        assert not thread.is_alive()
