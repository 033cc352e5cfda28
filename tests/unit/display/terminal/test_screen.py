"""The block at the bottom of the terminal, seen through an emulator."""

from __future__ import annotations

import contextlib
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from support.forks import in_fork
from support.screen import EmulatedTerminal, FakeTerminal, a_bar, a_pseudo_terminal, a_terminal, constant
from support.threads import held, in_thread
from tqdm import tqdm

from speedy_utils._display.terminal.lines import StreamProxy
from speedy_utils._display.terminal.screen import MAX_REDRAWS, REDRAW_PERIOD_S, Screen, shared_screen


def test_a_show_is_one_write() -> None:
    """Lines take the place of the former in one write, with the cursor in the first; prints go above them."""
    with a_terminal() as (terminal, screen):
        print("before")
        screen.show(1, constant("a 1", "b 1"))
        count = len(terminal.writes)
        screen.show(1, constant("a 2"))
        screen.show(1, constant("a 3", "b 3", "c 3"))
        assert len(terminal.writes) == count + 2
        assert (terminal.lines(), terminal.emulator.cursor) == (["before", "a 3", "b 3", "c 3"], (0, 1))
        print("one\ntwo", file=sys.stderr)
        assert terminal.lines() == ["before", "one", "two", "a 3", "b 3", "c 3"]
        screen.finish(1, constant("a 4", "b 4"))
        print("after")
        assert terminal.lines() == ["before", "one", "two", "a 4", "b 4", "after"]


def test_what_does_not_come_this_way_finds_an_empty_row() -> None:
    """A line of C code or of a program stands whole above the block; a beginning stays, and goes on."""
    with a_pseudo_terminal() as (terminal, screen):
        screen.show(1, constant("a long line of the block", "b"))
        terminal.write("from C\n")
        screen.show(1, constant("a long line of the block", "b"))
        terminal.write("Password: ")
        screen.show(1, constant("a longer line of the block", "b", "c"))
        assert terminal.rows == ["from C", "Password:", "a longer line of the block", "b", "c"]
        terminal.write("***\n")
        screen.show(1, constant("a"))
        assert terminal.rows == ["from C", "Password: ***", "a"]
        terminal.write("dots...")
        print(" printed")
        assert terminal.rows == ["from C", "Password: ***", "dots... printed", "a"]
        screen.finish(1, constant("end"))
        assert terminal.rows == ["from C", "Password: ***", "dots... printed", "end"]


def test_at_the_end_of_the_program_lines_stay_and_nothing_more_is_drawn() -> None:
    """What runs show becomes text, the streams are restored, and threads that go on change nothing."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        screen.show(2, constant("b"))
        for _ in range(2):
            screen.close()
        assert sys.stdout is sys.stderr is terminal
        screen.show(1, constant("c"))
        screen.finish(1, constant("d"))
        assert terminal.lines() == ["a", "b"]


def test_owners_stand_below_each_other() -> None:
    """Owners keep their order, may finish in any and unseen, and the last one restores the streams."""
    with a_terminal() as (terminal, screen):
        first, second = [1], [1]  # equal, but not identical
        screen.finish("alone", constant("alone"))
        assert sys.stdout is terminal
        screen.show(first, constant("first"))
        screen.show(second, constant("second"))
        screen.show(first, constant("first again"))
        screen.finish("unseen", constant("unseen"))
        assert terminal.lines() == ["alone", "unseen", "first again", "second"]
        for _ in range(2):
            screen.finish(first, None)
        assert isinstance(sys.stdout, StreamProxy)
        screen.show(first, constant("another first"))
        assert terminal.lines() == ["alone", "unseen", "second", "another first"]
        screen.finish(second, None)
        screen.finish(first, constant("end"))
        assert sys.stdout is sys.stderr is terminal
        assert terminal.lines() == ["alone", "unseen", "end"]


def test_lines_are_cut_to_the_width() -> None:
    """A line never fills the last column, with wide characters and colours too, and takes one row."""
    with a_terminal(20, 10) as (terminal, screen):
        asked = []

        def render(columns: int) -> list[str]:
            asked.append(columns)
            return ["x" * 50, "語" * 50, "\x1b[31m" + "r" * 50 + "\x1b[0m", "one\ntwo\x1b[2A\tthree\a"]

        screen.show(1, render)
        assert terminal.lines() == ["x" * 19, terminal.lines()[1], "r" * 19, "onetwo  three"]
        assert terminal.emulator.rows[2] == "語" * 9
        assert asked == [19]
        screen.finish(1, render)
        assert len(terminal.lines()) == 4


def test_a_block_higher_than_the_terminal_says_what_is_left_out() -> None:
    """Lines are shown as far as there is room, the last says how many more there are, and all at the end."""
    with a_terminal(40, 6) as (terminal, screen):
        all_lines = [f"line {n}" for n in range(10)]
        screen.show(1, constant(*all_lines))
        print("said")
        assert terminal.lines() == ["said", *all_lines[:4], "… and 6 more lines"]
        screen.show(1, constant("few"))
        assert terminal.lines() == ["said", "few"]
        screen.finish(1, constant(*all_lines))
        assert terminal.lines() == ["said", *all_lines]


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
        whole = ["said", "beginning and end", "a" * 19, "b" * 19]
        assert [line for line in terminal.lines() if line] == whole
        terminal.resize(16, 10)
        screen.finish(1, render)
        assert [line for line in terminal.lines() if line][-2:] == ["a" * 15, "b" * 15]


def test_a_terminal_without_a_size_is_taken_for_80_columns() -> None:
    """A pseudo-terminal that has no size, or can't say it, gets lines of 80 columns."""
    with a_terminal(100, 10) as (terminal, _):
        for screen in (Screen(terminal), Screen(terminal, size=lambda: (0, 0))):
            screen.show(1, lambda columns: ["x" * columns])
            assert terminal.lines() == ["x" * 79]
            screen.finish(1, None)


def test_an_error_of_the_terminal_is_raised_and_the_streams_are_restored() -> None:
    """If drawing fails, show and finish raise, and the streams are the program's again after the end."""
    failing = EmulatedTerminal()
    with a_terminal() as (terminal, _):
        screen = Screen(failing, size=failing.size)
        screen.show(1, constant("a"))
        failing.gone = True
        with pytest.raises(OSError, match="gone"):
            screen.show(1, constant("b"))
        print("said")
        print("flushed", end="", flush=True)
        with pytest.raises(OSError, match="gone"):
            screen.finish(1, constant("c"))
        assert sys.stdout is sys.stderr is terminal
        assert terminal.lines() == ["said"] or terminal.lines() == ["said", "flushed"]


def test_a_print_has_the_error_of_its_own_stream() -> None:
    """If the printed stream itself fails, its error is raised where it would be without a block."""
    with a_terminal() as (_terminal, screen):
        failing = EmulatedTerminal()
        failing.gone = True
        sys.stdout = failing
        screen.show(1, constant("a"))
        with pytest.raises(OSError, match="gone"):
            print("said")
        screen.finish(1, None)
        assert sys.stdout is failing


def test_an_error_in_a_render_is_not_raised_by_print() -> None:
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
        screen.show(1, constant("a", "b"))
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
        screen.show(1, constant("c"))
        assert terminal.lines() == [*map(str, range(3 * MAX_REDRAWS))] * 2 + ["beginning", "c"]
        screen.finish(1, None)


def test_a_forked_child_prints_without_the_block() -> None:
    """A child that is forked while the block is up, and the lock held, prints its line and draws no block."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        print("rest", end="")

        def child() -> None:
            count = len(terminal.writes)
            print("child")
            a_bar(terminal, "bar").close()
            assert "".join(terminal.writes[count:]) == "child\n\rbar 0/3\rbar 0/3\n"
            assert sys.stdout is terminal

        with held(tqdm.get_lock()):
            assert in_fork(child) == 0
        screen.finish(1, None)
        assert terminal.lines() == ["rest"]


def test_the_shared_screen_draws_on_stderr() -> None:
    """The screen of the process is one, and draws on what is stderr when its first owner comes."""
    for _ in range(2):
        with a_terminal() as (terminal, _):
            shared_screen().show(1, constant("a"))
            print("said")
            assert terminal.lines() == ["said", "a"]
            shared_screen().finish(1, None)
    assert shared_screen() is shared_screen()


class Speaking:
    """Prints when it is freed."""

    def __del__(self) -> None:
        """Print a line, and the beginning of one."""
        print("freed")
        print("half", end="", flush=True)


def test_a_finalizer_and_a_signal_handler_may_print() -> None:
    """They may interrupt a print wherever it is: nothing is raised, and nothing is lost."""
    handled = 0

    def handle(number: int, frame: Any) -> None:
        nonlocal handled
        handled += 1
        Speaking()
        print(" and half")

    terminal = FakeTerminal()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        screen = Screen(terminal, size=lambda: (80, 24))
        screen.show(1, constant("a"))
        former = signal.signal(signal.SIGALRM, handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.005)
            while handled < 20:
                sys.stdout.write("said\n")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        screen.finish(1, None)
        assert terminal.getvalue().count("freed\n") == handled


class Discarding(FakeTerminal):
    """A terminal that shows and keeps nothing."""

    def write(self, text: str) -> int:
        """Do nothing."""
        return len(text)


class Interrupted(BaseException):
    """What a signal raises in the main thread, as Ctrl-C does."""


def test_an_interrupt_leaves_the_terminal_to_others() -> None:
    """Wherever Ctrl-C interrupts a print, other threads can draw afterwards."""

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupted

    free = []

    def try_the_locks() -> None:
        for lock in tqdm.get_lock().locks:
            free.append(lock.acquire(True, 1))
            if free[-1]:
                lock.release()

    with redirect_stdout(Discarding()), redirect_stderr(Discarding()):
        screen = Screen(size=lambda: (80, 24))
        screen.show(1, constant("a"))
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
        in_thread(try_the_locks)
        assert free == [True, True], "a lock is held for ever"
        screen.finish(1, None)
