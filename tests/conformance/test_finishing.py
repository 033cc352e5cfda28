"""100 % means that every task's result is in and saved: what is shown from the last count to that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.backends import AT_ONCE
from support.recorder import Recorder
from support.rows import numbered
from support.screen import a_terminal
from support.waiting import wait_until

from speedy_utils import (
    FailedShardsError,
    Snapshot,
    multi_process,
    multi_process_dataset,
    track,
)
from speedy_utils._display.bars import BarDisplay


class Looker(Recorder):
    """Lets the tasks return once a phase was shown, and keeps what the lines said until then.

    Args:
        phase: The phase.
        flag: A file that the tasks wait for.
    """

    def __init__(self, phase: str, flag: Path) -> None:
        super().__init__()
        self._phase, self._flag = phase, flag
        self.hook = self._look

    def _look(self, snapshot: Snapshot) -> None:
        if snapshot.phase == self._phase:
            self._flag.touch()

    @property
    def early(self) -> list[Snapshot]:
        """What was shown before the run was complete."""
        return [snapshot for snapshot in self.snapshots if not snapshot.complete]


def count_and_wait(words: list[str], stage: str | None, flag: Path) -> int:
    """Count all items, and take long to make something of them."""
    kept = list(track(words, desc=stage))
    wait_until(flag.exists)
    return len(kept)


@pytest.mark.parametrize("stage", [None, "Tokenize"])
def test_a_run_is_not_finished_while_its_tasks_are(backend: str, stage: str | None, tmp_path: Path) -> None:
    """While tasks have counted all and not returned no line is finished, and the phase says how many."""
    running = "2 tasks" if backend in {"ray", "processes", "threads"} else "1 task"
    look = Looker(f"finishing {running}", tmp_path / "flag")
    options: Any = {"total_items": len, "poll_interval": 0.05, "progress": look, "num_workers": 2}
    words = [["one", "two"], ["three"]]
    lengths = multi_process(
        count_and_wait, words, stage=stage, flag=tmp_path / "flag", backend=backend, **options
    )
    assert lengths == [2, 1]
    assert not any(line.finished for snapshot in look.early for line in snapshot.lines)
    assert (look.last.complete, look.last.done, look.last.phase) == (True, 3, "")
    assert all(line.finished for line in look.last.lines)


def save_slowly(dataset: Any, output_path: str, stage: str | None, flag: Path) -> Any:
    """Make rows of all rows, as the first example does, and take long to return them."""
    rows = [{"id": row["id"]} for row in track(dataset, desc=stage)]
    wait_until(flag.exists)
    return Dataset.from_list(rows)


@pytest.mark.parametrize("stage", [None, "Tokenize"])
def test_no_frame_says_100_before_the_output_is_there(
    backend: str, stage: str | None, tmp_path: Path, out: Path
) -> None:
    """In a terminal the line stays below 100 % and says that shards are saved, until the output appears."""
    frames: list[tuple[bool, list[str]]] = []
    saving = "2 of 2" if backend in {"ray", "processes", "threads"} else "1 of 2"
    with a_terminal(90) as (terminal, screen):
        terminal.on_write = lambda: frames.append((out.exists(), terminal.lines()))
        bars = BarDisplay(screen)
        look = Looker(f"saving {saving} shards", tmp_path / "flag")

        def show(snapshot: Snapshot) -> None:
            bars.show(snapshot)
            look(snapshot)

        kwargs = {"stage": stage, "flag": tmp_path / "flag"}
        options: Any = {"num_workers": 2, "backend": backend, "poll_interval": 0.05, "progress": show}
        multi_process_dataset(numbered(200), save_slowly, out, kwargs, **options)
        bars.close()
    early = [line for there, lines in frames if not there for line in lines]
    assert not [line for line in early if "100%" in line]
    assert [
        line for line in early if " 99%" in line and f"saving {saving} shards…" in line
    ] or backend == "seq"
    assert not [line for line in early if "<00:00" in line and "200/200" in line]
    there, last = frames[-1]
    assert there
    assert "100%" in last[0]
    assert "200/200" in last[0]


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_shards_that_an_earlier_call_has_saved_are_not_waited_for(
    backend: str, tmp_path: Path, out: Path
) -> None:
    """A call that goes on with an interrupted one says how many of all shards it saves."""
    flag, broken = tmp_path / "flag", tmp_path / "broken"
    broken.touch()

    def process(dataset: Any, output_path: str) -> Any:
        rows = [{"id": row["id"]} for row in track(dataset)]
        if rows[0]["id"] >= 5:
            if broken.exists():
                raise ValueError
            wait_until(flag.exists)
        return Dataset.from_list(rows)

    look = Looker("saving 2 of 4 shards", flag)
    options: Any = {"num_workers": 2, "num_shards": 4, "backend": backend, "poll_interval": 0.05}
    with pytest.raises(FailedShardsError):
        multi_process_dataset(numbered(10), process, out, progress=look, **options)
    assert (look.last.complete, look.last.run_line.finished, look.last.done) == (False, False, 10)
    broken.unlink()
    look.runs.clear()
    multi_process_dataset(numbered(10), process, out, progress=look, **options)
    assert not any(line.finished for snapshot in look.early for line in snapshot.lines)
    assert (look.last.complete, look.last.done) == (True, 10)
