"""What a bar of ``ray.experimental.tqdm_ray`` has in common with one of tqdm. Nothing here imports Ray."""

from __future__ import annotations

from typing import Any

MODULE = "ray.experimental.tqdm_ray"
"""The module of these bars. It is imported with Ray, and never by this package."""


class RayBar:
    """A bar of Ray's, with the attributes of one of tqdm's that :class:`~.tqdm_bar.CapturedBar` reads.

    Args:
        bar: The bar.
    """

    unit_scale, initial, postfix = False, 0, None

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    @property
    def n(self) -> Any:
        """What it has counted."""
        return self._bar._x

    @property
    def total(self) -> Any:
        """What it will have counted at its end; None if it does not know."""
        return self._bar._total

    @property
    def desc(self) -> Any:
        """Its description."""
        return self._bar._desc

    @property
    def unit(self) -> Any:
        """What it counts."""
        return getattr(self._bar, "_unit", "it")

    @property
    def iterable(self) -> Any:
        """What its loop goes through."""
        return self._bar._iterable

    @iterable.setter
    def iterable(self, iterable: Any) -> None:
        self._bar._iterable = iterable
