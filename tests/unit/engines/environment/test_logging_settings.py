"""The levels and the format of the program's logging hold for a task, unless its worker has its own."""

from __future__ import annotations

import io
import logging
import pickle
import re
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace
from typing import Any

import pytest

from speedy_utils._engines.environment import logging_settings
from speedy_utils._engines.environment.logging_settings import LoggingSettings


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process log as one that has set up nothing, and restore what pytest has set up."""
    level, disabled = logging.root.level, logging.root.manager.disable
    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        logging.root.setLevel(logging.WARNING)
        yield
    logging.root.setLevel(level)
    logging.disable(disabled)
    logging.getLogger("su.library").setLevel(logging.NOTSET)


def program(handler: logging.Handler | None = None, level: int = logging.INFO) -> LoggingSettings:
    """Return the settings of a program, as they arrive in a worker, with the worker as it was before."""
    before = logging.root.level
    logging.root.handlers = [] if handler is None else [handler]
    logging.root.setLevel(level)
    try:
        return pickle.loads(pickle.dumps(LoggingSettings.of_program()))  # type: ignore[no-any-return]
    finally:
        logging.root.handlers.clear()
        logging.root.setLevel(before)


def console(text: str | None, stream: Any = None, **more: Any) -> logging.Handler:
    """Return a handler of the console, with a format."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(text, **more))
    return handler


def logged(settings: LoggingSettings) -> tuple[str, str]:
    """Return what a task that logs writes to stdout and to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), settings.applied():
        logging.getLogger("su.task").debug("no")
        logging.getLogger("su.task").info("at %s", "info")
        logging.getLogger("su.library").debug("detail")
    return out.getvalue(), err.getvalue()


def test_levels_and_format_hold_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold within the block, for the root and for each logger, and afterwards all is as before."""
    library, last = logging.getLogger("su.library"), logging.lastResort
    library.setLevel(logging.DEBUG)
    settings = program(console("%(levelname)s|%(name)s|%(message)s"))
    library.setLevel(logging.NOTSET)
    lines = "INFO|su.task|at info\nDEBUG|su.library|detail\n"
    assert logged(settings) == ("", lines)
    assert (logging.root.level, library.level, logging.lastResort) == (logging.WARNING, logging.NOTSET, last)
    assert logged(program(console("{message}!", sys.stdout, style="{"))) == ("at info!\n", "")
    assert logged(program()) == ("", "")  # a program without handlers shows no INFO either


@pytest.mark.parametrize(
    ("handler", "line"),
    [
        (console("%(asctime)s %(message)s", datefmt="day"), "day at info"),
        (console("${message} $$", style="$"), "at info $"),
        (console(None), "at info"),
        (console("%(rank)s %(message)s"), "INFO:su.task:at info"),  # a filter of the program's adds the rank
        (logging.FileHandler("log", delay=True), "at info"),
    ],
)
def test_formats_of_all_kinds_travel(handler: logging.Handler, line: str) -> None:
    """A format in any style holds; where a field is missing in the worker, logging's own holds."""
    assert logged(program(handler)) == ("", f"{line}\n")


def test_a_formatter_of_the_programs_own_class_need_not_travel() -> None:
    """Its format holds, and what else it does is not known in the worker. Times in UTC stay in UTC."""

    class Own(logging.Formatter):
        converter = time.gmtime

        def __init__(self) -> None:
            super().__init__("own %(message)s")
            self.lock = (each for each in ())  # can't be pickled

    handler = console(None)
    handler.setFormatter(Own())
    settings = program(handler)
    assert logged(settings) == ("", "own at info\n")
    assert settings.formatter is not None
    assert settings.formatter.converter is time.gmtime


def test_the_level_of_the_handler_holds_too() -> None:
    """A console that shows less than a file beside it shows less of the workers too."""
    handler = console("%(message)s")
    handler.setLevel(logging.WARNING)
    settings = program(handler, logging.DEBUG)
    assert logged(settings) == ("", "")
    assert settings.handler_level == logging.WARNING


def test_a_worker_with_logging_of_its_own_keeps_it() -> None:
    """Where the worker's root has a handler, neither levels nor format change."""
    settings, stream = program(console("program %(message)s")), io.StringIO()
    logging.root.handlers = [console("own %(message)s", stream)]
    with settings.applied():
        assert logging.root.level == logging.WARNING
        logging.warning("here")
        logging.info("no")
    assert stream.getvalue() == "own here\n"


def test_a_task_may_set_up_its_own() -> None:
    """``basicConfig()`` in a task works as ever, and what it sets lasts; no line comes twice."""
    settings, stream = program(console("program %(message)s")), io.StringIO()
    with redirect_stderr(io.StringIO()) as err, settings.applied():
        logging.basicConfig(level=logging.ERROR, stream=stream, format="own %(message)s")
        logging.error("here")
    assert (stream.getvalue(), err.getvalue()) == ("own here\n", "")
    assert logging.root.level == logging.ERROR


def test_what_the_program_has_disabled_is_disabled() -> None:
    """``logging.disable()`` holds for the block."""
    logging.disable(logging.INFO)
    settings = program(console("%(message)s"))
    logging.disable(logging.NOTSET)
    assert logged(settings) == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_rays_own_loggers_are_left_alone() -> None:
    """Ray sets the levels of its loggers in each process."""
    for name in ("ray", "ray.data", "rays"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        assert [name for name in program().levels if name.startswith("ray")] == ["rays"]
    finally:
        for name in ("ray", "ray.data", "rays"):
            logging.getLogger(name).setLevel(logging.NOTSET)


class FakeLoguru:
    """Stands in for loguru: a logger with numbered handlers, each with a level and a name."""

    def __init__(self) -> None:
        self.logger, self._core, self._next = self, SimpleNamespace(handlers={}, min_level=10), 0
        self.add(sys.stderr)

    def add(self, sink: Any, level: int = 10) -> int:
        """Add a handler, and return its number."""
        name = "<stderr>" if sink is sys.stderr else "file"
        self._core.handlers[self._next] = SimpleNamespace(levelno=level, _name=name)
        self._core.min_level = min(each.levelno for each in self._core.handlers.values())
        self._next += 1
        return self._next - 1

    def remove(self, number: int) -> None:
        """Remove a handler."""
        del self._core.handlers[number]

    def levels(self) -> list[int]:
        """Return the levels of the handlers."""
        return [each.levelno for each in self._core.handlers.values()]


@pytest.fixture
def loguru(monkeypatch: pytest.MonkeyPatch) -> FakeLoguru:
    """Return a loguru that this process has imported."""
    monkeypatch.setattr(logging_settings, "_loguru_handler", 0)
    monkeypatch.setitem(sys.modules, "loguru", FakeLoguru())
    return sys.modules["loguru"]  # type: ignore[return-value]


def test_loguru_has_the_programs_level(loguru: FakeLoguru, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's own handler gets the level of the program's console, again for another run."""
    assert LoggingSettings.of_program().loguru == 10
    loguru.remove(0)
    loguru.add(sys.stderr, 30)
    loguru.add("file", 5)
    settings = LoggingSettings.of_program()
    assert settings.loguru == 30
    worker = FakeLoguru()
    monkeypatch.setitem(sys.modules, "loguru", worker)
    for level in (30, 30, 20):
        with LoggingSettings(loguru=level).applied():
            assert worker.levels() == [level]
    worker.add("of a task", 5)
    with settings.applied():
        assert worker.levels() == [20, 5]


def test_a_loguru_that_shows_nothing_shows_nothing_in_workers(
    loguru: FakeLoguru, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one whose handlers were removed; without a console, the lowest level of all holds."""
    loguru.remove(0)
    silent = LoggingSettings.of_program()
    loguru.add("file", 25)
    assert LoggingSettings.of_program().loguru == 25
    monkeypatch.setitem(sys.modules, "loguru", worker := FakeLoguru())
    with silent.applied():
        assert worker.levels()[0] > logging.CRITICAL


def test_no_loguru_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none, in the program or in the worker, nothing is done."""
    logging_settings._imported.cache_clear()
    monkeypatch.setitem(sys.modules, "loguru", None)
    assert LoggingSettings.of_program().loguru is None
    with LoggingSettings(loguru=30).applied():
        assert sys.modules["loguru"] is None
    monkeypatch.setitem(sys.modules, "loguru", SimpleNamespace(logger=object()))
    assert LoggingSettings.of_program().loguru is None
    with LoggingSettings(loguru=30).applied():
        assert sys.modules["loguru"] is not None


def test_the_real_loguru_is_set(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The level holds for loguru itself, whose own parts are used here."""
    real = pytest.importorskip("loguru")
    monkeypatch.setattr(logging_settings, "_loguru_handler", 0)
    with LoggingSettings(loguru=LoggingSettings(loguru=30).loguru).applied():
        real.logger.info("no")
        real.logger.warning("yes")
    assert re.findall(r"- (\w+)", capsys.readouterr().err) == ["yes"]
    assert LoggingSettings.of_program().loguru == 30
    with LoggingSettings(loguru=10).applied():
        assert LoggingSettings.of_program().loguru == 10
