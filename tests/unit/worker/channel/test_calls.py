"""What a process counts for a run that is not its own: exact once a call has returned."""

from __future__ import annotations

from pathlib import Path

import pytest

from speedy_utils._state.ledger import ENDED, RUN_ITEMS, Key, Ledger, Metric
from speedy_utils._worker.channel.calls import ProcessCounts
from speedy_utils._worker.channel.reader import FolderReader
from speedy_utils._worker.channel.writer import MAX_APPENDED_BYTES, FolderSink
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock

STARTED = Key(None, Metric.TASKS_STARTED)


@pytest.fixture
def counts(tmp_path: Path) -> ProcessCounts:
    """Return what this process counts in the folder."""
    sink = FolderSink(tmp_path, "r1")
    return ProcessCounts(sink.process_name, sink)


def read(folder: Path) -> Ledger:
    """Return what a run finds in the folder."""
    ledger = Ledger()
    ledger.merge(FolderReader(folder, "r1").collect()[0])
    return ledger


def test_a_finished_call_is_written_before_it_returns(tmp_path: Path, counts: ProcessCounts) -> None:
    """Its final counts are there at once, with what the calls that run had counted by then."""
    first, second = Reporter("a"), Reporter("b")
    for reporter in (first, second):
        counts.add(reporter)
        reporter.own.n += 3
    counts.finish(first, {RUN_ITEMS: 5, STARTED: 1})
    sums = read(tmp_path).sums
    assert (sums[RUN_ITEMS], sums[STARTED]) == (8, 1)
    assert ENDED not in sums
    counts.finish(second, {RUN_ITEMS: 1})
    assert read(tmp_path).sums == {RUN_ITEMS: 6, ENDED: 1}


def test_finished_calls_are_summed_up(tmp_path: Path, counts: ProcessCounts) -> None:
    """After a thousand calls the file is small: what they have counted, and a few states before that."""
    for _ in range(1_000):
        reporter = Reporter("a")
        counts.add(reporter)
        counts.finish(reporter, {RUN_ITEMS: 1, Key("Parse", Metric.COUNTER, "tokens"): 0.5})
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= MAX_APPENDED_BYTES
    assert read(tmp_path).sums[RUN_ITEMS] == 1_000


def test_stages_and_texts_of_many_calls_stay_few(counts: ProcessCounts) -> None:
    """Names and lines that are new in each call don't make the state larger and larger."""
    for number in range(200):
        stage = chr(0x4E00 + number)
        counts.finish(
            Reporter("a"),
            {Key(stage, Metric.ITEMS): 1, Key(None, Metric.LEFT_OUT, f"nan in line {number}"): 1},
        )
    found = counts.report().counts
    assert sum(amount for key, amount in found.items() if key.metric is Metric.ITEMS) == 200
    assert len(found) < 60
    assert [key.label for key in found if key.metric is Metric.LEFT_OUT] == ["nan in line 0"]


def test_a_later_report_has_a_later_reading(counts: ProcessCounts) -> None:
    """It is one task of the run, which is named after the process."""
    first, second = counts.report(), counts.report()
    assert first.task == second.task == counts.task
    assert second.reading > first.reading


def test_a_stage_begins_with_the_first_call(tmp_path: Path) -> None:
    """The times of calls that have finished stay known."""
    clock = FakeClock()
    sink = FolderSink(tmp_path, "r1")
    counts = ProcessCounts(sink.process_name, sink, clock=clock)
    reporter = Reporter("a", clock=clock)
    counts.add(reporter)
    reporter.mark_started("Parse")
    clock.advance(5)
    counts.finish(reporter, reporter.capped_counts())
    clock.advance(2)
    assert counts.timings() == {None: (7.0, 7.0), "Parse": (7.0, 7.0)}
