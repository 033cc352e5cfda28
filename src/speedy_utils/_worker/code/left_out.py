"""What a task reports and can't be counted: NaN, a fraction of an item, text where a number belongs.

Outside a run that is an error, so that a test finds it. In a run it is left out, as one bad number must not
end hours of work. A line on it travels to the run with the counts, and the run warns of it once::

    loss must be a finite number, not nan (/home/me/train.py:17)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .user_code import calling_line

if TYPE_CHECKING:
    from ..tally import Tally

C = TypeVar("C")

_first: dict[str, str] = {}
"""By line of code, the first text on it. Each task says the same, so they are not as many as bad numbers."""


def describe(error: Exception, place: str = "") -> str:
    """Return a line on what can't be counted.

    Args:
        error: The error that it would be outside a run.
        place: Where it was reported; empty for the line of the user's code that has called this package.
    """
    place = place or calling_line() or "its line is not known"
    return _first.setdefault(place, f"{error} ({place})")


def checked_for(tally: Tally | None, check: Callable[[Any, str], C], value: Any, name: str) -> C | None:
    """Return a number that was checked, or None if it can't be counted.

    Args:
        tally: What counts here; None outside a run, where it raises what ``check`` raises.
        check: Returns the number, or raises a TypeError or ValueError.
        value: The number.
        name: What it is called in the error.
    """
    try:
        return check(value, name)
    except (TypeError, ValueError) as error:
        if tally is None or tally.reporter.strict:
            raise
        tally.reporter.leave_out(error)
        return None
