"""Whatever happens to reports on their way, the ledger ends in the same exact state."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from itertools import islice
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from support.counts import items

from speedy_utils._state.ledger import RUN_ITEMS, Key, Ledger, Metric, Report

KEYS = [RUN_ITEMS, Key("Tokenize", Metric.ITEMS), Key("Tokenize", Metric.TOTAL)]

counts = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 50), max_size=3)
reports = st.builds(
    Report,
    *(st.integers(0, 4), st.integers(1, 3), counts, st.integers(1, 6)),
    position=st.integers(0, 2),
    before=st.none() | counts,
)
batches = st.lists(reports, max_size=12).map(lambda batch: consistent(batch))


def histories(least: int, most: int) -> st.SearchStrategy[list[list[Report]]]:
    """Return a strategy for lists of at least and at most this number of batches."""
    return st.lists(batches, min_size=least, max_size=most).map(
        lambda history: regrouped(consistent([report for batch in history for report in batch]), history)
    )


def consistent(batch: Iterable[Report]) -> list[Report]:
    """Return reports of which those with one number are one reading: sent again, with the same counts."""
    read: dict[tuple[Any, int, int], Report] = {}
    return [read.setdefault((report.task, report.attempt, report.reading), report) for report in batch]


def regrouped(reports: list[Report], groups: list[list[Report]]) -> list[list[Report]]:
    """Return reports in groups of the sizes that some groups have."""
    left = iter(reports)
    return [list(islice(left, len(group))) for group in groups]


def ledger_of(batch: Iterable[Report]) -> Ledger:
    """Return a ledger that has merged one batch."""
    ledger = Ledger()
    ledger.merge(batch)
    return ledger


def live(ledger: Ledger) -> dict[Any, tuple[int, dict[Key, int]]]:
    """Return what a ledger knows of the tasks that are not committed."""
    return {report.task: (report.attempt, dict(report.all_counts())) for report in ledger.changes()}


def summed(parts: Iterable[Any]) -> dict[Key, int]:
    """Return counts added up by key, without the zeros."""
    total: Counter[Any] = Counter()
    for part in parts:
        total.update(part)
    return {key: done for key, done in total.items() if done}


def sums(ledger: Ledger) -> dict[Key, int]:
    """Return the sums of a ledger, without the zeros that a lost attempt leaves."""
    return summed([ledger.sums])


def state(ledger: Ledger) -> Any:
    """Return all that can be read from a ledger."""
    return live(ledger), sums(ledger)


@given(batches)
def test_state_is_the_last_reading_of_the_latest_attempt(batch: list[Report]) -> None:
    """In any order a task's state is the last reading of its latest attempt, also if it counts less."""
    expected: dict[Any, tuple[int, dict[Key, int]]] = {}
    for task in {report.task for report in batch}:
        last = max((report for report in batch if report.task == task), key=lambda r: (r.attempt, r.reading))
        expected[task] = (last.attempt, dict(last.all_counts()))
    ledger = ledger_of(batch)
    assert live(ledger) == expected
    assert {task: ledger.last(task) for task in expected} == {task: c for task, (_, c) in expected.items()}
    assert ledger.last("never reported") == {}


@given(histories(3, 3))
def test_merging_ledgers_is_a_join(history: list[list[Report]]) -> None:
    """Merging whole ledgers is commutative, associative and idempotent."""

    def join(*ledgers: Ledger) -> Ledger:
        joined = Ledger()
        for ledger in ledgers:
            joined.merge(ledger.changes())
        return joined

    a, b, c = history
    x, y, z = map(ledger_of, (a, b, c))
    assert state(join(x, y)) == state(join(y, x)) == state(ledger_of(a + b))
    assert state(join(join(x, y), z)) == state(join(x, join(y, z)))
    assert state(join(x, x)) == state(x)


def test_counts_may_go_down_and_a_late_report_does_not_bring_them_back() -> None:
    """A later reading replaces all counts of an earlier one, and those that it does not have are gone."""
    first, second = Report(0, 1, items(9, Read=4), 1), Report(0, 1, items(6), 2)
    ledger = ledger_of([first, second, first, second])
    assert (ledger.last(0), ledger.sums) == (items(6), items(6, Read=0))
    ledger.merge([Report(0, 1, items(7), 3)])
    ledger.merge([second])
    assert ledger.sums == items(7, Read=0)


@given(st.lists(st.one_of(reports, st.tuples(st.integers(0, 4), counts)), max_size=15))
def test_sums_are_the_sum_over_tasks(steps: list[Any]) -> None:
    """After every report and every commit the sums equal the sum over all tasks."""
    ledger, committed = Ledger(), {}
    for step in steps:
        if isinstance(step, Report):
            ledger.merge([step])
        else:
            task, final = step
            ledger.commit(task, final)
            committed.setdefault(task, final)
        running = [counts for _, counts in live(ledger).values()]
        assert sums(ledger) == summed([*committed.values(), *running])


@given(histories(2, 2), counts, counts)
def test_commit_is_final(history: list[list[Report]], final: dict[Key, int], second: dict[Key, int]) -> None:
    """A committed task counts for what it was committed with, whatever is reported of it later."""
    before, after = history
    ledger = ledger_of(before)
    ledger.commit(1, final)
    ledger.merge(after)
    ledger.commit(1, second)
    others = live(ledger_of([report for report in before + after if report.task != 1]))
    assert (live(ledger), ledger.last(1)) == (others, {})
    assert sums(ledger) == summed([final, *(counts for _, counts in others.values())])


def test_commits_out_of_order_stay_final() -> None:
    """Tasks are final in whatever order they are committed, numbered and named ones alike."""
    ledger = Ledger()
    for task in (3, 1, "mine", 0, 2, 7):
        ledger.commit(task, items(10))
    ledger.merge([Report(task, 9, items(99)) for task in (0, 1, 2, 3, 7, "mine")])
    assert ledger.sums == items(60)
    ledger.merge([Report(4, 1, items(1)), Report("other", 1, items(1))])
    assert ledger.sums == items(62)


@given(histories(0, 6), st.integers(0, 5))
def test_changes_since_a_version_equal_all_changes(history: list[list[Report]], skipped: int) -> None:
    """A mirror that merges only what changed knows all, also if it skipped some rounds."""
    ledger, mirror, seen = Ledger(), Ledger(), 0
    for turn, batch in enumerate([*history, []]):
        ledger.merge(batch)
        if turn < len(history) and turn % (skipped + 1):
            continue
        changed = ledger.changes(seen)
        mirror.merge(changed)
        seen = ledger.version
        assert ledger.changes(seen) == []
    assert state(mirror) == state(ledger)


def test_changes_hold_only_what_changed() -> None:
    """A task that sent the same reading again, or an earlier one, or a dead attempt's, is no change."""
    ledger = ledger_of([Report(task, 2, items(1), 5) for task in range(5)])
    version = ledger.version
    ledger.merge([Report(3, 2, items(2), 6), Report(1, 2, items(1), 5)])
    ledger.merge([Report(0, 2, {}, 4), Report(2, 1, items(9), 7)])
    assert ledger.changes(version) == [Report(3, 2, items(2), 6)]
    assert ledger.version == version + 1


def test_changes_are_copies() -> None:
    """What a ledger returns does not change with it, nor the other way round."""
    ledger = ledger_of([Report(0, 1, items(1))])
    (report,) = ledger.changes()
    last, known = ledger.last(0), ledger.sums
    ledger.merge([Report(0, 1, items(2), 1)])
    assert (report.counts, last, known) == (items(1), items(1), items(1))
    last[RUN_ITEMS] = known[RUN_ITEMS] = 99
    assert (ledger.last(0), ledger.sums) == (items(2), items(2))


@given(batches, st.sets(st.integers(0, 6)))
def test_closed_tasks_leave_no_trace(batch: list[Report], closed: set[int]) -> None:
    """A mirror that closes tasks is as if it had never known them, also if late reports of them arrive."""
    ledger = ledger_of(batch)
    for task in closed:
        ledger.close(task)
    ledger.merge(batch)
    assert state(ledger) == state(ledger_of([report for report in batch if report.task not in closed]))


def test_stages_keep_the_order_in_which_they_appeared() -> None:
    """Sums list the stages by their first appearance, whatever grows later."""
    ledger = ledger_of([Report(0, 1, items(1, Read=1)), Report(1, 1, items(1, Write=1))])
    ledger.merge([Report(1, 1, items(2, Write=9), 1), Report(0, 2, {})])
    assert list(ledger.sums) == [RUN_ITEMS, *items(Read=1, Write=1)]


TOKENS = Key(None, Metric.COUNTER, "tokens")

amounts = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
token_counts = st.dictionaries(st.just(TOKENS), amounts)


@given(
    st.lists(
        st.builds(
            Report,
            *(st.integers(0, 4), st.integers(1, 3), token_counts, st.integers(1, 4)),
            before=st.none(),
        ),
        max_size=12,
    ).map(consistent),
    st.data(),
)
def test_floats_add_up_exactly_in_any_order(batch: list[Report], data: st.DataObject) -> None:
    """A counter's sum is the exact sum over the living attempts, rounded once, whatever was taken back."""
    last = {report.task: report for report in sorted(batch, key=lambda r: (r.attempt, r.reading))}
    exact = sum((Fraction(report.counts.get(TOKENS, 0)) for report in last.values()), Fraction(0))
    for order in (batch, data.draw(st.permutations(batch))):
        found = ledger_of(order).sums.get(TOKENS, 0)
        assert float(found) == (float(exact) if abs(exact) < 2**1023 else found)


def test_sums_of_whole_numbers_stay_whole_and_those_beyond_all_floats_are_infinite() -> None:
    """Integers add up to one of any size, with a float among them to a float; each can be taken back."""
    ledger = ledger_of([Report(task, 1, {TOKENS: 2**53 + 1}) for task in range(3)])
    assert ledger.sums == {TOKENS: 3 * (2**53 + 1)}
    ledger.merge([Report(3, 1, {TOKENS: 0.5})])
    assert type(ledger.sums[TOKENS]) is float
    ledger = ledger_of([Report(task, 1, {TOKENS: sys.float_info.max}) for task in range(2)])
    assert ledger.sums == {TOKENS: math.inf}
    ledger.merge([Report(1, 2, {})])
    assert ledger.sums == {TOKENS: sys.float_info.max}


class Cluster(RuleBasedStateMachine):
    """Workers that die, a network that loses, repeats and reorders, an actor that restarts, and a driver."""

    running = Bundle("running")
    messages = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.truth: dict[int, Report] = {}
        self.sent: dict[tuple[Any, int], list[Any]] = {}  # by task and attempt, in order
        self.finals: dict[int, Any] = {}
        self.actor, self.epoch = Ledger(), 0
        self.driver, self.seen = Ledger(), (0, 0)
        self.to_close: list[int] = []

    def begin(self, task: int, attempt: int) -> None:
        """Let the driver start an attempt."""
        self.truth[task] = Report(task, attempt, {})
        self.sent[task, attempt] = [{}]
        self.driver.merge([self.truth[task]])

    @rule(target=running)
    def start(self) -> int:
        """The driver starts a task."""
        task = len(self.truth) + len(self.finals)
        self.begin(task, 1)
        return task

    @rule(task=running, key=st.sampled_from(KEYS), n=st.integers(-5, 9))
    def work(self, task: int, key: Key, n: int) -> None:
        """A worker counts, or takes back what it has counted."""
        if task in self.truth:
            counts = self.truth[task].counts
            self.truth[task] = self.truth[task]._replace(
                counts={**counts, key: max(0, counts.get(key, 0) + n)}
            )

    def read(self, task: int) -> Report:
        """Read what a worker has counted."""
        report = self.truth[task] = self.truth[task]._replace(reading=self.truth[task].reading + 1)
        self.sent[task, report.attempt].append(report.counts)
        return report

    @rule(target=messages, task=running)
    def send(self, task: int) -> Any:
        """A worker sends its state."""
        return self.read(task) if task in self.truth else multiple()

    @rule(message=messages)
    def deliver(self, message: Report) -> None:
        """A message arrives, for the first time or again, soon or late."""
        self.actor.merge([message])

    @rule(message=consumes(messages))
    def lose(self, message: Report) -> None:
        """A message never arrives again."""

    @rule(task=running)
    def die(self, task: int) -> None:
        """A worker dies, and the driver starts the next attempt."""
        if task in self.truth:
            self.begin(task, self.truth[task].attempt + 1)

    @rule(task=consumes(running))
    def finish(self, task: int) -> None:
        """A task returns, and the driver commits its counts."""
        if task in self.truth:
            self.finals[task] = self.truth.pop(task).counts
            self.driver.commit(task, self.finals[task])
            self.to_close.append(task)

    @rule()
    def restart(self) -> None:
        """The actor restarts and knows nothing."""
        self.actor, self.epoch = Ledger(), self.epoch + 1

    @rule(answered=st.booleans())
    def poll(self, answered: bool) -> None:
        """The driver asks what has changed; the answer may get lost."""
        while self.to_close:
            self.actor.close(self.to_close.pop())
        epoch, version = self.seen
        changed = self.actor.changes(version if epoch == self.epoch else 0)
        if answered:
            self.driver.merge(changed)
            self.seen = (self.epoch, self.actor.version)

    @rule()
    def resend(self) -> None:
        """Once every running task has sent again and the driver has asked, it knows the truth."""
        self.actor.merge([self.read(task) for task in self.truth])
        self.poll(answered=True)
        for task, report in self.truth.items():
            assert self.driver.last(task) == report.counts

    @invariant()
    def never_back(self) -> None:
        """The driver knows what each living attempt has sent, only ever later, and all that is committed."""
        known = {task: self.driver.last(task) for task in self.truth}
        for task, report in self.truth.items():
            sent = self.sent[task, report.attempt]
            self.sent[task, report.attempt] = sent[sent.index(known[task]) :]
        assert sums(self.driver) == summed([*self.finals.values(), *known.values()])

    def teardown(self) -> None:
        """However it went, the end is exact and the driver holds no task any more."""
        for task in list(self.truth):
            self.finish(task)
        self.resend()
        assert sums(self.driver) == summed(self.finals.values())
        assert self.driver.changes() == []


Cluster.TestCase.settings = settings(stateful_step_count=40)
TestCluster = Cluster.TestCase
TestCluster.__doc__ = "A simulated cluster ends in the exact state, whatever dies, restarts or gets lost."
