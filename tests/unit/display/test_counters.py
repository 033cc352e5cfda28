"""What stands in the brackets of a line, where there is room, and what the last line has in any case."""

from __future__ import annotations

import pytest
from tqdm.utils import disp_len

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.format import format_bar, format_last, format_last_summary, format_lines

COUNTERS = {"tokens": 5e6, "bad": 3.0, "kept": 12.0}
READ = StageSnapshot("Read", 40, 80, elapsed=20.0, counters=COUNTERS, postfix="loss=0.31, ok=5")
RUN = Snapshot(READ, tasks_total=8, tasks_done=4)


@pytest.mark.parametrize(
    ("width", "end"),
    [
        (115, "4/8 tasks, tokens=5.00M (250k/s) bad=3 kept=12, loss=0.31, ok=5]"),
        (106, "4/8 tasks, tokens=5.00M (250k/s) bad=3 kept=12]"),
        (97, "4/8 tasks, tokens=5.00M (250k/s) bad=3]"),
        (88, "4/8 tasks, tokens=5.00M (250k/s)]"),
        (72, "4/8 tasks]"),
    ],
)
def test_counters_are_left_out_one_by_one(width: int, end: str) -> None:
    """The bar shrinks to ten columns first; then go the postfix, the last counter, and so on."""
    (line,) = format_lines(RUN)
    text = format_bar(line, width)
    assert text.endswith(end)
    assert "|" in text
    assert disp_len(text) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_the_last_line_has_all_counters(width: int) -> None:
    """Where there is no room for them the line has no bar, or another row, which is as wide at the most."""
    (line,) = format_lines(RUN)
    rows = format_last(line, width)
    assert all(disp_len(row) <= width for row in rows)
    assert "tokens=5.00M (250k/s) bad=3 kept=12" in rows[-1]
    assert len(rows) == (2 if width < 100 else 1)


@pytest.mark.parametrize("width", [30, 60, 100])
def test_a_last_summary_has_all_counters(width: int) -> None:
    """A summary that is too wide goes on in further rows, the counters below all else."""
    rows = format_last_summary(RUN, width)
    assert all(disp_len(row) <= width for row in rows)
    text = " ".join(row.strip() for row in rows)
    assert text.startswith("40/80 items in 00:20, 2.00 items/s, 4/8 tasks")
    assert [word for word in text.replace(",", "").split() if "=" in word] == [
        "tokens=5.00M",
        "bad=3",
        "kept=12",
    ]


def test_a_run_that_ended_with_failures_has_no_time_left() -> None:
    """Nothing more will come, so no time is left, in the line of the run as in those of its stages."""
    short = StageSnapshot("Pack", 30, 80, elapsed=20.0, eta=12.0)
    ended = Snapshot(READ, (short,), tasks_total=8, tasks_done=4, tasks_failed=4, final=True)
    assert [line.eta for line in format_lines(ended)] == ["", ""]


@pytest.mark.parametrize("percent", [True, False])
def test_a_long_name_is_cut_before_rate_and_clock(percent: bool) -> None:
    """A finished line of a long name keeps both, in a narrow terminal too."""
    name = "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE)"
    done = StageSnapshot(name, 420, 420 if percent else None, elapsed=3.0, counted_in=3.0)
    (line,) = format_lines(Snapshot(done))
    text = format_bar(line, 79)
    assert text.startswith("Capturing CUDA graphs (mixed pr…: ")
    assert text.endswith("[00:03<00:00, 140 items/s]" if percent else "[00:03, 140 items/s]")
    assert name in format_bar(line, 120)
