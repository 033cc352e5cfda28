"""The client of the progress actor, as far as it works without Ray."""

from __future__ import annotations

import math

import pytest
from support.counts import items

from speedy_utils import ProgressActor
from speedy_utils._ray.client import ActorName, ActorSink, current_attempt_id
from speedy_utils._state.ledger import Report
from speedy_utils._worker.process import in_ray_worker


def test_sink_reports_to_the_actor_of_its_process() -> None:
    """Without Ray a sink calls the actor at once."""
    actor = ProgressActor()
    assert ActorSink(actor).send([Report(0, 1, items(3))], {None: (1.0, 0.0)})
    assert actor.get_progress()["processed"] == 3


@pytest.mark.parametrize(("senders", "interval"), [(1, 0.2), (8, 0.2), (50, 0.2), (64, 0.256), (200, 0.8)])
def test_sinks_send_every_fifth_of_a_second_or_less_often_with_many_senders(
    senders: int, interval: float
) -> None:
    """Up to fifty senders it is 0.2 s, for as long as the run lasts; beyond, it grows with their number."""
    assert math.isclose(ActorSink(ActorName("run"), senders).interval, interval)


def test_without_ray_every_attempt_has_an_id_of_its_own() -> None:
    """Outside Ray ids differ, and timestamps grow."""
    (first, early), (second, late) = current_attempt_id(), current_attempt_id()
    assert first != second
    assert early < late
    assert not in_ray_worker()
