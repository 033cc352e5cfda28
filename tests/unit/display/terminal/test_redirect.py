"""The streams while a block is there: what stands in their place, and what is left alone."""

from __future__ import annotations

import _thread
import io
import logging
import sys
from collections import deque
from contextlib import redirect_stderr, redirect_stdout
from itertools import chain, starmap

import pytest
from support.screen import a_bar, a_pseudo_terminal, a_terminal, constant

from speedy_utils._display.terminal import redirect
from speedy_utils._display.terminal.lines import StreamProxy, output_filter
from speedy_utils._display.terminal.redirect import redirect_streams, restore_streams


def test_a_proxy_has_its_writer_before_it_is_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that prints while the streams are redirected meets no proxy without a writer."""
    met: list[bool] = []

    def look(one: object, other: object) -> bool:
        met.extend(
            not isinstance(each, StreamProxy) or each.writer is screen for each in (sys.stdout, sys.stderr)
        )
        return one is other

    monkeypatch.setattr(redirect, "_same_terminal", look)
    with a_terminal() as (terminal, screen):
        screen.show(1, lambda _: ["line"])
        print("said")
        screen.finish(1, None)
        assert terminal.lines() == ["said"]
    assert met == [True] * 4


def test_a_pipe_is_left_alone() -> None:
    """A stream that is no terminal stays as it is, and so does one that is closed or not there."""
    closed = io.StringIO()
    closed.close()
    for other in (io.StringIO(), closed, None):
        with a_terminal() as (terminal, screen):
            sys.stdout = other
            screen.show(1, constant("a"))
            assert sys.stdout is other
            assert isinstance(sys.stderr, StreamProxy)
            screen.finish(1, None)
            assert sys.stdout is other
            assert sys.stderr is terminal


def test_the_last_user_restores_the_streams() -> None:
    """Without a writer pipes are redirected too; each user counts once, however often it says so."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        one, other = object(), object()
        for user in (one, other, one):
            redirect_streams(user)
        restore_streams(one)
        restore_streams(one)
        assert isinstance(sys.stdout, StreamProxy)
        assert sys.stdout.wrapped is out
        print("shown")
        token = output_filter.set(lambda: False)
        print("filtered out")
        output_filter.reset(token)
        restore_streams(other)
        assert (sys.stdout, sys.stderr) == (out, err)
        assert out.getvalue() == "shown\n"


def test_a_stream_that_the_program_puts_in_place_stays_there() -> None:
    """A stream that the program puts in place meanwhile gets what is printed until it is removed."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        caught = io.StringIO()
        with redirect_stdout(caught):
            print("caught")
            screen.show(1, constant("b"))
            screen.finish(1, constant("c"))
            assert sys.stdout is caught
        assert caught.getvalue() == "caught\n"
        print("after")
        assert terminal.lines() == ["c", "after"]
        screen.show(1, constant("d"))
        screen.finish(1, None)
        assert sys.stdout is terminal


def test_a_stream_that_appears_later_is_redirected_and_its_proxy_may_be_kept() -> None:
    """A terminal put in place meanwhile is redirected from the next show on; its proxy can be kept."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        sys.stdout = terminal
        screen.show(1, constant("a"))
        print("said")
        assert terminal.lines() == ["said", "a"]
        kept = sys.stdout
        screen.finish(1, None)
        assert sys.stdout is terminal
        # A proxy that the program has kept can be written to after the block, and above the next.
        kept.writelines(["late", "\n"])
        screen.show(2, constant("b"))
        kept.write("later\n")
        assert terminal.lines() == ["said", "late", "later", "b"]
        screen.finish(2, None)


def test_a_proxy_is_otherwise_the_wrapped_stream() -> None:
    """All but printing is the wrapped stream's: attributes, return values, errors."""
    with a_terminal() as (_terminal, screen):
        screen.show(1, constant("a"))
        assert sys.stdout.isatty()
        assert sys.stdout.encoding == "utf-8"
        assert isinstance(sys.stdout, io.StringIO)
        assert sys.stdout.write("語\n") == 2
        with pytest.raises(io.UnsupportedOperation):
            sys.stdout.fileno()
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")
        screen.finish(1, None)


@pytest.mark.parametrize(
    ("name", "arguments"), [("write", ["said\n"]), ("writelines", [["said", "\n"]]), ("flush", [])]
)
def test_a_proxy_may_be_called_from_c(name: str, arguments: list[object]) -> None:
    """Where no Python code calls a proxy, as at the end of the interpreter, it answers all the same."""
    with a_terminal() as (terminal, screen):
        screen.show(1, constant("a"))
        done = _thread.allocate_lock()
        done.acquire()
        calls = starmap(getattr(sys.stdout, name), [arguments])
        # The thread begins with a function of C, and so does what it calls.
        _thread.start_new_thread(deque, (chain(calls, starmap(done.release, [()])),))
        assert done.acquire(timeout=240)
        assert terminal.lines() == [*["said"] * (name != "flush"), "a"]
        screen.finish(1, None)


def test_log_records_go_above() -> None:
    """Handlers of logging that were made before the block write above it, and to the terminal after it."""
    with a_terminal() as (terminal, screen):
        logger, child = logging.getLogger("speaking"), logging.getLogger("speaking.child")
        early = logging.StreamHandler()
        logger.addHandler(early)
        screen.show(1, constant("a"))
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


def test_what_keeps_the_stream_or_its_write_goes_above() -> None:
    """Lines of a sink that holds the stream, its ``write`` or its buffer stand whole above the block."""
    with a_pseudo_terminal() as (terminal, screen):
        kept, write = sys.stderr, sys.stderr.write
        screen.show(1, constant("a long line", "b"))
        kept.write("kept\n")
        write("held\nand this\n")
        kept.buffer.write(b"bytes\n")
        print("printed")
        print("with the stream", file=kept)
        assert terminal.rows == [
            *("kept", "held", "and this", "bytes", "printed", "with the stream"),
            *("a long line", "b"),
        ]
        screen.finish(1, constant("end"))
        write("after\n")
        assert terminal.rows[6:] == ["end", "after"]
        assert vars(kept.buffer) == {}


def test_the_beginning_of_a_line_of_such_a_sink_is_shown() -> None:
    """What is flushed without a line's end stands in the block until the line is complete."""
    with a_pseudo_terminal() as (terminal, screen):
        kept = sys.stderr
        screen.show(1, constant("a"))
        kept.write("50 %")
        kept.flush()
        assert terminal.rows == ["50 %", "a"]
        kept.write(" and 100 %\n")
        assert terminal.rows == ["50 % and 100 %", "a"]
        screen.finish(1, None)


def test_such_a_sink_is_filtered_as_prints_are() -> None:
    """Where what is printed in a context is left out, so is what a sink writes there."""
    with a_pseudo_terminal() as (terminal, screen):
        kept = sys.stderr
        screen.show(1, constant("a"))
        token = output_filter.set(lambda: False)
        kept.write("filtered out\n")
        output_filter.reset(token)
        kept.write("shown\n")
        assert terminal.rows == ["shown", "a"]
        screen.finish(1, None)


def test_a_bar_made_before_on_the_stream_itself_keeps_its_row() -> None:
    """What a tqdm bar draws on a stream that it holds is no text to be moved above the block."""
    with a_pseudo_terminal() as (terminal, screen):
        bar = a_bar(sys.stderr, "epoch")
        screen.show(1, constant("a"))
        bar.update()
        bar.refresh()
        print("said")
        assert terminal.rows == ["said", "epoch 1/3", "a"]
        screen.finish(1, None)
        bar.close()
        assert terminal.rows == ["said", "epoch 1/3"]


def test_who_has_wrapped_the_write_of_a_stream_gets_all_that_is_printed() -> None:
    """A package that keeps what the program prints, by a ``write`` of its own, misses no line."""
    with a_pseudo_terminal() as (terminal, screen):
        stream, seen = sys.stdout, []
        write = stream.write

        def note_and_write(text: str) -> int:
            seen.append(text)
            return write(text)

        stream.write = note_and_write
        screen.show(1, constant("a"))
        print("printed")
        assert terminal.rows == ["printed", "a"]
        screen.finish(1, None)
        assert sum("printed\n" in text for text in seen) == 1
