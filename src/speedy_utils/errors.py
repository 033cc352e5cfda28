"""The exceptions of runs: what failed, with which value, and what to do."""

from __future__ import annotations

from typing import Any

from ._validation import shorten


class TaskError(RuntimeError):
    """A task of a run failed for good.

    The exception of the user's function is chained as ``__cause__`` if it could be sent from the worker;
    its traceback is there as text in any case. Each argument is an attribute too.

    Args:
        index: Position of the task's item in ``items``, from 0.
        item: The item itself.
        attempts: How many times the task was started.
        reason: One line on what happened.
        traceback: The traceback in the worker, as text; empty if the worker died.

    Example:
        >>> from speedy_utils import TaskError, multi_process
        >>> try:
        ...     multi_process(int, ["12", "x"], backend="seq", progress=False)
        ... except TaskError as error:
        ...     print(error.index, error.item, error.attempts, error.reason)
        1 x 1 ValueError: invalid literal for int() with base 10: 'x'
    """

    def __init__(self, index: int, item: Any, attempts: int, reason: str, traceback: str = "") -> None:
        super().__init__(index, item, attempts, reason, traceback)
        self.index = index
        self.item = item
        self.attempts = attempts
        self.reason = reason
        self.traceback = traceback

    def __str__(self) -> str:
        return self.tell(f"task {self.index} (item {shorten(self.item)})")

    def tell(self, task: str) -> str:
        """Return the message, with a name of the task."""
        times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        text = f"{task} failed after {times}: {self.reason}"
        if self.traceback:
            text += f"\n\nTraceback in the worker:\n{self.traceback.rstrip()}"
        return text


class ShardError(RuntimeError):
    """What ``process_func`` returned for a shard can't be used."""


class MergeError(ShardError):
    """The shards' outputs don't fit together; nothing was merged and every finished shard is kept."""


class FailedShardsError(ShardError):
    """Some shards of a dataset failed; every finished shard is kept, and the same call runs only the others.

    Args:
        message: The text before the list of errors.
        errors: One error for each failed shard.

    Attributes:
        errors: One :class:`TaskError` for each failed shard, in the order of the rows.
    """

    def __init__(self, message: str, errors: list[TaskError]) -> None:
        super().__init__(message, errors)
        self.message = message
        self.errors = errors

    def __str__(self) -> str:
        return "\n\n".join([self.message, *(error.tell(str(error.item)) for error in self.errors)])


class ResumeError(RuntimeError):
    """An unfinished run lies beside ``output_path`` and can't be resumed as it is."""


class BusyError(ResumeError):
    """Another run is working on the same ``output_path``."""


for _each in (TaskError, ShardError, MergeError, FailedShardsError, ResumeError, BusyError):
    _each.__module__ = "speedy_utils"
