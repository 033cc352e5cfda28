"""Which display a run has: the protocol, the choice, and the displays that draw nothing themselves."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Literal, Protocol

from .._state.snapshot import Snapshot
from .._validation import shorten

Progress = bool | Callable[[Snapshot], object]
"""True for the display that fits where the program runs, False for none, or a function of each snapshot."""

logger = logging.getLogger("speedy_utils")

KINDS = ("auto", "bar", "notebook", "log", "none")

VARIABLE = "SPEEDY_UTILS_PROGRESS"
"""The environment variable that chooses the display."""


class Display(Protocol):
    """Shows snapshots. Only one thread calls it."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a reading."""
        ...

    def close(self) -> None:
        """End. What was shown last stays."""
        ...


class NullDisplay:
    """Shows nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class CallbackDisplay:
    """Calls a function with each snapshot.

    Args:
        function: Called in the poller's thread.
    """

    def __init__(self, function: Callable[[Snapshot], object]) -> None:
        self._function = function

    def show(self, snapshot: Snapshot) -> None:
        """Call the function."""
        self._function(snapshot)

    def close(self) -> None:
        """Do nothing: the last snapshot was marked as final."""


def checked_progress(progress: Any) -> Progress:
    """Return the ``progress`` argument of a run.

    Raises:
        TypeError: It is neither a bool nor callable.
    """
    if not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress must be True, False or a function of a Snapshot, not {shorten(progress)}")
    known: Progress = progress
    return known


def choose_display(progress: Progress, *, leave: bool = True, may_draw: bool = True) -> Display:
    """Return the display that fits where the program runs.

    Args:
        progress: The ``progress`` argument of the run.
        leave: Whether bars stay after the run.
        may_draw: Whether this process may draw where the environment chooses nothing; if not, it logs.

    Returns:
        Bars in a notebook and if stderr is a terminal that nothing else draws on, otherwise log lines. In the
        environment ``TQDM_DISABLE=1`` silences both, ``SPEEDY_UTILS_PROGRESS`` chooses one, and
        ``SPEEDY_UTILS_LOG_EVERY`` fixes the seconds between two log lines.

    Raises:
        ValueError: ``SPEEDY_UTILS_PROGRESS`` names no display.
    """
    if not isinstance(progress, bool):
        return CallbackDisplay(progress)
    kind = os.environ.get(VARIABLE, "").lower() or "auto"
    if kind not in KINDS:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(KINDS)}, not {kind!r}")
    silent = os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false")
    if not progress or silent or kind == "none":
        return NullDisplay()
    if kind == "auto":
        kind = _detect() if may_draw else "log"
    return _DISPLAYS[kind](leave)


def _detect() -> Literal["notebook", "bar", "log"]:
    if _in_notebook():
        return "notebook"
    from .terminal.redirect import is_taken, is_terminal  # needs tqdm

    # A daemon or a windowed program has no stderr at all. Others who draw can place lines of text alone.
    return "bar" if is_terminal(sys.stderr) and not is_taken(sys.stderr) else "log"


def _in_notebook() -> bool:
    """Return whether a Jupyter kernel runs this program."""
    # IPython may be loaded outside a notebook too; only in a kernel its shell has one.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def _bars(leave: bool) -> Display:
    from .bars import BarDisplay

    return BarDisplay(leave=leave)


def _notebook(leave: bool) -> Display:
    try:
        from .notebook import NotebookDisplay

        return NotebookDisplay(leave=leave)
    except Exception as error:  # widgets may fail for any reason, and the work must go on
        cause = f"{type(error).__name__}: {error}"
        logger.warning("there can be no bars in this notebook (%s); log lines instead", cause)
        return _log(leave)


def _log(leave: bool) -> Display:  # noqa: ARG001 - log lines always stay
    from .log import LogDisplay, log_every

    return LogDisplay(log_every())


_DISPLAYS: dict[str, Callable[[bool], Display]] = {"bar": _bars, "notebook": _notebook, "log": _log}
