"""tqdm bars of the program's own beside the block, seen through an emulator."""

from __future__ import annotations

import io
import sys
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.screen import a_bar, a_terminal, constant
from tqdm import tqdm

from speedy_utils._display.terminal.screen import MAX_REDRAWS, Screen


def test_a_bar_of_the_program_keeps_its_row() -> None:
    """The block goes below a bar that was there before, prints and ``tqdm.write`` go above it."""
    with a_terminal() as (terminal, screen):
        bar, above = a_bar(terminal, "epoch"), []
        for epoch in range(1, 4):
            screen.show(epoch, constant("a", "b"))
            assert terminal.lines() == [*above, f"epoch {epoch - 1}/3", "a", "b"]
            print(f"said {epoch}")
            tqdm.write(f"wrote {epoch}")
            above += [f"said {epoch}", f"wrote {epoch}"]
            assert terminal.lines() == [*above, f"epoch {epoch - 1}/3", "a", "b"]
            screen.finish(epoch, constant(f"end {epoch}"))
            above.append(f"end {epoch}")
            bar.update()
            bar.refresh()
            assert terminal.lines() == [*above, f"epoch {epoch}/3"]
        bar.close()
        print("after")
        assert terminal.lines() == [*above, "epoch 3/3", "after"]


def test_a_bar_wider_than_the_terminal_leaves_no_half_with_each_print() -> None:
    """A bar of the program that a shrunk terminal would wrap is drawn in the width that there is."""
    with a_terminal(80) as (terminal, screen), tqdm(total=3, desc="epoch", file=terminal, ncols=70) as bar:
        screen.show(1, constant("a"))
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


def test_a_flush_draws_once_beside_a_bar_wider_than_the_terminal() -> None:
    """Such a bar flushes the streams whenever it is drawn, which draws nothing more."""
    with a_terminal(80) as (terminal, screen), tqdm(total=3, file=terminal, ncols=70):
        screen.show(1, constant("a"))
        terminal.resize(40, 12)
        before = len(terminal.writes)
        print("half a line", end="", flush=True)
        assert sum("half a line" in text for text in terminal.writes[before:]) == 1
        screen.finish(1, None)


def test_a_bar_that_draws_during_a_flood_of_lines_leaves_nothing_behind() -> None:
    """While lines no longer draw the block again a bar may draw itself, and is erased all the same."""
    with a_terminal(40, 12) as (terminal, _), tqdm(total=3, file=terminal) as bar:
        screen = Screen(terminal, size=terminal.size, clock=lambda: 0.0)
        screen.show(1, constant("a"))
        for n in range(MAX_REDRAWS + 3):
            print(n)
            bar.refresh()
        screen.show(1, constant("a"))
        lines = terminal.lines()
        assert lines[:-2] == [str(n) for n in range(MAX_REDRAWS + 3)]
        assert lines[-1] == "a"
        screen.finish(1, None)


def test_a_bar_may_outlive_the_block() -> None:
    """A bar that was made while the block was there goes on where it is when the block ends first."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a much longer line than that of the bar"))
        bar = a_bar(sys.stderr, "outer")
        inner = a_bar(sys.stderr, "inner")
        print("beginning", end="", flush=True)
        screen.finish(1, constant("end"))
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
        screen.show(1, constant("a much longer line", "another longer line"))
        later = a_bar(sys.stderr, "later")
        before.close()
        screen.show(1, constant("a much longer line", "another longer line"))
        # tqdm leaves the row of the closed one empty.
        rows = ["before 0/3", "", "later 0/3", "a much longer line", "another longer line"]
        assert terminal.emulator.rows == [*rows, *[""] * 7]
        later.close()
        screen.show(1, constant("a", "b"))
        assert terminal.lines() == ["before 0/3", "later 0/3", "a", "b"]
        screen.finish(1, None)


def test_a_closing_bar_takes_its_row_back_from_the_block() -> None:
    """A bar whose row the block takes between its last count and its last drawing ends whole."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a much longer line than that of the bar"))
        bar = a_bar(sys.stderr, "bar")
        decrease = tqdm._decr_instances.__func__

        class Slow(tqdm):
            @classmethod
            def _decr_instances(cls, instance: Any) -> None:
                decrease(tqdm, instance)
                screen.show(1, constant("a much longer line than that of the bar"))

        bar.__class__ = Slow
        bar.close()
        screen.show(1, constant("a"))
        assert terminal.lines() == ["bar 0/3", "a"]
        screen.finish(1, None)


def test_bars_that_draw_elsewhere_take_no_row() -> None:
    """Bars on a file, open or closed, and disabled ones have no rows on the terminal."""
    with a_terminal() as (terminal, screen):
        closed = io.StringIO()
        bars = [a_bar(file, "elsewhere") for file in (io.StringIO(), closed)]
        bars.append(a_bar(terminal, "disabled", disable=True))
        closed.close()
        screen.show(1, constant("a"))
        print("said")
        assert terminal.lines() == ["said", "a"]
        screen.finish(1, None)
        for bar in bars:
            bar.close()


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

        screen.show(1, constant(*block))
        for kind, *details in operations:
            if kind == "open":
                leave, early = details
                name = f"bar{next(names):02}"
                # A bar of before has the terminal itself; all others have one of the proxies.
                file = terminal if early and not bars else sys.stdout if len(bars) % 2 else sys.stderr
                bars.append((a_bar(file, name, leave=leave), name))
                if file is terminal:
                    screen.show(1, constant(*block))
            elif kind == "count" and bars:
                bar, _ = bars[details[0] % len(bars)]
                bar.n = details[0]
                bar.refresh()
            elif kind == "close" and bars:
                bar, name = bars.pop()
                above += [f"{name} {bar.n}/3"] * bool(bar.leave)
                bar.close()
                if not bar.leave:  # its row is empty until the block is drawn again
                    screen.show(1, constant(*block))
            elif kind == "print":
                above.append(f"said {next(names)}")
                print(above[-1], file=sys.stderr if details[0] else sys.stdout)
            elif kind == "show":
                block = ["block of a long line"] * details[0]
                screen.show(1, constant(*block))
            assert terminal.lines() == whole()
        screen.finish(1, constant("end"))
        block = []
        above.append("end")
        assert terminal.lines() == whole()
        while bars:
            bar, name = bars.pop()
            above += [f"{name} {bar.n}/3"] * bool(bar.leave)
            bar.close()
        print("after")
        assert terminal.lines() == [*above, "after"]
