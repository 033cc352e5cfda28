"""End to end, each with each: all variants with cheap and medium work, and with two and eight workers."""

from __future__ import annotations

from .endtoend import ALL, Part, measured
from .table import Table

PLAN = tuple(Part(work, workers, ALL, 1) for work in ("cheap", "medium") for workers in (2, 8))

BUDGET = 1_800.0
"""Seconds after which no further run starts."""


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    return [measured("grid", "End to end, each with each", PLAN, BUDGET, quick)]
