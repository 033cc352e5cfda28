"""The driver reads what the actor has gathered, as often as somebody watches."""

from __future__ import annotations

import pytest
from support.counts import items

from speedy_utils._ray.client import ActorReader
from speedy_utils._ray.own_tasks import create_progress_tracker
from speedy_utils._state.ledger import Report
from speedy_utils.testing import FakeClock


def test_a_long_run_is_read_less_often(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed asks at each look at first, and once a second after ten seconds unless it must not be late."""
    import ray

    # Each look waits for its answer: one that came at a later look would put off the next question.
    monkeypatch.setattr("speedy_utils._ray.client._PATIENCE", 60.0)
    monkeypatch.setattr("speedy_utils._ray.client._GIVE_UP_AFTER", 60.0)
    actor = create_progress_tracker()
    clock = FakeClock()
    feed, eager = ActorReader(actor, clock=clock), ActorReader(actor, calm=False, clock=clock)

    def reported(n: int) -> list[Report]:
        return [Report("task", 1, items(n))]

    def tell(n: int) -> None:
        ray.get(actor.report.remote([tuple(each) for each in reported(n)], {}))

    def read(by: ActorReader) -> list[Report]:
        return list(by.collect()[0])

    def awaited(by: ActorReader) -> list[Report]:
        while not (seen := read(by)):  # the actor may still be starting
            pass
        return seen

    tell(1)
    assert awaited(feed) == awaited(eager) == reported(1)
    clock.advance(0.3)
    tell(2)
    assert awaited(feed) == awaited(eager) == reported(2)
    clock.advance(15)
    assert read(feed) == []
    tell(3)
    for _ in range(3):
        clock.advance(0.3)
        assert read(feed) == []
    assert awaited(eager) == reported(3)
    clock.advance(0.3)
    assert awaited(feed) == reported(3)
