"""How fast a count moves of late, and whether it stands still."""

from __future__ import annotations

from math import exp

RECENT_S = 5.0
"""Seconds that a rate remembers that is shown to people."""

MIN_MEMORY_S = 10.0
"""Seconds that a pace remembers at the least by which the time left is found."""

MAX_MEMORY_S = 300.0
"""Seconds that it remembers at the most, so that it follows a change within minutes."""

STILL_S = 15.0
"""Seconds for which nothing must have moved before it stands still, however often it moved before."""


class Pace:
    """The pace of a count: items over seconds, of which older ones weigh less.

    Both are sums in which what is ``memory`` seconds old has 1/e of its weight. They grow when the count
    moves, by what it moved and by how long that took, so that a count in batches has a steady pace. While it
    doesn't move its pace falls, once that takes longer than what is remembered.

    Args:
        now: When the count began, in seconds of any clock.
        done: The count at that time.
        work: Seconds that several workers together had needed for it; see :meth:`note`.
        memory: Seconds; None for a quarter of the time since it began, between :data:`MIN_MEMORY_S` and
            :data:`MAX_MEMORY_S`: what will take hours is judged by minutes.

    Attributes:
        longest: The longest time between two movements.

    Example:
        >>> pace = Pace(0.0)
        >>> for second in range(1, 61):
        ...     pace.note(float(second), 5 * second)
        >>> pace.rate(60.0), pace.stands(60.0)
        (5.0, False)
        >>> pace.rate(600.0) < 0.2, pace.stands(600.0)
        (True, True)
    """

    __slots__ = ("_began", "_done", "_items", "_memory", "_moved", "_seconds", "_work", "longest")

    def __init__(
        self, now: float, done: int = 0, work: float | None = None, *, memory: float | None = None
    ) -> None:
        self._began = self._moved = now
        self._done, self._memory = done, memory
        self._work = now if work is None else work
        self._items = self._seconds = self.longest = 0.0

    def note(self, now: float, done: int, work: float | None = None) -> None:
        """Note a reading of the count. What was taken back counts again from there on.

        Args:
            now: The time.
            done: The count.
            work: Seconds that several workers together have needed for it; None for the time that has passed.
        """
        work = now if work is None else work
        items, seconds, worked = done - self._done, now - self._moved, work - self._work
        if items < 0:
            self._done, self._moved, self._work = done, now, work
        elif items and seconds > 0:
            memory = self._memory or min(max((now - self._began) / 4, MIN_MEMORY_S), MAX_MEMORY_S)
            weight = exp(-seconds / memory)
            self._items = items + weight * self._items
            self._seconds = max(worked, 0.0) + weight * self._seconds
            self.longest = max(self.longest, seconds)
            self._done, self._moved, self._work = done, now, work

    @property
    def seconds_each(self) -> float | None:
        """The seconds that an item took, as of the last movement; None before it."""
        return self._seconds / self._items if self._items and self._seconds else None

    def rate(self, now: float) -> float:
        """Return the items a second, fewer while the count stands; 0 before it has moved."""
        return self._items / max(self._seconds, now - self._moved) if self._items else 0.0

    def idle(self, now: float) -> float:
        """Return the seconds since the count moved, or since it began."""
        return now - self._moved

    def stands(self, now: float) -> bool:
        """Return whether it has not moved for twice as long as it ever took, and for a while."""
        return now - self._moved > max(STILL_S, 2 * self.longest)
