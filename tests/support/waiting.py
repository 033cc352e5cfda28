"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value], seconds: float = 240.0) -> Value:
    """Poll until a condition holds, and return its value. It works in tasks too.

    Args:
        condition: What must become true.
        seconds: After how long that counts as hung: a slow machine is no failure.

    Raises:
        TimeoutError: The condition did not become true.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} seconds")
        time.sleep(0.005)
    return value
