"""What a run waits for stands in one row, in a form that fits, and in log lines."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from support.screen import EmulatedTerminal
from support.uneven import UnevenShards

from speedy_utils import Snapshot, StageSnapshot, TaskSnapshot
from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.log import LogDisplay
from speedy_utils._display.notebook import NotebookDisplay
from speedy_utils._display.terminal.screen import Screen
from speedy_utils._display.waiting import format_waiting

LINE = StageSnapshot("Packing", 3_655, 4_000, elapsed=61.0, recent_rate=7.5, eta=46.0)
SHARD = TaskSnapshot(4, "shard 4 (rows 2,000-2,499)", 1, 155, 500, elapsed=61.0)
WAITING = Snapshot(LINE, tasks_total=8, tasks_done=7, task_unit="shards", waiting_for=SHARD)


def screen(*snapshots: Snapshot, columns: int) -> list[str]:
    """Return the rows of a terminal that shows a run."""
    terminal = EmulatedTerminal(columns, 12)
    bars = BarDisplay(Screen(terminal, size=terminal.size))
    for snapshot in snapshots:
        bars.show(snapshot)
    rows = terminal.lines()
    bars.close()
    return rows


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (120, "waiting for shard 4 of 8: rows 2,000-2,499, 31 %"),
        (49, "waiting for shard 4 of 8: rows 2,000-2,499, 31 %"),
        (48, "waiting for shard 4 of 8: 31 %"),
        (31, "waiting for shard 4 of 8: 31 %"),
        (30, "waiting for shard 4"),
        (20, "waiting for shard 4"),
        (19, ""),
    ],
)
def test_the_last_task_has_a_row_that_fits(columns: int, row: str) -> None:
    """It stands below the lines, never in two rows, and is left out where the shortest form has no room."""
    rows = screen(WAITING, columns=columns)
    assert rows[1:] == ([row] if row else [])
    assert "Packing" in rows[0] or "3,655" in rows[0]
    assert screen(WAITING, replace(WAITING, waiting_for=None), columns=columns)[1:] == []


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (replace(SHARD, item=""), "waiting for shard 4 of 8: 31 %"),
        (replace(SHARD, done=0), "waiting for shard 4 of 8: rows 2,000-2,499, 01:01"),
        (replace(SHARD, total=None), "waiting for shard 4 of 8: rows 2,000-2,499, 155 items"),
        (replace(SHARD, done=500), "waiting for shard 4 of 8: rows 2,000-2,499, 99 %"),
        (replace(SHARD, item="4"), "waiting for shard 4 of 8: 31 %"),
        (replace(SHARD, item="'x.json'"), "waiting for shard 4 of 8: 'x.json', 31 %"),
    ],
)
def test_what_is_known_of_a_task_is_said(task: TaskSnapshot, text: str) -> None:
    """Its item, and how far it is: a share, what it has counted, or how long it has taken."""
    assert format_waiting(replace(WAITING, waiting_for=task))[0] == text


def test_nothing_is_waited_for() -> None:
    """While most workers have something to do there is no row."""
    assert format_waiting(Snapshot(LINE, tasks_total=8)) == []


def test_it_is_in_log_lines_and_notebooks(caplog: pytest.LogCaptureFixture) -> None:
    """A log line ends with it, and in a notebook it stands below the rows."""
    caplog.set_level(logging.INFO)
    log, notebook = LogDisplay(every=1e-9), NotebookDisplay()
    for snapshot in (WAITING, WAITING):
        log.show(snapshot)
        notebook.show(snapshot)
    text = format_waiting(WAITING)[0]
    assert caplog.messages[-1] == (
        f"Packing: 91% 3,655/4,000 in 01:01, 7.50 items/s, eta 00:46, 7/8 shards, {text}"
    )
    assert notebook.html.endswith(f"<div>{text}</div>")
    notebook.show(replace(WAITING, waiting_for=None))
    assert text not in notebook.html


def test_a_hang_is_seen_and_no_time_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """The row names the shard that hangs; the time left is a question mark until it moves, also in a log."""
    caplog.set_level(logging.INFO)
    log, shards = LogDisplay(every=1e-9), UnevenShards(None)
    name = "waiting for shard 0 of 4: rows 0-99, 20 %"
    assert screen(shards.work(11), columns=80)[1:] == []
    moving = shards.work(9)
    (bar, row) = screen(moving, columns=80)
    assert "[00:20<01:20, " in bar
    assert row == name
    for _ in range(2):
        hung = shards.work(30, hung=True)
        log.show(hung)
        (bar, row) = screen(hung, columns=80)
        assert "<?, " in bar
        assert row == name
    assert f"eta ?, 3/4 shards, {name}" in caplog.messages[-1]
    (bar, row) = screen(shards.work(20), columns=80)
    assert "[01:40<0" in bar
    assert row == "waiting for shard 0 of 4: rows 0-99, 40 %"
