"""Log lines: their text, the numbers in their records, and the loggers that control them."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any

import pytest

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.log import LogDisplay, logger
from speedy_utils.testing import FakeClock

NAME = "Processing 100 items"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged at INFO."""
    caplog.set_level(logging.INFO)
    return caplog


def set_up_no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the logger have no handler; called in the test itself, before which pytest adds its own."""
    monkeypatch.setattr(logger, "propagate", False)
    assert not logger.hasHandlers()


def reading(done: int, total: int | None = 100, elapsed: float = 0.0, **more: Any) -> Snapshot:
    """A snapshot of a run with one line."""
    return Snapshot(StageSnapshot(NAME, done, total, elapsed=elapsed), **more)


def test_there_is_a_line_every_ten_seconds_and_one_at_the_end(lines: pytest.LogCaptureFixture) -> None:
    """There is a line when it is time for one, every ``every`` seconds, and the last reading has its own."""
    clock = FakeClock()
    log, other = LogDisplay(clock=clock), LogDisplay(every=30.0, clock=clock)
    for second in range(25):
        log.show(reading(second, elapsed=float(second)))
        other.show(reading(second, elapsed=float(second)))
        clock.advance(1)
    log.show(reading(100, elapsed=25.0, final=True))
    log.close()
    assert lines.messages == [
        f"{NAME}: 10% 10/100 in 00:10, 1.00 items/s, eta 01:30",
        f"{NAME}: 20% 20/100 in 00:20, 1.00 items/s, eta 01:20",
        f"{NAME}: 100% 100/100 in 00:25, 4.00 items/s",
    ]
    assert {record.levelno for record in lines.records} == {logging.INFO}
    assert {record.name for record in lines.records} == {"speedy_utils.progress"}


ALL = StageSnapshot("All", 60, 100, elapsed=10.0, initial=50, counters={"skipped": 3})
READ = StageSnapshot("Read", 20, None, elapsed=8.0, counters={"tokens": 1.6e6})
MORE = StageSnapshot("More", 30, 30, elapsed=6.0, growing=True)
FULL = StageSnapshot("Full", 100, 100, elapsed=4.0)


def test_each_stage_has_a_line(lines: pytest.LogCaptureFixture) -> None:
    """Each stage has a line, only the first names tasks, and a run whose line is hidden has a summary."""

    def logged(*args: Any, **more: Any) -> list[str]:
        lines.clear()
        LogDisplay(every=0.0).show(Snapshot(*args, **more))
        return lines.messages

    assert logged(ALL, (READ, MORE), tasks_total=4, tasks_failed=1, final=True) == [
        "All: 60% 60/100 in 00:10, 1.00 items/s, 0/4 tasks, 1 failed, skipped=3",
        "Read: 20 items in 00:08, 2.50 items/s, tokens=1.60M (200k/s)",
        "More: 30/30+ in 00:06, 5.00 items/s",
    ]
    full = "Full: 100% 100/100 in 00:04, 25.0 items/s"
    assert logged(ALL, (FULL,), show_run_line=False) == [full]
    assert logged(FULL, (FULL,), show_run_line=False, tasks_total=4, tasks_done=4, final=True) == [
        f"{full}, 4/4 tasks",
        "Full: 100 items in 00:04, 25.0 items/s, 4/4 tasks",
    ]
    waiting = StageSnapshot("All", 0, 100)
    assert logged(waiting, phase="starting Ray") == ["All: 0% 0/100 in 00:00, ? items/s, starting Ray…"]


def test_while_results_are_saved_a_line_is_not_full(lines: pytest.LogCaptureFixture) -> None:
    """Once all is counted the line says what is left; it has no time left, and the rate of the counting."""
    saving = StageSnapshot("All", 100, 100, elapsed=60.0, pending=True, counted_in=10.0, counters={"kB": 200})
    LogDisplay(every=0.0).show(
        Snapshot(saving, tasks_total=4, phase="saving 3 of 4 shards", task_unit="shards")
    )
    LogDisplay(every=0.0).show(Snapshot(saving, final=True))
    assert lines.messages == [
        "All: 99% 100/100 in 01:00, 10.0 items/s, saving 3 of 4 shards…, 0/4 shards, kB=200 (20/s)",
        "All: 99% 100/100 in 01:00, 10.0 items/s, kB=200 (20/s)",
    ]
    assert [record.__dict__["eta"] for record in lines.records] == [None, None]


def test_records_hold_the_numbers(lines: pytest.LogCaptureFixture) -> None:
    """A program's own formatter finds what the text says as plain values, None for what is not known."""
    stages = (READ, MORE, StageSnapshot("Wait", 0, 30))
    LogDisplay(every=0.0).show(Snapshot(ALL, stages, tasks_total=4, tasks_done=1))
    names = ("stage", "done", "total", "rate", "eta", "elapsed", "counters", "tasks_done", "tasks_total")
    assert [tuple(record.__dict__[name] for name in names) for record in lines.records] == [
        ("All", 60, 100, 1.0, 40.0, 10.0, {"skipped": 3}, 1, 4),
        ("Read", 20, None, 2.5, None, 8.0, {"tokens": 1.6e6}, 1, 4),
        ("More", 30, 30, 5.0, None, 6.0, {}, 1, 4),
        ("Wait", 0, 30, 0.0, None, 0.0, {}, 1, 4),
    ]


def test_lines_go_to_stderr_where_no_logging_is_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any handler the lines go to what is stderr at that moment, whole and as they are."""
    set_up_no_logging(monkeypatch)
    last, log = Snapshot(StageSnapshot("50%s %(done)d", 5, 10, elapsed=1.0), final=True), LogDisplay()
    for redirected in (io.StringIO(), io.StringIO()):
        with redirect_stderr(redirected):
            LogDisplay().show(last)
        assert " 50%s %(done)d: 50% 5/10 in" in redirected.getvalue()
        redirected.close()
    log.show(last)
    monkeypatch.setattr(logging.root.manager, "disable", logging.INFO)
    log.show(last)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d 50%s .* 5.00 items/s\n", err)


def test_a_program_without_stderr_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A program that has neither logging nor stderr is silent."""
    set_up_no_logging(monkeypatch)
    monkeypatch.setattr("sys.stderr", None)
    log = LogDisplay()
    log.show(reading(5, 10, elapsed=1.0, final=True))
    log.close()
    assert capfd.readouterr() == ("", "")


def rewrite(record: logging.LogRecord) -> bool:
    """Change a record, as a filter may."""
    record.msg, record.args = "changed", ()
    return True


LEAVES = ("speedy_utils.progress", "speedy_utils.progress.log_lines")
"""The logger of the lines, and its former name."""


@pytest.mark.parametrize("handler_of", ["speedy_utils", "speedy_utils.progress", None])
@pytest.mark.parametrize(
    ("name", "root", "level", "filters", "shown"),
    [
        *((name, logging.INFO, logging.WARNING, [], "") for name in ("speedy_utils", *LEAVES)),
        *((name, logging.WARNING, logging.INFO, [], "5/10") for name in ("speedy_utils", *LEAVES)),
        *((name, logging.INFO, logging.NOTSET, [lambda record: False], "") for name in LEAVES),
        *((name, logging.INFO, logging.NOTSET, [rewrite], "changed") for name in LEAVES),
    ],
)
def test_levels_and_filters_work_as_with_any_logger(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    handler_of: str | None,
    name: str,
    root: int,
    level: int,
    filters: list[Callable[[logging.LogRecord], bool]],
    shown: str,
) -> None:
    """The levels and filters of each logger are obeyed, with a handler at any of them and without."""
    caplog.set_level(root)
    stream, configured = io.StringIO(), logging.getLogger(name)
    if handler_of is None:
        set_up_no_logging(monkeypatch)
    else:
        monkeypatch.setattr(logging.getLogger(handler_of), "handlers", [logging.StreamHandler(stream)])
    monkeypatch.setattr(configured, "filters", filters)
    configured.setLevel(level)
    try:
        LogDisplay().show(reading(5, 10, final=True))
    finally:
        configured.setLevel(logging.NOTSET)
    text = stream.getvalue() + capsys.readouterr().err
    assert shown in text
    assert bool(shown) == bool(text)
