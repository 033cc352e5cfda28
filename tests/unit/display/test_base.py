"""Which display a run has, and the displays that draw nothing themselves."""

from __future__ import annotations

import io
import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
from support.screen import FakeTerminal

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.base import CallbackDisplay, NullDisplay, checked_progress, choose_display
from speedy_utils._display.log import LogDisplay


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "TQDM_DISABLE", "SPEEDY_UTILS_PROGRESS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


CHOICE = "SPEEDY_UTILS_PROGRESS"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    ("variable", "value", "kinds"),
    [
        *((CHOICE, value, (BarDisplay, LogDisplay)) for value in ("", "auto", "Auto")),
        *((CHOICE, value, (LogDisplay, LogDisplay)) for value in ("log", "LOG")),
        (CHOICE, "bar", (BarDisplay, BarDisplay)),
        (CHOICE, "none", (NullDisplay, NullDisplay)),
        *(("TQDM_DISABLE", value, (NullDisplay, NullDisplay)) for value in ("1", "true", "yes")),
        *(("TQDM_DISABLE", value, (BarDisplay, LogDisplay)) for value in ("0", "", "False")),
    ],
)
def test_a_terminal_gets_bars_and_a_pipe_log_lines_unless_the_environment_chooses(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, variable: str, value: str, kinds: tuple[type, type]
) -> None:
    """``SPEEDY_UTILS_PROGRESS`` chooses a display; ``TQDM_DISABLE`` and ``progress=False`` silence."""
    monkeypatch.setattr("sys.stderr", FakeTerminal() if terminal else io.StringIO())
    monkeypatch.setenv(variable, value)
    assert isinstance(choose_display(True), kinds[not terminal])
    assert isinstance(choose_display(False), NullDisplay)


@pytest.mark.parametrize(
    ("value", "kind"), [("", LogDisplay), ("log", LogDisplay), ("bar", BarDisplay), ("none", NullDisplay)]
)
def test_what_may_not_draw_logs_unless_the_environment_chooses(
    monkeypatch: pytest.MonkeyPatch, value: str, kind: type
) -> None:
    """A child process has no bar of its own in the terminal that it shares, unless one is chosen."""
    monkeypatch.setattr("sys.stderr", FakeTerminal())
    monkeypatch.setenv(CHOICE, value)
    assert isinstance(choose_display(True, may_draw=False), kind)
    assert isinstance(choose_display(False, may_draw=False), NullDisplay)


def test_a_program_without_stderr_gets_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon or a windowed program may have no stderr at all."""
    monkeypatch.setattr("sys.stderr", None)
    assert isinstance(choose_display(True), LogDisplay)


class LikeRich(FakeTerminal):
    """What rich puts in place of a stream while it draws."""

    rich_proxied_file = None


@pytest.mark.parametrize(
    "stream",
    [LikeRich(), SimpleNamespace(isatty=lambda: True), SimpleNamespace()],
    ids=["rich", "alive", "bare"],
)
def test_where_others_draw_there_are_log_lines(monkeypatch: pytest.MonkeyPatch, stream: object) -> None:
    """A live display of another package that has taken the terminal can place lines of text alone."""
    monkeypatch.setattr("sys.stderr", stream)
    assert isinstance(choose_display(True), LogDisplay)


def shell_with(monkeypatch: pytest.MonkeyPatch, **attributes: object) -> None:
    """Let IPython be loaded, with a shell that has some attributes."""
    fake = ModuleType("IPython")
    fake.get_ipython = lambda: SimpleNamespace(**attributes)
    monkeypatch.setitem(sys.modules, "IPython", fake)


def test_a_notebook_has_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython's shell in a terminal is no notebook."""
    monkeypatch.setattr("sys.stderr", FakeTerminal())
    shell_with(monkeypatch)
    assert isinstance(choose_display(True), BarDisplay)


@pytest.mark.parametrize("chosen", [True, False])
def test_a_notebook_that_can_show_nothing_gets_log_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, chosen: bool
) -> None:
    """If nothing can be shown in the cell a warning says why, and the run gets log lines."""
    monkeypatch.delitem(sys.modules, "speedy_utils._display.notebook", raising=False)
    if chosen:
        monkeypatch.setenv("SPEEDY_UTILS_PROGRESS", "notebook")
    else:
        shell_with(monkeypatch, kernel=object())
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    assert isinstance(choose_display(True), LogDisplay)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "ModuleNotFoundError: import of IPython.display halted" in record.getMessage()


def test_unknown_display_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A display that does not exist is an error that names the variable, the value and the choices."""
    monkeypatch.setenv("SPEEDY_UTILS_PROGRESS", "tqdm")
    with pytest.raises(
        ValueError, match="SPEEDY_UTILS_PROGRESS must be one of auto, bar, notebook, log, none, not 'tqdm'"
    ):
        choose_display(True)


@pytest.mark.parametrize("no_color", [None, "1"])
@pytest.mark.parametrize("kind", ["bar", "log"])
def test_nothing_is_coloured(monkeypatch: pytest.MonkeyPatch, kind: str, no_color: str | None) -> None:
    """No display writes an escape code of colour, so ``NO_COLOR`` is kept to with or without it."""
    terminal = FakeTerminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("speedy_utils._display.log.logger.propagate", False)
    monkeypatch.setenv("SPEEDY_UTILS_PROGRESS", kind)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)

    display, run = choose_display(True), StageSnapshot("Run", 5, 10)
    display.show(Snapshot(run, (run,)))
    display.show(Snapshot(run, (run,), tasks_failed=1, final=True))
    display.close()
    text = terminal.getvalue()
    assert "5/10" in text
    assert "1 failed" in text
    pieces = text.split("\x1b[")[1:]
    assert bool(pieces) == (kind == "bar")
    assert {piece.lstrip("0123456789;")[0] for piece in pieces} <= {"A", "B", "C", "J", "K"}


def test_function_gets_each_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function gets the snapshots themselves, whatever the environment chooses to draw."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("SPEEDY_UTILS_PROGRESS", "none")
    seen: list[Snapshot] = []
    display, snapshots = choose_display(seen.append), [Snapshot(StageSnapshot("Run", n, 2)) for n in (1, 2)]
    for snapshot in snapshots:
        display.show(snapshot)
    display.close()
    assert isinstance(display, CallbackDisplay)
    assert [id(snapshot) for snapshot in seen] == [id(snapshot) for snapshot in snapshots]


@pytest.mark.parametrize("progress", [None, "bar", 1])
def test_progress_is_a_bool_or_a_function(progress: object) -> None:
    """Anything else is a TypeError with the value in it."""
    with pytest.raises(TypeError, match=f"progress must be True, False or a function .* not {progress!r}"):
        checked_progress(progress)
