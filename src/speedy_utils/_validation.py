"""Checks of arguments, made before any work starts."""

from __future__ import annotations

import sys
from math import inf
from numbers import Integral, Real
from operator import index
from threading import TIMEOUT_MAX
from typing import Any


def checked_count(n: Any, name: str = "n", least: int = 0) -> int:
    """Return a count as a plain ``int``.

    Args:
        n: The count: an integer, or one of NumPy's.
        name: The name of the argument, for the error.
        least: The smallest count that is allowed.

    Raises:
        TypeError: ``n`` is not an integer. ``True`` and ``False`` are refused.
        ValueError: ``n`` is below ``least``.
    """
    try:
        # Older versions of NumPy take its bool for an index, with a warning.
        checked = None if isinstance(n, bool) or type(n).__name__ in ("bool", "bool_") else index(n)
    except TypeError:
        checked = None
    if checked is None:
        raise TypeError(f"{name} must be an integer, not {shorten(n)} ({type(n).__name__})")
    if checked < least:
        raise ValueError(f"{name} must be at least {least}, not {shorten(n)}")
    return checked


def checked_optional(n: Any, name: str, least: int = 0) -> int | None:
    """Return a count as :func:`checked_count` does; None stays None."""
    return None if n is None else checked_count(n, name, least)


def checked_amount(amount: Any, name: str) -> int | float:
    """Return what is added to a counter as a plain ``int`` or ``float``.

    Args:
        amount: A real number, or one of NumPy's.
        name: The name of the counter.

    Raises:
        TypeError: ``amount`` is not a real number. ``True`` and ``False`` are refused.
        ValueError: ``amount`` is negative or not finite, or ``name`` is not an identifier.
    """
    if not name.isidentifier():
        raise ValueError(f"a counter needs a name like a variable's, not {shorten(name)}")
    if isinstance(amount, bool) or not isinstance(amount, Real):
        raise TypeError(f"{name} must be a number, not {shorten(amount)} ({type(amount).__name__})")
    try:
        plain = int(amount) if isinstance(amount, Integral) else float(amount)
    except OverflowError:  # a Fraction beyond the largest float
        plain = inf
    if not 0 <= plain <= sys.float_info.max:
        raise ValueError(f"{name} must be at least 0, and finite, not {shorten(amount)}")
    return plain


def checked_interval(seconds: Any, name: str = "poll_interval") -> float:
    """Return a time to wait, in seconds.

    Raises:
        TypeError: ``seconds`` is not a number.
        ValueError: ``seconds`` is not above 0, or longer than a thread can wait.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        kind = type(seconds).__name__
        raise TypeError(f"{name} must be a number of seconds, not {shorten(seconds)} ({kind})")
    if not 0 < seconds <= TIMEOUT_MAX:
        raise ValueError(f"{name} must be above 0 seconds, and finite, not {shorten(seconds)}")
    return seconds


def checked_name(desc: Any, name: str = "desc") -> str | None:
    """Return the name of a stage or a unit; None if it is empty, as tqdm takes an empty description.

    Raises:
        TypeError: ``desc`` is neither a string nor None.
    """
    if desc is not None and not isinstance(desc, str):
        raise TypeError(f"{name} must be a string, not {shorten(desc)} ({type(desc).__name__})")
    return desc or None


def shorten(value: object, width: int = 200) -> str:
    """Return the ``repr`` of a value, cut to what fits in an error message.

    A value whose ``repr`` raises must not hide the error that the message is about.
    """
    try:
        text = repr(value)
    except Exception as error:  # any class may raise anything from its repr
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= width else f"{text[: width - 1]}…"
