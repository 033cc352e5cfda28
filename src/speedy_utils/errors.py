"""The exceptions of runs: what failed, with which value, and what to do."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ._validation import shorten

# How many kinds of errors one message tells in full, and how many messages of one kind it lists.
_MAX_KINDS, _MAX_REASONS = 10, 5


class Unfinished:
    """Stands in the results of a run that stopped, for each task that had not finished.

    ``UNFINISHED`` is the only one, also after it was copied or pickled, so test for it with ``is``. It is
    false, as None is.

    Example:
        >>> import pickle
        >>> from speedy_utils import UNFINISHED
        >>> UNFINISHED, bool(UNFINISHED), pickle.loads(pickle.dumps(UNFINISHED)) is UNFINISHED
        (UNFINISHED, False, True)
    """

    __name__ = "UNFINISHED"
    _instance: Unfinished | None = None

    def __new__(cls) -> Unfinished:
        """Return the only instance."""
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "UNFINISHED"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "UNFINISHED"


UNFINISHED: Final = Unfinished()


def tell_kept(results: Sequence[Any], place: str = "error.results") -> str:
    """Return what of the results of a run is kept: ``9,312 of 10,000 results are kept in error.results``."""
    kept = sum(result is not UNFINISHED and not isinstance(result, TaskError) for result in results)
    are = "result is" if len(results) == 1 else "results are"
    return f"{kept:,} of {len(results):,} {are} kept in {place}"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or SIGTERM, stopped a run of tasks.

    Args:
        message: What is kept.
        results: What had finished.

    Attributes:
        results: What the tasks returned that had finished, in the order of ``items``, and
            :data:`UNFINISHED` for the others.

    Example:
        >>> from speedy_utils import UNFINISHED, Interrupted, multi_process
        >>> def work(n):
        ...     if n == 2:
        ...         raise KeyboardInterrupt  # what Ctrl-C raises
        ...     return n * n
        >>> try:
        ...     multi_process(work, range(4), backend="seq", progress=False)
        ... except Interrupted as error:
        ...     print(error.results)
        ...     print([result for result in error.results if result is not UNFINISHED])
        [0, 1, UNFINISHED, UNFINISHED]
        [0, 1]
    """

    def __init__(self, message: str = "", results: Sequence[Any] = ()) -> None:
        super().__init__(*([message] if message else []))
        self.results = list(results)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), _picklable(self.results))


def _picklable(results: list[Any]) -> list[Any]:
    """Return the results, with UNFINISHED for those that can't be pickled: an error must be sendable."""
    try:
        pickle.dumps(results)
    except Exception:  # the user's objects may raise anything
        return [result if _can_pickle(result) else UNFINISHED for result in results]
    return results


def _can_pickle(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # as above
        return False
    return True


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

    Attributes:
        results: What the tasks returned that had finished when this one stopped the run, in the order of
            ``items``, and :data:`UNFINISHED` for the others. Empty if it stopped nothing.

    Example:
        >>> from speedy_utils import TaskError, multi_process
        >>> try:
        ...     multi_process(int, ["12", "x"], backend="seq", progress=False)
        ... except TaskError as error:
        ...     print(error.index, error.item, error.attempts, error.reason, error.results)
        1 x 1 ValueError: invalid literal for int() with base 10: 'x' [12, UNFINISHED]
    """

    def __init__(self, index: int, item: Any, attempts: int, reason: str, traceback: str = "") -> None:
        super().__init__(index, item, attempts, reason, traceback)
        self.index = index
        self.item = item
        self.attempts = attempts
        self.reason = reason
        self.traceback = traceback
        self.results: list[Any] = []

    def __str__(self) -> str:
        cause = self.__cause__
        text = self.tell(
            f"task {self.index} (item {shorten(self.item)})",
            traceback=cause is None or cause.__traceback__ is None,  # else Python prints it above
        )
        return f"{text}\n\n{tell_kept(self.results)}" if self.results else text

    def __repr__(self) -> str:
        return f"<TaskError: task {self.index} (item {shorten(self.item, 40)}): {_shorten_line(self.reason)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {**self.__dict__, "results": _picklable(self.results)}

    def tell(self, task: str, *, traceback: bool = True) -> str:
        """Return the message.

        Args:
            task: A name of the task.
            traceback: Whether the traceback in the worker is part of it.
        """
        times = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        text = f"{task} failed after {times}: {self.reason}"
        if traceback and self.traceback:
            text += f"\n\nTraceback in the worker:\n{self.traceback.rstrip()}"
        return text


def _shorten_line(text: str, width: int = 200) -> str:
    """Return a text on one line, cut to what fits there."""
    line = " ".join(text[: 10 * width].split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


class ShardError(RuntimeError):
    """What ``process_func`` returned for a shard can't be used."""


class NotSharedError(ShardError):
    """A node can't see files of the run, as they are not on storage that it shares with the others."""


class MergeError(ShardError):
    """The shards' outputs don't fit together; nothing was merged and every finished shard is kept."""


class FailedShardsError(ShardError):
    """Some shards of a dataset failed; every finished shard is kept, and the same call runs only the others.

    The message tells errors of one kind, such as a ValueError from the same line of code, once and in full,
    with the shards that it hit.

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
        kinds: dict[tuple[str, ...], list[TaskError]] = {}
        for error in self.errors:
            kinds.setdefault(_kind(error), []).append(error)
        parts = [_tell_alike(alike) for alike in list(kinds.values())[:_MAX_KINDS]]
        more = [f"... and errors of {len(kinds) - _MAX_KINDS} more kinds"] if len(kinds) > _MAX_KINDS else []
        return "\n\n".join([self.message, *parts, *more])


def _kind(error: TaskError) -> tuple[str, ...]:
    """Return what errors of one kind share: the exception's type and where it was raised."""
    places = re.findall(r'File ".*", line \d+.*', error.traceback)
    if places:
        return (error.reason.partition(":")[0], *places)
    # Processes, nodes and addresses differ from one lost worker to the next.
    return (re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", error.reason),)


def _tell_alike(errors: list[TaskError]) -> str:
    """Return the message for errors of one kind: the first in full, then the shards of the others."""
    first, *others = errors
    text = first.tell(str(first.item))
    if not others:
        return text
    text += f"\n\nThe same in {len(others):,} more: {_numbers(error.index for error in others)}"
    unlike = {error.reason: error for error in reversed(others) if error.reason != first.reason}
    for error in sorted(unlike.values(), key=lambda error: error.index)[:_MAX_REASONS]:
        text += f"\n  - {error.item}: {error.reason}"
    if len(unlike) > _MAX_REASONS:
        text += f"\n  - ... and {len(unlike) - _MAX_REASONS:,} more messages"
    return text


def _numbers(numbers: Iterable[int]) -> str:
    """Return shards in short: ``shard 7``, or ``shards 0-5, 7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)
    return f"shard{'s' if len(runs) > 1 or runs[0][0] != runs[0][1] else ''} {text}"


class ResumeError(RuntimeError):
    """An unfinished run lies beside ``output_path`` and can't be resumed as it is."""


class BusyError(ResumeError):
    """Another run is working on the same ``output_path``."""


for _each in (
    Unfinished,
    Interrupted,
    TaskError,
    ShardError,
    MergeError,
    FailedShardsError,
    ResumeError,
    BusyError,
):
    _each.__module__ = "speedy_utils"
