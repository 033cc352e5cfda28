"""What the bar shows of what tasks report, on each backend."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.recorder import Recorder
from support.screen import EmulatedTerminal
from tqdm import tqdm

from speedy_utils import Snapshot, multi_process, report_progress, track, tracked
from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.terminal.screen import Screen

WORDS = [["a"] * 7, ["b"] * 250, ["c"] * 43]
"""Items of which one holds several: 300 in all."""


def never_backwards(snapshots: list[Snapshot]) -> bool:
    """Whether the bar only grew."""
    done = [snapshot.done for snapshot in snapshots]
    return done == sorted(done)


def by_one(words: list[str]) -> int:
    """Report each word."""
    for _ in words:
        report_progress()
    return len(words)


def in_batches(words: list[str]) -> int:
    """Report ten words at a time."""
    for start in range(0, len(words), 10):
        report_progress(len(words[start : start + 10]))
    return len(words)


def in_a_loop(words: list[str]) -> int:
    """Track a list."""
    return sum(1 for _ in track(words))


def over_a_generator(words: list[str]) -> int:
    """Track something without a length."""
    return sum(1 for _ in track(word for word in words))


def with_numpy(words: list[str]) -> int:
    """Report NumPy's kind of integer."""
    report_progress(np.int64(len(words)))
    return len(words)


@tracked
def shout(word: str) -> str:
    """Count one a call."""
    return word.upper()


def in_tracked_calls(words: list[str]) -> int:
    """Call a tracked function for each word."""
    return len([shout(word) for word in words])


@tracked
def shouted(words: list[str]) -> Iterator[str]:
    """Count one a yield."""
    yield from (word.upper() for word in words)


def in_a_tracked_generator(words: list[str]) -> int:
    """Drain a tracked generator."""
    return sum(1 for _ in shouted(words))


def not_at_all(words: list[str]) -> int:
    """Report nothing."""
    return len(words)


def too_little(words: list[str]) -> int:
    """Report half of the words."""
    report_progress(len(words) // 2)
    return len(words)


def until_a_break(words: list[str]) -> int:
    """Leave a tracked loop early."""
    for i, _ in enumerate(track(words)):
        if i == 3:
            break
    return len(words)


@pytest.mark.parametrize(
    "task",
    [
        by_one,
        in_batches,
        in_a_loop,
        over_a_generator,
        with_numpy,
        in_tracked_calls,
        in_a_tracked_generator,
        not_at_all,
        too_little,
        until_a_break,
    ],
)
@pytest.mark.parametrize("total", [len, 300], ids=["per item", "in all"])
def test_a_run_ends_at_exactly_its_total(backend: str, recorder: Recorder, task: Any, total: Any) -> None:
    """However tasks report, and if they don't, the bar ends at exactly the total."""
    results = multi_process(task, WORDS, backend=backend, num_workers=2, total_items=total, progress=recorder)
    assert results == [7, 250, 43]
    assert (recorder.last.done, recorder.last.total, recorder.last.unit) == (300, 300, "items")
    assert (recorder.last.tasks_done, recorder.last.tasks_failed, recorder.last.retries) == (3, 0, 0)
    assert recorder.last.final
    assert never_backwards(recorder.snapshots)


@pytest.mark.parametrize("total", [len, 300], ids=["per item", "in all"])
def test_reporting_too_much_is_clamped_and_warned_about_once(
    backend: str, recorder: Recorder, caplog: pytest.LogCaptureFixture, total: Any
) -> None:
    """A run whose tasks report too much ends at its total, with one warning that says what to do."""

    def twice(words: list[str]) -> None:
        for _ in track(words):
            report_progress()

    multi_process(twice, WORDS, backend=backend, num_workers=2, total_items=total, progress=recorder)
    assert (recorder.last.done, recorder.last.total) == (300, 300)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "task" in warning.getMessage()
    assert "items" in warning.getMessage()
    assert "desc=" in warning.getMessage()
    assert all(snapshot.done <= 300 for snapshot in recorder.snapshots)


def test_without_a_total_tasks_are_counted(backend: str, recorder: Recorder) -> None:
    """Without total_items the bar counts tasks, if they count no items; counters stand beside them."""

    def task(words: list[str]) -> None:
        report_progress(0, letters=len(words))
        list(track(words, desc="Read"))

    multi_process(task, WORDS, backend=backend, num_workers=2, unit="lists", progress=recorder)
    run = recorder.last.run_line
    assert (run.name, run.done, run.total, run.unit) == ("Processing 3 lists", 3, 3, "lists")
    assert run.counters == {"letters": 300}
    assert [(line.name, line.done, line.unit) for line in recorder.last.stages] == [("Read", 300, "items")]


def tracked_words(words: list[str]) -> Iterator[str]:
    """Loop with track."""
    yield from track(words)


def words_of_a_bar(words: list[str]) -> Iterator[str]:
    """Loop with a bar of tqdm, in which there is another."""
    for word in tqdm(words, mininterval=0, miniters=1):
        list(tqdm("abc"))
        yield word


def reported_words(words: list[str]) -> Iterator[str]:
    """Report each word."""
    for word in words:
        yield word
        report_progress()


@pytest.mark.parametrize(
    ("loop", "shown"),
    [
        (tracked_words, "3/7+ items, 0/3 tasks"),
        (words_of_a_bar, "3/7+ items, 0/3 tasks"),
        (reported_words, "3 items, 0/3 tasks"),
    ],
)
def test_items_are_counted_without_a_total(
    backend: str, recorder: Recorder, until: Callable[..., Any], tmp_path: Path, loop: Any, shown: str
) -> None:
    """Without total_items the line shows items from the first one on, beside the tasks, and ends with all."""
    seen = tmp_path / "seen"
    terminal = EmulatedTerminal(100, 24)
    bars = BarDisplay(Screen(terminal, size=terminal.size))
    lines: list[str] = []

    def task(words: list[str]) -> None:
        for turn, _ in enumerate(loop(words)):
            if turn == 3:
                until(seen.exists)

    def look(snapshot: Snapshot) -> None:
        bars.show(snapshot)
        if (snapshot.done, snapshot.unit) == (3, "items"):
            lines.extend(terminal.lines())
            seen.touch()

    recorder.hook = look
    options: dict[str, Any] = {"num_workers": 1, "poll_interval": 0.02}
    multi_process(task, WORDS, backend=backend, progress=recorder, **options)
    bars.close()
    assert lines[0].startswith("Processing 3 tasks:   0%|")
    assert f"| {shown} [" in lines[0]
    (last,) = terminal.lines()
    assert last.startswith("Processing 3 tasks: 100%|")
    assert "| 300/300 [" in last
    assert last.endswith(" items/s, 3/3 tasks]")


def test_some_tasks_may_count_and_others_not(backend: str, recorder: Recorder) -> None:
    """The items of tasks that count are the total at the end; there is none if a task has failed."""

    def task(words: list[str]) -> None:
        if len(words) != 7:
            list(track(words))
        if len(words) == 43:
            raise ValueError

    multi_process(task, WORDS[:2], backend=backend, num_workers=2, progress=recorder)
    multi_process(task, WORDS, backend=backend, num_workers=2, on_error="continue", progress=recorder)
    ends = [run[-1] for run in recorder.runs]
    assert [(end.done, end.total, end.unit, end.tasks_done) for end in ends] == [
        (250, 250, "items", 2),
        (293, None, "items", 2),
    ]


def test_a_tracked_function_without_a_total_is_one_item(backend: str, recorder: Recorder) -> None:
    """Calls of a tracked function are items, of which a run knows how many there are."""
    multi_process(shout, ["a", "b"], backend=backend, num_workers=2, progress=recorder)
    assert (recorder.last.desc, recorder.last.done, recorder.last.total) == ("Processing 2 items", 2, 2)


def test_a_tracked_function_brings_its_total(backend: str, recorder: Recorder) -> None:
    """With @tracked(total=...) the bar counts items, and its total is the sum over the calls."""

    @tracked(total="words")
    def shorten(words: list[str], width: int) -> list[str]:
        return [word[:width] for word in track(words)]

    results = multi_process(shorten, WORDS, backend=backend, num_workers=2, width=1, progress=recorder)
    assert results == WORDS
    assert (recorder.last.done, recorder.last.total, recorder.last.unit) == (300, 300, "items")
    assert recorder.last.desc == "Processing 300 items"


def test_a_tracked_total_may_be_a_number_or_a_function(backend: str, recorder: Recorder) -> None:
    """The total of a tracked function is the same for each call, or made of the call's arguments."""

    @tracked(total=5)
    def five(i: int) -> int:
        return i

    @tracked(total=lambda i, scale: i * scale)
    def some(i: int, scale: int) -> int:
        return i * scale

    assert multi_process(five, range(4), backend=backend, num_workers=2, progress=recorder) == [0, 1, 2, 3]
    tens = multi_process(some, range(4), backend=backend, num_workers=2, scale=10, progress=recorder)
    assert tens == [0, 10, 20, 30]
    assert [(run[-1].done, run[-1].total) for run in recorder.runs] == [(20, 20), (60, 60)]


def test_a_tracked_method_brings_its_total(backend: str, recorder: Recorder) -> None:
    """A bound method is looked through to its total."""

    class Splitter:
        def __init__(self, mark: str) -> None:
            self.mark = mark

        @tracked(total="text")
        def split(self, text: str) -> list[str]:
            return text.split(self.mark)

    parts = multi_process(Splitter("-").split, ["a-b", "c"], backend=backend, progress=recorder)
    assert parts == [["a", "b"], ["c"]]
    assert (recorder.last.done, recorder.last.total) == (4, 4)


def test_nothing_to_count_is_no_error(backend: str, recorder: Recorder) -> None:
    """A run whose items all stand for nothing ends at 0 of 0."""
    assert multi_process(in_a_loop, [[], []], backend=backend, total_items=len, progress=recorder) == [0, 0]
    assert (recorder.last.done, recorder.last.total) == (0, 0)


def test_the_bar_has_the_given_name(backend: str, recorder: Recorder) -> None:
    """Desc names the bar."""
    multi_process(abs, [1], backend=backend, desc="Absolutely", progress=recorder)
    assert [line.name for line in recorder.last.lines] == ["Absolutely"]


def test_named_stages_have_lines_of_their_own(backend: str, recorder: Recorder) -> None:
    """Each named stage is one line, summed over all tasks, and exact at the end."""

    def steps(words: list[str]) -> None:
        for _ in track(words, desc="Tokenize"):
            report_progress(2, desc="Tokens")

    multi_process(
        steps, WORDS, backend=backend, num_workers=2, total_items=len, desc="All", progress=recorder
    )
    assert (recorder.last.desc, recorder.last.done, recorder.last.total) == ("All", 300, 300)
    lines = {line.name: (line.done, line.total) for line in recorder.last.lines}
    assert lines["Tokenize"] == (300, 300)
    assert list(lines) == ["Tokenize", "Tokens"]  # they tell the whole: the run's own line has gone


def test_a_stage_counts_what_was_finished(backend: str, recorder: Recorder) -> None:
    """A stage without a total shows what was reported: a break leaves what was finished."""

    def some(words: list[str]) -> None:
        for i, _ in enumerate(track((word for word in words), desc="Read")):
            if i == 5:
                break

    multi_process(some, WORDS, backend=backend, num_workers=2, progress=recorder)
    assert [(stage.name, stage.done) for stage in recorder.last.lines] == [
        ("Processing 3 tasks", 3),
        ("Read", 15),
    ]


def test_threads_of_a_task_count(backend: str, recorder: Recorder) -> None:
    """What threads report that a task has started counts for the task."""

    def task(words: list[str]) -> None:
        def part() -> None:
            for _ in words:
                report_progress(desc="In threads")

        threads = [threading.Thread(target=part) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # In one process only the threads of a task that runs alone can be distinguished.
    multi_process(
        task, WORDS, backend=backend, num_workers=1 if backend == "threads" else 2, progress=recorder
    )
    assert [(stage.name, stage.done) for stage in recorder.last.stages] == [("In threads", 900)]


def test_coroutines_of_a_task_count(backend: str, recorder: Recorder) -> None:
    """What coroutines and the threads of asyncio report counts for the task, in each backend."""

    def task(words: list[str]) -> None:
        async def part() -> None:
            for _ in words:
                await asyncio.sleep(0)
                report_progress(desc="In asyncio")

        async def main() -> None:
            await asyncio.gather(part(), asyncio.create_task(part()), asyncio.to_thread(by_stage, words))

        asyncio.run(main())

    def by_stage(words: list[str]) -> None:
        for _ in words:
            report_progress(desc="In asyncio")

    multi_process(task, WORDS, backend=backend, num_workers=2, progress=recorder)
    assert [(stage.name, stage.done) for stage in recorder.last.stages] == [("In asyncio", 900)]


def test_tracked_coroutines_of_a_task_count(backend: str, recorder: Recorder) -> None:
    """Tracked coroutines and async generators count as functions and generators do."""

    @tracked(desc="Fetched")
    async def fetch(word: str) -> str:
        await asyncio.sleep(0)
        return word

    @tracked(desc="Streamed")
    async def stream(words: list[str]) -> Any:
        for word in words:
            yield word

    def task(words: list[str]) -> int:
        async def main() -> int:
            await asyncio.gather(*(fetch(word) for word in words))
            return len([word async for word in stream(words)])

        return asyncio.run(main())

    assert multi_process(task, WORDS, backend=backend, num_workers=2, progress=recorder) == [7, 250, 43]
    lines = {stage.name: stage.done for stage in recorder.last.stages}
    assert lines == {"Fetched": 300, "Streamed": 300}


@pytest.mark.parametrize("reports", [True, False], ids=["report_progress", "track"])
def test_items_show_while_their_task_runs(
    backend: str, recorder: Recorder, tmp_path: Path, until: Callable[..., Any], reports: bool
) -> None:
    """What a task reports, and how far its loop is, is on the bar before the task ends or calls again."""
    seen = tmp_path / "seen"

    def task(words: list[str]) -> None:
        if reports:
            report_progress(3)
            until(seen.exists)
            return
        for i, _ in enumerate(track(words)):
            if i == 3:
                until(seen.exists)

    recorder.hook = lambda snapshot: snapshot.done == 3 and seen.touch()
    options: dict[str, Any] = {"num_workers": 1, "total_items": len, "poll_interval": 0.02}
    multi_process(task, [WORDS[0]], backend=backend, progress=recorder, **options)
    assert recorder.last.done == 7


def test_the_clock_starts_with_the_first_item(backend: str, recorder: Recorder) -> None:
    """The time shown leaves out what came before work began, and has passed at the end."""
    multi_process(in_a_loop, WORDS, backend=backend, total_items=len, progress=recorder)
    assert recorder.snapshots[0].elapsed == 0
    assert recorder.last.elapsed > 0
    counted_in = recorder.last.run_line.counted_in
    assert counted_in is not None
    assert 0 < counted_in <= recorder.last.elapsed
    assert recorder.last.rate == pytest.approx(300 / counted_in)


def test_a_run_inside_a_task_draws_nothing(
    backend: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the program's own thread draws: a run inside a task returns its results, and has no bar."""
    monkeypatch.setenv("SPEEDY_UTILS_PROGRESS", "log")
    caplog.set_level("INFO", "speedy_utils")

    def task(i: int) -> tuple[list[int], str]:
        from speedy_utils._run.forwarding import display_here

        inner = multi_process(in_a_loop, WORDS[:i], backend="seq", total_items=len)
        return inner, type(display_here(True)).__name__

    results = multi_process(
        task, [1, 2], backend=backend, num_workers=2, total_items=lambda i: i, progress=recorder
    )
    assert results == [([7], "NullDisplay"), ([7, 250], "NullDisplay")]
    assert (recorder.last.done, recorder.last.total) == (3, 3)
    assert not [record for record in caplog.records if "Processing" in record.getMessage()]
    multi_process(in_a_loop, WORDS, backend=backend, num_workers=2, total_items=len)
    first, *_, last = [record for record in caplog.records if record.name == "speedy_utils.progress"]
    workers = "1 worker" if backend == "seq" else "2 workers"
    assert first.getMessage().startswith(f"Processing 300 items in 3 tasks, {workers}")
    assert last.getMessage().startswith("Processing 300 items: 100% 300/300")


def test_a_bad_number_never_ends_the_work_and_is_told_once(
    backend: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """What can't be counted is left out, in however many workers, and one warning names it and its line."""

    def task(i: int) -> int:
        report_progress(1, desc="Train", loss=float("nan"), tokens=-2)
        report_progress(0.5, desc="Train")  # type: ignore[arg-type]
        list(track("ab", desc="Read", size=lambda _: 1.5))
        with tqdm(total=9, desc="Fetch") as bar:
            bar.update(7)
            bar.update(-4)
            bar.n = float("nan") if i else bar.n
        return i

    assert multi_process(task, range(4), backend=backend, num_workers=4, progress=recorder) == [0, 1, 2, 3]
    train, read, fetch = recorder.last.stages
    assert (train.done, train.counters, read.done, fetch.done >= 3) == (4, {"tokens": -8}, 0, True)
    (record,) = caplog.records
    assert f"loss must be a finite number, not nan ({__file__}:" in record.message
