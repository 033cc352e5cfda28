"""What a run leaves in a tmux, which keeps what leaves the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tmux import MISSING, Tmux

PROGRAM = """
import time
from speedy_utils import multi_process, track
def count(name):
    for number in track(range(30), desc=name):
        time.sleep(0.01)
        if number == 20 and {prints}:
            print(f"half of {{name}}")
multi_process(count, ["Read", "Write"], backend="seq", poll_interval=0.02, total_items=lambda _: 30)
"""


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
@pytest.mark.parametrize("prints", [False, True])
def test_a_bar_on_the_top_row_pushes_nothing_into_the_scrollback(tmp_path: Path, prints: bool) -> None:
    """However often lines on the top row are drawn anew, printed above or end, no row leaves the screen."""
    script = tmp_path / "driver.py"
    script.write_text(PROGRAM.format(prints=prints))
    tmux = Tmux(script)
    try:
        assert tmux.wait() == 0, tmux.rows
        assert tmux.history == 0
        assert tmux.rows[: 2 * prints] == ["half of Read", "half of Write"][: 2 * prints]
        assert any("60/60" in row for row in tmux.rows)
    finally:
        tmux.close()
