"""The row of the input that an error comes from."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from speedy_utils import track
from speedy_utils._worker.context import counting
from speedy_utils._worker.input_rows import InputRows, describe_bad_rows
from speedy_utils._worker.reporter import Reporter

BAD = 3
START = 100


class Rows:
    """Ten rows, of which one can't be fetched if ``broken``."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> int:
        if i >= 10:
            raise IndexError(i)
        if self.broken and i == BAD:
            raise OSError("truncated")
        return i


def parse(row: int) -> int:
    """Fail at the bad row."""
    if row == BAD:
        raise ValueError("bad")
    return row


def in_loop(rows: Any) -> None:
    """Fail in the body of a loop."""
    for row in track(rows):
        parse(row)


def in_with(rows: Any) -> None:
    """Fail in a block that lets the error through."""
    for row in track(rows):
        with contextlib.suppress(KeyError):
            parse(row)


def in_try_finally(rows: Any) -> None:
    """Fail in blocks that clean up."""
    done = []
    try:
        for row in track(rows):
            try:
                parse(row)
            finally:
                done.append(row)
    finally:
        done.clear()


def from_handler(rows: Any) -> None:
    """Fail in the handler of an error."""
    for row in track(rows):
        try:
            parse(row)
        except ValueError:
            raise RuntimeError("worse")  # noqa: B904 - as users write it


def chained_outside(rows: Any) -> None:
    """Raise another error for the one that left the loop."""
    try:
        in_loop(rows)
    except ValueError as error:
        raise RuntimeError("worse") from error


def caught_and_raised(rows: Any) -> None:
    """Raise later, and after another loop, the error that left the loop."""
    try:
        for row in track(rows):
            parse(row)
    except ValueError as error:
        kept = error
    for _ in track([1, 2]):
        pass
    raise kept


def in_enumerate(rows: Any) -> None:
    """Fail in a loop over numbered rows."""
    for _, row in enumerate(track(rows)):
        parse(row)


def in_zip(rows: Any) -> None:
    """Fail in a loop over rows beside something else."""
    for row, _ in zip(track(rows), range(20), strict=False):
        parse(row)


def in_comprehension(rows: Any) -> None:
    """Fail in a list comprehension."""
    print([parse(row) for row in track(rows)])


def in_generator_expression(rows: Any) -> None:
    """Fail in a generator expression."""
    sum(parse(row) for row in track(rows))


def in_generator(rows: Any) -> None:
    """Fail in a generator."""

    def generate() -> Iterator[int]:
        for row in track(rows):
            yield parse(row)

    list(generate())


def in_coroutine(rows: Any) -> None:
    """Fail in a coroutine."""

    async def work() -> None:
        for row in track(rows):
            await asyncio.sleep(0)
            parse(row)

    asyncio.run(work())


def kept_in_variable(rows: Any) -> None:
    """Fail in a loop over an iterator that stays alive."""
    bar = track(rows)
    for row in bar:
        parse(row)


def outer_of_two(rows: Any) -> None:
    """Fail in a loop inside the loop over the rows."""
    for row in track(rows):
        for _ in track([1, 2, 3], desc="parts"):
            parse(row)


def after_another_pass(rows: Any) -> None:
    """Fail in the last of three loops."""
    for _ in track(rows):
        break
    for _ in track(rows):
        pass
    in_loop(rows)


@pytest.mark.parametrize(
    "function",
    [
        in_loop,
        in_with,
        in_try_finally,
        from_handler,
        chained_outside,
        caught_and_raised,
        in_enumerate,
        in_zip,
        in_comprehension,
        in_generator_expression,
        in_generator,
        in_coroutine,
        kept_in_variable,
        outer_of_two,
        after_another_pass,
    ],
    ids=lambda function: function.__name__,
)
def test_row_of_an_error_that_leaves_a_loop(function: Callable[[Any], None], tmp_path: Path) -> None:
    """The row that was in hand is known, in whatever way the loop is written."""
    assert row_of_failure(function, Rows(), tmp_path) == START + BAD


def test_row_that_can_not_be_fetched(tmp_path: Path) -> None:
    """The row is known too if the error comes from fetching it, in a loop and in C code that iterates."""

    def sum_up(rows: Any) -> None:
        sum(track(rows))

    assert row_of_failure(in_loop, Rows(broken=True), tmp_path) == START + BAD
    assert row_of_failure(sum_up, Rows(broken=True), tmp_path) == START + BAD


def after_break(rows: Any) -> None:
    """Fail after a loop that was left by a break."""
    for row in track(rows):
        if row == BAD:
            break
    raise ValueError("unrelated")


def after_end(rows: Any) -> None:
    """Fail after a loop that came to its end."""
    bar = track(rows)
    for row in bar:
        assert row < 10
    raise ValueError("unrelated")


def after_caught(rows: Any) -> None:
    """Fail after a loop whose error was caught."""
    with contextlib.suppress(ValueError):
        in_loop(rows)
    raise ValueError("unrelated")


def after_break_out_of_variable(rows: Any) -> None:
    """Fail after a loop that was left, and whose iterator stays alive."""
    bar = track(rows)
    for _ in bar:
        break
    raise ValueError("unrelated")


def after_first(rows: Any) -> None:
    """Fail with a row that no loop has fetched."""
    bar = track(rows)
    parse(next(bar) + BAD)


def over_other_rows(rows: Any) -> None:
    """Fail in a loop over something else."""
    for i in track(list(range(len(rows)))):
        parse(i)


@pytest.mark.parametrize(
    "function",
    [after_break, after_end, after_caught, after_break_out_of_variable, after_first, over_other_rows],
    ids=lambda function: function.__name__,
)
def test_no_row_of_an_unrelated_error(function: Callable[[Any], None], tmp_path: Path) -> None:
    """An error that has not left a loop over the rows is not ascribed to one of them."""
    assert row_of_failure(function, Rows(), tmp_path) is None


def test_bad_row_is_listed_once(tmp_path: Path) -> None:
    """A row that a second loop finds again is not listed twice; its line says where it is, and why."""
    rows = Rows(broken=True)
    listing = tmp_path / "bad_rows.jsonl"
    known = InputRows(rows, 2, START, listing)
    reporter = Reporter(0)
    reporter.input = known
    with counting(reporter.own):
        assert [list(track(rows, on_bad_row="skip")) for _ in range(2)] == [[0, 1, 2, 4, 5, 6, 7, 8, 9]] * 2
    assert known.bad == 1
    assert listing.read_text("utf-8") == (
        '{"row": 103, "shard": 2, "item": 3, "reason": "OSError: truncated"}\n'
    )
    assert reporter.own.counters == {"bad_rows": 1}


def test_bad_rows_in_a_sentence() -> None:
    """The first are named, and the others counted."""
    assert describe_bad_rows(1, [(3, "E: a")]) == "skipped 1 bad row: row 3 (E: a)"
    assert describe_bad_rows(4, [(3, "E"), (1007, "F: b")]) == (
        "skipped 4 bad rows: row 3 (E), row 1,007 (F: b) and 2 more"
    )


def row_of_failure(function: Callable[[Any], None], rows: Any, folder: Path) -> int | None:
    """Return the row that is known for the error that a function raises."""
    reporter = Reporter(0, total=len(rows), total_is_rows=True)
    reporter.input = InputRows(rows, 0, START, folder / "bad_rows.jsonl")
    with counting(reporter.own):
        try:
            function(rows)
        except Exception as error:
            return reporter.input.row_of(error)
    raise AssertionError("it did not fail")
