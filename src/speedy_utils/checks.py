"""Arguments, checked before anything starts."""

from __future__ import annotations

from operator import index
from typing import Any, SupportsIndex


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
    if isinstance(n, bool) or not isinstance(n, SupportsIndex):
        raise TypeError(f"{name} must be an integer, not {n!r} ({type(n).__name__})")
    checked = index(n)
    if checked < least:
        raise ValueError(f"{name} must be at least {least}, not {n!r}")
    return checked


def checked_name(desc: Any) -> str | None:
    """The name of a stage.

    Raises:
        TypeError: It is neither a string nor None.
    """
    if desc is not None and not isinstance(desc, str):
        raise TypeError(f"desc must be a string, not {desc!r} ({type(desc).__name__})")
    return desc
