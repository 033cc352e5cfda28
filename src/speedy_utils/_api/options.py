"""The options that all ways to run share, validated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from .._engines.base import ENGINES
from .._validation import checked_count, checked_interval, shorten

Backend = Literal["ray", "mp", "seq"]


def check_run(
    backend: str,
    poll_interval: float,
    max_retries: int,
    ray_options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Check what every run is given, before anything starts.

    Returns:
        The options for Ray.
    """
    if not isinstance(backend, str) or backend not in ENGINES:
        raise ValueError(f"backend must be one of {', '.join(map(repr, ENGINES))}, not {shorten(backend)}")
    checked_count(max_retries, "max_retries")
    checked_interval(poll_interval)
    if ray_options is not None and not isinstance(ray_options, Mapping):
        raise TypeError(f"ray_options must be a mapping of options to values, not {shorten(ray_options)}")
    options = dict(ray_options or {})
    for name, instead in {
        "max_retries": "use max_retries= of this call",
        "retry_exceptions": "exceptions of the function are not retried",
        "num_returns": "a task has one result",
    }.items():
        if name in options:
            raise ValueError(f"ray_options may not hold {shorten(name)}: {instead}")
    return options
