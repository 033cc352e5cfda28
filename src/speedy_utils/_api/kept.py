"""What tasks have returned is kept, whatever ends their run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .._engines.limits.failure import Failure, failure_of
from .._interrupts import Terminated
from .._state.ledger import Count, Key
from ..errors import UNFINISHED, Interrupted, TaskError, tell_kept

if TYPE_CHECKING:
    from .._checkpoint.folder import Checkpoint

logger = logging.getLogger("speedy_utils")


class Results:
    """The results of a run, in the order of its items.

    Args:
        count: How many there will be.
        checkpoint: Where they are kept on disk, and what earlier runs have kept there; None for nowhere.

    Attributes:
        values: What each task returned, its error, or :data:`UNFINISHED`.
        missing: The tasks that are to be run.
    """

    def __init__(self, count: int, checkpoint: Checkpoint | None = None) -> None:
        self.values: list[Any] = [UNFINISHED] * count
        self.missing: Sequence[int] = range(count)
        self._checkpoint = checkpoint
        if checkpoint is None or not checkpoint.kept:
            return
        self.missing = [task for task in self.missing if task not in checkpoint.kept]
        for task, kept in checkpoint.kept.items():
            self.values[task] = kept.value
        logger.warning(
            "resumed: %s of %s results kept from %s, %s to run",
            f"{len(checkpoint.kept):,}",
            f"{count:,}",
            checkpoint.kept_from,
            f"{len(self.missing):,}",
        )

    @property
    def kept_from(self) -> str:
        """When the last of the results was kept that earlier runs have kept; empty if there is none."""
        return "" if self._checkpoint is None else self._checkpoint.kept_from

    def kept_counts(self) -> Counter[Key]:
        """Return the sums of what the tasks have counted whose results earlier runs have kept."""
        sums: Counter[Key] = Counter()
        for kept in () if self._checkpoint is None else self._checkpoint.kept.values():
            sums.update(kept.counts)
        return sums

    def add(self, task: int, value: Any, counts: Mapping[Key, Count]) -> Failure | None:
        """Note what a task has returned and counted; return a failure if the checkpoint can't keep that.

        Raises:
            OSError: The checkpoint can't be written.
        """
        self.values[task] = value
        try:
            if self._checkpoint is not None:
                self._checkpoint.keep(task, value, counts)
        except TypeError as error:
            return failure_of(error)
        return None

    def flush(self) -> None:
        """Wait until all results are where they are kept.

        Raises:
            OSError: The checkpoint can't be written.
        """
        if self._checkpoint is not None:
            self._checkpoint.flush()

    @contextmanager
    def kept_at_any_end(self) -> Iterator[Results]:
        """Give an exception that ends the block the results that are there: as the attribute ``results``.

        The block gets these results.

        Raises:
            Interrupted: In place of the KeyboardInterrupt that Ctrl-C, or SIGTERM, has raised.
        """
        try:
            yield self
        except BaseException as error:
            said = f"stopped: {self._tell()}"
            if type(error) in (KeyboardInterrupt, Terminated):
                raise Interrupted(said, self.values) from None
            with suppress(Exception):  # an exception of the user's may refuse attributes
                error.results = self.values  # type: ignore[attr-defined]
            kept = any(value is not UNFINISHED for value in self.values)
            # A TaskError says by itself what it has.
            if self._checkpoint is not None or (kept and not isinstance(error, TaskError)):
                logger.warning(said)
            raise

    def _tell(self) -> str:
        if self._checkpoint is None:
            return tell_kept(self.values)
        with suppress(Exception):  # it has been raised, or will be when the checkpoint is closed
            self._checkpoint.flush()
        kept, count = self._checkpoint.num_kept, len(self.values)
        folder = str(self._checkpoint.folder)
        return f"{kept:,} of {count:,} results are kept in {folder!r}, and the same call runs only the others"
