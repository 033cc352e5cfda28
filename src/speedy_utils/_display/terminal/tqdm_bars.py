"""The tqdm bars that the program itself has on the terminal.

The cursor rests in the row of the bar at position 0, and the others are below it.
"""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from ..._interrupts import holding

Positions = tuple[tuple[int, int], ...]
"""Which bars there are: the identity and the position of each."""


def visible_tqdm_bars() -> list[Any]:
    """Return the bars on a terminal, from top to bottom. To be called under tqdm's lock."""
    # tqdm has no public list of its bars; without this one they are taken for printed text.
    bars = [bar for bar in list(getattr(tqdm, "_instances", ())) if _is_visible(bar)]
    return sorted(bars, key=_position) if len(bars) > 1 else bars


def _is_visible(bar: Any) -> bool:
    # A bar is in the list before it has any attribute, and in a notebook it draws nothing on the terminal.
    if getattr(bar, "disable", True) or getattr(bar, "gui", False) or not hasattr(bar, "pos"):
        return False
    try:
        return bool(bar.fp.isatty())
    except (AttributeError, ValueError):  # no terminal, or a file that is closed
        return False


def _position(bar: Any) -> int:
    """Return how many rows a bar is below the cursor."""
    return abs(int(bar.pos))  # negative if the user has chosen it


def rows_of(bars: list[Any]) -> int:
    """Return how many rows the bars take, gaps included."""
    return _position(bars[-1]) + 1 if bars else 0


def bar_positions(bars: list[Any]) -> Positions:
    """Return which bars these are, and where."""
    return tuple((id(bar), _position(bar)) for bar in bars)


def redraw_bars(bars: list[Any], columns: int) -> None:
    """Let the bars draw themselves, no wider than some columns. To be called under tqdm's lock."""
    for bar in bars:
        if not hasattr(bar, "start_t"):  # it is being made: it has no time yet, and draws itself at once
            continue
        ncols = bar.ncols
        if isinstance(ncols, int) and ncols > columns:
            # The terminal has become narrower: the line would wrap, and each print leave half of it behind.
            # A new printer knows of no longer line that it would have to blank: the row is empty.
            bar.ncols, bar.sp = columns, bar.status_printer(bar.fp)
        try:
            bar.refresh(nolock=True)
        finally:
            bar.ncols = ncols


def tqdm_locks() -> list[Any]:
    """Return the locks that tqdm's lock is made of."""
    lock: Any = tqdm.get_lock()  # type: ignore[no-untyped-call]  # it has no types in the stubs
    return getattr(lock, "locks", None) or [lock]  # a user may have set one of their own


holding_tqdm_lock = holding(tqdm_locks)
"""Let a function hold tqdm's lock while it runs."""
