"""The block at the bottom of the terminal, seen through an emulator."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.emulator import Emulator
from tqdm import tqdm

from speedy_utils._display.terminal import redirect as streams
from speedy_utils._display.terminal.lines import StreamProxy
from speedy_utils._display.terminal.screen import MAX_REDRAWS, REDRAW_PERIOD_S, Screen, shared_screen


class Terminal(io.StringIO):
    """A file that leads to a terminal.

    Args:
        columns: Its width.
        rows: Its height.
        reflows: Whether it wraps its rows anew when it is resized.
    """

    encoding = "utf-8"

    def __init__(self, columns: int = 40, rows: int = 12, *, reflows: bool = True) -> None:
        super().__init__()
        self.emulator = Emulator(columns, rows, reflows=reflows)
        self.lines, self.resize = self.emulator.lines, self.emulator.resize
        self.seen: Callable[[], None] = lambda: None
        self.writes: list[str] = []

    def isatty(self) -> bool:
        """It is one."""
        return True

    def size(self) -> tuple[int, int]:
        """Its columns and rows."""
        return self.emulator.size

    def write(self, text: str) -> int:
        """Show a text."""
        self.writes.append(text)
        self.emulator.feed(text)
        self.seen()
        return len(text)


@contextmanager
def a_terminal(*args: Any, **kwargs: Any) -> Iterator[tuple[Terminal, Screen]]:
    """A terminal that both streams lead to; no fixture, as pytest sets streams of its own for the test."""
    terminal = Terminal(*args, **kwargs)
    with redirect_stdout(terminal), redirect_stderr(terminal):
        yield terminal, Screen(terminal, size=terminal.size, clock=lambda: 0.0)


@pytest.fixture(autouse=True)
def _no_bars() -> Iterator[None]:
    """Close what a failed test has left."""
    yield
    for bar in list(tqdm._instances):
        bar.close()


def of(*lines: str) -> Callable[[int], list[str]]:
    """Lines that are the same in each width."""
    return lambda columns: list(lines)


def test_an_owner_has_its_rows_at_the_bottom() -> None:
    """Lines that are shown again take the place of the former, in one write, with the cursor on the first."""
    with a_terminal() as (terminal, screen):
        print("before")
        screen.show(1, of("a 1", "b 1"))
        count = len(terminal.writes)
        screen.show(1, of("a 2"))
        screen.show(1, of("a 3", "b 3", "c 3"))
        assert len(terminal.writes) == count + 2
        assert terminal.lines() == ["before", "a 3", "b 3", "c 3"]
        assert terminal.emulator.cursor == (0, 1)
        screen.finish(1, of("a 4", "b 4"))
        print("after")
        assert terminal.lines() == ["before", "a 4", "b 4", "after"]


def test_lines_may_vanish() -> None:
    """An owner that finishes without lines leaves nothing."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a", "b"))
        print("said")
        screen.finish(1, None)
        assert terminal.lines() == ["said"]
        print("after")
        assert terminal.lines() == ["said", "after"]


def test_a_printed_line_goes_above() -> None:
    """What is printed on either stream stands above the block, and the block is there again with it."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a", "b"))
        print("one")
        assert terminal.lines() == ["one", "a", "b"]
        print("two\nthree", file=sys.stderr)
        assert terminal.lines() == ["one", "two", "three", "a", "b"]
        screen.finish(1, None)


def test_half_a_line_waits_for_its_end() -> None:
    """Nothing is written before the line is complete."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        print("half", end=" ")
        assert terminal.lines() == ["a"]
        print("whole\nrest", end="")
        assert terminal.lines() == ["half whole", "a"]
        screen.finish(1, None)
        assert terminal.lines() == ["half whole", "rest"]


def test_a_flushed_beginning_is_shown_and_continued() -> None:
    """A text that is flushed without an end is a row directly above the block, until its line is whole."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        print("Load", end="", flush=True)
        assert terminal.lines() == ["Load", "a"]
        for _ in range(3):
            print(".", end="", flush=True)
        assert terminal.lines() == ["Load...", "a"]
        print("said", file=sys.stderr)
        assert terminal.lines() == ["said", "Load...", "a"]
        print(" done")
        assert terminal.lines() == ["said", "Load... done", "a"]
        screen.finish(1, None)


def test_a_long_beginning_shows_its_end() -> None:
    """A beginning that is wider than the terminal shows its last part; the line is whole at last."""
    with a_terminal(20, 6) as (terminal, screen):
        screen.show(1, of("a"))
        for n in range(30):
            print(f"{n} ", end="", flush=True)
        assert terminal.lines() == ["…24 25 26 27 28 29", "a"]
        print("語" * 12, end="", flush=True)
        assert terminal.emulator.rows[0] == "…" + "語" * 9
        print()
        screen.finish(1, None)
        assert terminal.lines()[0].replace(" ", "").startswith("012345678910")


def test_what_overwrites_itself_shows_its_last_state() -> None:
    """Of a line that returns to its start only what came last is shown, whether it has an end yet or not."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        for percent in range(0, 101, 10):
            print(f"\r{percent:3}%", end="", flush=True)
            assert terminal.lines() == [f"{percent:3}%", "a"]
        print()
        assert terminal.lines() == ["100%", "a"] or terminal.lines() == [" 100%", "a"]
        for percent in range(0, 101, 50):
            print(f"{percent}", end="\r", flush=True)
            assert terminal.lines()[1:] == [str(percent), "a"]
        print("\r   \r", end="", flush=True)
        assert terminal.lines()[1:] == ["a"]
        print("one\r\ntwo\r\n1\r2\r3")
        assert terminal.lines()[1:] == ["one", "two", "3", "a"]
        print("4\r5", end="")
        screen.finish(1, None)
        assert terminal.lines()[1:] == ["one", "two", "3", "5"]


def test_threads_do_not_mix_their_lines() -> None:
    """Half a line of one thread is not completed by another."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        print("mine", end="", flush=True)
        thread = threading.Thread(target=lambda: print("theirs"))
        thread.start()
        thread.join()
        print()
        assert terminal.lines() == ["theirs", "mine", "a"]
        screen.finish(1, None)


def test_owners_stand_below_each_other() -> None:
    """Owners keep the order in which they came, and may finish in any; the last gives the streams back."""
    with a_terminal() as (terminal, screen):
        first, second = object(), object()
        screen.show(first, of("first"))
        screen.show(second, of("second"))
        screen.show(first, of("first again"))
        assert terminal.lines() == ["first again", "second"]
        screen.finish(first, of("first at last"))
        assert isinstance(sys.stdout, StreamProxy)
        print("said")
        assert terminal.lines() == ["first at last", "said", "second"]
        screen.show(first, of("another first"))
        assert terminal.lines() == ["first at last", "said", "second", "another first"]
        screen.finish(second, None)
        screen.finish(first, of("end"))
        assert sys.stdout is sys.stderr is terminal
        assert terminal.lines() == ["first at last", "said", "end"]


def test_equal_owners_are_not_one() -> None:
    """Owners are told apart by identity."""
    with a_terminal() as (terminal, screen):
        one, other = [1], [1]
        screen.show(one, of("one"))
        screen.show(other, of("other"))
        screen.finish(one, None)
        assert terminal.lines() == ["other"]
        screen.finish(other, None)


def test_finishing_unseen_prints_the_lines() -> None:
    """An owner that has shown nothing may finish, beside others or alone; twice does no harm."""
    with a_terminal() as (terminal, screen):
        screen.finish(1, of("one"))
        screen.show(2, of("two"))
        screen.finish(1, None)
        screen.finish(3, of("three"))
        assert terminal.lines() == ["one", "three", "two"]
        screen.finish(2, None)
        assert sys.stdout is terminal


def test_lines_are_cut_to_the_width() -> None:
    """A line never fills the last column, with wide characters and colours too, and takes one row."""
    with a_terminal(20, 10) as (terminal, screen):
        asked = []

        def render(columns: int) -> list[str]:
            asked.append(columns)
            return ["x" * 50, "語" * 50, "\x1b[31m" + "r" * 50 + "\x1b[0m", "one\ntwo\x1b[2A\tthree\a"]

        screen.show(1, render)
        assert terminal.lines() == ["x" * 19, terminal.lines()[1], "r" * 19, "onetwo  three"]
        assert terminal.emulator.rows[1] == "語" * 9
        assert asked == [19]
        screen.finish(1, render)
        assert len(terminal.lines()) == 4


def test_a_block_higher_than_the_terminal_says_what_is_left_out() -> None:
    """As many lines are shown as there is room for; the last says how many more there are."""
    with a_terminal(40, 6) as (terminal, screen):
        print("above")
        screen.show(1, of(*(f"line {n}" for n in range(10))))
        assert terminal.lines() == ["above", *(f"line {n}" for n in range(5)), "… and 5 more lines"]
        print("said")
        assert terminal.lines() == ["above", "said", *(f"line {n}" for n in range(5)), "… and 5 more lines"]
        screen.show(1, of("few"))
        assert terminal.lines() == ["above", "said", "few"]
        screen.finish(1, of(*(f"line {n}" for n in range(10))))
        assert terminal.lines() == ["above", "said", *(f"line {n}" for n in range(10))]


@pytest.mark.parametrize("reflows", [True, False], ids=["reflows", "cuts"])
def test_a_resize_leaves_no_remains(reflows: bool) -> None:
    """After a resize the next drawing has the new width, and nothing of the old is left."""
    with a_terminal(80, 10, reflows=reflows) as (terminal, screen):

        def render(columns: int) -> list[str]:
            return [name * columns for name in "ab"]

        screen.show(1, render)
        print("said")
        print("beginning", end="", flush=True)
        for columns, rows in [(40, 10), (25, 4), (120, 30), (33, 8)]:
            terminal.resize(columns, rows)
            screen.show(1, render)
            whole = ["said", "beginning", "a" * (columns - 1), "b" * (columns - 1)]
            assert [line for line in terminal.lines() if line] == whole
        terminal.resize(20, 10)
        print(" and end")
        assert [line for line in terminal.lines() if line] == [
            "said",
            "beginning and end",
            "a" * 19,
            "b" * 19,
        ]
        terminal.resize(16, 10)
        screen.finish(1, render)
        assert [line for line in terminal.lines() if line][-2:] == ["a" * 15, "b" * 15]


def test_a_stream_is_in_place_once_it_leads_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that prints while the streams are put in place meets none that leads nowhere."""
    met: list[bool] = []

    def look(one: object, other: object) -> bool:
        met.extend(
            not isinstance(each, StreamProxy) or each.writer is screen for each in (sys.stdout, sys.stderr)
        )
        return one is other

    monkeypatch.setattr(streams, "_same_terminal", look)
    with a_terminal() as (terminal, screen):
        screen.show(1, lambda _: ["line"])
        print("said")
        screen.finish(1, None)
        assert terminal.lines() == ["said"]
    assert met == [True] * 4


def test_a_terminal_without_a_size_is_taken_for_80_columns() -> None:
    """Where a pseudo-terminal says it has no size, or can't say, there are 80 columns."""
    with a_terminal(100, 10) as (terminal, _):
        for screen in (Screen(terminal), Screen(terminal, size=lambda: (0, 0))):
            screen.show(1, lambda columns: ["x" * columns])
            assert terminal.lines() == ["x" * 79]
            screen.finish(1, None)


def test_a_pipe_is_left_alone() -> None:
    """A stream that is no terminal stays as it is, and so does one that is closed or not there."""
    closed = io.StringIO()
    closed.close()
    for other in (io.StringIO(), closed, None):
        with a_terminal() as (terminal, screen):
            sys.stdout = other
            screen.show(1, of("a"))
            assert sys.stdout is other
            assert isinstance(sys.stderr, StreamProxy)
            screen.finish(1, None)
            assert sys.stdout is other
            assert sys.stderr is terminal


def test_streams_that_others_replaced_are_theirs() -> None:
    """Who puts another stream in place meanwhile gets what is printed, and finds it there until they go."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        caught = io.StringIO()
        with redirect_stdout(caught):
            print("caught")
            screen.show(1, of("b"))
            screen.finish(1, of("c"))
            assert sys.stdout is caught
        assert caught.getvalue() == "caught\n"
        print("after")
        assert terminal.lines() == ["c", "after"]
        screen.show(1, of("d"))
        screen.finish(1, None)
        assert sys.stdout is terminal


def test_a_stream_that_appears_later_is_taken_too() -> None:
    """A terminal that is put in place while the block is there is covered from the next show on."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        sys.stdout = terminal
        screen.show(1, of("a"))
        print("said")
        assert terminal.lines() == ["said", "a"]
        screen.finish(1, None)
        assert sys.stdout is terminal


def test_what_kept_the_stream_writes_on() -> None:
    """Who took the stream while the block was there can write after it, and below the next block's text."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        kept = sys.stdout
        screen.finish(1, None)
        kept.writelines(["late", "\n"])
        screen.show(2, of("b"))
        kept.write("later\n")
        assert terminal.lines() == ["late", "later", "b"]
        screen.finish(2, None)


def test_the_stream_is_otherwise_the_real_one() -> None:
    """All but printing is the real stream's: attributes, return values, errors."""
    with a_terminal() as (_terminal, screen):
        screen.show(1, of("a"))
        assert sys.stdout.isatty()
        assert sys.stdout.encoding == "utf-8"
        assert isinstance(sys.stdout, io.StringIO)
        assert sys.stdout.write("語\n") == 2
        with pytest.raises(io.UnsupportedOperation):
            sys.stdout.fileno()
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")
        screen.finish(1, None)


def test_log_records_go_above() -> None:
    """Handlers of logging that were made before the block write above it, and to the real stream after it."""
    with a_terminal() as (terminal, screen):
        logger, child = logging.getLogger("speaking"), logging.getLogger("speaking.child")
        early = logging.StreamHandler()
        logger.addHandler(early)
        screen.show(1, of("a"))
        late = logging.StreamHandler()
        child.addHandler(late)
        try:
            child.error("said %d", 1)
            assert terminal.lines() == ["said 1", "said 1", "a"]
            screen.finish(1, None)
            assert early.stream is late.stream is terminal
            child.error("said 2")
            assert terminal.lines() == ["said 1", "said 1", "said 2", "said 2"]
        finally:
            logger.removeHandler(early)
            child.removeHandler(late)


class Failing(Terminal):
    """A terminal that goes away."""

    gone = False

    def write(self, text: str) -> int:
        """Fail once it is gone."""
        if self.gone:
            raise OSError(5, "the terminal is gone")
        return super().write(text)


def test_an_error_of_the_terminal_is_told_and_the_streams_come_back() -> None:
    """Where drawing fails, show and finish say so, and the streams are the program's again after the end."""
    failing = Failing()
    with a_terminal() as (terminal, _):
        screen = Screen(failing, size=failing.size)
        screen.show(1, of("a"))
        failing.gone = True
        with pytest.raises(OSError, match="gone"):
            screen.show(1, of("b"))
        print("said")
        print("flushed", end="", flush=True)
        with pytest.raises(OSError, match="gone"):
            screen.finish(1, of("c"))
        assert sys.stdout is sys.stderr is terminal
        assert terminal.lines() == ["said"] or terminal.lines() == ["said", "flushed"]


def test_a_print_has_the_error_of_its_own_stream() -> None:
    """Where the printed stream itself fails, whoever prints is told, as without a block."""
    with a_terminal() as (_terminal, screen):
        failing = Failing()
        failing.gone = True
        sys.stdout = failing
        screen.show(1, of("a"))
        with pytest.raises(OSError, match="gone"):
            print("said")
        screen.finish(1, None)
        assert sys.stdout is failing


def test_lines_that_can_not_be_made_do_not_reach_who_prints() -> None:
    """An error in a render is raised to show and finish alone; a print draws what there was."""
    with a_terminal() as (terminal, screen):
        broken = False

        def render(columns: int) -> list[str]:
            if broken:
                raise ZeroDivisionError
            return ["a"]

        screen.show(1, render)
        broken = True
        terminal.resize(30, 10)
        print("said")
        assert terminal.lines() == ["said", "a"]
        with pytest.raises(ZeroDivisionError):
            screen.show(1, render)
        with pytest.raises(ZeroDivisionError):
            screen.finish(1, render)
        assert sys.stdout is sys.stderr is terminal
        assert terminal.lines() == ["said"]


def test_a_flood_of_lines_is_written_at_once_and_the_block_follows() -> None:
    """Lines are never held back; the block is drawn below some, and with the next show."""
    now = 0.0
    with a_terminal(40, 12) as (terminal, _):
        screen = Screen(terminal, size=terminal.size, clock=lambda: now)
        screen.show(1, of("a", "b"))
        for period in range(2):
            with_block = 0
            for n in range(3 * MAX_REDRAWS):
                print(n)
                shown = [row for row in terminal.emulator.rows if row][-3:]
                assert str(n) in shown
                with_block += shown[-2:] == ["a", "b"]
            assert with_block == MAX_REDRAWS
            now += period + REDRAW_PERIOD_S
        print("beginning", end="", flush=True)
        assert terminal.lines()[-3:] == ["beginning", "a", "b"]
        screen.show(1, of("c"))
        assert terminal.lines() == [*map(str, range(3 * MAX_REDRAWS))] * 2 + ["beginning", "c"]
        screen.finish(1, None)


def a_bar(terminal: Any, name: str, **kwargs: Any) -> Any:
    """A bar of the program's own."""
    return tqdm(
        total=3,
        desc=name,
        file=terminal,
        bar_format="{desc} {n_fmt}/{total_fmt}",
        ncols=30,
        nrows=20,
        **kwargs,
    )


def test_a_bar_of_the_program_keeps_its_row() -> None:
    """The block goes below a bar that was there before, prints go above it, and it goes on afterwards."""
    with a_terminal() as (terminal, screen):
        bar = a_bar(terminal, "epoch")
        for epoch in range(1, 4):
            screen.show(epoch, of("a", "b"))
            assert terminal.lines()[-3:] == [f"epoch {epoch - 1}/3", "a", "b"]
            print(f"said {epoch}")
            assert terminal.lines()[-4:] == [f"said {epoch}", f"epoch {epoch - 1}/3", "a", "b"]
            screen.finish(epoch, of(f"end {epoch}"))
            bar.update()
            bar.refresh()
            assert terminal.lines()[-2:] == [f"end {epoch}", f"epoch {epoch}/3"]
        bar.close()
        print("after")
        expected = [text for epoch in (1, 2, 3) for text in (f"said {epoch}", f"end {epoch}")]
        assert terminal.lines() == [*expected, "epoch 3/3", "after"]


def test_a_bar_wider_than_the_terminal_leaves_no_half_with_each_print() -> None:
    """A bar of the program that a shrunk terminal would wrap is drawn in the width that there is."""
    with a_terminal(80) as (terminal, screen), tqdm(total=3, desc="epoch", file=terminal, ncols=70) as bar:
        screen.show(1, of("a"))
        terminal.resize(40, 12)
        for n in range(5):
            print(f"line {n}")
        lines = terminal.lines()
        assert [line for line in lines if line.startswith("line")] == [f"line {n}" for n in range(5)]
        # What the resize itself has wrapped stays; nothing is added to it.
        assert sum("epoch" in line for line in lines) <= 2
        assert lines[-1] == "a"
        assert bar.ncols == 70
        screen.finish(1, None)


def test_bars_made_meanwhile_get_rows_above_the_block() -> None:
    """Bars that are made while the block is there draw in rows of their own, nested too, and close there."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a", "b"))
        outer = a_bar(sys.stderr, "outer")
        assert terminal.lines() == ["outer 0/3", "a", "b"]
        for n in range(1, 4):
            inner = a_bar(sys.stdout, "inner", leave=False)
            assert terminal.lines() == [
                *(f"said {m}" for m in range(1, n)),
                f"outer {n - 1}/3",
                "inner 0/3",
                "a",
                "b",
            ]
            inner.update()
            inner.refresh()
            print(f"said {n}")
            tail = [f"said {n}", f"outer {n - 1}/3", "inner 1/3", "a", "b"]
            assert terminal.lines()[-5:] == tail
            screen.show(1, of("a", "b"))
            assert terminal.lines()[-5:] == tail
            inner.close()
            outer.update()
            outer.refresh()
            screen.show(1, of("a", "b"))
            assert terminal.lines()[-4:] == [f"said {n}", f"outer {n}/3", "a", "b"]
        outer.close()
        assert terminal.lines()[-3:] == ["outer 3/3", "a", "b"]
        screen.finish(1, of("end"))
        assert terminal.lines() == ["said 1", "said 2", "said 3", "outer 3/3", "end"]


def test_a_bar_may_outlive_the_block() -> None:
    """A bar that was made while the block was there goes on where it is when the block ends first."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a much longer line than that of the bar"))
        bar = a_bar(sys.stderr, "outer")
        inner = a_bar(sys.stderr, "inner")
        print("beginning", end="", flush=True)
        screen.finish(1, of("end"))
        bar.update()
        bar.refresh()
        assert terminal.lines() == ["end", "beginning", "outer 1/3", "inner 0/3"]
        inner.close()
        bar.close()
        print("after")
        assert terminal.lines() == ["end", "beginning", "inner 0/3", "outer 1/3", "after"]


def test_a_bar_that_closes_out_of_turn_leaves_nothing_torn() -> None:
    """The upper of two bars may close first, made before the block or with it: the next drawing is clean."""
    with a_terminal() as (terminal, screen):
        before = a_bar(terminal, "before")
        screen.show(1, of("a much longer line", "another longer line"))
        later = a_bar(sys.stderr, "later")
        before.close()
        screen.show(1, of("a much longer line", "another longer line"))
        # tqdm leaves the row of the closed one empty.
        rows = ["before 0/3", "", "later 0/3", "a much longer line", "another longer line"]
        assert terminal.lines() == rows
        later.close()
        screen.show(1, of("a", "b"))
        assert terminal.lines() == ["before 0/3", "later 0/3", "a", "b"]
        screen.finish(1, None)


def test_a_bar_whose_row_was_given_away_takes_it_back_to_close() -> None:
    """A bar that is drawn over between its last count and its last drawing ends whole."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a much longer line than that of the bar"))
        bar = a_bar(sys.stderr, "bar")
        decrease = tqdm._decr_instances.__func__

        class Slow(tqdm):
            @classmethod
            def _decr_instances(cls, instance: Any) -> None:
                decrease(tqdm, instance)
                screen.show(1, of("a much longer line than that of the bar"))

        bar.__class__ = Slow
        bar.close()
        screen.show(1, of("a"))
        assert terminal.lines() == ["bar 0/3", "a"]
        screen.finish(1, None)


def test_tqdm_write_goes_above() -> None:
    """tqdm.write prints above the program's bars and the block."""
    with a_terminal() as (terminal, screen):
        bar = a_bar(terminal, "bar")
        screen.show(1, of("a"))
        tqdm.write("said")
        assert terminal.lines() == ["said", "bar 0/3", "a"]
        bar.close()
        screen.finish(1, None)


def test_bars_that_draw_elsewhere_take_no_row() -> None:
    """Bars on a file, disabled ones and those of notebooks have no rows on the terminal."""
    with a_terminal() as (terminal, screen):
        elsewhere = a_bar(io.StringIO(), "file")
        disabled = a_bar(terminal, "disabled", disable=True)
        closed = io.StringIO()
        bar = a_bar(closed, "closed")
        closed.close()
        screen.show(1, of("a"))
        print("said")
        assert terminal.lines() == ["said", "a"]
        screen.finish(1, None)
        for each in (elsewhere, disabled, bar):
            each.close()


def test_a_forked_child_prints_without_the_block() -> None:
    """A child that is forked while the block is up, and the lock held, prints its line and draws no block."""
    with a_terminal() as (terminal, screen):
        screen.show(1, of("a"))
        print("rest", end="")
        holding, over = threading.Event(), threading.Event()

        def hold() -> None:
            with tqdm.get_lock():
                holding.set()
                over.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        holding.wait(30)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads and fork
            child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends it, should it wait for the lock
            wrong = True
            try:
                count = len(terminal.writes)
                print("child")
                a_bar(terminal, "bar").close()
                written = "".join(terminal.writes[count:])
                wrong = written != "child\n\rbar 0/3\rbar 0/3\n" or sys.stdout is not terminal
            finally:
                os._exit(wrong)
        assert os.waitpid(child, 0)[1] == 0
        over.set()
        holder.join()
        screen.finish(1, None)
        assert terminal.lines() == ["rest"]


def test_the_shared_screen_draws_on_stderr() -> None:
    """The screen of the process is one, and draws on what is stderr when its first owner comes."""
    with a_terminal() as (terminal, _):
        assert shared_screen() is shared_screen()
        shared_screen().show(1, of("a"))
        print("said")
        assert terminal.lines() == ["said", "a"]
        shared_screen().finish(1, None)
    with a_terminal() as (terminal, _):
        shared_screen().show(1, of("b"))
        assert terminal.lines() == ["b"]
        shared_screen().finish(1, None)


class Other(io.StringIO):
    """Another stream that leads to a terminal, such as stdout beside stderr."""

    encoding = "utf-8"

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Show a text."""
        return self.terminal.write(text)


class Model:
    """What has to be on the terminal, and may be at any moment."""

    def __init__(self) -> None:
        self.above: list[str] = []
        self.halves: dict[tuple[str, int], str] = {}
        self.flushed: dict[tuple[str, int], None] = {}
        self.owners: dict[int, list[str]] = {}
        self.allowed = {""}

    def print(self, stream: str, thread: int, text: str) -> None:
        """A thread prints that."""
        key = stream, thread
        *whole, rest = (self.halves.get(key, "") + text).split("\n")
        if whole:
            self.halves.pop(key, None)
            self.flushed.pop(key, None)
            self.above += map(self.last, whole)
        if rest:
            self.halves[key] = rest

    def flush(self, stream: str, thread: int) -> None:
        """A thread flushes what it has printed."""
        if (stream, thread) in self.halves:
            self.flushed[stream, thread] = None

    @staticmethod
    def last(line: str) -> str:
        """What a line shows at last."""
        return line.rstrip("\r").split("\r")[-1]

    def block(self, columns: int, rows: int) -> list[str]:
        """The rows of the block."""
        halves = [self.last(self.halves[key]) for key in self.halves if key in self.flushed]
        lines = [text if len(text) < columns else f"…{text[2 - columns :]}" for text in halves if text]
        lines += [line[: columns - 1] for lines in self.owners.values() for line in lines]
        if len(lines) > rows:
            lines[rows - 1 :] = [f"… and {len(lines) - rows + 1} more lines"[: columns - 1].rstrip()]
        return lines

    def whole(self, columns: int, rows: int) -> list[str]:
        """All lines."""
        lines = [*self.above, *self.block(columns, rows)]
        self.allowed.update(lines)
        return lines


TEXTS = [
    "{}\n",
    "{}",
    "{}\n{}\n",
    "{}\n{}",
    "\n",
    "\r{}",
    "\r{} 50%\r{} 100%",
    "{}\r",
    "\r{}\n",
    "{}\r\n",
    "-{}" * 9,
]
SIZES = st.tuples(st.integers(12, 60), st.integers(3, 15))
OPERATIONS = st.one_of(
    st.tuples(
        st.just("print"),
        st.sampled_from(["stdout", "stderr"]),
        st.integers(0, 1),
        st.sampled_from(TEXTS),
        st.booleans(),
    ),
    st.tuples(st.just("show"), st.integers(0, 2), st.integers(0, 4)),
    st.tuples(st.just("finish"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("resize"), SIZES),
)


@given(st.lists(OPERATIONS, max_size=30), SIZES, st.booleans())
def test_each_line_is_there_once_and_whole(
    operations: list[Any], size: tuple[int, int], one_stream: bool
) -> None:
    """In any order of prints, shows, finishes and resizes each line is there once, the block below them."""
    terminal = Terminal(*size)
    screen = Screen(terminal, size=terminal.size, clock=lambda: 0.0)
    model, names, thread = Model(), count(), 0
    drawn = False

    def check() -> None:
        """No row is torn, also between two writes."""
        if drawn:
            assert set(terminal.lines()) <= model.allowed

    with (
        redirect_stdout(terminal if one_stream else Other(terminal)),
        redirect_stderr(terminal),
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr("speedy_utils._display.terminal.lines.get_ident", lambda: thread)
        terminal.seen = check
        for kind, *details in [("show", 9, 2), *operations, ("show", 9, 1)]:
            if kind == "print":
                stream, thread, form, flush = details
                text = re.sub(r"\{\}", lambda _: f"text{next(names)}", form)
                model.print(stream, thread, text)
                model.whole(*terminal.size())
                if flush:
                    model.flush(stream, thread)
                    model.whole(*terminal.size())
                print(text, end="", file=getattr(sys, stream), flush=flush)
                if "\n" not in text and not flush:
                    continue  # it is kept
                drawn = True
            elif kind == "show":
                owner, lines = details
                model.owners[owner] = [f"line {next(names)} {'x' * 30}" for _ in range(lines)]
                model.whole(*terminal.size())
                screen.show(owner, of(*model.owners[owner]))
                drawn = True
            elif kind == "finish":
                owner, stays = details
                model.owners.pop(owner, None)
                last = [f"end {next(names)} {'x' * 30}"] * stays
                model.above += [line[: terminal.size()[0] - 1] for line in last]
                model.whole(*terminal.size())
                screen.finish(owner, of(*last) if stays else None)
            else:
                drawn = False  # until the block is drawn again it may be cut, or wrapped
                terminal.resize(*details[0])
                continue
            if drawn:
                assert terminal.lines() == model.whole(*terminal.size())
        rests = [text for half in model.halves.values() if (text := model.last(half))]
        drawn = False  # the rest of the lines comes bit by bit
        for owner in list(model.owners):
            screen.finish(owner, None)
        assert [line for line in terminal.lines() if line] == [line for line in model.above + rests if line]


BAR_OPERATIONS = st.one_of(
    st.tuples(st.just("open"), st.booleans(), st.booleans()),
    st.tuples(st.just("count"), st.integers(0, 3)),
    st.tuples(st.just("close")),
    st.tuples(st.just("print"), st.booleans()),
    st.tuples(st.just("show"), st.integers(0, 3)),
)


@given(st.lists(BAR_OPERATIONS, max_size=25))
def test_bars_and_the_block_keep_to_their_rows(operations: list[Any]) -> None:
    """In any order of the program's bars, nested, its prints and shows, each has its own rows."""
    names = count()
    above: list[str] = []
    bars: list[tuple[Any, str]] = []
    block = ["block of a long line"] * 2
    with a_terminal(40, 30) as (terminal, screen):

        def whole() -> list[str]:
            return [*above, *(f"{name} {bar.n}/3" for bar, name in bars), *block]

        screen.show(1, of(*block))
        for kind, *details in operations:
            if kind == "open":
                leave, early = details
                name = f"bar{next(names):02}"
                # A bar of before has the terminal itself; all others have what is stderr now.
                file = terminal if early and not bars else sys.stderr
                bars.append((a_bar(file, name, leave=leave), name))
                if file is terminal:
                    screen.show(1, of(*block))
            elif kind == "count" and bars:
                bar, _ = bars[details[0] % len(bars)]
                bar.n = details[0]
                bar.refresh()
            elif kind == "close" and bars:
                bar, name = bars.pop()
                if bar.leave:
                    above.append(f"{name} {bar.n}/3")
                bar.close()
                screen.show(1, of(*block))
            elif kind == "print":
                above.append(f"said {next(names)}")
                print(above[-1], file=sys.stderr if details[0] else sys.stdout)
            elif kind == "show":
                block = ["block of a long line"] * details[0]
                screen.show(1, of(*block))
            assert terminal.lines() == whole()
        screen.finish(1, of("end"))
        block = []
        above.append("end")
        assert terminal.lines() == whole()
        while bars:
            bar, name = bars.pop()
            if bar.leave:
                above.append(f"{name} {bar.n}/3")
            bar.close()
        print("after")
        assert terminal.lines() == [*above, "after"]


class Silent(io.StringIO):
    """A terminal that shows nothing."""

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Do nothing."""
        return len(text)


class Interrupted(BaseException):
    """What a signal raises in the main thread, as Ctrl-C does."""


def test_an_interrupt_leaves_the_terminal_to_others() -> None:
    """Wherever Ctrl-C strikes somebody who prints, others can draw afterwards."""

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted

    free = []

    def try_it() -> None:
        for lock in tqdm.get_lock().locks:
            free.append(lock.acquire(True, 1))
            if free[-1]:
                lock.release()

    with redirect_stdout(Silent()), redirect_stderr(Silent()):
        screen = Screen(size=lambda: (80, 24))
        screen.show(1, of("a"))
        former = signal.signal(signal.SIGALRM, interrupt)
        try:
            for turn in range(300):
                with contextlib.suppress(Interrupted):
                    signal.setitimer(signal.ITIMER_REAL, 0.0005 + turn * 1e-6)
                    while True:
                        print("said")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        other = threading.Thread(target=try_it, daemon=True)
        other.start()
        other.join(30)
        assert free == [True, True], "a lock is held for ever"
        screen.finish(1, None)
