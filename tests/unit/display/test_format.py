"""Counts, rates and lines as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lines import steady
from tqdm.utils import disp_len

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.format import (
    LineView,
    format_amount,
    format_bar,
    format_count,
    format_counters,
    format_eta,
    format_excess,
    format_lines,
    format_number,
    format_percent,
    format_quantity,
    format_rate,
    format_remarks,
    format_si,
    format_summary,
)
from speedy_utils._state.stages import Excess

TOTAL = 2_948_390
HALF = StageSnapshot(f"Processing {TOTAL:,} items", 1_671_800, TOTAL, elapsed=65.287)
RATE = 25_607.0


def stage(done: int, total: int | None = None, **more: Any) -> StageSnapshot:
    """Make a stage."""
    return StageSnapshot("Read", done, total, **more)


def bar_line(
    stage: StageSnapshot,
    remarks: list[str],
    rate: float,
    width: int,
    *,
    phase: str = "",
    ascii_only: bool = False,
) -> str:
    """Return the line of a stage in a width."""
    return format_bar(
        LineView.of(steady(stage, rate), phase=phase, remarks=remarks), width, ascii_only=ascii_only
    )


def test_a_rate_has_three_digits() -> None:
    """A rate below one a second is turned around; its unit loses a plural ``s`` that is clearly one."""
    texts = {None: "? items/s", 0.0: "? items/s", 25_606.9: "25,607 items/s", 99.96: "100 items/s"}
    texts |= {12.34: "12.3 items/s", 1.0: "1.00 items/s", 0.5: "2.00 s/item", 0.001: "1,000 s/item"}
    assert {rate: format_rate(rate, "items") for rate in texts} == texts
    for unit in ("batches", "entries", "boxes", "loss", "data", "it"):
        assert format_rate(0.5, unit) == f"2.00 s/{unit}"


DIGITS = {1_234_567.8: "1,234,568", 99.96: "100", 99.94: "99.9", 9.996: "10.0", 9.994: "9.99"}
SHORT = {0: "0", 3: "3", 0.25: "0.25", 999.4: "999", 999.6: "1.00k", 51_234: "51.2k", 1.21e9: "1.21G"}
HUGE = {10**24: "1.0Y", 10**27: "1e+27", 10**300: "1e+300"}


def test_numbers_have_three_digits_or_more() -> None:
    """Numbers have separators or decimals; short ones take three or four characters if there is a prefix."""
    assert {value: format_number(value) for value in DIGITS} == DIGITS
    assert {value: format_si(value) for value in SHORT | HUGE} == SHORT | HUGE


def test_bytes_are_rounded_and_items_are_not() -> None:
    """Bytes are written with prefixes, in counts, rates and the summary; items to the last one."""
    moved = stage(1_210_000_000, 4 * 10**9, unit="B", elapsed=10.0)
    assert format_count(moved) == "1.21G/4.00G"
    assert format_rate(moved.rate, "B") == "121MB/s"
    assert format_rate(0.5, "B") == "0.5B/s"
    assert format_rate(0.0, "B") == "? B/s"
    assert format_summary(Snapshot(moved)) == "1.21G/4.00 GB in 00:10, 121MB/s"
    assert format_summary(Snapshot(replace(moved, done=4 * 10**9))) == "4.00 GB in 00:10, 400MB/s"
    assert format_amount(1_210_000_001, "items") == "1,210,000,001"


def test_quantities_have_their_unit() -> None:
    """One item is an item, if the singular is clear, and bytes have a prefix."""
    texts = {(1_012, "items"): "1,012 items", (1, "items"): "1 item", (0, "tasks"): "0 tasks"}
    texts |= {
        (1, "batches"): "1 batches",
        (696_000, "B"): "696 kB",
        (7, "B"): "7 B",
        (10**27, "B"): "1e+27 B",
    }
    assert {quantity: format_quantity(*quantity) for quantity in texts} == texts


@pytest.mark.parametrize(
    ("excess", "text"),
    [
        (Excess(7, 1_012, 10, "items"), "task 7 reported 1,012 of 10 items"),
        (Excess("embed_all", 12, 10, "rows"), "embed_all reported 12 of 10 rows"),
        (Excess(7, 2, 1, "rows"), "task 7 reported 2 of 1 row"),
        (Excess(None, 696_000, 500_000, "B"), "the tasks reported 696 kB of 500 kB"),
        (Excess(None, 500_100, 500_000, "B"), "the tasks reported 500,100 of 500,000 B"),
    ],
)
def test_excess_is_told_in_its_unit(excess: Excess, text: str) -> None:
    """What was reported and what there is are written as in a line, in full if they look the same."""
    assert format_excess(excess) == text


COUNTING = Snapshot(stage(173, elapsed=4.0), tasks_total=4)
COUNTED_ONE = replace(COUNTING, run_line=stage(173, elapsed=4.0, eta=12.0), tasks_done=1)


@pytest.mark.parametrize(
    ("snapshot", "line"),
    [
        (COUNTING, "Read:   0%|        | 173 items, 0/4 tasks [00:04<?, 43.2 items/s]"),
        (
            replace(COUNTED_ONE, tasks_failed=1),
            "Read:  25%|██      | 173 items, 1/4 tasks [00:04<00:12, 43.2 items/s, 1 failed]",
        ),
        (
            replace(COUNTING, tasks_done=4),
            "Read:  99%|███████▉| 173 items, 4/4 tasks [00:04, 43.2 items/s]",
        ),
        (
            replace(COUNTED_ONE, run_line=stage(173, 300, growing=True, elapsed=4.0, eta=12.0)),
            "Read:  25%|██      | 173/300+ items, 1/4 tasks [00:04<00:12, 43.2 items/s]",
        ),
        (
            replace(COUNTED_ONE, run_line=steady(stage(173, 400, elapsed=4.0))),
            "Read:  43%|███▍    | 173/400 [00:04<00:05, 43.2 items/s, 1/4 tasks]",
        ),
        (
            replace(COUNTING, run_line=stage(17_300, unit="B", elapsed=4.0), tasks_total=1),
            "Read:   0%|        | 17.3 kB, 0/1 task [00:04<?, 4.33kB/s]",
        ),
    ],
)
def test_items_without_a_known_total_are_as_far_as_their_tasks(snapshot: Snapshot, line: str) -> None:
    """Without a fixed total items stand beside the tasks, of which the percentage and the time left are."""
    (view,) = format_lines(snapshot)
    assert format_bar(view, disp_len(line)) == line


def test_the_percentage_is_full_only_when_all_is_done() -> None:
    """What is not all is never 100 %, however little is missing."""
    texts = {(0, 3): "0%", (2, 3): "67%", (9_999, 10_000): "99%", (0, 0): "100%", (5, None): ""}
    texts |= {(10**30 - 1, 10**30): "99%", (10**30, 10**30): "100%"}
    assert {counts: format_percent(stage(*counts)) for counts in texts} == texts


@given(done=st.integers(0, 10**12), missing=st.integers(1, 10**12), width=st.integers(120, 200))
def test_only_all_is_all(done: int, missing: int, width: int) -> None:
    """No stage that lacks an item is shown as complete, neither in numbers nor by its bar."""
    line = bar_line(stage(done, done + missing, elapsed=1.0), [], 1.0, width)
    head, bar, _ = line.split("|")
    assert "100%" not in head
    assert bar != "█" * len(bar)
    assert bar_line(stage(done, done, elapsed=1.0), [], 1.0, width).startswith("Read: 100%|██")


def test_total_that_grows_says_so() -> None:
    """While tasks will add to a total it has a plus, and there are neither percentage nor time left."""
    growing = stage(600, 600, growing=True)
    assert (format_count(growing), format_percent(growing)) == ("600/600+", "")
    assert format_eta(growing) == "?"


SAVING = stage(1_000, 1_000, elapsed=60.0, pending=True, counted_in=10.0)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (91, "Read:  99%|███████▉| 1,000/1,000 [01:00, 100 items/s, saving 63 of 64 shards…, 1/64 shards]"),
        (78, "Read:  99%|███████▉| 1,000/1,000 [01:00, 100 items/s, saving 63 of 64 shards…]"),
        (68, "Read: 99% 1,000/1,000 [01:00, 100 items/s, saving 63 of 64 shards…]"),
        (60, "Read: 99% 1,000/1,000 [01:00, saving 63 of 64 shards…]"),
        (40, "Read: 99% 1,000/1,000 [01:00]"),
    ],
)
def test_a_line_with_nothing_left_to_count_is_not_full(width: int, line: str) -> None:
    """It is at 99 %, no time is left, and what it waits for is said as long as there is room."""
    phase = "saving 63 of 64 shards"
    assert bar_line(SAVING, ["1/64 shards"], SAVING.rate, width, phase=phase) == line
    empty = stage(0, 0, pending=True)
    assert (format_percent(empty), LineView.of(empty).fraction) == ("0%", 0.99)


def test_the_time_left_is_that_of_the_snapshot() -> None:
    """It is rounded down; nothing is left of what is finished, and where it is not known there is a mark."""
    texts = {(5, 10, 10.9): "00:10", (5, 10, None): "?", (10, 10, 2.0): "00:00", (10, 10, None): "00:00"}
    texts |= {(5, None, None): "?", (0, 10**9, 1e9): "277777:46:40"}
    assert {case: format_eta(stage(*case[:2], eta=case[2])) for case in texts} == texts


def test_counters_have_rates_above_one_a_second() -> None:
    """A counter has its amount, and its rate if that is at least one a second."""
    both = stage(9, elapsed=62.7, counters={"tokens": 1.21e9, "skipped": 3})
    assert " ".join(format_counters(both)) == "tokens=1.21G (19.3M/s) skipped=3"
    resumed = replace(both, initial_counters={"tokens": 1.2e9})
    assert format_counters(resumed)[0] == "tokens=1.21G (159k/s)"
    assert format_counters(replace(both, elapsed=0.0)) == ["tokens=1.21G", "skipped=3"]


def test_remarks_name_tasks_failures_and_retries() -> None:
    """Beside the count stand the tasks, unless they are what is counted."""
    run = Snapshot(HALF, tasks_total=1_064, tasks_done=12, tasks_failed=3, retries=2)
    assert format_remarks(run) == ["12/1,064 tasks", "3 failed", "2 retried"]
    assert format_remarks(replace(run, tasks_kept=5))[1] == "5 kept"
    assert format_remarks(replace(run, task_unit="shards"))[0] == "12/1,064 shards"
    assert format_remarks(replace(run, task_unit="shards", tasks_total=1, tasks_done=0))[0] == "0/1 shard"
    assert format_remarks(replace(run, workers=8, workers_at_work=2))[1] == "2 of 8 workers"
    assert format_remarks(Snapshot(HALF)) == []
    assert format_remarks(Snapshot(stage(5, 10, unit="tasks"), tasks_total=10, tasks_done=5)) == []


def test_summary_is_one_line_on_the_run() -> None:
    """The summary has items, time, mean rate and tasks, and the total of a run that fell short."""
    ended = Snapshot(stage(600, 600, elapsed=2.0), tasks_total=3, tasks_done=3, retries=1)
    assert format_summary(ended) == "600 items in 00:02, 300 items/s, 3/3 tasks, 1 retried"
    short = Snapshot(stage(400, 600, elapsed=2.0), tasks_total=3, tasks_done=2, tasks_failed=1)
    assert format_summary(short) == "400/600 items in 00:02, 200 items/s, 2/3 tasks, 1 failed"


def test_line_says_what_is_known() -> None:
    """A line has name, share, count, clock, time left, rate and remarks, as far as there are any."""
    name = HALF.name
    assert bar_line(HALF, [], RATE, 94) == (
        f"{name}:  57%|█████▋    | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"
    )
    waiting = replace(HALF, done=0, elapsed=0.0)
    assert bar_line(waiting, ["starting Ray…"], 0.0, 90) == (
        f"{name}:   0%|        | 0/2,948,390 [00:00<?, ? items/s, starting Ray…]"
    )
    unknown, growing = stage(6, elapsed=2.0), stage(6, 6, growing=True, elapsed=2.0)
    assert bar_line(unknown, ["2/4 tasks"], 3.0, 80) == "Read: 6 items [00:02, 3.00 items/s, 2/4 tasks]"
    assert bar_line(growing, [], 3.0, 80) == "Read: 6/6+ [00:02, 3.00 items/s]"
    assert bar_line(replace(growing, growing=False), [], 3.0, 80).startswith("Read: 100%|█")
    japanese = replace(HALF, name="データセットを読む")
    assert bar_line(japanese, [], RATE, 32) == "データ…: 57% 1,671,800/2,948,390"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (92, "Processing 2,948,390 items:  57%|████▌   | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"),
        (91, "Processing:  57%|█████████▋       | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s, note]"),
        (82, "Processing:  57%|████▌   | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s, note]"),
        (81, "Processing:  57%|███████▎     | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"),
        (76, "Processing:  57%|████▌   | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"),
        (75, "Processing: 57% 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"),
        (64, "Processing: 57% 1,671,800/2,948,390 [01:05<00:49]"),
        (48, "Processing: 57% 1,671,800/2,948,390"),
        (34, "Processi…: 57% 1,671,800/2,948,390"),
        (27, "P…: 57% 1,671,800/2,948,390"),
        (26, "57% 1,671,800/2,948,390"),
        (22, "1,671,800/2,948,390"),
        (18, "57%"),
        (2, ""),
    ],
)
def test_line_leaves_out_what_has_no_room(width: int, line: str) -> None:
    """A narrow line loses one thing after another; its numbers are whole or not there."""
    extras = ["note"] if width < 92 else []
    assert bar_line(HALF, extras, RATE, width) == line


def test_line_of_ascii() -> None:
    """On a terminal without block characters the bar is made of ``#``, and dots are three."""
    assert bar_line(stage(5, 10, elapsed=1.0), [], 5.0, 70, phase="starting Ray", ascii_only=True) == (
        "Read:  50%|####    | 5/10 [00:01<00:01, 5.00 items/s, starting Ray...]"
    )
    short = bar_line(replace(HALF, name="A long name"), [], RATE, 32, ascii_only=True)
    assert short == "A lo...: 57% 1,671,800/2,948,390"


NAMES = st.text(st.sampled_from("aZ 9é…：データ漢🙂"), max_size=40)
NUMBERS = st.integers(0, 10**30)
STAGES = st.builds(
    StageSnapshot,
    NAMES,
    NUMBERS,
    st.none() | NUMBERS,
    st.sampled_from(["items", "tasks", "B", "文"]),
    st.floats(0, 1e9),
    growing=st.booleans(),
    counters=st.dictionaries(NAMES, st.floats(0, 1e40), max_size=3),
)


@given(STAGES, st.just(0.0) | st.floats(1e-9, 1e30), st.integers(1, 200), st.booleans())
def test_line_never_exceeds_its_width(
    stage: StageSnapshot, rate: float, width: int, ascii_only: bool
) -> None:
    """Any line fits, from one column on, and it has the whole count if that fits."""
    line = bar_line(stage, [], rate, width, ascii_only=ascii_only)
    assert disp_len(line) <= width
    assert (format_count(stage) in line) == (disp_len(format_count(stage)) <= width)


def test_only_the_first_line_has_remarks() -> None:
    """Remarks on the run stand in its first line; each line has its own counters."""
    run = Snapshot(stage(5, 10), (stage(4, counters={"tokens": 3}),), tasks_total=2, tasks_failed=1)
    first, second = format_lines(run)
    assert (first.remarks, first.counters) == (("0/2 tasks", "1 failed"), ())
    assert (second.remarks, second.counters) == ((), ("tokens=3",))


def test_lines_of_one_name_have_rates_of_their_own() -> None:
    """A stage that has its run's name is another line, with another key and rate."""
    lines = format_lines(Snapshot(stage(100, elapsed=1.0), (stage(10, elapsed=1.0),)))
    assert [(line.key, line.rate) for line in lines] == [(None, "100 items/s"), ("Read", "10.0 items/s")]


def test_the_rate_is_that_of_late() -> None:
    """A line shows the rate of late, and the mean as long as that is not known."""
    lines = [replace(HALF, recent_rate=rate) for rate in (12.5, 0.0, None)]
    assert [LineView.of(line).rate for line in lines] == ["12.5 items/s", "? items/s", "25,607 items/s"]
