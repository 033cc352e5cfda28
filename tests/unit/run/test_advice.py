"""A run warns once of what a task's counts don't say, and not of what is usual."""

from __future__ import annotations

import pytest
from support.counts import estimated, items
from support.recorder import ignore

from speedy_utils import multi_process, track
from speedy_utils._run.advice import CountingAdvice
from speedy_utils._state.ledger import Count, Key, Metric

AGAIN: dict[Key, Count] = {Key(None, Metric.ANOTHER_LOOP, "has counted all (/home/me/train.py:17)"): 1}


@pytest.mark.parametrize(
    ("counts", "total", "unit", "text"),
    [
        (items(32), 1_000, "rows", "task 7 reported 32 of 1,000 rows and returned"),
        (items(4) | estimated(196), 1_000, "items", "task 7 reported 200 of 1,000 items"),
        (items(499), 1_000, "items", "task 7 reported 499 of 1,000 items"),
        (items(500), 1_000, "items", ""),
        (items(32) | {Key(None, Metric.ONLY_A_PART): 1}, 1_000, "items", ""),
        (items(20) | estimated(979), 1_000, "items", ""),
        (items(0), 1_000, "items", ""),
        (items(3, Read=1_000), 1_000, "items", ""),
        (items(32), None, "items", ""),
        ({}, 1_000, "items", ""),
    ],
)
def test_a_small_part_of_the_items_is_worth_a_word(
    counts: dict[Key, Count], total: int | None, unit: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Less than half is a small part, unless that was meant, or the rest was shown in other ways."""
    advice = CountingAdvice(unit)
    advice.task_succeeded(7, counts, total)
    advice.task_succeeded(8, counts, total)
    assert [text in record.getMessage() for record in caplog.records] == [True] * bool(text)


@pytest.mark.parametrize(
    ("steps", "total", "warned"), [(list(range(3)), 100, True), (list(range(3)), 6, False), ([], 100, False)]
)
def test_a_small_part_of_a_run_is_worth_a_word(
    steps: list[int], total: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """If only the total of the run is known, it is compared with what all tasks have reported."""

    def work(_: int) -> None:
        for _ in track(steps):
            pass

    multi_process(work, range(2), backend="seq", total_items=total, progress=ignore)
    texts = [record.getMessage() for record in caplog.records]
    assert [text.startswith("the tasks reported 6 of 100 items and returned: ") for text in texts] == [
        True
    ] * warned


def test_another_loop_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first task that begins one is named, with the line of code."""
    advice = CountingAdvice("items")
    advice.look_at(1, items(10))
    assert not advice.has_warned_of_another_loop
    for task in (2, 3):
        advice.look_at(task, items(10) | AGAIN)
    advice.task_succeeded(2, items(10) | AGAIN, 10)
    assert advice.has_warned_of_another_loop
    (record,) = caplog.records
    assert record.getMessage().startswith("task 2 has counted all (/home/me/train.py:17): ")
