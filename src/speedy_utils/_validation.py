"""Arguments, checked before anything starts."""

from __future__ import annotations

import sys
from math import inf
from numbers import Integral, Real
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
        raise TypeError(f"{name} must be an integer, not {shorten(n)} ({type(n).__name__})")
    if checked < least:
        raise ValueError(f"{name} must be at least {least}, not {shorten(n)}")
    return checked


def checked_optional(n: Any, name: str, least: int = 0) -> int | None:
    """As :func:`checked_count`, where there need not be a number: None stays None."""
    return None if n is None else checked_count(n, name, least)


def checked_amount(amount: Any, name: str) -> int | float:
    """What is added to a counter, as a plain number.

    Args:
        amount: The number; NumPy's are fine.
        name: The counter.

    Returns:
        The number.

    Raises:
        TypeError: It is no real number; ``True`` and ``False`` are none.
        ValueError: It is negative or not finite, or the name is no identifier.
    """
    if not name.isidentifier():
        raise ValueError(f"a counter needs a name like a variable's, not {shorten(name)}")
    if isinstance(amount, bool) or not isinstance(amount, Real):
        raise TypeError(f"{name} must be a number, not {shorten(amount)} ({type(amount).__name__})")
    try:
        plain = int(amount) if isinstance(amount, Integral) else float(amount)
    except OverflowError:  # a fraction beyond all floats
        plain = inf
    if not 0 <= plain <= sys.float_info.max:
        raise ValueError(f"{name} must be at least 0, and finite, not {shorten(amount)}")
    return plain


def checked_interval(seconds: Any, name: str = "poll_interval") -> float:
    """A time to wait, in seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0, or longer than a thread can wait.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        kind = type(seconds).__name__
        raise TypeError(f"{name} must be a number of seconds, not {shorten(seconds)} ({kind})")
    if not 0 < seconds <= TIMEOUT_MAX:
        raise ValueError(f"{name} must be above 0 seconds, and finite, not {shorten(seconds)}")
    return seconds


def checked_name(desc: Any, name: str = "desc") -> str | None:
    """The name of a stage, or of a unit; an empty one is none, as it is to tqdm.

    Raises:
        TypeError: It is neither a string nor None.
    """
    if desc is not None and not isinstance(desc, str):
        raise TypeError(f"{name} must be a string, not {shorten(desc)} ({type(desc).__name__})")
    return desc or None


_SHOWN = 200


def shorten(value: object, width: int = _SHOWN) -> str:
    """The ``repr`` of a value, cut to what fits in an error message.

    A value whose own ``repr`` fails must not replace the error that is being told.
    """
    try:
        text = repr(value)
    except Exception as error:  # any class may raise anything from its repr
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= width else f"{text[: width - 1]}…"
