"""A tracked call counts for exactly its total, in its stage, and is a run of its own outside of any."""

from __future__ import annotations

import contextvars
import functools
import logging
import multiprocessing
import re
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from support.errors import Boom
from support.forks import in_fork
from support.threads import in_thread
from support.tracked_kinds import every_kind
from support.waiting import wait_until
from tqdm import tqdm

from speedy_utils import report_progress, track, tracked
from speedy_utils._instrument.decorator import declared_total
from speedy_utils.testing import RecordingDisplay, RecordingSink


class Reader:
    """A callable object with a method."""

    def read(self, rows: Any) -> int:
        """Read."""
        return 0

    __call__ = read


def work(x: int, y: int = 2) -> int:
    """Multiply."""
    return x * y


def letters(rows: list[str]) -> Iterator[str]:
    """Yield letters."""
    yield from "".join(rows)


def lines(display: RecordingDisplay) -> list[tuple[str, int, int | None]]:
    """Return the name, the count and the total of each line at the end."""
    return [(line.name, line.done, line.total) for line in display.last.lines]


@tracked(total="rows")
def sums(rows: list[int], offset: int = 0) -> int:
    """Add up."""
    return sum(track(rows)) + offset


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> RecordingDisplay:
    """What a run that draws shows, in place of a terminal."""
    display = RecordingDisplay()
    monkeypatch.setattr(
        "speedy_utils._run.forwarding.choose_display", lambda progress, **_: display if progress else None
    )
    return display


@every_kind
@pytest.mark.parametrize("reported", [0, 3, 10, 25])
def test_a_call_that_returns_counts_its_total(kind: Any, reported: int) -> None:
    """A call that returned counts for exactly its total, whatever its body reported."""

    def body() -> None:
        report_progress(reported)
        assert sink.done == min(reported, 10)

    with RecordingSink() as sink:
        kind(body, total=10)()
        assert sink.done == 10


@every_kind
def test_a_call_without_a_total_is_one_item(kind: Any) -> None:
    """A call, or a yield, is one item, to which a report in the body adds nothing; a failed call is none."""
    with RecordingSink() as sink:
        kind(report_progress)()
        kind(lambda: None)()
        with pytest.raises(ZeroDivisionError):
            kind(lambda: 1 / 0)()
    assert sink.done == 2


def test_one_item_is_done_when_its_call_returns() -> None:
    """What the body of a call without a total reports is a part of the one item, which is not done before."""

    @tracked
    def body(fails: bool) -> float:
        report_progress()
        assert sink.done == 0
        return 1 / (not fails)

    with RecordingSink() as sink:
        with pytest.raises(ZeroDivisionError):
            body(True)
        body(False)
        assert sink.done == 1


@every_kind
@pytest.mark.parametrize(("reported", "counted"), [(0, 0), (3, 3), (25, 10)])
def test_a_call_that_fails_counts_what_it_reported(kind: Any, reported: int, counted: int) -> None:
    """A call that raised counts for what it had reported, within its total, and the error passes."""

    def body() -> None:
        report_progress(reported, tokens=5)
        raise Boom

    with RecordingSink() as sink:
        with pytest.raises(Boom):
            kind(body, total=10, desc="Pack")()
        assert (sink.stages, sink.done) == ({"Pack": counted}, 0)
        assert sink.counters == {"Pack": {"tokens": 5}}


@every_kind
def test_a_call_counts_in_its_stage(kind: Any) -> None:
    """Calls declare their totals in their stage; reports to it, by name or without, count toward them."""

    def body() -> None:
        start = sink.stages["Pack"]
        report_progress(1, desc="Pack", tokens=2)
        assert sink.stages["Pack"] == start + 1
        for turn, _ in enumerate(track("ab", desc="Pack")):
            assert sink.stages["Pack"] == start + 1 + turn
        for turn, _ in enumerate(track("ab")):
            assert sink.stages["Pack"] == start + 3 + turn
        report_progress(2, desc="Read", tokens=0.5)

    with RecordingSink() as sink:
        call = kind(body, total=10, desc="Pack")
        call()
        call()
        report_progress(0, tokens=100)
    assert (sink.done, sink.stages, sink.totals) == (0, {"Pack": 20, "Read": 4}, {"Pack": 20})
    assert sink.counters == {None: {"tokens": 100}, "Pack": {"tokens": 4}, "Read": {"tokens": 1.0}}


@every_kind
def test_calls_in_a_call_count_toward_it(kind: Any) -> None:
    """Calls within a call, recursive ones too, are its progress in the same stage: the outermost counts."""
    seen = []

    def body() -> None:
        for _ in range(3):
            inner()
            seen.append(sink.stages["Pack"])

    @tracked
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    with RecordingSink() as sink:
        inner = tracked(desc="Pack")(lambda: None)
        tracked(total=4, desc="Pack")(body)()
        assert seen == [1, 2, 3]
        kind(lambda: factorial(5), total=2, desc="Pack")()
        assert factorial(5) == 120
    assert (sink.stages, sink.totals, sink.done) == ({"Pack": 6}, {"Pack": 6}, 1)


@pytest.mark.parametrize(
    ("total", "args", "kwargs", "counted"),
    [
        (7, ([1, 2],), {}, 7),
        (0, ([1, 2],), {}, 0),
        ("rows", ([1, 2],), {}, 2),
        ("rows", (), {"rows": "abc"}, 3),
        ("more", ([1, 2],), {}, 4),
        ("more", ([1, 2], "x"), {}, 1),
        ("rest", ([1, 2],), {"a": 1, "b": 2}, 2),
        (lambda self, rows, more="", **rest: self.size * len(rows), ([1, 2],), {"a": 1}, 20),
    ],
)
def test_total_comes_from_the_arguments(
    total: Any, args: tuple[Any, ...], kwargs: dict[str, Any], counted: int
) -> None:
    """A total is a number, the length of a parameter, or a function of all arguments, ``self`` included."""

    class Reader:
        size = 10

        @tracked(total=total)
        def read(self, rows: Any, more: str = "abcd", **rest: int) -> None:
            pass

    with RecordingSink() as sink:
        Reader().read(*args, **kwargs)
    assert sink.done == counted
    assert declared_total(Reader().read, args, kwargs) == counted


@pytest.mark.parametrize(
    "function",
    [
        sums,
        functools.partial(sums, offset=3),
        functools.partial(functools.partial(sums), offset=3),
        tracked(total="rows")(functools.partial(lambda offset, rows: 0, 1)),
        tracked(total=len)(sorted),
        tracked(total=lambda self, rows: len(rows))(Reader().read),
        tracked(total=lambda rows: len(rows))(Reader()),
        type("K", (), {"__call__": tracked(total="rows")(lambda self, rows: 0)})(),
        type("K", (), {"__call__": tracked(total="rows")(functools.lru_cache(lambda self, rows: 0))})(),
        types.MethodType(tracked(total="rows")(lambda self, rows: 0), object()),
        type("K", (), {"f": tracked(total="rows")(classmethod(lambda cls, rows: 0))}).f,
        type("K", (), {"f": tracked(total="rows")(staticmethod(lambda rows: 0))})().f,
        type("K", (), {"f": tracked(total="rows")(functools.lru_cache(lambda self, rows: 0))})().f,
    ],
    ids=lambda function: type(function).__name__,
)
def test_the_driver_can_ask_for_the_total(function: Any) -> None:
    """The total of a call is known before it, whatever wraps the tracked function, and the call agrees."""
    rows = (1, 2, 3)
    assert declared_total(function, (rows,), {}) == 3
    with RecordingSink() as sink:
        function(rows)
    assert sink.done == 3


@pytest.mark.parametrize("function", [work, functools.partial(work, 1), len, tracked(letters)])
def test_without_total_the_driver_gets_none(function: Any) -> None:
    """Functions that are not tracked declare no total, and nor do generators without one."""
    assert declared_total(function, ([1],), {}) is None


@pytest.mark.parametrize("function", [tracked(work), tracked(Reader())])
def test_a_call_without_a_total_is_one_item_for_the_driver_too(function: Any) -> None:
    """A run of a tracked function without a total knows that each call is one item."""
    assert declared_total(function, ([1],), {}) == 1


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"total": "lines"}, ValueError, r"total='lines' is no parameter of work\(x, y\)"),
        ({"total": -1}, ValueError, "total must be at least 0, not -1"),
        ({"total": 1.5}, TypeError, "total must be an integer, not 1.5"),
        ({"total": True}, TypeError, "total must be an integer, not True"),
        ({"every": 0}, ValueError, "every must be at least 1, not 0"),
        ({"desc": 5}, TypeError, "desc must be a string, not 5"),
    ],
)
def test_bad_options_are_errors_at_decoration(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    """A bad option raises where the function is defined, for methods of a class too."""
    for function in (work, staticmethod(work), classmethod(work)):
        with pytest.raises(error, match=says):
            tracked(**options)(function)


@pytest.mark.parametrize(
    ("total", "error", "says"),
    [
        ("x", TypeError, r"total='x' of .*: int has no length"),
        (lambda x: -1, ValueError, "the total of .* must be at least 0, not -1"),
        (lambda x: 1.5, ValueError, "the total of .* must be a whole number, not 1.5"),
        (lambda x: x / 0, ZeroDivisionError, "division"),
    ],
)
def test_bad_total_of_a_call_is_an_error_before_it_starts(
    total: Any, error: type[Exception], says: str
) -> None:
    """A total that is no count is an error that names the function, before the body runs."""
    called: list[int] = []
    with RecordingSink() as sink, pytest.raises(error, match=says):
        tracked(total=total)(lambda x: called.append(x))(5)
    assert (called, sink.done) == ([], 0)


@every_kind
def test_the_outermost_call_is_a_run(kind: Any, display: RecordingDisplay) -> None:
    """Outside any run a call with a total has a bar that ends at exactly it, with its stages and counters."""

    def body() -> None:
        report_progress(1, tokens=5)
        in_thread(report_progress)
        for _ in track("abcde", desc="Read"):
            pass

    kind(body, total=4)()
    assert display.closed
    assert display.snapshots[0].done == 0
    last = display.last
    assert (last.final, last.tasks_done, last.tasks_failed) == (True, 1, 0)
    assert last.run_line.counters == {"tokens": 5}
    assert lines(display) == [("Processing 4 items", 4, 4), ("Read", 5, 5)]


@every_kind
def test_a_run_that_fails_leaves_its_bar_short(kind: Any, display: RecordingDisplay) -> None:
    """A run whose call raised is called what ``desc`` says, ends where it was, and is marked failed."""

    def body() -> None:
        report_progress(4)
        raise Boom

    with pytest.raises(Boom):
        kind(body, total=10, desc="Packing")()
    last = display.last
    assert (last.desc, last.done, last.total, last.tasks_failed) == ("Packing", 4, 10, 1)
    assert display.closed


def test_a_run_is_not_finished_before_its_call_has_returned(display: RecordingDisplay) -> None:
    """A call that has counted all of its total, and goes on, is finishing."""

    @tracked(total=2)
    def work() -> None:
        for _ in track(range(2)):
            pass
        wait_until(lambda: display.last.phase)

    work()
    *early, last = display.snapshots
    assert [line.finished for snapshot in early for line in snapshot.lines] == [False] * len(early)
    assert {snapshot.phase for snapshot in early if snapshot.done} == {"finishing"}
    assert (last.complete, last.run_line.finished) == (True, True)


def test_a_run_shows_the_same_lines_at_its_end(display: RecordingDisplay) -> None:
    """A run that counts in stages alone has no line of its own, also once its call has returned."""

    @tracked(total=2)
    def work() -> None:
        for stage in "AB":
            report_progress(2, desc=stage)

    work()
    assert lines(display) == [("A", 2, 2), ("B", 2, 2)]


def test_a_run_that_was_moved_in_proportion_warns_of_nothing(
    display: RecordingDisplay, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten steps are all of a hundred items if the loop is the only one."""

    @tracked(total=100)
    def work() -> None:
        for _ in track(range(10)):
            pass

    work()
    assert (display.last.done, caplog.records) == (100, [])


def test_run_counts_threads_of_its_own(display: RecordingDisplay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that the call starts counts for its run; the poller sees it live."""
    shown = threading.Event()
    monkeypatch.setattr(display, "show", lambda snapshot: shown.set() if snapshot.done == 2 else None)

    @tracked(total=5)
    def call() -> bool:
        in_thread(lambda: report_progress(2))
        return shown.wait(30)

    assert call()


def test_nested_calls_draw_one_bar(display: RecordingDisplay) -> None:
    """A tracked call within a run is part of it and draws nothing."""
    inner = tracked(total=2)(lambda: None)
    tracked(total=4)(lambda: [inner(), inner()])()
    assert {(snapshot.desc, snapshot.total) for snapshot in display.snapshots} == {("Processing 4 items", 4)}


@tracked(total=3)
def numbers() -> Iterator[int]:
    """Count to three, with a loop at the start."""
    list(tqdm("abcde", desc="Read"))
    yield from tqdm(range(3))


@pytest.mark.parametrize(("stop", "done"), [(None, 3), (1, 2)], ids=["to its end", "given up"])
def test_generator_is_a_run_while_it_is_iterated(
    stop: int | None, done: int, display: RecordingDisplay
) -> None:
    """A consumer that stops early leaves the bar short, which is no failure; what it counts is its own."""
    for number in track(numbers()):
        report_progress(50)
        list(track("abc"))
        if number == stop:
            break
    assert display.closed
    assert (display.last.done, display.last.total, display.last.tasks_failed) == (done, 3, 0)


def test_bars_in_a_run_count_for_it_and_those_of_its_consumer_draw(
    display: RecordingDisplay, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a run of its own tqdm's bars count for its lines; between the steps of a generator they draw."""
    for number in numbers():
        list(tqdm("ab", desc=f"Outside {number}"))
    assert lines(display) == [("Processing 3 items", 3, 3), ("Read", 5, 5)]
    drawn = capfd.readouterr().err
    assert [drawn.count(f"Outside {n}: 100%") for n in range(3)] == [1, 1, 1]
    assert drawn.count("100%") == 3


def test_bars_draw_after_a_run_that_ends_elsewhere(
    display: RecordingDisplay, capfd: pytest.CaptureFixture[str]
) -> None:
    """After a generator is closed in another context than the one it began in, bars draw as ever."""
    running = numbers()
    contextvars.copy_context().run(next, running)
    running.close()
    assert capfd.readouterr().err == ""
    list(tqdm("ab"))
    assert "100%" in capfd.readouterr().err


def test_a_run_that_reports_too_much_warns_once(
    display: RecordingDisplay, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that reports more than its total is clamped, with one warning that names it and the cure."""

    @tracked(total=3)
    def greedy() -> None:
        report_progress(5)

    greedy()
    assert display.last.done == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search("greedy reported 5 of 3 items.*desc=", record.message, re.DOTALL)


def test_no_run_without_total(display: RecordingDisplay) -> None:
    """A call without a total never has a bar."""
    tracked(len)("ab")
    list(tracked(lambda: iter([1]))())
    assert display.snapshots == []


def test_no_run_in_a_task(display: RecordingDisplay) -> None:
    """Inside a task, and in its threads, a call with a total only counts."""
    call = tracked(total=3)(lambda: None)
    with RecordingSink() as sink:
        call()
        in_thread(call)
    assert (display.snapshots, sink.done) == ([], 6)


def test_forked_child_draws_nothing(display: RecordingDisplay) -> None:
    """In a forked child a call with a total works and draws nothing."""
    call = tracked(total=3)(lambda: 6)

    def child() -> None:
        assert (call(), display.snapshots) == (6, [])

    assert in_fork(child) == 0


def test_spawned_child_draws_nothing() -> None:
    """In a process of a pool a call with a total works and writes nothing to stderr."""
    code = """
import io, sys
from speedy_utils import tracked
sys.stderr = io.StringIO()
assert tracked(total=3)(lambda: 6)() == 6
assert sys.stderr.getvalue() == ""
"""
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(code,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
