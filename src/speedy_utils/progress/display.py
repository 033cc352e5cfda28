"""What draws: tqdm bars in a terminal or a notebook, log lines elsewhere, nothing where that is asked."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from tqdm.auto import tqdm

from .snapshot import Snapshot, StageSnapshot
from .streams import keep_below, let_go, real_stderr

logger = logging.getLogger(__name__)

_NOTEBOOK = any(cls.__module__ == "tqdm.notebook" for cls in tqdm.__mro__)


class Display(Protocol):
    """Shows snapshots. Called by one thread only."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a reading."""
        ...

    def close(self) -> None:
        """End; what was shown last stays."""
        ...


class NullDisplay:
    """Shows nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def choose_display(progress: bool) -> Display:
    """The display that fits where the program runs.

    Args:
        progress: False for none.

    Returns:
        Bars in a notebook and where stderr is a terminal, log lines elsewhere. ``TQDM_DISABLE=1`` in the
        environment silences both.
    """
    if not progress or os.environ.get("TQDM_DISABLE", "").lower() not in ("", "0", "false"):
        return NullDisplay()
    # A daemon or a windowed program has no stderr at all.
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return BarDisplay() if _NOTEBOOK or terminal else LogDisplay()


def number(value: float) -> str:
    """A quantity with thousands separators, to three digits where it is small."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def speed(rate: float | None, unit: str) -> str:
    """A rate the way tqdm writes it: turned around where it is below one a second."""
    if not rate:
        return f"? {unit}/s"
    return f"{number(rate)} {unit}/s" if rate >= 1 else f"{number(1 / rate)} s/{unit.removesuffix('s')}"


def count(done: int, total: float | None) -> str:
    """``1,671,800/2,948,390``, or what is done where the total is not known."""
    return f"{done:,}" if total is None else f"{done:,}/{total:,}"


def remarks(snapshot: Snapshot) -> list[str]:
    """What is worth saying beside the count."""
    said = []
    if snapshot.tasks_total and snapshot.unit != "tasks":
        said.append(f"{snapshot.tasks_done:,}/{snapshot.tasks_total:,} {snapshot.task_unit}")
    if snapshot.tasks_failed:
        said.append(f"{snapshot.tasks_failed:,} failed")
    if snapshot.retries:
        said.append(f"{snapshot.retries:,} retried")
    if snapshot.phase:
        said.append(f"{snapshot.phase}…")
    return said


class _Line(tqdm):  # type: ignore[type-arg]  # the class is generic in its stubs only
    """A tqdm bar that is moved from outside, by a clock that is not its own."""

    monitor_interval = 0  # its helper thread would touch the bar too
    elapsed = 0.0
    final = False

    @property
    def format_dict(self) -> dict[str, Any]:
        known: dict[str, Any] = dict(super().format_dict)
        if isinstance(self.ncols, int) and self.ncols <= 0:  # a pseudo-terminal that nobody gave a size
            self.ncols, self.nrows = 80, 24
            known["ncols"] = self.ncols
        # Its smoothed rate serves the ETA; the last word is the mean.
        mean = (self.n - self.initial) / self.elapsed if self.elapsed else None
        rate = mean if self.final else known["rate"] or mean
        return known | {
            "elapsed": self.elapsed,
            "rate": rate,
            "count": count(int(self.n), self.total),
            "speed": speed(rate, self.unit),
        }


class BarDisplay:
    """One tqdm bar a stage, on stderr.

    Args:
        file: Where to draw; stderr where None.
    """

    _KNOWN = "{l_bar}{bar}| {count} [{elapsed}<{remaining}, {speed}{postfix}]"
    _OPEN = "{desc}: {count} [{elapsed}, {speed}{postfix}]"

    def __init__(self, file: Any = None) -> None:
        self._shared = file is None and not _NOTEBOOK
        self._file = real_stderr() if self._shared else file
        self._lines: list[_Line] = []

    def show(self, snapshot: Snapshot) -> None:
        """Move the bars."""
        for position, stage in enumerate(snapshot.stages):
            line = self._lines[position] if position < len(self._lines) else self._add(stage, snapshot)
            if snapshot.elapsed and not line.elapsed:
                # The clock began with the first count, not when the bar was drawn.
                line.unpause()
                line.last_print_t -= snapshot.elapsed
                line.start_t = line.last_print_t  # a bar printed before its start would close without a line
            line.elapsed, line.final = snapshot.elapsed, snapshot.final
            if line.total != stage.total:
                line.total = stage.total
                line.bar_format = self._format(stage)
            if position == 0:
                line.set_postfix_str(", ".join(remarks(snapshot)), refresh=False)
            if stage.done == line.n or not line.update(stage.done - line.n):
                line.refresh()

    def close(self) -> None:
        """Leave the bars as they are."""
        for line in self._lines:  # first of all: the streams are the program's, whatever becomes of the bars
            let_go(line)
        for line in self._lines:
            line.close()

    def _format(self, stage: StageSnapshot) -> str:
        return self._OPEN if stage.total is None else self._KNOWN

    def _add(self, stage: StageSnapshot, snapshot: Snapshot) -> _Line:
        line = _Line(
            desc=stage.name,
            total=stage.total,
            initial=snapshot.initial if not self._lines else 0,
            unit=snapshot.unit,
            file=self._file,
            bar_format=self._format(stage),
            mininterval=0,
            miniters=1,
            dynamic_ncols=True,
            disable=False,
        )
        self._lines.append(line)
        if self._shared:
            keep_below(line)
        return line


class GivenBar:
    """Moves a tqdm bar that a user made and will close.

    Args:
        bar: The bar.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(self, snapshot: Snapshot) -> None:
        """Move the bar."""
        if snapshot.total is not None:
            self._bar.total = snapshot.total
        self._bar.update(snapshot.done - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar open: it is not ours."""


class _Stderr(logging.Handler):
    """Writes to what is stderr at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"{self.format(record)}\n")


_stderr = _Stderr()
_stderr.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))


class LogDisplay:
    """A log line a stage every so often, and one at the end.

    The lines have level INFO. Where a program has set up no logging they go to stderr, where print would.

    Args:
        every: Seconds between two lines.
        clock: Seconds that only grow.
    """

    def __init__(self, every: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._next = clock() + every
        self._over = False

    def show(self, snapshot: Snapshot) -> None:
        """Log a line if it is time for one."""
        if self._over or not (snapshot.final or self._clock() >= self._next):
            return
        self._next, self._over = self._clock() + self._every, snapshot.final
        own = snapshot.stages[0]
        self._log(self._line(own, snapshot, own.done - snapshot.initial, remarks(snapshot)))
        for stage in snapshot.stages[1:]:
            self._log(self._line(stage, snapshot, stage.done, []))

    def close(self) -> None:
        """Do nothing: the last reading was logged."""

    @staticmethod
    def _line(stage: StageSnapshot, snapshot: Snapshot, fresh: int, said: list[str]) -> str:
        rate = fresh / snapshot.elapsed if snapshot.elapsed else 0.0
        share = f"{stage.done / stage.total:.0%} " if stage.total else ""
        parts = [
            f"{share}{count(stage.done, stage.total)} in {tqdm.format_interval(snapshot.elapsed)}",
            speed(rate, snapshot.unit),
        ]
        if stage.total and rate and stage.done < stage.total:
            parts.append(f"eta {tqdm.format_interval((stage.total - stage.done) / rate)}")
        return f"{stage.name}: {', '.join(parts + said)}"

    @staticmethod
    def _log(text: str) -> None:
        if logger.hasHandlers():
            logger.info("%s", text)
        else:
            _stderr.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, text, (), None))
