"""Printed lines and their beginnings above the block, seen through an emulator."""

from __future__ import annotations

import io
import logging
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.screen import EmulatedTerminal, SecondFile, a_bar, a_terminal, constant
from support.threads import in_thread

from speedy_utils._display.terminal.lines import StreamProxy
from speedy_utils._display.terminal.screen import Screen


def test_a_long_beginning_shows_its_end() -> None:
    """A beginning that is wider than the terminal shows its last part; the line is whole at last."""
    with a_terminal(20, 6) as (terminal, screen):
        screen.show(1, constant("a"))
        for n in range(30):
            print(f"{n} ", end="", flush=True)
        assert terminal.lines() == ["…24 25 26 27 28 29", "a"]
        print("語" * 12, end="", flush=True)
        assert terminal.lines() == ["…" + "語" * 9, "a"]
        print()
        screen.finish(1, None)
        assert terminal.lines()[0].replace(" ", "").startswith("012345678910")


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["  0%", "\r 50%", "\r100%"], ["100%"]),
        (["0\r", "50\r", "100\r"], ["100"]),
        (["50%", "\r   \r"], []),
        (["one\r\ntwo\r\n111\r2\r3\n"], ["one", "two", "3"]),
        (["4\r5"], ["5"]),
    ],
)
def test_what_overwrites_itself_shows_its_last_state(texts: list[str], shown: list[str]) -> None:
    """Of a line that returns to its start only what came last is shown, whether it has an end yet or not."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        for text in texts:
            print(text, end="", flush=True)
        assert terminal.lines() == [*shown, "a"]
        screen.finish(1, None)
        assert terminal.lines() == shown


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
        lines = [*self.above, *self.block(columns, rows - 1)]  # one row is left to others
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
    terminal = EmulatedTerminal(*size)
    screen = Screen(terminal, size=terminal.size)
    model, names, thread = Model(), count(), 0
    drawn = False

    def check() -> None:
        """No row is torn, also between two writes."""
        if drawn:
            assert set(terminal.lines()) <= model.allowed

    with (
        redirect_stdout(terminal if one_stream else SecondFile(terminal)),
        redirect_stderr(terminal),
        pytest.MonkeyPatch.context() as patched,
    ):
        patched.setattr("speedy_utils._display.terminal.lines.get_ident", lambda: thread)
        terminal.on_write = check
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
                screen.show(owner, constant(*model.owners[owner]))
                drawn = True
            elif kind == "finish":
                owner, stays = details
                model.owners.pop(owner, None)
                last = [f"end {next(names)} {'x' * 30}"] * stays
                model.above += [line[: terminal.size()[0] - 1] for line in last]
                model.whole(*terminal.size())
                screen.finish(owner, constant(*last) if stays else None)
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


def test_a_log_record_stands_alone() -> None:
    """A warning does not continue what its thread has printed without an end, which goes on after it."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        handler = logging.StreamHandler()
        record = logging.LogRecord("x", logging.WARNING, __file__, 1, "warned", (), None)
        print("working ...", end="", file=sys.stderr, flush=True)
        handler.handle(record)
        assert terminal.lines() == ["warned", "working ...", "a"]
        print(" done", file=sys.stderr)
        assert terminal.lines() == ["warned", "working ... done", "a"]
        screen.finish(1, constant("b"))
        assert terminal.lines() == ["warned", "working ... done", "b"]


class Pipe(io.StringIO):
    """A stream that is no terminal, and all that was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        """Note a text."""
        self.texts.append(text)
        return super().write(text)


def test_without_a_block_a_proxy_passes_on_what_is_complete() -> None:
    """Each thread's text is passed on up to the end of a line, a return or a flush; a bar's at once."""
    pipe = Pipe()
    proxy = StreamProxy(pipe)
    proxy.write("at once")
    proxy.join_lines()
    assert proxy.write("one") == 3
    in_thread(lambda: print("another", "thread", file=proxy))
    print(" and", "two\nthree", file=proxy)
    print("50%", end="\r", file=proxy)
    print(".", end="", file=proxy)
    print(".", end="", file=proxy, flush=True)
    proxy.flush()
    print("working", end="", file=proxy)
    handler = logging.StreamHandler(proxy)
    handler.handle(logging.LogRecord("x", logging.WARNING, __file__, 1, "warned", (), None))
    assert pipe.texts[-2:] == ["warned\n", "working"]
    assert pipe.texts[:-2] == [
        "at once",
        "another thread\n",
        "one and two\n",
        "three\n",
        "50%\r",
        "..",
    ]
    a_bar(proxy, "epoch").close()
    assert "epoch" in pipe.texts[-2]


def test_beginnings_are_passed_on_when_lines_are_joined_no_more() -> None:
    """The beginning of each thread's line is passed on at the end; what is written later, at once."""
    pipe = Pipe()
    proxy = StreamProxy(pipe)
    proxy.join_lines()
    proxy.write("one")
    in_thread(lambda: proxy.write("two"))
    beginnings = proxy.release_lines()
    assert proxy.release_lines() == {}
    proxy.write_beginnings(beginnings)
    proxy.write(" three")
    assert pipe.getvalue() == "one\ntwo three"
    proxy.join_lines()
    proxy.write("five")
    pipe.close()
    proxy.write_beginnings(proxy.release_lines())
