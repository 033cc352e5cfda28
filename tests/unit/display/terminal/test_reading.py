"""Who reads from the terminal, or draws on it: the block leaves it meanwhile."""

from __future__ import annotations

import builtins
import getpass
import sys
import termios
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from support.screen import a_pseudo_terminal, a_terminal, constant
from support.threads import in_thread


@pytest.mark.parametrize(("module", "name"), [(builtins, "input"), (getpass, "getpass")])
def test_the_block_is_away_while_something_is_asked(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    """The question stands last, with nothing below it, and lines of other threads above it."""
    with a_terminal() as (terminal, screen):

        def ask(prompt: str) -> str:
            terminal.write(prompt)
            assert terminal.lines() == ["before", "Sure?"]
            screen.show(1, constant("b"))
            in_thread(lambda: print("other"))
            assert terminal.lines() == ["before", "other", "Sure?"]
            terminal.write("yes\n")  # the keys, as the terminal shows them
            return "yes"

        monkeypatch.setattr(module, name, ask)
        screen.show(1, constant("a"))
        print("before")
        assert getattr(module, name)("Sure? ") == "yes"
        print("after")
        assert terminal.lines() == ["before", "other", "Sure? yes", "after", "b"]
        screen.finish(1, None)
        assert getattr(module, name) is ask


def test_a_question_may_be_printed_and_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A beginning of a line stands before what is asked; the block comes back also after an error."""
    with a_terminal() as (terminal, screen):

        def ask() -> str:
            assert terminal.lines() == ["Sure?"]
            raise EOFError

        monkeypatch.setattr(builtins, "input", ask)
        screen.show(1, constant("a"))
        print("Sure? ", end="")
        with pytest.raises(EOFError):
            input()
        terminal.write("\n")
        screen.show(1, constant("a"))
        assert terminal.lines() == ["Sure?", "a"]
        screen.finish(1, None)


def test_a_run_that_ends_meanwhile_says_so_below_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Last lines of a run have rows of their own, whether it is the last run or not."""
    with a_terminal() as (terminal, screen):

        def ask(prompt: str) -> str:
            terminal.write(prompt)
            for owner in (1, 2):
                screen.finish(owner, constant(f"end {owner}"))
            return ""

        monkeypatch.setattr(builtins, "input", ask)
        screen.show(1, constant("a"))
        screen.show(2, constant("b"))
        input("Sure? ")
        assert [line for line in terminal.lines() if line] == ["Sure?", "end 1", "end 2"]


@pytest.mark.parametrize("mode", ["ICANON", "ECHO"])
def test_the_block_is_away_while_keys_are_read(mode: str) -> None:
    """An editor of lines, or what asks for a password, is known by the mode of the terminal."""
    with a_pseudo_terminal() as (terminal, screen):
        usual = termios.tcgetattr(terminal.descriptor)
        usual[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(terminal.descriptor, termios.TCSANOW, usual)
        screen.show(1, constant("a"))
        terminal.write(">>> ")
        reading = [*usual]
        reading[3] &= ~getattr(termios, mode)
        termios.tcsetattr(terminal.descriptor, termios.TCSANOW, reading)
        screen.show(1, constant("b"))
        assert terminal.rows == [">>>"]
        terminal.write("x\n")
        termios.tcsetattr(terminal.descriptor, termios.TCSANOW, usual)
        screen.show(1, constant("b"))
        assert terminal.rows == [">>> x", "b"]
        screen.finish(1, None)


def test_the_block_is_away_while_others_draw() -> None:
    """What stands in for a terminal's stream, as the live displays of others do, has the terminal alone."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        proxy = sys.stdout
        with redirect_stdout(SimpleNamespace(write=proxy.write, flush=proxy.flush, isatty=lambda: True)):
            screen.show(1, constant("a"))
            print("\rdrawn by others", end="")
            assert terminal.lines() == ["drawn by others"]
            print()
        screen.show(1, constant("a"))
        assert terminal.lines() == ["drawn by others", "a"]
        screen.finish(1, None)
