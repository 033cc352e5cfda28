"""When the stages of a run began, and when they last moved.

Clocks of two machines can't be compared, so what travels is how long ago something was. Merging takes
the earliest beginning and the latest movement: again a join, so reports may be late, lost or repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from .ledger import Stage

StageTimings = Mapping[Stage, tuple[float, float]]
"""By stage: seconds since work on its first item started, and since its count last moved. None is the run."""


class StageClock:
    """The time spans of some stages, by one clock.

    Args:
        clock: Seconds that only grow.

    Example:
        >>> from speedy_utils.testing import FakeClock
        >>> clock = FakeClock()
        >>> spans = StageClock(clock)
        >>> spans.merge({"Tokenize": (5.0, 2.0)})
        >>> clock.advance(10)
        >>> spans.timings()
        {'Tokenize': (15.0, 12.0)}
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stage_clock: dict[Stage, tuple[float, float]] = {}

    def __contains__(self, stage: Stage) -> bool:
        return stage in self._stage_clock

    def cover(self, stage: Stage, began: float, moved: float) -> None:
        """Stretch a stage's span so that it covers two moments of the clock."""
        known = self._stage_clock.get(stage, (began, moved))
        self._stage_clock[stage] = min(known[0], began), max(known[1], moved)

    def merge(self, timings: StageTimings, *, since: float = -inf) -> None:
        """Take in spans that somebody else has measured.

        Args:
            timings: The spans.
            since: A moment of this clock before which nothing can have begun.
        """
        now = self._clock()
        for stage, (began, moved) in timings.items():
            self.cover(stage, max(now - began, since), max(now - moved, since))

    def timings(self) -> StageTimings:
        """The spans, for somebody with another clock."""
        now = self._clock()
        # A copy first: another thread may add a stage meanwhile.
        return {
            stage: (now - began, now - moved) for stage, (began, moved) in dict(self._stage_clock).items()
        }

    def elapsed(self, stage: Stage, until: float | None) -> float:
        """Seconds from a stage's beginning.

        Args:
            stage: The stage.
            until: A moment of the clock; None for the stage's last movement.

        Returns:
            0 before the beginning.
        """
        if stage not in self._stage_clock:
            return 0.0
        began, moved = self._stage_clock[stage]
        return (moved if until is None else until) - began

    def clear(self) -> None:
        """Forget all."""
        self._stage_clock.clear()
