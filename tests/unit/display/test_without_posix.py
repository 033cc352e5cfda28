"""The displays need nothing that only POSIX has."""

from __future__ import annotations

import contextlib
from pathlib import Path

from support.emulator import Emulator
from support.terminal import Terminal

PROGRAM = """
import os, signal, sys

sys.modules["fcntl"] = sys.modules["termios"] = None  # importing them fails from now on
for module, names in ((os, ("fork", "register_at_fork", "ttyname")), (signal, ("SIGHUP", "SIGKILL"))):
    for name in names:
        delattr(module, name)

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.base import choose_display
from speedy_utils._display.log import LogDisplay

bars = choose_display(True)
bars.show(Snapshot(StageSnapshot("Read", 5, 10)))
print("printed on stdout")
print("printed on stderr", file=sys.stderr)
bars.show(Snapshot(StageSnapshot("Read", 10, 10, elapsed=2.0), final=True))
bars.close()
LogDisplay().show(Snapshot(StageSnapshot("Log", 10, 10, elapsed=2.0), final=True))
print(type(bars).__name__)
"""


def test_bars_and_log_lines_need_no_posix(tmp_path: Path) -> None:
    """Without ``fcntl``, ``termios``, ``os.ttyname`` and forks the displays work as ever."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with contextlib.closing(Terminal(script, (60, 12))) as program:
        assert program.wait() == 0, program.text
    emulator = Emulator(60, 12)
    emulator.feed(program.text)
    *printed, bar, log, kind = emulator.lines()
    assert printed == ["printed on stdout", "printed on stderr"]
    assert bar.startswith("Read: 100%|██")
    assert log.endswith(" Log: 100% 10/10 in 00:02, 5.00 items/s")
    assert kind == "BarDisplay"
