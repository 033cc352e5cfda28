"""What a bar of ``ray.experimental.tqdm_ray`` has in common with one of tqdm. Nothing here imports Ray."""

from __future__ import annotations

from typing import Any

MODULE = "ray.experimental.tqdm_ray"
"""The module of these bars. It is imported with Ray, and never by this package."""


class RayBar:
    """A bar of Ray's, with the attributes of one of tqdm's that :class:`~.bar.CapturedBar` reads.

    It holds the bar's attributes and not the bar. A bar of tqdm closes itself when its loop ends, or when it
    is collected; one of Ray's does not, and what it has counted can still be read here when it is gone.

    Args:
        bar: The bar.
    """

    unit_scale, initial, postfix = False, 0, None

    def __init__(self, bar: Any) -> None:
        self._attributes = vars(bar)

    @property
    def n(self) -> Any:
        """What it has counted."""
        return self._attributes["_x"]

    @property
    def total(self) -> Any:
        """What it will have counted at its end; None if it does not know."""
        return self._attributes["_total"]

    @property
    def desc(self) -> Any:
        """Its description."""
        return self._attributes["_desc"]

    @property
    def unit(self) -> Any:
        """What it counts."""
        return self._attributes.get("_unit", "it")

    @property
    def iterable(self) -> Any:
        """What its loop goes through."""
        return self._attributes["_iterable"]

    @iterable.setter
    def iterable(self, iterable: Any) -> None:
        self._attributes["_iterable"] = iterable
