"""Results that are kept on disk, on each backend: the same call runs only what is missing."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import UNFINISHED, ResumeError, TaskError, multi_process, report_progress, track


@dataclass
class Answer:
    """A result of a class of the program's."""

    number: int


def answer(i: int, folder: Path, *, broken: int = -1) -> Answer:
    """Note that an item was paid for, count ten, and fail for one item as long as a file is there."""
    with (folder / "paid").open("a") as file:
        file.write(f"{i}\n")
    for _ in track(range(10)):
        report_progress(0, tokens=2)
    if i == 4 and (folder / "broken").exists():
        raise ConnectionError(f"no answer for {i}")
    return Answer(i)


def paid(folder: Path) -> list[int]:
    """Return the items that were paid for since the last time."""
    found = sorted(map(int, (folder / "paid").read_text().split()))
    (folder / "paid").unlink()
    return found


def test_the_same_call_runs_only_what_is_missing(
    backend: str, recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Results are kept as they come; the bar counts them as kept, and no item is paid for twice."""
    options: Any = {
        "backend": backend,
        "num_workers": 1,
        "checkpoint": tmp_path / "answers",
        "folder": tmp_path,
    }
    (tmp_path / "broken").touch()
    with pytest.raises(TaskError) as caught:
        multi_process(answer, range(8), progress=False, **options)
    assert caught.value.results == [*map(Answer, range(4)), *[UNFINISHED] * 4]
    assert (
        f"stopped: 4 of 8 results are kept in {str(tmp_path / 'answers')!r}, and the same call runs only the "
        "others"
    ) in caplog.messages
    assert paid(tmp_path) == [0, 1, 2, 3, 4]

    (tmp_path / "broken").unlink()
    results = multi_process(answer, range(8), progress=recorder, **options)
    assert results == [*map(Answer, range(8))]
    assert {type(each) for each in results} == {Answer}
    assert paid(tmp_path) == [4, 5, 6, 7]
    assert any(message.startswith("resumed: 4 of 8 results kept from ") for message in caplog.messages)
    first, last = recorder.snapshots[0], recorder.last
    assert (first.done, first.initial, first.tasks_kept, first.tasks_done) == (40, 40, 4, 4)
    assert (last.done, last.total, last.initial, last.tasks_done, last.tasks_total) == (80, 80, 40, 8, 8)
    assert last.run_line.counters == {"tokens": 160}
    assert last.complete

    assert multi_process(answer, range(8), progress=recorder, **options) == results
    assert not (tmp_path / "paid").exists()
    assert (recorder.last.done, recorder.last.total, recorder.last.tasks_kept) == (80, 80, 8)


def square(i: int) -> Any:
    """Return a square; of five what can't be pickled."""
    return threading.Lock() if i == 5 else i * i


@pytest.mark.parametrize("backend", ["threads", "seq"], indirect=True)
def test_what_fails_is_not_kept(backend: str, recorder: Recorder, tmp_path: Path) -> None:
    """With on_error="continue" failed tasks run again, and so do those whose result can't be pickled."""
    options: Any = {"backend": backend, "num_workers": 2, "checkpoint": tmp_path, "on_error": "continue"}
    for kept in (0, 7):
        results = multi_process(square, range(8), progress=recorder, **options)
        assert [each for i, each in enumerate(results) if i != 5] == [0, 1, 4, 9, 16, 36, 49]
        assert "can't be pickled, so the checkpoint can't keep it" in results[5].reason
        assert (recorder.runs[-1][0].tasks_kept, recorder.last.tasks_done) == (kept, 8)
        # Tasks are what this run counts.
        assert (recorder.last.done, recorder.last.total, recorder.last.initial) == (8, 8, kept)


def test_totals_hold_with_what_was_kept(recorder: Recorder, tmp_path: Path) -> None:
    """Where the totals of tasks are known, those of kept ones are in the count and not in the rate."""
    items = [[0] * n for n in (3, 5, 0, 4)]
    multi_process(len, items[:3], backend="seq", checkpoint=tmp_path, progress=False, total_items=len)
    with pytest.raises(ResumeError, match="there are 4 items; there were 3"):
        multi_process(len, items, backend="seq", checkpoint=tmp_path, total_items=len)
    results = multi_process(
        len,
        items,
        backend="seq",
        checkpoint=tmp_path,
        resume="trust",
        total_items=len,
        initial=100,
        progress=recorder,
    )
    assert results == [3, 5, 0, 4]
    first, last = recorder.snapshots[0], recorder.last
    assert (first.done, first.initial, first.total) == (108, 108, 112)
    assert (last.done, last.initial, last.total, last.tasks_done) == (112, 108, 112, 4)
