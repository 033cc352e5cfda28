"""The levels and the format of the program's logging, for its tasks in other processes.

A worker process knows nothing of ``logging.basicConfig(level="INFO", format=...)`` in the program: it would
drop what its tasks log at INFO, and show warnings without their format. Handlers stay where they are: two
processes that write one file would tear each other's lines. What tasks log goes to the worker's stderr, or to
its stdout if the program's handler writes there, and so to where the program shows what workers print.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from math import inf
from typing import Any, Literal


class _WorkerHandler(logging.Handler):
    """Writes to what is stdout or stderr at that moment."""

    def __init__(self, settings: LoggingSettings) -> None:
        super().__init__(settings.handler_level)
        self._stream_name = "stdout" if settings.to_stdout else "stderr"
        self.setFormatter(settings.formatter)

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except (KeyError, ValueError):  # a field that a filter or a class of the program's adds
            return logging.Formatter(logging.BASIC_FORMAT).format(record)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            getattr(sys, self._stream_name).write(f"{self.format(record)}\n")
        except Exception:  # as any handler of logging
            self.handleError(record)


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """What the program has set.

    Attributes:
        levels: The levels of its loggers, by name; the root's name is empty. Ray's own are left out.
        disabled: What ``logging.disable()`` was given.
        formatter: The format of the root's handler that writes to the console, or of its first; None if the
            root has no handler.
        handler_level: The level of that handler.
        to_stdout: Whether it writes to stdout.
        loguru: The lowest level that loguru shows on the console; None if loguru is not in use.

    Example:
        >>> LoggingSettings.of_program().levels[""] == logging.root.level
        True
    """

    levels: Mapping[str, int] = field(default_factory=dict)
    disabled: int = logging.NOTSET
    formatter: logging.Formatter | None = None
    handler_level: int = logging.NOTSET
    to_stdout: bool = False
    loguru: float | None = None

    @classmethod
    def of_program(cls) -> LoggingSettings:
        """Return those of this process as they are now."""
        levels = {"": logging.root.level}
        for name, known in list(logging.root.manager.loggerDict.items()):
            if isinstance(known, logging.Logger) and known.level and name.partition(".")[0] != "ray":
                levels[name] = known.level
        disabled, loguru = logging.root.manager.disable, _loguru_level()
        handlers = list(logging.root.handlers)
        if not handlers:
            return cls(levels, disabled, loguru=loguru)
        handler = next(filter(_console, handlers), handlers[0])
        return cls(
            levels,
            disabled,
            _plain_formatter(handler.formatter),
            handler.level,
            _console(handler) == "stdout",
            loguru,
        )

    def applied(self) -> AppliedLogging:
        """Return what lets them hold in this process for a block."""
        return AppliedLogging(self)


class AppliedLogging:
    """Lets settings hold in this process for a block, unless it has set up its own logging.

    What the block sets itself lasts. Other blocks may follow.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: LoggingSettings) -> None:
        self._settings = settings
        self._loggers: list[tuple[logging.Logger, int]] | None = None
        self._handler: logging.Handler | None = None
        self._changed: list[tuple[logging.Logger, int, int]] = []
        self._former: tuple[logging.Handler | None, int] | None = None  # if anything was changed

    def __enter__(self) -> None:
        """Set the levels, the format and what is disabled."""
        settings, manager = self._settings, logging.root.manager
        if settings.loguru is not None:
            _set_loguru_level(int(min(settings.loguru, _SILENT)))
        if logging.root.handlers:
            return
        if self._loggers is None:
            self._loggers = [
                (logging.getLogger(name or None), level) for name, level in settings.levels.items()
            ]
            if settings.formatter is not None:
                # What logging uses where there is no handler. Were it one of the root's, basicConfig() in a
                # task would do nothing.
                self._handler = _WorkerHandler(settings)
        self._changed = [
            (known, known.level, level) for known, level in self._loggers if known.level != level
        ]
        disabled = manager.disable
        if not self._changed and self._handler is None and settings.disabled in (logging.NOTSET, disabled):
            return
        self._former = logging.lastResort, disabled
        _set_levels([(known, level) for known, _, level in self._changed])
        logging.lastResort = self._handler or logging.lastResort
        manager.disable = settings.disabled or disabled

    def __exit__(self, *exception: object) -> None:
        """Let hold what held before. Idempotent."""
        if self._former is None:
            return
        (handler, disabled), manager, self._former = self._former, logging.root.manager, None
        if self._handler is not None and logging.lastResort is self._handler:
            logging.lastResort = handler
        if manager.disable == (self._settings.disabled or disabled):
            manager.disable = disabled
        _set_levels([(known, before) for known, before, level in self._changed if known.level == level])


def _set_levels(levels: Sequence[tuple[logging.Logger, int]]) -> None:
    """Set the levels of loggers. ``setLevel`` empties a cache of each logger that there is: once, here."""
    for known, level in levels:
        known.level = level
    if levels:
        logging.root.setLevel(logging.root.level)


def _console(handler: logging.Handler) -> str:
    """Return which of the program's streams a handler writes to; empty if none."""
    stream = getattr(handler, "stream", None)
    for name in ("stderr", "stdout"):
        if stream is not None and stream in (getattr(sys, name), getattr(sys, f"__{name}__")):
            return name
    return ""


_STYLES: dict[type, Literal["%", "{", "$"]] = {
    # Their order matters: the others are made of the first.
    logging.StringTemplateStyle: "$",
    logging.StrFormatStyle: "{",
    logging.PercentStyle: "%",
}


def _plain_formatter(formatter: logging.Formatter | None) -> logging.Formatter:
    """Return a formatter with the same format, of the class that every process has."""
    style: Any = getattr(formatter, "_style", None)
    sign = next((sign for kind, sign in _STYLES.items() if isinstance(style, kind)), None)
    if formatter is None or sign is None:
        return logging.Formatter()
    plain = logging.Formatter(style._fmt, formatter.datefmt, sign, validate=False)
    if formatter.converter is time.gmtime:
        plain.converter = time.gmtime
    return plain


_LOGURU_DEFAULT = 10
"""The level that loguru's own handler has from the start."""

_SILENT = 10**9
"""A level that nothing has."""

_loguru_handler = 0
"""The number of the handler that loguru has from the start, or of the one that stands for it."""


def _loguru_level() -> float | None:
    """Return the lowest level that loguru shows on the console, or anywhere; None if it is not imported."""
    loguru: Any = sys.modules.get("loguru")
    try:
        handlers = loguru.logger._core.handlers.values()  # it has no public way
        console = [each.levelno for each in handlers if each._name in ("<stderr>", "<stdout>")]
        return float(min(console or [each.levelno for each in handlers], default=inf))
    except AttributeError:  # not imported, or another version
        return None


def _set_loguru_level(level: int) -> None:
    """Let loguru's own handler show what has a level, unless this process has set up others.

    It lasts: all tasks of this process are the program's.
    """
    global _loguru_handler
    loguru: Any = sys.modules.get("loguru")
    if loguru is None and level != _LOGURU_DEFAULT:
        loguru = _imported("loguru")  # now, as a task that imports it would begin with its default
    with suppress(AttributeError):  # it is not there, or another version
        core = loguru.logger._core
        if list(core.handlers) == [_loguru_handler] and core.min_level != level:
            loguru.logger.remove(_loguru_handler)
            _loguru_handler = loguru.logger.add(sys.stderr, level=level)


@cache
def _imported(name: str) -> Any:
    """Return a module, or None if this process does not have it."""
    try:
        return import_module(name)
    except ImportError:
        return None
