"""The backends that tests go through."""

from __future__ import annotations

import pytest

RAY = pytest.param("ray", marks=pytest.mark.ray)

SLOW_RAY = pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])

AT_ONCE = [RAY, "processes", "threads"]
"""Backends whose tasks run beside each other."""

WITHOUT_RAY = ["processes", "threads", "seq"]
"""Backends that start in a moment."""

BACKENDS = [RAY, *WITHOUT_RAY]
