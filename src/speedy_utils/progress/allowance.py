"""How much time something dear may take."""

from __future__ import annotations

from collections.abc import Callable


class Allowance:
    """A part of the time that passes, and so many seconds at once.

    Args:
        share: The part.
        most: Seconds that may be saved up, and as many that may be owed.
        clock: Seconds that only grow.

    Example:
        >>> from speedy_utils.testing import FakeClock
        >>> clock = FakeClock()
        >>> allowance = Allowance(0.1, 1.0, clock)
        >>> allowance.spend(1.5)
        >>> allowance.left()
        False
        >>> clock.advance(6)
        >>> allowance.left()
        True
    """

    def __init__(self, share: float, most: float, clock: Callable[[], float]) -> None:
        self._share, self._most, self._clock = share, most, clock
        self._seconds, self._at = most, clock()

    def left(self) -> bool:
        """Whether there is any time now."""
        now = self._clock()
        self._seconds = min(self._most, self._seconds + self._share * (now - self._at))
        self._at = now
        return self._seconds > 0

    def spend(self, seconds: float) -> None:
        """Note what was taken."""
        self._seconds = max(self._seconds - seconds, -self._most)
