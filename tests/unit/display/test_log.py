"""Log lines: when they come, their text, the numbers in their records, and the loggers that control them."""

from __future__ import annotations

import calendar
import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import replace
from typing import Any

import pytest
from support.lines import steady

from speedy_utils import Snapshot, StageSnapshot, TaskSnapshot
from speedy_utils._display import log as log_module
from speedy_utils._display.log import MAX_NEWS, LogDisplay, log_every, logger
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
    return Snapshot(steady(StageSnapshot(NAME, done, total, elapsed=elapsed)), **more)


@pytest.mark.parametrize(
    ("every", "minutes"), [(None, [0, 1 / 6, 1 / 2, 1, 5, 10, 15]), (360.0, [0, 6, 12, 18]), (0.5, range(20))]
)
def test_lines_become_rare_unless_their_seconds_are_fixed(
    lines: pytest.LogCaptureFixture, every: float | None, minutes: Any
) -> None:
    """There is a line at once, after 10 s, 30 s, 1 min and every 5 min, or each time the seconds are over."""
    clock, step = FakeClock(), 60 if every == 0.5 else 2
    log, came = LogDisplay(every, clock=clock), []
    while clock() < 20 * 60 - 1:
        log.show(reading(1))
        came += [clock() / 60] * (len(lines.records) - len(came))
        clock.advance(step)
    assert came == list(minutes)
    log.show(reading(1, final=True))
    log.close()
    assert len(lines.records) == len(came) + 1
    assert {record.levelno for record in lines.records} == {logging.INFO}
    assert {record.name for record in lines.records} == {"speedy_utils.progress"}


def test_the_environment_fixes_the_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A number above 0 is taken; anything else is warned about with the cure, and the lines become rare."""
    monkeypatch.delenv("SPEEDY_UTILS_LOG_EVERY", raising=False)
    assert log_every() is None
    for text, seconds in {"": None, "60": 60.0, "0.5": 0.5, " 5 ": 5.0}.items():
        monkeypatch.setenv("SPEEDY_UTILS_LOG_EVERY", text)
        assert log_every() == seconds
    assert caplog.messages == []
    for text in ("0", "-1", "1m", "nan"):
        monkeypatch.setenv("SPEEDY_UTILS_LOG_EVERY", text)
        assert log_every() is None
    assert caplog.messages == [
        f"SPEEDY_UTILS_LOG_EVERY must be a number of seconds above 0, such as 60, not {text!r}: "
        "there will be a line after 10 s, 30 s, 1 min and every 5 min"
        for text in ("0", "-1", "1m", "nan")
    ]


WAITING = Snapshot(
    StageSnapshot("Packing", 0, 21_566), tasks_total=64, task_unit="shards", workers=4, phase="starting Ray"
)


@pytest.mark.parametrize(
    ("snapshot", "line"),
    [
        (WAITING, "Packing: 21,566 items in 64 shards, 4 workers, starting Ray"),
        (
            replace(WAITING, tasks_kept=27, kept_from="09:35"),
            "Packing: 21,566 items in 64 shards, 27 kept from 09:35, 4 workers, starting Ray",
        ),
        (
            replace(WAITING, run_line=StageSnapshot("Processing 21,566 items", 0, 21_566), workers=1),
            "Processing 21,566 items in 64 shards, 1 worker, starting Ray",
        ),
        (reading(0), NAME),
        (reading(0, None, tasks_total=7), f"{NAME}: 7 tasks"),
        (
            Snapshot(StageSnapshot("Processing 7 tasks", 0, None), tasks_total=7, workers=2),
            "Processing 7 tasks, 2 workers",
        ),
        (
            Snapshot(StageSnapshot("Read", 0, 5, "tasks"), tasks_total=5, workers=2),
            "Read: 5 tasks, 2 workers",
        ),
        (Snapshot(StageSnapshot("Read", 0, None)), "Read"),
    ],
)
def test_the_first_line_says_what_there_is_to_do(
    lines: pytest.LogCaptureFixture, snapshot: Snapshot, line: str
) -> None:
    """It names items, tasks, those that are kept, and workers, as far as they are known, and the phase."""
    LogDisplay().show(snapshot)
    assert lines.messages == [line]


def test_a_new_phase_or_stage_has_a_line_once_it_has_lasted(lines: pytest.LogCaptureFixture) -> None:
    """It comes after two seconds, once however its numbers change, and not for what is over by then."""
    clock = FakeClock()
    log = LogDisplay(every=3600.0, clock=clock)
    read, done = steady(StageSnapshot("Read 1", 5, 10, elapsed=1.0)), StageSnapshot("Load", 1, 1, elapsed=1.0)
    busy = replace(WAITING, stages=(read, done))

    def said(snapshot: Snapshot, seconds: float = 2) -> list[str]:
        lines.clear()
        log.show(snapshot)
        clock.advance(seconds)
        log.show(snapshot)
        return lines.messages

    first = "Packing: 21,566 items in 64 shards, 4 workers, starting Ray"
    assert said(WAITING) == [first]
    assert said(replace(WAITING, phase="waiting for workers 1/4")) == [
        "Packing: 0% 0/21,566, waiting for workers 1/4…, 0/64 shards"
    ]
    assert said(replace(WAITING, phase="waiting for workers 2/4")) == []
    assert said(replace(WAITING, phase="")) == []
    assert said(replace(WAITING, phase="merging"), 1) == []
    assert said(replace(WAITING, phase="")) == []
    assert said(busy) == [
        (
            "Packing: 0% 0/21,566, starting Ray…, 0/64 shards"
            " | Read 1 50% 5/10 in 00:01, 5.00 items/s, eta 00:01 | Load 100% 1/1 in 00:01, 1.00 items/s"
        )
    ]
    assert said(replace(busy, stages=(replace(read, name="Read 2"),))) == []
    slow = TaskSnapshot(4, "shard 4 (rows 20-29)", attempt=1, done=3, total=10)
    (line,) = said(replace(WAITING, phase="", waiting_for=slow))
    assert line == "Packing: 0% 0/21,566, 0/64 shards, waiting for shard 4 of 64: rows 20-29, 30 %"


def test_news_do_not_flood(lines: pytest.LogCaptureFixture) -> None:
    """However many phases and stages there are, the lines about them are bounded, and name a few stages."""
    clock = FakeClock()
    log = LogDisplay(every=3600.0, clock=clock)
    for number in range(400):
        name = "abcdefghij"[number // 2 % 10] * (1 + number // 20)
        log.show(reading(1, phase=name, stages=[StageSnapshot(name + "x" * n, 1, 2) for n in range(20)]))
        clock.advance(2)
    assert len(lines.records) == 1 + MAX_NEWS
    assert lines.messages[-1].endswith(" | and 13 more")
    assert len(lines.records[-1].__dict__["stages"]) == 20


ALL = steady(StageSnapshot("All", 60, 100, elapsed=10.0, initial=50, counters={"skipped": 3}))
READ = StageSnapshot("Read", 20, None, elapsed=8.0, counters={"tokens": 1.6e6})
MORE = StageSnapshot("More", 30, 30, elapsed=6.0, growing=True)
FULL = StageSnapshot("Full", 100, 100, elapsed=4.0)


def test_all_stages_are_in_one_line(lines: pytest.LogCaptureFixture) -> None:
    """The run's own line comes first, without a name; if it is hidden, it is the last line's summary."""

    def logged(*args: Any, **more: Any) -> str:
        lines.clear()
        log = LogDisplay(every=1e-9)
        log.show(Snapshot(*args, **more))
        log.show(Snapshot(*args, **more))
        return lines.messages[-1]

    assert logged(ALL, (READ, MORE), tasks_total=4, tasks_failed=1, final=True) == (
        "All: 60% 60/100 in 00:10, 1.00 items/s, 0/4 tasks, 1 failed, skipped=3"
        " | Read 20 items in 00:08, 2.50 items/s, tokens=1.60M (200k/s)"
        " | More 30/30+ in 00:06, 5.00 items/s"
    )
    full = "Full 100% 100/100 in 00:04, 25.0 items/s"
    assert logged(ALL, (FULL,), show_run_line=False) == f"All: {full}"
    done: dict[str, Any] = {"tasks_total": 4, "tasks_done": 4, "final": True, "complete": True}
    assert logged(replace(FULL), (FULL,), show_run_line=False, **done) == (
        f"Full: 100 items in 00:04, 25.0 items/s, 4/4 tasks | {full}"
    )
    waiting = StageSnapshot("All", 0, 100)
    assert logged(waiting, phase="starting Ray") == "All: 0% 0/100, starting Ray…"


def test_a_run_that_ends_early_says_so(lines: pytest.LogCaptureFixture) -> None:
    """The last line of a run that was stopped says that; one with failures has their number."""
    for more in ({"complete": True}, {"tasks_failed": 1}, {}):
        LogDisplay().show(reading(6, elapsed=2.0, final=True, **more))
    text = f"{NAME}: 6% 6/100 in 00:02, 3.00 items/s"
    assert lines.messages == [text, f"{text}, 1 failed", f"{text}, stopped"]


def test_while_results_are_saved_a_line_is_not_full(lines: pytest.LogCaptureFixture) -> None:
    """Once all is counted the line says what is left; it has no time left, and the rate of the counting."""
    saving = StageSnapshot("All", 100, 100, elapsed=60.0, pending=True, counted_in=10.0, counters={"kB": 200})
    log = LogDisplay(every=1e-9)
    log.show(WAITING)
    log.show(Snapshot(saving, tasks_total=4, phase="saving 3 of 4 shards", task_unit="shards"))
    log.show(Snapshot(saving, final=True))
    assert lines.messages[1:] == [
        "All: 99% 100/100 in 01:00, 10.0 items/s, saving 3 of 4 shards…, 0/4 shards, kB=200 (20/s)",
        "All: 99% 100/100 in 01:00, 10.0 items/s, kB=200 (20/s), stopped",
    ]
    assert [record.__dict__["eta"] for record in lines.records] == [None] * 3


def test_records_hold_the_numbers(lines: pytest.LogCaptureFixture) -> None:
    """A program's own formatter finds those of the run and of each stage as plain values, fit for JSON."""
    stages = (READ, MORE, StageSnapshot("Wait", 0, 30))
    LogDisplay().show(Snapshot(ALL, stages, tasks_total=4, tasks_done=1, phase="merging"))
    (record,) = lines.records
    names = ("stage", "done", "total", "rate", "eta", "elapsed", "counters")
    of_tasks = ("tasks_done", "tasks_total", "phase")
    found = {name: getattr(record, name) for name in (*names, *of_tasks, "stages")}
    assert json.loads(json.dumps(found)) == found
    assert [*found.values()][:-1] == ["All", 60, 100, 1.0, 40.0, 10.0, {"skipped": 3}, 1, 4, "merging"]
    assert found["stages"] == [
        dict(zip(names, values, strict=True))
        for values in (
            ("Read", 20, None, 2.5, None, 8.0, {"tokens": 1.6e6}),
            ("More", 30, 30, 5.0, None, 6.0, {}),
            ("Wait", 0, 30, 0.0, None, 0.0, {}),
        )
    ]


HOUR = 3600.0
START = calendar.timegm((2026, 11, 29, 19, 41, 7))


def eight_hours() -> Iterator[tuple[float, Snapshot]]:
    """Readings of a run that waits, counts in two stages, stands still for an hour, saves and merges."""
    total, kept = 2_948_390, 1_243_852
    shared: dict[str, Any] = {"tasks_total": 64, "task_unit": "shards", "workers": 4}
    shared |= {"tasks_kept": 27, "kept_from": "09:35"}
    run = StageSnapshot(f"Processing {total:,} items", kept, total, initial=kept)
    for second in range(0, 8 * 3600, 4):
        phase = "starting Ray" if second < 4 else "waiting for workers 1/4" if second < 12 else ""
        if second >= 12:
            stuck = max(0, min(second, 5 * 3600) - 4 * 3600)
            done = min(total, kept + (second - 12 - stuck) * 69)
            run = steady(replace(run, done=done, elapsed=second - 12.0))
            if 0 < stuck < 3600:
                phase = f"no progress for {stuck // 60} min: shard 30"
            if done == total:
                run = replace(run, pending=True, eta=None, counted_in=run.counted_in or run.elapsed)
                phase = f"saving {1 + second % 3} of 64 shards" if second < 7.99 * HOUR else "merging"
        tokens, kept_tokens = {"tokens": run.done * 500}, {"tokens": kept * 500}
        stages = [replace(run, name="Tokenize", counters=tokens, initial_counters=kept_tokens)]
        if second >= 60:
            stages.append(replace(run, name="Embed", elapsed=second - 60.0))
        shards = 27 + (run.done - kept) * 37 // (total - kept)
        yield (
            second,
            Snapshot(run, tuple(stages[: second // 12]), phase=phase, tasks_done=shards, **shared),
        )
    yield 8 * HOUR, Snapshot(replace(run, pending=False), tasks_done=64, final=True, complete=True, **shared)


def test_eight_hours_are_about_a_hundred_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log of a long run can be read without the code, and has a date from midnight on."""
    set_up_no_logging(monkeypatch)
    monkeypatch.setattr(log_module, "_stderr_handler", type(log_module._stderr_handler)())
    monkeypatch.setattr(time, "localtime", time.gmtime)
    clock = FakeClock()
    log = LogDisplay(clock=clock, wall_clock=lambda: START + clock())
    for second, snapshot in eight_hours():
        clock.advance(second - clock())
        log.show(snapshot)
    lines = capsys.readouterr().err.splitlines()
    assert 100 <= len(lines) < 150
    name = "Processing 2,948,390 items"
    assert lines[:4] == [
        f"19:41:07 {name} in 64 shards, 27 kept from 09:35, 4 workers, starting Ray",
        f"19:41:15 {name}: 42% 1,243,852/2,948,390, waiting for workers 1/4…, 27/64 shards, 27 kept",
        (
            f"19:41:19 {name}: 42% 1,243,852/2,948,390, 27/64 shards, 27 kept"
            " | Tokenize 42% 1,243,852/2,948,390, tokens=622M"
        ),
        (
            f"19:41:39 {name}: 42% 1,245,232/2,948,390 in 00:20, 69.0 items/s, eta 6:51:23"
            ", 27/64 shards, 27 kept"
            " | Tokenize 42% 1,245,232/2,948,390 in 00:20, 69.0 items/s, eta 6:51:23, tokens=623M (34.5k/s)"
        ),
    ]
    assert sum("no progress for" in line for line in lines) == 12
    end = "100% 2,948,390/2,948,390 in 7:59:44, 60.2 items/s, 64/64 shards, 27 kept"
    assert lines[-1] == f"2026-11-30 03:41:07 {name}: {end}"


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
    assert re.fullmatch(r"\d\d:\d\d:\d\d 50%s .* 5.00 items/s, stopped\n", err)


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


@pytest.mark.parametrize(
    ("level", "text"), [(logging.WARNING, "5/10"), (logging.INFO, ""), (logging.ERROR, "")]
)
def test_a_program_that_logs_from_warning_on_is_not_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: int, text: str
) -> None:
    """The root's level is WARNING unless it is set, so lines go to stderr; what is above counts."""
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [logging.StreamHandler(stream)])
        patch.setattr(logging.root, "level", level)
        logging.root.manager._clear_cache()  # type: ignore[attr-defined]  # as setLevel does
        LogDisplay().show(reading(5, 10, final=True))
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    assert ("5/10" in stream.getvalue()) == (level == logging.INFO)
    assert text in capsys.readouterr().err or not text


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
