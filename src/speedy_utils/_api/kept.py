"""What tasks have returned is kept, whatever ends their run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .._interrupts import Terminated
from ..errors import Interrupted, TaskError, tell_kept

logger = logging.getLogger("speedy_utils")


@contextmanager
def keeping_results(results: list[Any]) -> Iterator[None]:
    """Give an exception that ends the block the results: as the attribute ``results``.

    Args:
        results: What each task returned, and :data:`UNFINISHED` for those that have not.

    Raises:
        Interrupted: In place of the KeyboardInterrupt that Ctrl-C, or SIGTERM, has raised.
    """
    try:
        yield
    except BaseException as error:
        kept = f"stopped: {tell_kept(results)}"
        if type(error) in (KeyboardInterrupt, Terminated):
            raise Interrupted(kept, results) from None
        with suppress(Exception):  # an exception of the user's may refuse attributes
            error.results = results  # type: ignore[attr-defined]
        if not isinstance(error, TaskError):  # that says it itself
            logger.warning(kept)
        raise
