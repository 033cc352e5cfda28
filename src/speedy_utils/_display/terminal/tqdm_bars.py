"""The tqdm bars that the program itself has on the terminal.

The cursor rests in the row of the bar at position 0, and the others are below it.
"""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from ..._interrupts import holding

Layout = tuple[tuple[int, int], ...]
"""Which bars there are: the identity and the position of each."""


def visible_tqdm_bars() -> list[Any]:
    """The bars on a terminal, from top to bottom. To be called under tqdm's lock."""
    # tqdm has no public list of its bars; without this one they are taken for printed text.
    bars = [bar for bar in list(getattr(tqdm, "_instances", ())) if _draws(bar)]
    return sorted(bars, key=position) if len(bars) > 1 else bars


def _draws(bar: Any) -> bool:
    # A bar is in the list before it has any attribute, and in a notebook it draws nothing on the terminal.
    if getattr(bar, "disable", True) or getattr(bar, "gui", False) or not hasattr(bar, "pos"):
        return False
    try:
        return bool(bar.fp.isatty())
    except (AttributeError, ValueError):  # no terminal, or a file that is closed
        return False


def position(bar: Any) -> int:
    """How many rows a bar is below the cursor."""
    return abs(int(bar.pos))  # negative where the user has chosen it


def rows_of(bars: list[Any]) -> int:
    """How many rows they take, gaps included."""
    return position(bars[-1]) + 1 if bars else 0


def layout(bars: list[Any]) -> Layout:
    """Which bars these are, and where."""
    return tuple((id(bar), position(bar)) for bar in bars)


def redraw(bars: list[Any], width: int) -> None:
    """Let them draw themselves, in so many columns at most. To be called under tqdm's lock."""
    for bar in bars:
        if not hasattr(bar, "start_t"):  # one that is being made draws itself at once, and has no time yet
            continue
        own = bar.ncols
        if isinstance(own, int) and own > width:
            # The terminal has become narrower: the line would break, and each print leave half of it behind.
            # A new printer knows of no longer line that it would have to blank: the row is empty.
            bar.ncols, bar.sp = width, bar.status_printer(bar.fp)
        try:
            bar.refresh(nolock=True)
        finally:
            bar.ncols = own


def tqdm_locks() -> list[Any]:
    """The locks that tqdm's lock is made of."""
    # The stubs of tqdm leave it untyped.
    lock: Any = tqdm.get_lock()  # type: ignore[no-untyped-call]  # it has no types in the stubs
    return getattr(lock, "locks", None) or [lock]  # a user may have set one of their own


holding_tqdm_lock = holding(tqdm_locks)
"""Let a function hold tqdm's lock while it runs."""
