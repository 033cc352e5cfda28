"""The recent speed of a line, smoothed the way tqdm does."""

from __future__ import annotations

# The stubs of tqdm leave out this class.
from tqdm.std import EMA  # type: ignore[attr-defined]  # the stubs leave it out

from .snapshot import StageSnapshot

_SMOOTHING = 0.3
"""How much the newest speed weighs in the one that is shown: that of tqdm."""


class Pace:
    """The speed of one line, which is shown again and again.

    Example:
        >>> pace = Pace()
        >>> pace.rate(StageSnapshot("Read", done=10, total=100, elapsed=10.0))
        1.0
        >>> round(pace.rate(StageSnapshot("Read", done=40, total=100, elapsed=11.0)), 1)
        4.6
    """

    def __init__(self) -> None:
        self._items, self._seconds = EMA(_SMOOTHING), EMA(_SMOOTHING)
        self._done, self._at = 0, 0.0
        self._rate: tuple[float, float] | None = None

    def rate(self, stage: StageSnapshot, *, final: bool = False) -> float:
        """Items a second: the mean at the end, the recent one before.

        Args:
            stage: The line now.
            final: Whether its run has ended.
        """
        fresh, seconds = stage.done - stage.initial - self._done, stage.elapsed - self._at
        if fresh > 0 and seconds > 0:
            self._rate = self._items(fresh), self._seconds(seconds)
        if fresh < 0 or (fresh and seconds > 0):
            # What a lost attempt takes back is no speed; from there on it counts again.
            self._done, self._at = self._done + fresh, stage.elapsed
        if final or stage.finished or self._rate is None:
            return stage.rate
        items, usual = self._rate
        # A stage that stands still gets slower, although nothing is counted that would say so.
        return items / max(usual, stage.elapsed - self._at)
