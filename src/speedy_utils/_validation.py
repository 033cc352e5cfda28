"""Checks of arguments, made before any work starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from numbers import Integral, Real
from operator import index
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import Any, cast


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


def checked_items(n: Any, name: str = "n") -> int:
    """Return a number of items that were counted as a plain ``int``; below 0 if some are taken back.

    Args:
        n: Any whole number: ``3``, ``True``, ``3.0``, NumPy's, a tensor without dimensions.
        name: The name of the argument, for the error.

    Raises:
        TypeError: ``n`` is not a number.
        ValueError: ``n`` is not a whole number.

    Example:
        >>> checked_items(2.0), checked_items(-3)
        (2, -3)
    """
    try:
        whole = int(n)
        counts = whole == n and getattr(n, "ndim", 0) == 0  # the text "3" is not equal to 3
    except Exception:  # numbers of other libraries may raise anything
        counts = False
    if not counts:
        raise _not_a("whole number", n, name)
    return whole


def checked_total(total: Any, name: str = "total") -> int:
    """Return a number of items that there are as a plain ``int``, as :func:`checked_items` does.

    Raises:
        TypeError: ``total`` is not a number.
        ValueError: ``total`` is not a whole number, or negative.
    """
    checked = checked_items(total, name)
    if checked < 0:
        raise ValueError(f"{name} must be at least 0, not {shorten(total)}")
    return checked


def checked_optional(n: Any, name: str, least: int = 0) -> int | None:
    """Return a count as :func:`checked_count` does; None stays None."""
    return None if n is None else checked_count(n, name, least)


def checked_amount(amount: Any, name: str) -> int | float:
    """Return what is added to a counter as a plain ``int`` or ``float``.

    Args:
        amount: Any real number: ``512``, ``-0.5``, ``True``, NumPy's, a tensor without dimensions.
        name: The name of the counter.

    Raises:
        TypeError: ``amount`` is not a real number.
        ValueError: ``amount`` is not finite, or ``name`` is not an identifier.
    """
    if not name.isidentifier():
        raise ValueError(f"a counter needs a name like a variable's, not {shorten(name)}")
    try:
        plain = amount if type(amount) in (int, float) else _plain_number(amount)
        counts = -sys.float_info.max <= plain <= sys.float_info.max
    except Exception:  # numbers of other libraries may raise anything
        counts = False
    if not counts:
        raise _not_a("finite number", amount, name)
    return plain


def _plain_number(amount: Any) -> int | float:
    if isinstance(amount, (str, bytes, bytearray)) or getattr(amount, "ndim", 0) != 0:
        raise TypeError
    return int(amount) if isinstance(amount, Integral) else float(amount)


def _not_a(kind: str, value: Any, name: str) -> TypeError | ValueError:
    if isinstance(value, Real):
        return ValueError(f"{name} must be a {kind}, not {shorten(value)}")
    return TypeError(f"{name} must be a {kind}, not {shorten(value)} ({type(value).__name__})")


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


def checked_choice(value: Any, name: str, choices: Iterable[str]) -> None:
    """Raise an error if a value is none of some strings.

    Raises:
        ValueError: It is none of them.
    """
    known = [*choices]
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {shorten(value)}")


def shorten(value: object, width: int = 200) -> str:
    """Return the ``repr`` of a value, cut to what fits in an error message.

    A value whose ``repr`` raises must not hide the error that the message is about.
    """
    if type(value) in (str, bytes, list, tuple):
        value = cast("list[object]", value)[:width]  # of a million numbers the first few will do
    try:
        text = repr(value)
    except Exception as error:  # any class may raise anything from its repr
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def first_line(error: BaseException) -> str:
    """Return the type of an exception, and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def refuse_too_long(folder: Path, name: str, below: int, given: Path | None = None) -> None:
    """Raise ValueError if the name or the path of a folder is none, or too long, for the system.

    Args:
        folder: The folder, which need not exist.
        name: The argument that it comes from.
        below: Bytes of the longest path below it.
        given: What the argument is; None for the folder itself.
    """
    if "\0" in str(folder):
        raise ValueError(f"{name} must name a folder to be made, not {str(folder)!r}")
    above = next((parent for parent in folder.parents if os.path.exists(parent)), folder)
    limits = {}
    with suppress(AttributeError, OSError, ValueError):  # Windows; file systems that don't say
        limits = {each: os.pathconf(above, each) for each in ("PC_NAME_MAX", "PC_PATH_MAX")}
    for length, limit, what in (
        (
            max(len(os.fsencode(part)) for part in folder.parts),
            limits.get("PC_NAME_MAX", 0),
            "its longest name",
        ),
        (len(os.fsencode(folder)) + below, limits.get("PC_PATH_MAX", 0), "it"),
    ):
        if 0 < limit < length:
            raise ValueError(
                f"{name} '{str(given or folder)[:60]}...' is too long: {what} has to be {length - limit:,} "
                f"bytes shorter, so that the files of the run in '...{folder.name[-20:]}' can be made."
            )
