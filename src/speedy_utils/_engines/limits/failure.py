"""Why an attempt at a task returned nothing, and how much of that is reported."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, replace

from ..._worker.event_loop import awaited
from ...errors import ShardError
from ..per_worker import prepared
from .retries import NO_RETRIES, RetryPolicy
from .time_limit import TimeLimit, timeout_error


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt ended that returned no value.

    Attributes:
        reason: One line on what happened.
        traceback: The traceback in the worker, as text; empty if the worker died.
        error: The exception; None if there was none, or it could not be sent.
        worker_lost: Whether the worker was lost, which is worth a retry, and not an error of the user's code.
        unsuited_node: The id of the node, if that can't see files of the run and another one may.
        ends_run: Whether it says nothing of the task: no worker can make what is to be called.
        retry_in: Seconds after which the task is worth another attempt, as ``retry_on`` names its exception;
            None if it is not worth one.
    """

    reason: str
    traceback: str = ""
    error: BaseException | None = None
    worker_lost: bool = False
    unsuited_node: str = ""
    ends_run: bool = False
    retry_in: float | None = None


def failure_of(
    error: BaseException, place: str = "", retries: RetryPolicy = NO_RETRIES, attempt: int = 1
) -> Failure:
    """Return the failure that an exception of the user's code means.

    Args:
        error: The exception.
        place: What to add to the reason: ``", at row 45,123 of the input"``.
        retries: Whether it is worth another attempt.
        attempt: The number of the attempt.
    """
    # What this package says of a shard is all that there is to say.
    own = isinstance(error, ShardError) and is_raised_by(error, __name__.partition(".")[0])
    text = str(error) if own else _reason(error)
    reason, retry_in = _without_middle(_ESCAPES.sub("", text), MAX_LINE) + place, None
    try:
        retry_in = retries.wait_after(attempt, error)
    except Exception as broken:  # retry_on and retry_wait are the user's functions
        reason += f" (and retry_on or retry_wait raised {_reason(broken)})"
    return Failure(reason, "" if own else traceback_of_user(error), error, retry_in=retry_in)


def timeout_failure(
    seconds: float, stack: str = "", retries: RetryPolicy = NO_RETRIES, attempt: int = 1
) -> Failure:
    """Return the failure of a task that was given up, or whose worker was killed, at its ``task_timeout``.

    Args:
        seconds: The limit.
        stack: Where its code was, as lines of a traceback; empty if that is not known.
        retries: Whether it is worth another attempt.
        attempt: The number of the attempt.
    """
    failure = failure_of(timeout_error(seconds, stack), "", retries, attempt)
    lines = "".join(f"  {line}\n" for line in stack.splitlines())
    return replace(failure, traceback=lines + failure.traceback)


MAX_LINE, MAX_TEXT = 1_000, 10_000
"""Characters of a reason or a line, and of a traceback, in a failure: a message may have megabytes."""

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, and what moves the cursor
    r"|\x1b\].*?(?:\x07|\x1b\\)"  # links
    r"|[\x00-\x08\x0b-\x1f\x7f]"  # other characters that a terminal obeys
)


def plain_text(text: str) -> str:
    """Return what an exception says without what terminals obey, and without the middle of what is too long.

    Example:
        >>> print(plain_text("x" * 3_000_000).replace("x" * 500, "xxx"))
        xxx … (2,999,000 characters) … xxx
    """
    lines = _ESCAPES.sub("", text).splitlines(keepends=True)
    return _without_middle("".join(_without_middle(line, MAX_LINE) for line in lines), MAX_TEXT)


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … ({len(text) - most:,} characters) … {text[-most // 2 :]}"


def _reason(error: BaseException) -> str:
    try:
        lines = traceback.format_exception_only(error)
        # Before that line there may be the place of a syntax error, indented; after it there may be notes.
        return next(line for line in lines if not line.startswith(" ")).strip()
    except Exception:  # formatting calls methods of the exception, which are user code
        return type(error).__name__


def is_raised_by(error: BaseException, package: str) -> bool:
    """Return whether an exception was raised by code of a package."""
    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
    return any(str(each.f_globals.get("__name__")).startswith(f"{package}.") for each in innermost)


_TASK = f"{__name__.rpartition('.limits.')[0]}.task"
"""The module that calls the user's function, and imports this one."""

_OURS = {_TASK, awaited.__module__, prepared.__module__, TimeLimit.__module__}


def traceback_of_user(error: BaseException) -> str:
    """Return the traceback from the user's function on, with which the exception is left."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in _OURS:
        trace = trace.tb_next
    BaseException.with_traceback(error, trace)  # in this process it is shown as the cause of a TaskError
    try:
        return plain_text("".join(traceback.format_exception(type(error), error, trace)))
    except Exception:  # as above
        return "".join([*traceback.format_tb(trace), _reason(error)])
