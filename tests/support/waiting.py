"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

HURRIED_S = 30.0
"""Seconds that are waited once something has hung: where the package is broken, many tests hang."""

_hung = False


def wait_until(condition: Callable[[], Value], seconds: float = 240.0) -> Value:
    """Poll until a condition holds, and return its value. It works in tasks too.

    Args:
        condition: What must become true.
        seconds: After how long that counts as hung: a slow machine is no failure.

    Raises:
        TimeoutError: The condition did not become true.
    """
    global _hung
    seconds = min(seconds, HURRIED_S) if _hung else seconds
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            _hung = True
            raise TimeoutError(f"not within {seconds} seconds")
        time.sleep(0.005)
    return value
