"""What the captured tqdm bars of a task say of the lines of their stages, besides what they count."""

from __future__ import annotations

from ..ledger import Count, Key, Metric, Stage


class BarLines:
    """The stages for which tqdm bars count: which of them leave no line, and what the newest bar says.

    Example:
        >>> bars = BarLines()
        >>> bars.open("Load", leave=False)
        >>> bars.close("Load")
        >>> bars.leave_nothing("Load")
        True
    """

    def __init__(self) -> None:
        self._open: dict[Stage, int] = {}  # how many bars are open
        self._leave: set[Stage] = set()  # stages with a bar that leaves its line
        self._postfixes: dict[Stage, str] = {}

    def open(self, stage: Stage, *, leave: bool) -> None:
        """Note that a bar begins to count.

        Args:
            stage: For which stage.
            leave: Whether its line stays when it has ended.
        """
        self._open[stage] = self._open.get(stage, 0) + 1
        if leave:
            self._leave.add(stage)

    def close(self, stage: Stage) -> None:
        """Note that a bar counts no more for a stage."""
        self._open[stage] -= 1

    def leave_nothing(self, stage: Stage) -> bool:
        """Return whether bars have counted for a stage, and all of them have ended and leave no line."""
        return self._open.get(stage) == 0 and stage not in self._leave

    def set_postfix(self, stage: Stage, postfix: str) -> None:
        """Set what the newest bar of a stage says beside its count."""
        self._postfixes[stage] = postfix

    def postfixes(self) -> dict[Key, Count]:
        """Return the postfixes as a report has them."""
        return {Key(stage, Metric.POSTFIX, text): 1 for stage, text in list(self._postfixes.items())}
