"""Tallies add up exactly, and the flusher sends what changed without ever hurting the work."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest
from support.counts import by_stage

from speedy_utils._state.ledger import RUN_ITEMS, Count, Key, Metric, Report, Stage
from speedy_utils._state.timings import StageTimings
from speedy_utils._worker.flusher import RESEND_AFTER_S, Flusher
from speedy_utils._worker.reporter import Reporter, Tally
from speedy_utils.testing import FailingSink, FakeClock, RecordingSink


class Fixed:
    """A part that has counted so much."""

    def __init__(self, done: int) -> None:
        self.done = done

    def read(self) -> int:
        """Items finished so far."""
        return self.done


class HandFlusher(Flusher):
    """A flusher whose thread does nothing: the test flushes."""

    def _run(self) -> None:
        pass


class BusySink(RecordingSink):
    """Takes states only while it is not busy."""

    busy = False

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
        """Keep the reports, unless an earlier one is under way."""
        return (last or not self.busy) and super().send(reports, timings, last=last)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def flusher(clock: FakeClock) -> Flusher:
    """A flusher that sends when the test says so."""
    return HandFlusher(clock)


@pytest.fixture
def tiny_switches() -> Iterator[None]:
    """Threads take turns as often as Python allows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def counts(sink: RecordingSink) -> list[int]:
    """The own counts that a sink was sent, in order."""
    return [int(report.counts[RUN_ITEMS]) for report in sink.reports]


def items(counts: Mapping[Key, Count]) -> dict[Stage, Count]:
    """The items of a report, by stage."""
    return by_stage(counts, Metric.ITEMS)


def test_tally_adds_its_parts() -> None:
    """A tally reads what was added to it and what its open parts have counted."""
    tally = Reporter(0).own
    loop = Fixed(3)
    tally.n += 4
    tally.open(loop)
    assert tally.capped_count() == 7
    loop.done = 5
    assert tally.capped_count() == 9
    tally.close(loop, 6)
    loop.done = 99
    assert tally.capped_count() == 10


def test_limit_stops_the_count_but_not_what_was_reported() -> None:
    """A tally counts no further than its limit, and still knows what was reported."""
    tally = Tally(Reporter(0), None, 10)
    tally.n += 8
    tally.open(Fixed(5))
    assert (tally.capped_count(), tally.raw_count()) == (10, 13)


def test_part_that_closes_while_it_is_read_counts_once() -> None:
    """A reader looks at the whole before its parts, so a part that ends meanwhile is not counted twice."""
    tally = Reporter(0).own

    class Closing(Fixed):
        def read(self) -> int:
            tally.close(self, self.done)
            return self.done

    tally.open(Closing(5))
    assert tally.capped_count() == 5
    assert tally.capped_count() == 5


def test_reading_during_a_close_is_never_ahead() -> None:
    """A part is taken out before its count is added, so a reading in between is behind, not ahead."""
    tally = Reporter(0).own
    seen: list[int] = []

    class Watched(Fixed):
        def __hash__(self) -> int:
            seen.append(tally.raw_count())
            return id(self)

    part = Watched(5)
    tally.open(part)
    seen.clear()
    tally.close(part, 5)
    assert seen
    assert max(seen) <= 5


@pytest.mark.usefixtures("tiny_switches")
def test_threads_that_add_to_one_tally_lose_nothing() -> None:
    """Eight threads that add and open parts at once are counted to the item, and never ahead."""
    tally = Reporter(0).own
    start, high = threading.Barrier(9), []

    def add() -> None:
        start.wait()
        for turn in range(3_000):
            tally.n += 1
            if turn % 10 == 0:
                part = Fixed(2)
                tally.open(part)
                tally.close(part, 2)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        high.append(tally.capped_count())
    for thread in threads:
        thread.join()
    assert tally.capped_count() == 8 * (3_000 + 600)
    assert max(high, default=0) <= tally.capped_count()


@pytest.mark.usefixtures("tiny_switches")
def test_threads_that_declare_at_once_lose_nothing() -> None:
    """A stage's total is the sum of what all threads of a task declare for it, and clamps to no less."""
    reporter = Reporter(0)
    start = threading.Barrier(8)

    def add() -> None:
        start.wait()
        for _ in range(4_000):
            reporter.declare("Read", 1)
            reporter.stage("Read").n += 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = reporter.capped_counts()
    assert (counts[Key("Read", Metric.ITEMS)], counts[Key("Read", Metric.TOTAL)]) == (32_000, 32_000)


def test_stages_are_apart() -> None:
    """Each stage has one tally, and None is the task's own."""
    reporter = Reporter(3, 2)
    reporter.stage("Read").n += 2
    reporter.stage("Read").n += 1
    reporter.stage(None).n += 4
    assert reporter.stage(None) is reporter.own
    task, attempt, counted = reporter.report()
    assert (task, attempt, items(counted)) == (3, 2, {None: 4, "Read": 3})


def test_a_report_is_within_limits_and_reported_is_not() -> None:
    """Live counts stop at the task's total, in every stage; the driver gets what was really reported."""
    reporter = Reporter(0, total=10)
    reporter.own.n += 12
    reporter.stage("Read").n += 11
    assert items(reporter.capped_counts()) == {None: 10, "Read": 10}
    assert items(reporter.raw_counts()) == {None: 12, "Read": 11}


def test_declared_totals_add_up_and_limit_their_stage() -> None:
    """Two loops in one stage declare the sum of their totals, which is also the most it can count."""
    reporter = Reporter(0, total=100)
    reporter.declare("Read", 5)
    reporter.declare("Read", 2)
    reporter.declare(None, 50)
    reporter.stage("Read").n += 9
    reporter.own.n += 60
    counted = reporter.capped_counts()
    assert items(counted) == {None: 60, "Read": 7}
    assert by_stage(counted, Metric.TOTAL) == {None: 50, "Read": 7}


def test_a_report_tells_where_its_task_has_come() -> None:
    """A task says that it is at work, and to which stages it has come, with items there or without."""
    reporter = Reporter(0)
    assert by_stage(reporter.capped_counts(), Metric.TASKS_STARTED) == {None: 1}
    reporter.stage("Read")
    reporter.declare("Write", 5)
    assert by_stage(reporter.capped_counts(), Metric.TASKS_STARTED) == {None: 1, "Read": 1, "Write": 1}


@pytest.mark.parametrize("total", [None, 9])
def test_a_report_tells_how_much_a_stage_has(total: int | None) -> None:
    """A stage has the task's total, or a part of its own, or, where nobody can tell, an open one."""
    reporter = Reporter(0, total=total)
    for stage, declared in {"Same": 9, "Less": 4, "Loose": None}.items():
        reporter.declare(stage, declared)
    reporter.declare("Mixed", 4)
    reporter.declare("Mixed", None)
    reporter.stage("Counted").n += 1
    counted = reporter.capped_counts()
    own = {} if total is None else dict.fromkeys(("Same", "Loose", "Mixed", "Counted"), 9)
    assert by_stage(counted, Metric.TOTAL) == {"Same": 9, "Less": 4} | own
    assert by_stage(counted, Metric.TASKS_WITH_OWN_TOTAL).keys() == (
        {"Same", "Less"} if total is None else {"Less"}
    )
    assert by_stage(counted, Metric.TASKS_WITHOUT_TOTAL).keys() == (
        {"Loose", "Mixed", "Counted"} if total is None else set()
    )


def test_a_report_tells_units_and_counters_of_its_stages() -> None:
    """Units are told as names, counters as sums; floats stay within what a float can hold."""
    reporter = Reporter(0)
    reporter.unit("Download", "B")
    reporter.own.add_to_counters({"tokens": 3, "loss": 0.5})
    reporter.own.add_to_counters({"tokens": 4})
    for _ in range(2):
        reporter.stage("Read").add_to_counters({"tokens": sys.float_info.max})
    counted = reporter.capped_counts()
    assert counted[Key("Download", Metric.UNIT, "B")] == 1
    assert counted[Key(None, Metric.COUNTER, "tokens")] == 7
    assert counted[Key(None, Metric.COUNTER, "loss")] == 0.5
    assert counted[Key("Read", Metric.COUNTER, "tokens")] == sys.float_info.max


def test_a_tally_counts_for_its_own_stage_and_leads_to_others() -> None:
    """Where a stage is named, a tally stands for it if it is the same, and else leads to that stage's."""
    reporter = Reporter(0)
    call = Tally(reporter, "Pack", 10)
    assert call.within(None) is call.within("Pack") is call
    assert call.within("Read") is reporter.stage("Read")


def test_unnamed_bars_count_only_where_nothing_else_does() -> None:
    """What adopted bars without a name have counted stands for the task's own until there is some."""
    reporter = Reporter(0, total=10)
    reporter.own.bars.n += 12
    assert (items(reporter.capped_counts()), items(reporter.raw_counts())) == ({None: 10}, {None: 12})
    reporter.own.n += 3
    assert (items(reporter.capped_counts()), items(reporter.raw_counts())) == ({None: 3}, {None: 3})


def test_a_run_over_tasks_leaves_out_unnamed_items() -> None:
    """Where the run counts tasks, unnamed items are not reported and named ones are."""
    reporter = Reporter(0, counts_items=False)
    reporter.own.n += 5
    reporter.stage("Read").n += 3
    assert items(reporter.capped_counts()) == {"Read": 3}
    assert items(reporter.raw_counts()) == {"Read": 3}


def test_clock_starts_at_the_last_reading_that_showed_nothing(clock: FakeClock) -> None:
    """Work began when the count was last seen at zero: later than the start, never after the first item."""
    reporter = Reporter(0, clock=clock)
    assert reporter.timings() == {}
    clock.advance(10)
    reporter.report()
    clock.advance(0.05)
    reporter.own.n += 1
    assert reporter.timings() == {}
    reporter.report()
    assert reporter.timings() == {None: (pytest.approx(0.05), 0)}
    clock.advance(2)
    reporter.report()
    assert reporter.timings() == {None: (pytest.approx(2.05), 2)}


def test_clock_starts_with_the_task_where_nobody_looked(clock: FakeClock) -> None:
    """Without any reading at zero, work began with the attempt."""
    clock.advance(5)
    reporter = Reporter(0, clock=clock)
    clock.advance(3)
    reporter.own.n += 1
    reporter.report()
    assert reporter.timings() == {None: (3, 0)}


def test_begin_sets_the_clock_once(clock: FakeClock) -> None:
    """A loop that starts says when, and the first one counts."""
    reporter = Reporter(0, clock=clock)
    clock.advance(1)
    reporter.mark_started(None)
    clock.advance(1)
    reporter.mark_started(None)
    assert reporter.timings() == {None: (1, 1)}


def test_a_count_does_not_move_a_beginning_that_was_told(clock: FakeClock) -> None:
    """Where a loop said when it starts, its first items don't move that back to the last reading."""
    reporter = Reporter(0, clock=clock)
    reporter.report()
    clock.advance(60)
    reporter.mark_started("Read")
    clock.advance(1)
    reporter.stage("Read").n += 5
    reporter.report()
    assert reporter.timings() == {None: (1, 0), "Read": (1, 0)}


def test_stages_have_clocks_of_their_own(clock: FakeClock) -> None:
    """Each stage began with its own first item and moved with its own last one; the run spans them all."""
    reporter = Reporter(0, clock=clock)
    reporter.mark_started("Read")
    clock.advance(1)
    reporter.stage("Read").n += 1
    reporter.report()
    clock.advance(4)
    reporter.report()
    reporter.mark_started("Write")
    clock.advance(2)
    reporter.stage("Write").add_to_counters({"tokens": 3})
    reporter.report()
    assert reporter.timings() == {None: (7, 0), "Read": (7, 6), "Write": (2, 0)}


def test_lifetime_is_known_also_of_a_task_that_reports_nothing(clock: FakeClock) -> None:
    """The lifetime runs from the first work on items, or from the attempt's start where there was none."""
    silent, busy = Reporter(0, clock=clock), Reporter(1, clock=clock)
    clock.advance(4)
    busy.mark_started(None)
    clock.advance(1)
    assert (silent.final_timings(), busy.final_timings()) == ({None: (5, 0)}, {None: (1, 1)})


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
    """A sink that was restarted hears of idle tasks again within the resend interval."""
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
    reporter, sink = Reporter(0), BusySink()
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
    """A reporter that leaves sends its final state where that is asked, and nothing after."""
    reporter, other, sink = Reporter(0), Reporter(1), RecordingSink()
    flusher.add(reporter, sink)
    flusher.add(other, sink)
    reporter.own.n = other.own.n = 5
    flusher.remove(reporter, last=True)
    flusher.remove(other)
    flusher.remove(other, last=True)
    flusher.flush()
    (report,) = sink.reports
    assert (report.task, items(report.counts)) == (0, {None: 5})


def test_last_state_is_sent_even_to_a_busy_sink(flusher: Flusher) -> None:
    """The final state can't wait for an earlier one to arrive: there is no later for it."""
    reporter, sink = Reporter(0), BusySink()
    flusher.add(reporter, sink)
    sink.busy = True
    reporter.own.n += 5
    flusher.remove(reporter, last=True)
    assert counts(sink) == [5]


def test_failing_sink_is_logged_once(flusher: Flusher, caplog: pytest.LogCaptureFixture) -> None:
    """A sink that fails is logged once, with its cause and the task, and the others get their states."""
    reporter, sink, good = Reporter(7), FailingSink(OSError("cable cut")), RecordingSink()
    flusher.add(reporter, sink)
    flusher.add(Reporter(8), good)
    for _ in range(3):
        reporter.own.n += 1
        flusher.flush()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "task 7" in record.message
    assert "OSError: cable cut" in record.message
    assert sink.calls == 3
    assert counts(good) == [0]


def test_a_part_that_cannot_be_read_ends_no_flusher(
    flusher: Flusher, caplog: pytest.LogCaptureFixture
) -> None:
    """Where counting itself fails, as a bar of somebody's may, that is logged and others get their states."""

    class Broken:
        def read(self) -> int:
            raise RuntimeError("no count")

    reporter, good = Reporter(7), RecordingSink()
    reporter.own.open(Broken())
    flusher.add(reporter, RecordingSink())
    flusher.add(Reporter(8), good)
    flusher.flush()
    assert "task 7" in caplog.text
    assert "RuntimeError: no count" in caplog.text
    assert counts(good) == [0]


def test_without_a_thread_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the machine has no thread to give the task is not failed for it, and the next one tries again."""
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
    while not any(report.counts.get(RUN_ITEMS) == 3 for report in sink.reports):
        time.sleep(0.001)
    flusher._routes.clear()


def test_sink_that_recovers_gets_the_state(flusher: Flusher, caplog: pytest.LogCaptureFixture) -> None:
    """What a failing sink missed is offered again, also where it has not changed since."""

    class Flaky(RecordingSink):
        fails = True

        def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
            if self.fails:
                raise ConnectionError("not yet")
            return super().send(reports, timings, last=last)

    sink = Flaky()
    flusher.add(Reporter(0), sink)
    flusher.flush()
    sink.fails = False
    flusher.flush()
    assert counts(sink) == [0]
    assert len(caplog.records) == 1


def test_a_state_that_is_known_to_be_lost_goes_again_at_once(flusher: Flusher) -> None:
    """Where its receiver was gone the same state is sent once more without delay, and only then."""

    class Losing(RecordingSink):
        loses = False

        def lost(self) -> bool:
            return self.loses

    sink = Losing()
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


def test_age_travels_with_the_state(flusher: Flusher, clock: FakeClock) -> None:
    """A sink hears since when a task has worked on items, from the first state that shows some."""
    heard: list[StageTimings] = []

    class Hearing(RecordingSink):
        def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
            heard.append(timings)
            return True

    reporter = Reporter(0, clock=clock)
    flusher.add(reporter, Hearing())
    flusher.flush()
    clock.advance(1)
    reporter.own.n += 1
    flusher.flush()
    assert heard == [{}, {None: (1, 0)}]


def test_thread_sends_by_itself_ends_when_idle_and_starts_again() -> None:
    """The thread sends without being asked, ends once nobody reports, and a new reporter starts another."""
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
        assert arrived.wait(30)
        flusher.remove(reporter)
        thread.join(30)
        assert not thread.is_alive()
