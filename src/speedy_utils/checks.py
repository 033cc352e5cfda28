"""Arguments, checked before anything starts."""

from __future__ import annotations

from operator import index
from threading import TIMEOUT_MAX
from typing import Any


def checked_count(n: Any, name: str = "n", least: int = 0) -> int:
    """A whole number as ``int``.

    Args:
        n: The number; NumPy's integers are fine.
        name: What to call it in an error.
        least: The smallest that is allowed.

    Returns:
        The number.

    Raises:
        TypeError: It is no integer; ``True`` and ``False`` are none.
        ValueError: It is below ``least``.
    """
    try:
        # NumPy's bool turned into an index for years, with a warning.
        checked = None if isinstance(n, bool) or type(n).__name__ in ("bool", "bool_") else index(n)
    except TypeError:
        checked = None
    if checked is None:
        raise TypeError(f"{name} must be an integer, not {n!r} ({type(n).__name__})")
    if checked < least:
        raise ValueError(f"{name} must be at least {least}, not {n!r}")
    return checked


def checked_interval(seconds: Any, name: str = "poll_interval") -> float:
    """A time to wait, in seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0, or longer than a thread can wait.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r} ({type(seconds).__name__})")
    if not 0 < seconds <= TIMEOUT_MAX:
        raise ValueError(f"{name} must be above 0 seconds, and finite, not {seconds!r}")
    return seconds


def checked_name(desc: Any) -> str | None:
    """The name of a stage.

    Raises:
        TypeError: It is neither a string nor None.
    """
    if desc is not None and not isinstance(desc, str):
        raise TypeError(f"desc must be a string, not {desc!r} ({type(desc).__name__})")
    return desc
