"""Relays without Ray: they join what comes, send it on now and then, and remember nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.counts import items

from speedy_utils import ProgressActor
from speedy_utils._ray.client import ActorName, ActorSink
from speedy_utils._ray.relay import Relay, plan_relays
from speedy_utils._state.ledger import Report
from speedy_utils._state.timings import StageTimings
from speedy_utils.testing import FailingSink, FakeClock, RecordingSink


class Calls(RecordingSink):
    """Keeps each call; refuses them while ``busy``."""

    interval = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[Report], StageTimings]] = []
        self.busy = False

    def send(self, reports: Any, timings: StageTimings, *, last: bool = False) -> bool:
        """Keep the call."""
        if not self.busy:
            self.calls.append((list(reports), timings))
        return not self.busy


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def sink() -> Calls:
    """Where the relay's calls end up."""
    return Calls()


@pytest.fixture
def relay(sink: Calls, clock: FakeClock) -> Relay:
    """A relay that calls once a second at most."""
    return Relay(sink, clock=clock)


def test_many_reports_go_in_one_call(relay: Relay, sink: Calls, clock: FakeClock) -> None:
    """What comes within an interval is joined, and sent in one call with the first report after it."""
    for done in (1, 2):
        relay.report([Report(0, 1, items(done), done)], {})
        relay.report([Report(1, 1, items(10 * done, Read=done), done)], {})
    assert sink.calls == []
    clock.advance(1)
    relay.report([Report(2, 1, items(7))], {})
    assert sink.calls == [
        ([Report(0, 1, items(2), 2), Report(1, 1, items(20, Read=2), 2), Report(2, 1, items(7))], {})
    ]


def test_nothing_is_remembered(relay: Relay, sink: Calls, clock: FakeClock) -> None:
    """What was sent on is sent again only if it is reported again, and then even if it is the same."""
    report = Report(0, 1, items(5))
    for reports in ([report], [Report(1, 1, items(3))], [report]):
        clock.advance(1)
        relay.report(reports, {})
    assert [reports for reports, _ in sink.calls] == [[report], [Report(1, 1, items(3))], [report]]


def test_what_can_not_be_sent_waits(relay: Relay, sink: Calls, clock: FakeClock) -> None:
    """While an earlier call is unanswered the newest states wait, and nothing is lost."""
    sink.busy = True
    clock.advance(1)
    relay.report([Report(0, 1, items(5))], {})
    relay.report([Report(0, 1, items(6), 1)], {})
    sink.busy = False
    relay.report([Report(1, 1, items(1))], {})
    assert sink.calls == [([Report(0, 1, items(6), 1), Report(1, 1, items(1))], {})]


def test_a_sink_that_fails_loses_nothing(clock: FakeClock) -> None:
    """What could not be sent is still there for the next call."""
    failing = FailingSink()
    relay = Relay(failing, clock=clock)
    clock.advance(1)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            relay.report([Report(0, 1, items(5))], {})
    assert failing.calls == 2


def test_timings_are_joined_and_grow_while_they_wait(relay: Relay, sink: Calls, clock: FakeClock) -> None:
    """Timings cover all workers of a stage, and are as much older as they have waited."""
    relay.report([Report(0, 1, items(1))], {None: (4.0, 3.0)})
    relay.report([Report(1, 1, items(1))], {None: (2.0, 1.0), "Read": (1.0, 0.0)})
    clock.advance(1.5)
    relay.report([], {})
    [(_, timings)] = sink.calls
    assert timings == {None: (5.5, 2.5), "Read": (2.5, 1.5)}


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 2), st.integers(0, 50), st.sampled_from([0.0, 0.4, 3.0])),
        max_size=40,
    ),
    st.integers(1, 4),
)
def test_the_actor_knows_the_same_through_relays(
    steps: list[tuple[int, int, int, float]], relays: int
) -> None:
    """Whatever workers report, through any relays, the actor ends where direct calls would end it."""
    clock = FakeClock()
    direct, behind = ProgressActor(clock=clock), ProgressActor(clock=clock)
    between = [Relay(ActorSink(behind), clock=clock) for _ in range(relays)]

    def turns() -> Iterator[Relay]:
        while True:
            yield from between

    turn = turns()
    for reading, (task, attempt, done, wait) in enumerate(steps):
        report = Report(task, attempt, items(done), reading)
        direct.report([report], {})
        next(turn).report([report], {})
        clock.advance(wait)
    clock.advance(5)
    for relay in between:
        relay.report([], {})
    assert behind.get_progress()["processed"] == direct.get_progress()["processed"]


def test_small_runs_have_no_relays() -> None:
    """Up to two hundred workers call the actor itself."""
    for workers in (1, 8, 200):
        names, sinks = plan_relays(ActorName("run"), workers)
        assert names == []
        assert [sink.interval for sink in sinks] == [ActorSink(ActorName("run"), workers).interval]


@pytest.mark.parametrize(("workers", "relays"), [(201, 3), (1_000, 10), (10_000, 100)])
def test_large_runs_share_relays(workers: int, relays: int) -> None:
    """Beyond that a hundred workers share a relay, and each calls it as often as such a run its actor."""
    names, sinks = plan_relays(ActorName("run"), workers)
    assert len(set(names)) == len(sinks) == relays
    assert all(math.isclose(sink.interval, 0.4) for sink in sinks)
