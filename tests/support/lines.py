"""Lines of runs as a test writes them down, with the time left that a steady rate makes."""

from __future__ import annotations

from dataclasses import replace

from speedy_utils import StageSnapshot


def steady(stage: StageSnapshot, rate: float | None = None) -> StageSnapshot:
    """Return a stage with a rate of late, and the time that is left at that.

    Args:
        stage: The stage.
        rate: Items a second; None for its mean rate.
    """
    rate = stage.rate if rate is None else rate
    known = stage.total is not None and rate and not (stage.growing or stage.pending)
    return replace(
        stage, recent_rate=rate, eta=max((stage.total or 0) - stage.done, 0) / rate if known else None
    )
