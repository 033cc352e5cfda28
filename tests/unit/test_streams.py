"""What is printed while bars are up."""

from __future__ import annotations

import io
import multiprocessing
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from speedy_utils.progress.display import BarDisplay
from speedy_utils.progress.snapshot import Snapshot, StageSnapshot
from speedy_utils.progress.streams import AboveBars, keep_below, let_go, real_stderr


class Screen(io.StringIO):
    """A terminal that keeps all it is sent."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class Drawn:
    """A line that says on the screen when it is taken away and drawn."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def clear(self, nolock: bool = False) -> None:
        """Take it away."""
        self.screen.write("<")

    def refresh(self, nolock: bool = False) -> None:
        """Draw it."""
        self.screen.write(">")


@contextmanager
def a_terminal() -> Iterator[Screen]:
    """A terminal that both streams lead to; no fixture, as pytest sets streams of its own for the test."""
    screen = Screen()
    with redirect_stdout(screen), redirect_stderr(screen):
        yield screen


@contextmanager
def a_line(screen: Screen) -> Iterator[Drawn]:
    """A line that is kept below."""
    line = Drawn(screen)
    keep_below(line)
    try:
        yield line
    finally:
        let_go(line)


def test_a_printed_line_goes_above() -> None:
    """The bar is taken away, the line is written, and the bar is drawn again."""
    with a_terminal() as screen, a_line(screen):
        print("one")
        print("two", file=sys.stderr)
        assert screen.getvalue() == "<one\n><two\n>"


def test_half_a_line_waits_for_its_end() -> None:
    """Nothing is written before the line is complete."""
    with a_terminal() as screen, a_line(screen):
        print("half", end=" ")
        assert screen.getvalue() == ""
        print("whole\nrest", end="")
        assert screen.getvalue() == "<half whole\n>"


def test_a_prompt_is_shown() -> None:
    """A flush writes half a line too, and leaves the bar away until there is an end."""
    with a_terminal() as screen, a_line(screen):
        print("(Pdb) ", end="", flush=True)
        assert screen.getvalue() == "<(Pdb) "


def test_threads_do_not_mix_their_lines() -> None:
    """Half a line of one thread is not completed by another."""
    with a_terminal() as screen, a_line(screen):
        print("mine", end="")
        thread = threading.Thread(target=lambda: print("theirs"))
        thread.start()
        thread.join()
        print()
        assert screen.getvalue() == "<theirs\n><mine\n>"


def test_the_streams_are_restored_after_the_last_bar() -> None:
    """The former streams are back once no bar is left, with half lines written."""
    with a_terminal() as screen:
        first, second = Drawn(screen), Drawn(screen)
        keep_below(first)
        keep_below(second)
        assert isinstance(sys.stdout, AboveBars)
        assert real_stderr() is screen
        let_go(first)
        assert isinstance(sys.stdout, AboveBars)
        print("half", end="")
        let_go(second)
        assert sys.stdout is sys.stderr is screen
        assert screen.getvalue().endswith("half")


def test_streams_come_back_from_a_display_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where closing one bar fails, the streams are the program's again, whatever the number of bars."""

    def fail(line: object) -> None:
        raise OSError("the terminal is gone")

    with a_terminal() as screen:
        display = BarDisplay()
        display.show(Snapshot((StageSnapshot("Whole", 1, 2), StageSnapshot("Stage", 1, 2))))
        with monkeypatch.context() as patched:
            patched.setattr("speedy_utils.progress.display._Line.close", fail)
            with pytest.raises(OSError, match="gone"):
                display.close()
        assert sys.stdout is sys.stderr is screen
        display.close()


def test_what_kept_the_stream_writes_on() -> None:
    """A handler that took the stream while a bar was up can write after it."""
    with a_terminal() as screen:
        line = Drawn(screen)
        keep_below(line)
        kept = sys.stdout
        let_go(line)
        kept.writelines(["late", "\n"])
        assert screen.getvalue() == "late\n"
        assert kept.isatty()


def test_a_pipe_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is no terminal stays as it is, and so does one that is closed for good."""
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr(sys, "stderr", None)
    line = Drawn(Screen())
    keep_below(line)
    assert sys.stdout is pipe
    assert sys.stderr is None
    let_go(line)


def test_a_display_holds_the_streams_while_it_is_open() -> None:
    """Bars on stderr keep what is printed above them from their first drawing to their end."""
    with a_terminal() as screen:
        display = BarDisplay()
        display.show(Snapshot((StageSnapshot("Working", 1, 2),)))
        print("said")
        display.close()
        assert sys.stderr is screen
        text = screen.getvalue()
        assert "\rsaid\n" in text
        assert text.rstrip().endswith("]")


def test_a_forked_child_prints_without_the_bar() -> None:
    """A child that was forked while a bar was up writes its line and draws nothing."""
    with a_terminal() as screen, a_line(screen):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads and fork
            child = multiprocessing.get_context("fork").Process(target=_print_and_check, args=(screen,))
            child.start()
        child.join()
    assert child.exitcode == 0


def _print_and_check(screen: Screen) -> None:
    print("child")
    sys.exit(screen.getvalue() != "child\n")
