"""The actor without Ray: it merges states, forgets what is committed, and keeps a clock."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
from support.counts import items
from support.threads import in_threads

from speedy_utils import ProgressActor
from speedy_utils._state.ledger import RUN_ITEMS, Key, Metric, Report
from speedy_utils.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def actor(clock: FakeClock) -> ProgressActor:
    """An actor of 10 items."""
    return ProgressActor(10, "Reading", clock=clock)


def processed(actor: ProgressActor) -> int:
    """What an actor has counted."""
    count: int = actor.get_progress()["processed"]
    return count


def tasks(actor: ProgressActor, *asked: Any) -> dict[Any, int]:
    """The tasks that an actor says have changed, and how far each is."""
    return {
        report[0]: int(report[2][RUN_ITEMS])
        for report in actor.changes_since(*(asked or ("", 0, []))).reports
    }


def test_new_actor_has_counted_nothing(actor: ProgressActor) -> None:
    """Before the first count there is no time and no rate."""
    assert actor.get_progress() == {
        "processed": 0,
        "total": 10,
        "elapsed": 0.0,
        "rate": 0.0,
        "desc": "Reading",
        "counters": {},
        "stages": {},
        "left_out": [],
    }
    assert ProgressActor().get_progress()["total"] is None


def test_threads_count_while_another_reads(actor: ProgressActor) -> None:
    """Without Ray the threads that report, and a poller that reads, use it at once, and no count is lost."""
    numbers = itertools.count()

    def report() -> None:
        task = f"task {next(numbers)}"
        for n in range(1, 101):
            counts = {RUN_ITEMS: n, Key(f"{task}, stage {n}", Metric.ITEMS): 1}
            actor.report([Report(task, 1, counts, n)], {})
            actor.update(1)

    in_threads(report, meanwhile=actor.get_progress)
    assert processed(actor) == 8 * 200


def test_updates_add(actor: ProgressActor) -> None:
    """Updates add up, by one item if no number is given, and return how many there are."""
    assert [actor.update(4), actor.update(), actor.update(0)] == [4, 5, 5]


def test_updates_take_back(actor: ProgressActor) -> None:
    """A negative update takes back what was counted, to zero at the least."""
    assert [actor.update(4), actor.update(-1), actor.update(-9), actor.update(2)] == [4, 3, 0, 2]


@pytest.mark.parametrize(("n", "error"), [(1.5, ValueError), (float("nan"), ValueError), ("3", TypeError)])
def test_update_refuses_what_is_no_count(actor: ProgressActor, n: Any, error: type[Exception]) -> None:
    """A bad number is an error and changes nothing, the clock neither."""
    with pytest.raises(error, match=f"{n!r}"):
        actor.update(n)
    assert actor.get_progress()["processed"] == actor.get_progress()["elapsed"] == 0


def test_clock_starts_with_the_first_count(actor: ProgressActor, clock: FakeClock) -> None:
    """Elapsed time and rate leave out what was before the first count."""
    clock.advance(100)
    actor.update(0)
    clock.advance(2)
    actor.update(8)
    state = actor.get_progress()
    assert (state["elapsed"], state["rate"]) == (2.0, 4.0)


def test_clock_starts_with_the_earliest_work(actor: ProgressActor, clock: FakeClock) -> None:
    """The clock is that of the task that has worked longest, in whatever order they report."""
    clock.advance(100)
    actor.report([Report(0, 1, items(0))], {})
    assert actor.get_progress()["elapsed"] == 0
    actor.report([Report(0, 1, items(1), 1)], {None: (2.0, 0.0)})
    actor.report([Report(1, 1, items(1))], {None: (5.0, 0.0)})
    actor.report([Report(0, 1, items(2), 2)], {None: (3.0, 0.0)})
    assert actor.get_progress()["elapsed"] == pytest.approx(5)


def test_reports_and_updates_add_up(actor: ProgressActor) -> None:
    """States of tasks are merged, not added, and what is added directly comes on top."""
    for _ in range(2):
        actor.report([Report(0, 1, items(3)), Report(1, 1, items(2, Read=9))], {None: (1.0, 0.0)})
    actor.update(4)
    assert processed(actor) == 9


def test_new_attempt_replaces_the_old_one(actor: ProgressActor) -> None:
    """A task that runs again counts from zero."""
    actor.report([Report("mine", 1, items(5))], {None: (1.0, 0.0)})
    actor.report([Report("mine", 2, items(1))], {None: (1.0, 0.0)})
    actor.report([Report("mine", 1, items(6))], {None: (1.0, 0.0)})
    assert processed(actor) == 1


def test_total_may_come_later(actor: ProgressActor) -> None:
    """The total can be set, and taken back."""
    actor.set_total(99)
    assert actor.get_progress()["total"] == 99
    actor.set_total(None)
    assert actor.get_progress()["total"] is None


@pytest.mark.parametrize(("total", "error"), [(-1, ValueError), (1.5, TypeError)])
def test_bad_total_is_an_error(actor: ProgressActor, total: Any, error: type[Exception]) -> None:
    """A total that is no count is an error, at the start and later."""
    with pytest.raises(error, match=f"total must be .* not {total!r}"):
        ProgressActor(total)
    with pytest.raises(error, match=f"total must be .* not {total!r}"):
        actor.set_total(total)
    assert actor.get_progress()["total"] == 10


def test_reset_starts_over(actor: ProgressActor, clock: FakeClock) -> None:
    """After a reset only what comes on top counts, though tasks go on to report all that they have done."""
    actor.update(2)
    actor.report([Report(0, 1, items(5))], {None: (1.0, 0.0)})
    clock.advance(10)
    actor.reset()
    assert (processed(actor), actor.get_progress()["elapsed"]) == (0, 0.0)
    actor.report([Report(0, 1, items(5))], {})
    assert processed(actor) == 0
    clock.advance(3)
    actor.report([Report(0, 1, items(8), 1)], {None: (20.0, 0.0)})
    clock.advance(1)
    assert processed(actor) == 3
    assert actor.get_progress()["elapsed"] == pytest.approx(4)
    assert actor.get_progress()["total"] == 10


def test_counters_and_stages_are_returned(actor: ProgressActor) -> None:
    """The actor returns the sums of counters and of named stages; not a stage's counters."""
    tokens, deep = Key(None, Metric.COUNTER, "tokens"), Key("Read", Metric.COUNTER, "loss")
    actor.report([Report(0, 1, items(1, Read=2) | {tokens: 5, deep: 0.5})], {})
    actor.report([Report(1, 1, items(1, Read=3) | {tokens: 0.5})], {})
    state = actor.get_progress()
    assert (state["counters"], state["stages"]) == ({"tokens": 5.5}, {"Read": 5})


def test_reset_takes_counters_and_stages_back(actor: ProgressActor) -> None:
    """After a reset counters and stages start at zero too, and add what comes on top."""
    tokens = Key(None, Metric.COUNTER, "tokens")
    actor.report([Report(0, 1, items(Read=2) | {tokens: 5})], {})
    actor.reset()
    assert actor.get_progress()["counters"] == {"tokens": 0}
    actor.report([Report(0, 1, items(Read=3) | {tokens: 9}, 1)], {})
    state = actor.get_progress()
    assert (state["counters"], state["stages"]) == ({"tokens": 4}, {"Read": 1})
    actor.report([Report(0, 2, items(Read=1) | {tokens: 2})], {})
    assert actor.get_progress()["counters"] == {"tokens": 0}
    actor.report([Report(0, 2, items(Read=1) | {tokens: -3}, 1)], {})
    assert actor.get_progress()["counters"] == {"tokens": -3}


def test_changes_since_has_what_changed(actor: ProgressActor) -> None:
    """The driver gets what changed since it last asked, and all if it knows another epoch."""
    actor.report([Report(0, 1, items(1)), Report(1, 1, items(2))], {})
    first = actor.changes_since("", 0, [])
    assert tasks(actor) == {0: 1, 1: 2}
    actor.report([Report(1, 1, items(5), 1)], {})
    assert tasks(actor, first.epoch, first.version, []) == {1: 5}
    assert tasks(actor, "another epoch", first.version, []) == {0: 1, 1: 5}
    last = actor.changes_since(first.epoch, first.version, [])
    assert tasks(actor, last.epoch, last.version, []) == {}


def test_each_actor_is_an_epoch() -> None:
    """An actor that was restarted has another epoch than before."""
    assert ProgressActor().changes_since("", 0, []).epoch != ProgressActor().changes_since("", 0, []).epoch


def test_changes_since_forgets_what_is_committed(actor: ProgressActor) -> None:
    """Tasks that the driver has committed are dropped, known or not."""
    actor.report([Report(0, 1, items(1)), Report(1, 1, items(2))], {})
    assert tasks(actor, "", 0, [0, 7]) == {1: 2}
    assert tasks(actor) == {1: 2}
    assert processed(actor) == 2


def test_late_report_of_a_committed_task_changes_nothing(actor: ProgressActor) -> None:
    """What comes after its task was committed is not kept: it would never be forgotten."""
    actor.changes_since("", 0, [0])
    actor.report([Report(0, 1, items(3)), Report(0, 2, items(1))], {})
    assert tasks(actor) == {}
    assert processed(actor) == 0


def test_changes_since_has_the_timings(actor: ProgressActor, clock: FakeClock) -> None:
    """The driver gets how long ago the first work began; nothing before."""
    assert actor.changes_since("", 0, []).timings == {}
    clock.advance(1)
    actor.report([], {None: (1.0, 0.0)})
    clock.advance(2)
    assert actor.changes_since("", 0, []).timings == {None: (3, 2)}


def test_the_clock_never_starts_before_the_actor(actor: ProgressActor, clock: FakeClock) -> None:
    """A task that is older than its actor does not make the clock older than that."""
    clock.advance(3)
    actor.report([], {None: (50.0, 0.0)})
    assert actor.get_progress()["elapsed"] == pytest.approx(3)


def test_actor_knows_where_an_attempt_was_at_work(actor: ProgressActor) -> None:
    """It returns the address of the very attempt that is asked about, and knows the last of each process."""
    actor.report([Report(0, 2, items(0))], {}, "here")
    actor.report([Report(0, 1, items(0))], {}, "elsewhere")  # late
    actor.report([Report(1, 1, items(0))], {}, "there")
    actor.report([Report(2, 1, items(0))], {})
    assert actor.locate({0: 2, 1: 1, 2: 1, 5: 1}) == {0: "here", 1: "there"}
    assert actor.locate({0: 1}) == {0: "elsewhere"}
    actor.report([Report(3, 1, items(0))], {}, "here")
    assert actor.locate({0: 2, 3: 1}) == {3: "here"}


def test_an_actor_of_this_process_refuses_to_travel(actor: ProgressActor) -> None:
    """A copy in another process would count nowhere: the error names what to use."""
    with pytest.raises(TypeError, match=r"create_progress_tracker\(\).*run\.bind\(function\)"):
        pickle.dumps(actor)
