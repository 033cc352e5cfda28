"""Counts, rates and lines are put into words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm.utils import disp_len

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.format import (
    amount,
    bar_line,
    count,
    counters,
    left,
    number,
    remarks,
    share,
    short,
    speed,
    summary,
)

TOTAL = 2_948_390
HALF = StageSnapshot(f"Processing {TOTAL:,} items", 1_671_800, TOTAL, elapsed=65.287)
RATE = 25_607.0


def stage(done: int, total: int | None = None, **more: Any) -> StageSnapshot:
    """A stage."""
    return StageSnapshot("Read", done, total, **more)


# numbers


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "? items/s"),
        (0.0, "? items/s"),
        (25_606.9, "25,607 items/s"),
        (99.96, "100 items/s"),
        (12.34, "12.3 items/s"),
        (1.0, "1.00 items/s"),
        (0.5, "2.00 s/item"),
        (0.001, "1,000 s/item"),
    ],
)
def test_speed_is_written_to_three_digits(rate: float | None, text: str) -> None:
    """Rates below one a second are turned around."""
    assert speed(rate, "items") == text


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("rows", "2.00 s/row"),
        ("files", "2.00 s/file"),
        ("batches", "2.00 s/batches"),
        ("entries", "2.00 s/entries"),
        ("boxes", "2.00 s/boxes"),
        ("loss", "2.00 s/loss"),
        ("data", "2.00 s/data"),
        ("it", "2.00 s/it"),
    ],
)
def test_a_slow_rate_is_that_of_one(unit: str, text: str) -> None:
    """Where a rate is turned around the unit loses its plural ``s``, or stays whole where that is unclear."""
    assert speed(0.5, unit) == text


def test_numbers_have_separators() -> None:
    """Large numbers have separators, small ones decimals, and all at least three digits."""
    values = (1_234_567.8, 99.96, 99.94, 9.996, 9.994)
    assert [number(value) for value in values] == ["1,234,568", "100", "99.9", "10.0", "9.99"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3, "3"),
        (0.25, "0.25"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (51_234, "51.2k"),
        (1.21e9, "1.21G"),
        (10**24, "1.0Y"),
        (10**27, "1e+27"),
        (10**300, "1e+300"),
    ],
)
def test_quantities_are_short(value: float, text: str) -> None:
    """A quantity takes three or four characters as far as there are prefixes, and few beyond that."""
    assert short(value) == text


def test_bytes_are_rounded_and_items_are_not() -> None:
    """Bytes are written with prefixes, in counts, rates and the summary; items to the last one."""
    moved = stage(1_210_000_000, 4 * 10**9, unit="B", elapsed=10.0)
    assert count(moved) == "1.21G/4.00G"
    assert speed(moved.rate, "B") == "121MB/s"
    assert speed(0.5, "B") == "0.5B/s"
    assert speed(0.0, "B") == "? B/s"
    assert summary(Snapshot(moved)) == "1.21G/4.00GB in 00:10, 121MB/s"
    assert summary(Snapshot(replace(moved, done=4 * 10**9))) == "4.00GB in 00:10, 400MB/s"
    assert amount(1_210_000_001, "items") == "1,210,000,001"


# how far


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 3, "0%"),
        (2, 3, "67%"),
        (9_999, 10_000, "99%"),
        (10**30 - 1, 10**30, "99%"),
        (10**30, 10**30, "100%"),
        (0, 0, "100%"),
        (5, None, ""),
    ],
)
def test_share_is_full_only_where_all_is_done(done: int, total: int | None, text: str) -> None:
    """What is not all is never 100 %, however little is missing."""
    assert share(stage(done, total)) == text


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
    growing = stage(600, 600, growing=True, elapsed=2.0)
    assert (count(growing), share(growing), left(growing, 300.0)) == ("600/600+", "", "?")
    assert bar_line(growing, [], 300.0, 80) == "Read: 600/600+ [00:02, 300 items/s]"
    assert bar_line(replace(growing, growing=False), [], 300.0, 80).startswith("Read: 100%|█")


@pytest.mark.parametrize(
    ("of", "rate", "text"),
    [
        (stage(5, 10), 0.5, "00:10"),
        (stage(5, 10), 0.0, "?"),
        (stage(10, 10), 2.0, "00:00"),
        (stage(10, 10), 0.0, "00:00"),
        (stage(11, 10), 2.0, "00:00"),
        (stage(5), 2.0, "?"),
        (stage(0, 10**9), 1.0, "277777:46:40"),
    ],
)
def test_time_left_is_told_where_it_is_known(of: StageSnapshot, rate: float, text: str) -> None:
    """The time left needs a total and a rate, and is never below zero."""
    assert left(of, rate) == text


# beside the count


def test_counters_have_rates_above_one_a_second() -> None:
    """A counter has its amount, and its rate where that tells something."""
    both = stage(9, elapsed=62.7, counters={"tokens": 1.21e9, "skipped": 3})
    assert " ".join(counters(both)) == "tokens=1.21G (19.3M/s) skipped=3"
    assert counters(replace(both, elapsed=0.0)) == ["tokens=1.21G", "skipped=3"]


def test_remarks_tell_of_tasks_failures_retries_and_the_phase() -> None:
    """Beside the count stand the tasks done, failed and retried, and what the run is busy with."""
    run = Snapshot(
        HALF, tasks_total=1_064, tasks_done=12, tasks_failed=3, retries=2, phase="waiting for workers 1/2"
    )
    assert remarks(run) == ["12/1,064 tasks", "3 failed", "2 retried", "waiting for workers 1/2…"]
    assert remarks(replace(run, task_unit="shards"))[0] == "12/1,064 shards"
    assert remarks(Snapshot(HALF)) == []


def test_remarks_count_tasks_once() -> None:
    """Where tasks are what is counted, they are not told again beside the count."""
    assert remarks(Snapshot(stage(5, 10, unit="tasks"), tasks_total=10, tasks_done=5)) == []


def test_summary_is_one_line_on_the_run() -> None:
    """The summary has items, time, mean rate and tasks; where a run fell short, of how many."""
    ended = Snapshot(
        stage(600, 600, elapsed=2.0), whole=False, tasks_total=3, tasks_done=3, retries=1, final=True
    )
    assert summary(ended) == "600 items in 00:02, 300 items/s, 3/3 tasks, 1 retried"
    short_of = replace(ended, own=replace(ended.own, done=400), tasks_done=2, tasks_failed=1, retries=0)
    assert summary(short_of) == "400/600 items in 00:02, 200 items/s, 2/3 tasks, 1 failed"


# a line


def test_line_looks_as_promised() -> None:
    """The line has name, share, count, clock, time left and rate, with thousands separators."""
    line = "Processing 2,948,390 items:  57%|█████▋    | 1,671,800/2,948,390 [01:05<00:49, 25,607 items/s]"
    assert disp_len(line) == 94
    assert bar_line(HALF, [], RATE, 94) == line


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


def test_line_before_the_first_count_has_no_rate() -> None:
    """Nothing is said of rate and time left while nothing is known, and the phase is named."""
    waiting = replace(HALF, done=0, elapsed=0.0)
    assert bar_line(waiting, ["starting Ray…"], 0.0, 90) == (
        "Processing 2,948,390 items:   0%|        | 0/2,948,390 [00:00<?, ? items/s, starting Ray…]"
    )


def test_line_without_total_has_no_share() -> None:
    """Where the total is not known there are count, clock and rate."""
    assert bar_line(stage(12_345, elapsed=10.0), ["2/4 tasks"], 1_234.5, 80) == (
        "Read: 12,345 [00:10, 1,234 items/s, 2/4 tasks]"
    )


def test_line_of_ascii() -> None:
    """Where the terminal has no blocks the bar is made of ``#``, and dots are three."""
    line = bar_line(stage(5, 10, elapsed=1.0), ["starting Ray…"], 5.0, 80, ascii_only=True)
    assert line.isascii()
    assert "|###" in line
    assert line.endswith("5.00 items/s, starting Ray...]")
    assert bar_line(replace(HALF, name="A long name"), [], RATE, 32, ascii_only=True) == (
        "A lo...: 57% 1,671,800/2,948,390"
    )


def test_line_of_wide_characters_fits() -> None:
    """A name in wide characters is measured, and cut, in columns."""
    line = bar_line(replace(HALF, name="データセットを読む"), [], RATE, 32)
    assert line == "データ…: 57% 1,671,800/2,948,390"
    assert disp_len(line) == 32


NAMES = st.text(st.sampled_from("aZ 9é…：データ漢🙂"), max_size=40)
NUMBERS = st.integers(0, 10**30)


@given(
    name=NAMES,
    done=NUMBERS,
    total=st.none() | NUMBERS,
    unit=st.sampled_from(["items", "tasks", "B", "文"]),
    elapsed=st.floats(0, 1e9),
    growing=st.booleans(),
    amounts=st.dictionaries(NAMES, st.floats(0, 1e40), max_size=3),
    rate=st.just(0.0) | st.floats(1e-9, 1e30),
    width=st.integers(1, 200),
    ascii_only=st.booleans(),
)
def test_line_never_exceeds_its_width(
    name: str,
    done: int,
    total: int | None,
    unit: str,
    elapsed: float,
    growing: bool,
    amounts: dict[str, float],
    rate: float,
    width: int,
    ascii_only: bool,
) -> None:
    """Whatever a line says it fits, from one column on, and it has the whole count where that fits."""
    each = StageSnapshot(name, done, total, unit, elapsed, growing=growing, counters=amounts)
    line = bar_line(each, counters(each), rate, width, ascii_only=ascii_only)
    assert disp_len(line) <= width
    assert (count(each) in line) == (disp_len(count(each)) <= width)
