"""Log lines, for where there is no terminal: CI, a pipe, a service.

A run of hours leaves about a hundred of them, each with all of its stages::

    09:41:07 Processing 21,566 items in 64 shards, 27 kept from 09:35, 4 workers, starting Ray
    09:41:17 Processing 21,566 items: 43% 9,270/21,566 in 00:06, 29.1 items/s, eta 07:02, 27/64 shards
    09:41:37 Processing 21,566 items: 46% 9,866/21,566 in 00:26, 29.6 items/s, eta 06:35, 29/64 shards
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from .._state.snapshot import Snapshot, StageSnapshot
from .format import LineView, format_lines, format_quantity, format_summary, rate_of_late
from .waiting import format_waiting

logger = logging.getLogger("speedy_utils.progress")

EVERY_VARIABLE = "SPEEDY_UTILS_LOG_EVERY"
"""The environment variable that fixes the seconds between two lines."""

FIRST_LINES_S = (10.0, 30.0, 60.0)
"""When the first lines come, in seconds after the start."""

LINE_EVERY_S = 300.0
"""Seconds between two lines after those."""

NEWS_DELAY_S = 2.0
"""Seconds for which a phase or a stage must last to have a line of its own."""

MAX_NEWS = 30
"""How many lines of a run are about a new phase or stage, at most."""

MAX_STAGES_IN_TEXT = 8
"""How many stages are in the text of a line; the record has them all."""

_FORMER_NAME = "speedy_utils.progress.log_lines"
"""The logger that was documented up to version 0.1."""


class _StderrHandler(logging.Handler):
    """Writes to what is ``sys.stderr`` at that moment, from the second day on with the date."""

    def __init__(self) -> None:
        super().__init__()
        self._first_day = ""

    def format(self, record: logging.LogRecord) -> str:
        created = time.localtime(record.created)
        day = time.strftime("%Y-%m-%d", created)
        self._first_day = self._first_day or day
        date = "" if day == self._first_day else f"{day} "
        return f"{date}{time.strftime('%H:%M:%S', created)} {record.getMessage()}"

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"{self.format(record)}\n")  # at once: other threads may write too


_stderr_handler = _StderrHandler()


class LogDisplay:
    """A line at once, after 10 s, 30 s and 1 min, every 5 min from then on, and at the end.

    There is one in between where a new phase or stage of the run has lasted for two seconds, up to thirty
    times. The lines have level INFO, and the numbers are in the record too: ``done``, ``total``, ``rate``,
    ``eta`` (seconds), ``elapsed``, ``counters``, ``tasks_done``, ``tasks_total`` of the run, ``phase``, and
    ``stages``, a list of dicts. In a program that logs nothing below WARNING, or has set up no logging, they
    go to stderr, unless the level of the logger ``speedy_utils`` or ``speedy_utils.progress`` is above INFO.

    Args:
        every: Seconds between two lines; None for lines that become rare.
        clock: Monotonic clock, in seconds.
        wall_clock: The time of day, in seconds since the epoch.
    """

    def __init__(
        self,
        every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._every = every
        self._clock, self._wall_clock = clock, wall_clock
        self._started = clock()
        self._next = 0.0
        self._since: dict[str, float] = {}  # the phase and the stages that are under way, by kind
        self._said: set[str] = set()
        self._news_left = MAX_NEWS

    def show(self, snapshot: Snapshot) -> None:
        """Log a line if it is time for one."""
        now = self._clock() - self._started
        is_first, is_due = not self._next, now >= self._next
        is_news = self._has_news(snapshot, now)
        if not (snapshot.final or is_due or is_news):
            return
        if is_due:
            self._next = _next_line(now, self._every)
        elif is_news:
            self._news_left -= 1
        self._said.update(self._since)
        text = _first_line(snapshot) if is_first and not snapshot.final else _line(snapshot)
        self._log(text, _extra(snapshot))

    def close(self) -> None:
        """Do nothing: the last reading was logged."""

    def _has_news(self, snapshot: Snapshot, now: float) -> bool:
        """Return whether the run has come to a phase or stage that no line has named."""
        running = [stage.name for stage in snapshot.stages if not stage.finished]
        kinds = {_kind(text) for text in (snapshot.phase, *format_waiting(snapshot)[:1], *running) if text}
        self._since = {kind: self._since.get(kind, now) for kind in kinds}
        new = (since for kind, since in self._since.items() if kind not in self._said)
        return self._news_left > 0 and now - min(new, default=inf) >= NEWS_DELAY_S

    def _log(self, text: str, extra: dict[str, Any]) -> None:
        used = _logger()
        if used.hasHandlers() and used.isEnabledFor(logging.INFO):
            used.info("%s", text, extra=extra)
        elif _may_write(used):
            record = used.makeRecord(used.name, logging.INFO, __file__, 0, text, (), None, extra=extra)
            record.created = self._wall_clock()
            passed: Any = used.filter(record)  # from Python 3.12 on a filter may return another record
            if passed:
                _stderr_handler.handle(passed if isinstance(passed, logging.LogRecord) else record)


def log_every() -> float | None:
    """Return what the environment says of the seconds between two lines; None if it says nothing of use."""
    text = os.environ.get(EVERY_VARIABLE, "")
    try:
        seconds = float(text or inf)
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        return seconds if text else None
    logging.getLogger("speedy_utils").warning(
        "%s must be a number of seconds above 0, such as 60, not %r: there will be a line after 10 s, 30 s, "
        "1 min and every 5 min",
        EVERY_VARIABLE,
        text,
    )
    return None


def _next_line(now: float, every: float | None) -> float:
    """Return when the next line is due, in seconds after the start."""
    if every is None:
        first = next((due for due in FIRST_LINES_S if due > now), 0.0)
        return first or (now // LINE_EVERY_S + 1) * LINE_EVERY_S
    return (now // every + 1) * every


def _kind(text: str) -> str:
    """Return a phase, or the name of a stage, without what changes from one reading to the next.

    Example:
        >>> _kind("saving 63 of 64 shards"), _kind("waiting for shard 4 of 8: row 17 of 300")
        ('saving # of # shards', 'waiting for shard # of #')
    """
    return re.sub(r"\d+", "#", text.partition(":")[0])


def _logger() -> logging.Logger:
    """Return the logger of the lines: the one of the former name if the program has configured that."""
    former = logging.getLogger(_FORMER_NAME)
    configured = former.level or former.filters or former.handlers or former.disabled or not former.propagate
    return former if configured else logger


def _may_write(used: logging.Logger) -> bool:
    """Return whether lines that the program's logging does not take go to stderr.

    A level of INFO or less that was set for them says so, and none that is above it. The root's level is
    WARNING from the start, and ``basicConfig()`` leaves it there: only what is above has been chosen.
    """
    each: logging.Logger | None = used
    while each is not None and each is not logging.root and not each.level:
        each = each.parent
    level = used.getEffectiveLevel()
    if (each is None or each is logging.root) and level <= logging.WARNING:
        level = logging.INFO
    # A logger of that level, so that logging.disable() counts too.
    return not used.disabled and logging.Logger(used.name, level).isEnabledFor(logging.INFO)


def _first_line(snapshot: Snapshot) -> str:
    """Return what there is to do: ``Packing: 21,566 items in 64 shards, 4 workers, starting Ray``."""
    size = "" if snapshot.total is None else format_quantity(snapshot.total, snapshot.unit)
    tasks = ""
    if snapshot.tasks_total and snapshot.unit != snapshot.task_unit:
        tasks = format_quantity(snapshot.tasks_total, snapshot.task_unit)
    title = snapshot.desc
    if not title.endswith(f" {size or tasks}"):  # the default name says it
        title = f"{title}: {size or tasks}" if size or tasks else title
    parts = [f"{title} in {tasks}" if size and tasks else title]
    if snapshot.tasks_kept:
        parts.append(f"{snapshot.tasks_kept:,} kept from {snapshot.kept_from}".removesuffix(" from "))
    if snapshot.workers:
        parts.append(format_quantity(snapshot.workers, "workers"))
    return ", ".join([*parts, snapshot.phase] if snapshot.phase else parts)


def _line(snapshot: Snapshot) -> str:
    lines = format_lines(snapshot)
    parts = [_text(line) for line in lines[:MAX_STAGES_IN_TEXT]]
    if len(lines) > MAX_STAGES_IN_TEXT:
        parts.append(f"and {len(lines) - MAX_STAGES_IN_TEXT} more")
    if snapshot.final and not snapshot.show_run_line:
        parts[:1] = [format_summary(snapshot), *(_text(replace(line, remarks=())) for line in lines[:1])]
    if snapshot.final and not (snapshot.complete or snapshot.tasks_failed):
        parts[0] += ", stopped"
    text = f"{snapshot.desc}: {' | '.join(parts)}"
    return ", ".join([text, *format_waiting(snapshot)[:1]])


def _text(line: LineView) -> str:
    """Return a stage as ``Read 57% 1,671/2,948 in 01:05, 25.6 items/s, eta 00:49``, the run unnamed."""
    words = [line.key, line.percent, line.count, line.stage.elapsed and f"in {line.elapsed}"]
    details = [] if line.rate.startswith("?") else [line.rate]
    if line.eta and line.percent and line.stage.elapsed and not line.stage.finished:
        details.append(f"eta {line.eta}")
    return ", ".join([" ".join(word for word in words if word), *details, *line.extras])


def _extra(snapshot: Snapshot) -> dict[str, Any]:
    return {
        **_numbers(snapshot.run_line),
        "tasks_done": snapshot.tasks_done,
        "tasks_total": snapshot.tasks_total,
        "phase": snapshot.phase,
        "stages": [_numbers(stage) for stage in snapshot.stages],
    }


def _numbers(stage: StageSnapshot) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "done": stage.done,
        "total": stage.total,
        "rate": rate_of_late(stage),
        "eta": stage.eta,
        "elapsed": stage.elapsed,
        "counters": dict(stage.counters),
    }
