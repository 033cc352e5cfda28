"""Whose printed lines are shown."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
from support.screen import FakeTerminal, a_terminal

from speedy_utils import multi_process
from speedy_utils._display.terminal.block import ERASE_AFTER
from speedy_utils._display.terminal.lines import StreamProxy
from speedy_utils._display.terminal.screen import Screen
from speedy_utils._engines.worker_logs import LogFilter, ThreadLogs, checked_worker_logs
from speedy_utils.testing import FakeClock


def in_a_thread(function: Callable[[], object]) -> None:
    """Call a function in a thread of its own."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def say_as(logs: ThreadLogs, worker: str) -> Callable[[], None]:
    """Print a line on each stream, as a task of a worker."""

    def say() -> None:
        with logs.of(worker):
            print(f"out {worker}")
            print(f"err {worker}", file=sys.stderr)

    return say


@pytest.mark.parametrize(
    ("choice", "shown"),
    [("all", ["a", "b", "a"]), ("first", ["a", "a"]), ("none", [])],
)
def test_lines_of_task_threads_are_chosen(choice: Any, shown: list[str]) -> None:
    """Of what task threads print, that of all, of the first or of none is shown; the driver's always is."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        logs = ThreadLogs(choice).open()
        print("before")
        for worker in "aba":
            in_a_thread(say_as(logs, worker))
        print("after", file=sys.stderr)
        logs.close()
        logs.close()
        assert sys.stdout is out
        assert sys.stderr is err
    assert out.getvalue().split("\n") == ["before", *(f"out {worker}" for worker in shown), ""]
    assert err.getvalue().split("\n") == [*(f"err {worker}" for worker in shown), "after", ""]


def test_a_print_goes_on_where_the_last_run_ends_within_it() -> None:
    """A line that is half printed when the streams are restored is printed whole."""
    texts: list[str] = []

    class EndsARun(io.StringIO):
        def write(self, text: str) -> int:
            logs.close()
            texts.append(text)
            return len(text)

    with redirect_stdout(EndsARun()):
        logs = ThreadLogs("first").open()
        print("one\ntwo", "three")
    assert texts == ["one\n", "two", " ", "three", "\n"]


@pytest.mark.parametrize("progress", [True, False])
def test_what_one_print_of_a_task_writes_is_one_line(progress: bool) -> None:
    """On a pipe, threads that are all in the middle of a ``print`` do not mix their lines."""
    together = threading.Barrier(3)

    class Word:
        def __str__(self) -> str:
            together.wait(60)
            return "word"

    def say(item: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            print("item", item, Word(), file=stream)
        print("rest", end="")

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        multi_process(say, range(3), backend="threads", num_workers=3, progress=progress)
        assert sys.stdout is out
        assert sys.stderr is err
    lines = [f"item {item} word" for item in range(3)]
    *printed, rest, _, last = out.getvalue().splitlines()
    assert (sorted(printed), rest, last) == (lines, "rest", "rest")
    assert sorted(line for line in err.getvalue().splitlines() if line.startswith("item")) == lines


def test_the_first_worker_is_followed_once_it_is_silent() -> None:
    """If the worker whose lines are shown prints nothing for a minute, the next that prints is shown."""
    clock = FakeClock()
    log_filter = LogFilter("first", clock)
    assert [log_filter.allows(worker) for worker in "aba"] == [True, False, True]
    clock.advance(50)
    assert [log_filter.allows(worker) for worker in "ba"] == [False, True]
    clock.advance(60)
    assert not log_filter.allows("b")
    clock.advance(1)
    assert [log_filter.allows(worker) for worker in "bab"] == [True, False, True]


def test_what_tasks_log_is_chosen_too() -> None:
    """A logging handler that was made before the run says only what is to be shown."""
    with redirect_stderr(io.StringIO()) as err:
        logger = logging.getLogger("speaking")
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        try:
            logs = ThreadLogs("none").open()
            logger.error("driver")
            with logs.of("a"):
                logger.error("task")
            logs.close()
            assert handler.stream is err
        finally:
            logger.removeHandler(handler)
    assert err.getvalue() == "driver\n"


def test_runs_at_once_choose_each_for_itself() -> None:
    """Runs of one program have choices of their own, and the streams come back after the last."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
        logs: dict[str, ThreadLogs] = {name: ThreadLogs(name).open() for name in ("none", "first", "all")}
        for name, each in logs.items():
            for worker in (1, 2):
                in_a_thread(say_as(each, f"{name} {worker}"))
        for each in logs.values():
            each.close()
        assert sys.stdout is out
    assert out.getvalue().split("\n") == ["out first 1", "out all 1", "out all 2", ""]


def test_a_run_inside_a_task_says_no_more_than_the_task() -> None:
    """What the tasks of an inner run print is left out if the outer run leaves its task's lines out."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
        outer = ThreadLogs("none").open()
        with outer.of("task"):
            inner = ThreadLogs("all").open()
        in_a_thread(say_as(inner, "a"))
        inner.close()
        outer.close()
    assert out.getvalue() == ""


@pytest.mark.parametrize("screen_first", [True, False])
def test_a_screen_and_a_choice_share_the_streams(screen_first: bool) -> None:
    """Whichever comes and goes first, the block is drawn, and the streams are the former ones at the end."""
    terminal = FakeTerminal()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        screen = Screen(size=lambda: (40, 10))
        if screen_first:
            screen.show(1, lambda columns: ["block"])
            logs = ThreadLogs("none").open()
        else:
            logs = ThreadLogs("none").open()
            screen.show(1, lambda columns: ["block"])
        assert isinstance(sys.stdout, StreamProxy)
        assert not isinstance(sys.stdout.wrapped, StreamProxy)
        in_a_thread(say_as(logs, "a"))
        with logs.of("a"):
            screen.show(1, lambda columns: ["drawn in a task"])
        print("driver")
        if screen_first:
            screen.finish(1, None)
            in_a_thread(say_as(logs, "b"))
            logs.close()
        else:
            logs.close()
            print("driver again")
            screen.finish(1, None)
        assert sys.stdout is sys.stderr is terminal
    text = terminal.getvalue()
    assert f"{ERASE_AFTER}driver\n" in text
    assert "drawn in a task" in text
    assert "out" not in text
    assert (f"{ERASE_AFTER}driver again\n" in text) == (not screen_first)


def test_a_line_that_is_begun_before_the_block_is_not_lost() -> None:
    """A line that a thread has begun before there is a block stands whole above it."""
    with a_terminal() as (terminal, screen):
        logs = ThreadLogs("all", several=True).open()
        print("begun", end=" ")
        assert terminal.lines() == []
        screen.show(1, lambda columns: ["block"])
        print("and ended")
        screen.finish(1, None)
        print("begun again", end="")
        logs.close()
        assert terminal.lines() == ["begun and ended", "begun again"]


@pytest.mark.parametrize("bad", ["", "last", None, True, 1, ["all"]])
def test_an_unknown_choice_is_an_error(bad: Any) -> None:
    """Anything else is an error that names what there is."""
    with pytest.raises(ValueError, match="'all', 'first', 'none'") as caught:
        checked_worker_logs(bad)
    assert repr(bad) in str(caught.value)


def test_a_run_that_gets_no_threads_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system gives no more threads the error says so, and nothing of the run stays."""
    streams, start = (sys.stdout, sys.stderr), threading.Thread.start
    started: list[threading.Thread] = []

    def start_two(thread: threading.Thread) -> None:
        if thread.name.startswith("speedy_utils-worker"):
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        multi_process(abs, range(4), backend="threads", num_workers=4, worker_logs="none", progress=False)
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()
    assert (sys.stdout, sys.stderr) == streams
