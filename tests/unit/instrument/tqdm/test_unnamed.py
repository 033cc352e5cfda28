"""Bars without a name, and other unnamed counts, in a task of which it is not known how many items it has."""

from __future__ import annotations

from typing import Any

import pytest
from tqdm import std

from speedy_utils import report_progress, track, tracked
from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils._state.ledger import Metric
from speedy_utils._worker.context import counting, registered
from speedy_utils._worker.reporter import Reporter


def unnamed(reporter: Reporter) -> dict[Metric | str, int]:
    """Return what a task reports for no named stage: by metric, and a unit by its name."""
    counts = reporter.capped_counts().items()
    return {
        key.label or key.metric: int(n)
        for key, n in counts
        if key.stage is None and key.metric not in (Metric.TASKS_STARTED, Metric.ONLY_A_PART)
    }


def own_counts(actions: str) -> dict[Metric | str, int]:
    """Return what a task without a total reports for no named stage, after some actions with bars."""
    reporter = Reporter(0)
    bars: dict[str, Any] = {}
    with registered(reporter), counting(reporter.own), capturing_tqdm():
        for action in actions.split(", "):
            match action.split():
                case ["bar", name, total, *unit]:
                    bars[name] = std.tqdm(
                        total=None if total == "?" else int(total), unit="".join(unit) or "it"
                    )
                case ["update", name, n]:
                    bars[name].update(int(n))
                case ["close", name]:
                    bars.pop(name).close()
                case ["resize", name, total]:
                    bars[name].total = int(total)
                case ["report", n]:
                    report_progress(int(n))
                case ["read"]:
                    reporter.report()
                case ["loop", n]:
                    list(track(range(int(n))))
        return unnamed(reporter)


@pytest.mark.parametrize(
    ("actions", "done", "total", "kind"),
    [
        ("bar a 5, update a 3", 3, 5, Metric.TASKS_WITH_OWN_TOTAL),
        ("bar a 5, update a 3, close a, bar b 9, update b 1", 4, 14, None),  # more may follow
        ("bar a 5, update a 3, read, resize a 7", 3, 7, None),
        ("bar a ?, update a 3", 3, None, Metric.TASKS_WITHOUT_TOTAL),
        ("bar a 5, update a 6", 6, None, Metric.TASKS_WITHOUT_TOTAL),
        ("bar a 5, update a 1, bar b 9, update b 4", 1, 5, Metric.TASKS_WITH_OWN_TOTAL),  # b is inside a
        ("bar a 5, update a 1, report 2", 2, None, Metric.TASKS_WITHOUT_TOTAL),
        ("bar a 5, update a 1, loop 8", 8, 8, Metric.TASKS_WITH_OWN_TOTAL),
        ("bar a 5", 0, None, None),
    ],
)
def test_unnamed_bars_have_totals_where_the_task_has_none(
    actions: str, done: int, total: int | None, kind: Metric | None
) -> None:
    """The total of an unnamed bar is that of its task, as long as the bar alone counts and has one."""
    expected = {Metric.ITEMS: done, Metric.TOTAL: total, kind: 1}
    assert own_counts(actions) == {key: n for key, n in expected.items() if None not in (key, n)}


def test_unnamed_bars_bring_their_unit_where_the_task_has_none() -> None:
    """Bytes of a bar without a name are bytes, unless something else counts."""
    assert own_counts("bar a 5 B, update a 3")["B"] == 1
    assert "B" not in own_counts("bar a 5 B, update a 3, report 1")


@tracked(total="rows")
def call(rows: range) -> None:
    """Count as many items as there are rows, which a loop in it counts too."""
    list(track(rows))


@tracked
def one() -> None:
    """Count one item."""
    list(track("abc"))


@pytest.mark.parametrize(
    ("count", "done", "total", "kind"),
    [
        (lambda: next(track("abc")), 0, 3, Metric.TASKS_WITH_OWN_TOTAL),
        (lambda: list(track("abc", total=5)), 3, 5, Metric.TASKS_WITH_OWN_TOTAL),
        (lambda: list(track(iter("abc"))), 3, None, Metric.TASKS_WITHOUT_TOTAL),
        (lambda: list(track(["ab", "c"], size=len)), 3, None, Metric.TASKS_WITHOUT_TOTAL),
        (lambda: [list(track("abc")), list(track("de"))], 5, 5, None),
        (lambda: [report_progress() for _ in track("abc")], 6, None, Metric.TASKS_WITHOUT_TOTAL),
        (lambda: call(range(4)), 4, 4, Metric.TASKS_WITH_OWN_TOTAL),
        (one, 1, None, Metric.TASKS_WITHOUT_TOTAL),
        (lambda: list(track("abc", desc="Read")), 0, None, None),
    ],
)
def test_unnamed_loops_and_calls_have_totals_where_the_task_has_none(
    count: Any, done: int, total: int | None, kind: Metric | None
) -> None:
    """The total of the one unnamed loop or call of a task is that of the task, if it has one."""
    reporter = Reporter(0)
    with registered(reporter), counting(reporter.own):
        count()
        expected = {Metric.ITEMS: done, Metric.TOTAL: total, kind: 1}
        assert unnamed(reporter) == {key: n for key, n in expected.items() if None not in (key, n)}
