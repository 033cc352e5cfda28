"""When the stages of a run began, and when they last moved.

Clocks of two machines can't be compared, so what travels is how long ago something was. Merging takes
the earliest beginning and the latest movement: again a join, so reports may be late, lost or repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf

from .ledger import Stage

StageTimings = Mapping[Stage, tuple[float, float]]
"""By stage: seconds since work on its first item started, and since its count last moved; None is the run.

``{None: (15.0, 0.5), "Tokenize": (12.0, 0.5)}``: "Tokenize" began 12 seconds ago. Plain tuples, as they are
sent over the network.
"""


class StageClock:
    """When some stages started and last moved, by one clock.

    Args:
        clock: Monotonic clock, in seconds.

    Example:
        >>> from speedy_utils.testing import FakeClock
        >>> clock = FakeClock()
        >>> stages = StageClock(clock)
        >>> stages.merge({"Tokenize": (5.0, 2.0)})
        >>> clock.advance(10)
        >>> stages.timings()
        {'Tokenize': (15.0, 12.0)}
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: dict[Stage, tuple[float, float]] = {}

    def __contains__(self, stage: Stage) -> bool:
        return stage in self._times

    def observe(self, stage: Stage, started: float, moved: float) -> None:
        """Note that a stage had started at one time of the clock, and moved at another."""
        known = self._times.get(stage, (started, moved))
        self._times[stage] = min(known[0], started), max(known[1], moved)

    def merge(self, timings: StageTimings, *, since: float = -inf) -> None:
        """Take in what was measured by another clock.

        Args:
            timings: The timings.
            since: A time of this clock; what was before it is taken for that time.
        """
        now = self._clock()
        for stage, (since_start, since_move) in timings.items():
            self.observe(stage, max(now - since_start, since), max(now - since_move, since))

    def join(self, stage: Stage, members: Iterable[Stage]) -> None:
        """Let a stage start with the first of some others, and move with each of them."""
        for member in members:
            if member in self._times:
                self.observe(stage, *self._times[member])

    def timings(self) -> StageTimings:
        """Return the timings for a reader with another clock."""
        now = self._clock()
        timings: dict[Stage, tuple[float, float]] = {}
        for stage, (started, moved) in self._times.copy().items():  # another thread may add one meanwhile
            timings[stage] = now - started, now - moved
        return timings

    def moved(self, stage: Stage) -> float:
        """Return when a stage last moved, by the clock; minus infinity if that is not known."""
        return self._times[stage][1] if stage in self._times else -inf

    def elapsed(self, stage: Stage, until: float | None) -> float:
        """Return the seconds since a stage started; 0 if it has not.

        Args:
            stage: The stage.
            until: A time of the clock; None for the stage's last movement.
        """
        if stage not in self._times:
            return 0.0
        started, moved = self._times[stage]
        return (moved if until is None else until) - started

    def clear(self) -> None:
        """Forget all stages."""
        self._times.clear()
