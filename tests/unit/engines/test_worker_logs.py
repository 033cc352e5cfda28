"""Whose printed lines are shown."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType
from typing import Any

import pytest

from speedy_utils import multi_process
from speedy_utils._display.terminal.lines import StreamProxy
from speedy_utils._display.terminal.screen import Screen
from speedy_utils._engines.worker_logs import LogFilter, ThreadLogs, checked_worker_logs
from speedy_utils._ray import logs as ray_logs
from speedy_utils._ray.logs import choose_logs
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
    """A line that is half printed when the streams are let go is printed whole."""
    texts: list[str] = []

    class EndsARun(io.StringIO):
        def write(self, text: str) -> int:
            logs.close()
            texts.append(text)
            return len(text)

    with redirect_stdout(EndsARun()):
        logs = ThreadLogs("first").open()
        print("one", "two")
    assert texts == ["one", " ", "two", "\n"]


def test_the_first_worker_is_followed_once_it_is_silent() -> None:
    """Where the worker whose lines are shown has said nothing for a minute, the next that speaks is shown."""
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
    """What the tasks of an inner run print is left out where the outer run leaves its task's lines out."""
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

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
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
    assert "\r\x1b[Jdriver\n" in text
    assert "drawn in a task" in text
    assert "out" not in text
    assert ("\r\x1b[Jdriver again\n" in text) == (not screen_first)


@pytest.mark.parametrize("bad", ["", "last", None, True, 1, ["all"]])
def test_an_unknown_choice_is_an_error(bad: Any) -> None:
    """Anything else is an error that names what there is."""
    with pytest.raises(ValueError, match='"all", "first", "none"') as caught:
        checked_worker_logs(bad)
    assert repr(bad) in str(caught.value)


class Dispatcher:
    """What Ray hands batches of lines to."""

    def __init__(self) -> None:
        self.printed: list[tuple[Any, ...]] = []
        self.handlers: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
            ("other", lambda batch: None),
            ("ray_print_logs", self._print),
        ]

    def _print(self, batch: dict[str, Any]) -> None:
        self.printed.append((batch["task_name"], batch["pid"], *batch["lines"]))

    def emit(self, task: str | None, pid: Any, line: str) -> None:
        """Hand on a batch."""
        for _, handle in self.handlers:
            handle({"task_name": task, "pid": pid, "ip": "here", "lines": [line]})


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher]:
    """A Ray that is connected."""
    module: Any = ModuleType("ray._private.ray_logging")
    module.global_worker_stdstream_dispatcher = Dispatcher()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(ray_logs, "_told", False)
    return module.global_worker_stdstream_dispatcher


def test_lines_that_ray_forwards_are_chosen(dispatcher: Dispatcher) -> None:
    """Each run's lines are chosen for itself and shown under the name of its tasks; others' pass."""
    names = {choice: choose_logs("work", choice) for choice in ("none", "first", "all")}
    assert len(set(names.values())) == 3
    assert names["all"] == "work"
    for pid in (1, 2, 1):
        for choice, name in names.items():
            dispatcher.emit(name, pid, f"{choice} says")
    dispatcher.emit(None, "raylet", "a worker died")
    dispatcher.emit("", 3, "no task")
    assert dispatcher.printed == [
        ("work", 1, "first says"),
        ("work", 1, "all says"),
        ("work", 2, "all says"),
        ("work", 1, "first says"),
        ("work", 1, "all says"),
        (None, "raylet", "a worker died"),
        ("", 3, "no task"),
    ]
    assert [name for name, _ in dispatcher.handlers] == ["other", "ray_print_logs"]


def test_a_ray_that_starts_anew_is_chosen_from_again(dispatcher: Dispatcher) -> None:
    """After Ray has taken its own function out and put it in again, the next run stands before it again."""
    former = choose_logs("work", "none")
    choose_logs("work", "none")
    fresh = Dispatcher()
    dispatcher.handlers, dispatcher.printed = fresh.handlers, fresh.printed
    name = choose_logs("work", "none")
    dispatcher.emit(former, 1, "late")
    dispatcher.emit(name, 1, "no")
    dispatcher.emit("work", 1, "yes")
    assert dispatcher.printed == [("work", 1, "yes")]


def test_only_so_many_runs_are_remembered(dispatcher: Dispatcher) -> None:
    """The memory for runs that are over is bounded, and late lines of the last ones are still left out."""
    names = [choose_logs("work", "none") for _ in range(1500)]
    assert len(ray_logs._runs) == 1000
    dispatcher.emit(names[-1000], 1, "no")
    assert dispatcher.printed == []


def test_where_forwarding_is_off_nothing_is_done(dispatcher: Dispatcher) -> None:
    """Where the user has turned forwarding off, nothing is changed and nothing said."""
    dispatcher.handlers = dispatcher.handlers[:1]
    assert choose_logs("work", "none") == "work"
    assert len(dispatcher.handlers) == 1


@pytest.mark.parametrize("broken", ["no module", "no dispatcher", "no handlers", "other handlers"])
def test_a_ray_with_other_insides_shows_all(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """Where Ray is made otherwise all lines are shown, and that is said once."""
    module = sys.modules["ray._private.ray_logging"]
    if broken == "no module":
        monkeypatch.setitem(sys.modules, module.__name__, None)
    elif broken == "no dispatcher":
        monkeypatch.delattr(module, "global_worker_stdstream_dispatcher")
    elif broken == "no handlers":
        del dispatcher.handlers
    else:
        dispatcher.handlers = {"ray_print_logs": print}
    assert choose_logs("work", "none") == "work"
    assert choose_logs("work", "first") == "work"
    (record,) = caplog.records
    assert "all are shown" in record.getMessage()


def test_a_run_that_gets_no_threads_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too few threads to be had the error says so, and nothing of the run stays."""
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
