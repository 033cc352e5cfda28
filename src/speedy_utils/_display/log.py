"""Log lines, for where there is no terminal: CI, a pipe, a service."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from .._state.snapshot import Snapshot, StageSnapshot
from .format import LineFormatter, LineView, format_summary

logger = logging.getLogger("speedy_utils.progress")

_FORMER_NAME = "speedy_utils.progress.log_lines"
"""The logger that was documented up to version 0.1."""


class _StderrHandler(logging.Handler):
    """Writes to what is ``sys.stderr`` at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"{self.format(record)}\n")


_stderr_handler = _StderrHandler()


class LogDisplay:
    """A log line a stage every so often, and one at the end.

    The lines have level INFO, and the numbers are in the record too: ``stage``, ``done``, ``total``,
    ``rate``, ``eta`` (seconds), ``elapsed``, ``counters``, ``tasks_done``, ``tasks_total``. In a program that
    has set up no logging they go to stderr, unless the level of the logger ``speedy_utils`` or
    ``speedy_utils.progress`` is above INFO.

    Args:
        every: Seconds between two lines.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, every: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._formatter = LineFormatter(smooth=False)
        self._every = every
        self._clock = clock
        self._next = clock() + every

    def show(self, snapshot: Snapshot) -> None:
        """Log a line if it is time for one."""
        if not snapshot.final and self._clock() < self._next:
            return
        self._next = self._clock() + self._every
        for line in self._formatter.format(snapshot):
            self._log(_text(line), _extra(line.stage, snapshot))
        if snapshot.final and not snapshot.show_run_line:
            self._log(f"{snapshot.desc}: {format_summary(snapshot)}", _extra(snapshot.run_line, snapshot))

    def close(self) -> None:
        """Do nothing: the last reading was logged."""

    @staticmethod
    def _log(text: str, extra: dict[str, Any]) -> None:
        used = _logger()
        if used.hasHandlers():
            used.info("%s", text, extra=extra)
        elif _is_enabled(used):
            record = used.makeRecord(used.name, logging.INFO, __file__, 0, text, (), None, extra=extra)
            passed: Any = used.filter(record)  # from Python 3.12 on a filter may return another record
            if passed:
                _stderr_handler.handle(passed if isinstance(passed, logging.LogRecord) else record)


def _logger() -> logging.Logger:
    """Return the logger of the lines: the one of the former name if the program has configured that."""
    former = logging.getLogger(_FORMER_NAME)
    configured = former.level or former.filters or former.handlers or former.disabled or not former.propagate
    return former if configured else logger


def _is_enabled(used: logging.Logger) -> bool:
    """Return whether lines are logged in a program without handlers: at INFO, unless a level was set.

    The root's level counts for nothing here: it is WARNING from the start.
    """
    each: logging.Logger | None = used
    while each is not None and each is not logging.root and not each.level:
        each = each.parent
    level = logging.INFO if each is None or each is logging.root else each.level
    # A logger of that level, so that logging.disable() counts too.
    return not used.disabled and logging.Logger(used.name, level).isEnabledFor(logging.INFO)


def _text(line: LineView) -> str:
    parts = [f"{line.percent} {line.count} in {line.elapsed}".strip(), line.rate]
    if line.eta not in ("", "?") and not line.stage.finished:
        parts.append(f"eta {line.eta}")
    return f"{line.stage.name}: {', '.join([*parts, *line.extras])}"


def _extra(stage: StageSnapshot, snapshot: Snapshot) -> dict[str, Any]:
    no_eta = stage.growing or stage.pending or (snapshot.final and not stage.finished)
    known = stage.total is not None and not no_eta and stage.rate
    return {
        "stage": stage.name,
        "done": stage.done,
        "total": stage.total,
        "rate": stage.rate,
        "eta": ((stage.total or 0) - stage.done) / stage.rate if known else None,
        "elapsed": stage.elapsed,
        "counters": dict(stage.counters),
        "tasks_done": snapshot.tasks_done,
        "tasks_total": snapshot.tasks_total,
    }
