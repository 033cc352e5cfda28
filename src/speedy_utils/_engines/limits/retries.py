"""Which exceptions of a task are worth another attempt, and how long that waits."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Any

from ..._validation import shorten

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""What ``retry_on`` may be: a type of exceptions, several, or a function that is asked."""

RetryWait = float | Callable[[int, BaseException], float]
"""What ``retry_wait`` may be: seconds, or a function of a failed attempt's number and its exception."""

MAX_WAIT_S = 60.0
"""Seconds up to which waits are doubled."""

_MOST_S = 30 * 24 * 3600.0
"""Seconds beyond which a ``retry_after`` is no time to wait: it may be a date in seconds since 1970."""

_random = random.SystemRandom()  # `random` itself is the user's, and forked workers would draw the same


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which exceptions of a task are worth another attempt, and how long that waits.

    Workers decide, as they have the exception itself, which need not be one that can be sent.

    How often, is the driver's to say: it knows which attempts were lost.

    Args:
        on: The exceptions; a function is asked for each.
        wait: Seconds before the second attempt, at most; twice as many before each further one, up to
            :data:`MAX_WAIT_S`. A function is asked instead.

    Example:
        >>> policy = RetryPolicy(on=(ConnectionError,), wait=2.0)
        >>> policy.wait_after(1, ValueError("no")) is None
        True
        >>> 0 <= policy.wait_after(2, ConnectionResetError()) <= 4.0
        True
    """

    on: RetryOn = ()
    wait: RetryWait = 1.0

    def wait_after(self, attempt: int, error: BaseException) -> float | None:
        """Return how many seconds to wait before the next attempt; None if there is to be none.

        It is never less than the exception's ``retry_after``, if it has one.

        Args:
            attempt: The number of the attempt that failed, from 1.
            error: Its exception.

        Raises:
            Exception: What the user's functions raise, or a TypeError or ValueError for what they return.
        """
        if not self._retries(error):
            return None
        if isinstance(self.wait, (int, float)):
            # Full jitter: what failed together must not come back together.
            wait = _random.uniform(0.0, longest_wait(attempt, self.wait))
        else:
            wait = checked_wait(self.wait(attempt, error), "what retry_wait returns")
        return max(wait, retry_after(error))

    def _retries(self, error: BaseException) -> bool:
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return bool(self.on(error))


NO_RETRIES = RetryPolicy()
"""No exception is worth another attempt."""


def checked_retries(retry_on: Any, retry_wait: Any) -> RetryPolicy:
    """Return the policy that the arguments of a call ask for.

    Raises:
        TypeError: One of them has the wrong type.
        ValueError: One of them is negative, or not finite.

    Example:
        >>> checked_retries([OSError], 0).on
        (<class 'OSError'>,)
        >>> checked_retries("OSError", 0)
        Traceback (most recent call last):
        ...
        TypeError: retry_on must be a tuple of exception types, or a function of the exception, not 'OSError'
    """
    if isinstance(retry_on, list):
        retry_on = tuple(retry_on)
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,) if isinstance(retry_on, type) else None
    if kinds is None and not callable(retry_on):
        hint = ": (Exception,) for all" if retry_on is True else ""
        raise TypeError(
            "retry_on must be a tuple of exception types, or a function of the exception, not "
            f"{shorten(retry_on)}{hint}"
        )
    for kind in kinds or ():
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"retry_on must hold types of exceptions, not {shorten(kind)}")
    if not callable(retry_wait):
        retry_wait = checked_wait(retry_wait, "retry_wait")
    return RetryPolicy(retry_on if kinds is None else kinds, retry_wait)


def checked_wait(seconds: Any, name: str) -> float:
    """Return a time to wait, in seconds; 0 not to wait.

    Raises:
        TypeError: ``seconds`` is not a number.
        ValueError: ``seconds`` is negative, or not finite.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        kind = type(seconds).__name__
        raise TypeError(f"{name} must be a number of seconds, not {shorten(seconds)} ({kind})")
    if not 0 <= seconds < inf:
        raise ValueError(f"{name} must be at least 0 seconds, and finite, not {shorten(seconds)}")
    return float(seconds)


def longest_wait(attempt: int, first: float) -> float:
    """Return the seconds that the wait after an attempt may take.

    Args:
        attempt: The number of the attempt that failed, from 1.
        first: What it may take after the first.

    Example:
        >>> [longest_wait(attempt, 1.0) for attempt in (1, 2, 3, 6, 7, 10_000)]
        [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]
        >>> longest_wait(3, 90.0)
        90.0
    """
    doubled = first * 2.0 ** min(attempt - 1, 64)
    return min(doubled, max(first, MAX_WAIT_S))


def retry_after(error: BaseException) -> float:
    """Return the seconds after which a server wants to be asked again; 0 if an exception does not say.

    Its ``retry_after`` is a number, a timedelta, or the text of a header.

    Example:
        >>> error = ConnectionError("429 Too Many Requests")
        >>> error.retry_after = "20"
        >>> retry_after(error)
        20.0
    """
    try:
        after = getattr(error, "retry_after", None)
        seconds = after.total_seconds() if isinstance(after, timedelta) else float(after)  # type: ignore[arg-type]  # an error
    except Exception:  # attributes are code of the user's, and the text may be anything
        return 0.0
    return seconds if 0.0 <= seconds <= _MOST_S else 0.0
