"""What a chunk sends back arrives as it was, however Ray sends it."""

from __future__ import annotations

from typing import Any

import pytest

from speedy_utils._engines.limits.failure import Failure
from speedy_utils._engines.payload.results import Sent, as_sent, pack_outcome, read_sent, unpack_outcome
from speedy_utils._engines.processes.worker import ProcessPickler
from speedy_utils._engines.task import ChunkOutcome, Outcome
from speedy_utils._state.ledger import RUN_ITEMS


@pytest.mark.parametrize("values", [[None], [1, "two", b"3"], [[1], {"two": 2}]])
def test_an_outcome_arrives_as_it_was(values: list[Any]) -> None:
    """With its values, plain or not, its failed tasks and their exceptions, and all that is said of it."""
    others = {
        0: Outcome(None, {RUN_ITEMS: 3}, {None: (0.5, 0.0)}),
        1: Outcome(Failure("no", "", KeyError(1))),
    }
    failure = Failure("lost", worker_lost=True)
    outcome = ChunkOutcome([*values], others, 7, 0.25, 11, failure, ("a warning",), 1)
    sent = pack_outcome(ProcessPickler, outcome, "here")._replace(
        differences=(("name", "differs"),), printed=(4711, 5, 6)
    )
    data = as_sent(sent)
    assert isinstance(data, bytes)
    read = read_sent(data)
    assert (read.differences, read.printed) == (sent.differences, sent.printed)
    found = unpack_outcome(read)
    error = found.others[1].failure.error if found.others[1].failure else None
    assert (type(error), found.values, found.others[0]) == (KeyError, values, others[0])
    rest = found.items, found.seconds, found.size, found.warnings, found.stuck
    assert rest == (7, 0.25, 11, ("a warning",), 1)
    assert found.failure == Failure("lost [here]", worker_lost=True)


def test_a_large_outcome_is_left_to_ray() -> None:
    """It would be copied once more as a part of a pickle."""
    sent = Sent(ChunkOutcome([b"x"], size=1_000_000))
    assert as_sent(sent) is sent
