"""Bars in a terminal: what is on the screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.lines import steady
from support.screen import EmulatedTerminal
from tqdm.utils import disp_len

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.terminal.screen import Screen

TOTAL = 2_948_390
NAME = f"Processing {TOTAL:,} items"


def reading(done: int, total: int | None = TOTAL, elapsed: float = 0.0, **more: Any) -> Snapshot:
    """A snapshot of a run with one line."""
    return Snapshot(steady(StageSnapshot(NAME, done, total, elapsed=elapsed)), **more)


def bars_on(terminal: EmulatedTerminal, *, leave: bool = True) -> BarDisplay:
    """Bars on a terminal."""
    return BarDisplay(Screen(terminal, size=terminal.size), leave=leave)


def drawn(*snapshots: Snapshot, columns: int = 100, leave: bool = True, close: bool = True) -> list[str]:
    """What stands in the terminal after some snapshots."""
    terminal = EmulatedTerminal(columns, 24)
    bars = bars_on(terminal, leave=leave)
    for snapshot in snapshots:
        bars.show(snapshot)
    rows = terminal.lines()
    bars.close()
    return terminal.lines() if close else rows


HALF = reading(1_671_800, elapsed=65.287)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (96, f"{NAME}:  57%|██████▏    | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"),
        (40, "Processing: 57% 1,671,800/2,948,390"),
        (20, "1,671,800/2,948,390"),
    ],
)
def test_line_fits_the_terminal(columns: int, line: str) -> None:
    """The line leaves the last column free, and its numbers are whole at any width."""
    for close in (True, False):
        assert drawn(reading(0), HALF, columns=columns, close=close) == [line]
    assert disp_len(line) < columns


def test_line_is_ascii_where_the_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that can't write blocks gets a bar of ``#``, and no question marks for dots."""
    terminal = EmulatedTerminal(100, 24)
    terminal.encoding = "ascii"
    monkeypatch.setattr("sys.stderr", terminal)
    bars = bars_on(terminal)
    bars.show(reading(5, 10, phase="starting Ray"))
    bars.close()
    (row,) = terminal.lines()
    assert row.isascii()
    assert "50%|##" in row
    assert row.endswith("? items/s, starting Ray...]")


READ = StageSnapshot("Read", 4, 8, elapsed=2.0)
WRITE = StageSnapshot("Write", 1_000, None, elapsed=1.0, counters={"tokens": 5e6})


def test_each_stage_has_a_line() -> None:
    """Each stage has a line with its own clock, also if it appears later; only the first has remarks."""
    first = reading(0, 10, tasks_total=2)
    more = replace(first, run_line=replace(first.run_line, elapsed=3.0), stages=(READ, WRITE), final=True)
    run, read, write = drawn(first, more)
    assert run.endswith("| 0/10 [00:03, ? items/s, 0/2 tasks]")
    assert read.startswith("Read:  50%|██")
    assert read.endswith("| 4/8 [00:02, 2.00 items/s]")  # the run has ended short: no time is left
    assert write == "Write: 1,000 items [00:01, 1,000 items/s, tokens=5.00M (5.00M/s)]"


def test_lines_are_in_the_order_of_the_snapshot() -> None:
    """A stage that comes between others gets its row there, and no row is left over."""
    names = ["Read", "Tokenize", "Write"]
    stages = {name: StageSnapshot(name, 1, None, elapsed=1.0) for name in names}
    run = reading(0, 10)
    some = replace(run, stages=(stages["Read"], stages["Write"]))
    every = replace(run, stages=tuple(stages.values()))
    for last in (some, every):
        rows = drawn(every, some, every, last, close=False)
        assert [row.split(":")[0] for row in rows] == [stage.name for stage in last.lines]


def test_the_run_line_vanishes_when_stages_show_the_same() -> None:
    """Once the run has no line of its own the row is gone, and the remarks stand behind the first stage."""
    before = reading(0, 8, tasks_total=2)
    (row,) = drawn(before, replace(before, stages=(READ,), show_run_line=False), close=False)
    assert row.startswith("Read:  50%|")
    assert row.endswith("items/s, 0/2 tasks]")


def test_a_run_without_a_line_of_its_own_ends_with_a_summary() -> None:
    """Below lines of stages the last row sums the run up; if its own line is shown there is none."""
    stages = replace(READ, done=8), StageSnapshot("Write", 8, 8, elapsed=1.0)
    run_line = StageSnapshot("Run", 8, 8, elapsed=2.5)
    over = Snapshot(run_line, stages, show_run_line=False, tasks_total=2, tasks_done=2, final=True)
    live, (*_, summary) = drawn(over, close=False), drawn(over)
    assert [row.split(":")[0] for row in live] == ["Read", "Write"]
    assert drawn(over) == [*live, summary]
    assert summary == "8 items in 00:02, 3.20 items/s, 2/2 tasks"
    assert len(drawn(replace(over, show_run_line=True))) == 3


@pytest.mark.parametrize("stages", [(), (READ, WRITE)])
def test_lines_that_do_not_stay_leave_nothing(stages: tuple[StageSnapshot, ...]) -> None:
    """With ``leave=False`` lines and summary are gone at the end; a run that showed nothing has none."""
    run = replace(HALF, stages=stages, show_run_line=not stages, final=True)
    assert len(drawn(run, leave=False, close=False)) == max(len(stages), 1)
    assert drawn(run, leave=False) == drawn() == []
