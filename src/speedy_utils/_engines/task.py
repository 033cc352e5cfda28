"""An attempt at a task, its outcome, and what runs around the user's function in a worker of any engine."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import starmap
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from .._instrument.tqdm_capture import capturing_tqdm, stop_capturing
from .._interrupts import Cancelled, was_interrupted
from .._state.ledger import Count, Key
from .._state.timings import StageTimings
from .._validation import shorten
from .._worker.channel.flusher import Sink
from .._worker.context import counting, forget, registered
from .._worker.event_loop import awaited
from .._worker.reporter import Reporter
from .payload.refs import ValueLostError, resolve
from .per_worker import PreparationError, prepared


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task.

    Attributes:
        task: Position of its item in ``items``.
        attempt: Which attempt it is, from 1.
        total: Its items; None if that is not known.
        adopt_tqdm: Whether tqdm bars that the task makes count for it.
        total_is_rows: Whether its items are the rows of a dataset.
        stall_after: Seconds without a count after which it is said to stand; None for never.
    """

    task: int
    attempt: int
    total: int | None
    adopt_tqdm: bool = True
    total_is_rows: bool = False
    stall_after: float | None = None

    def reporter(self) -> Reporter:
        """Return a reporter for this attempt."""
        return Reporter(
            self.task,
            self.attempt,
            total=self.total,
            total_is_rows=self.total_is_rows,
            # Earlier than it is needed, as reports of tasks that don't move are rare.
            stack_after=None if self.stall_after is None else self.stall_after / 2,
        )


class Arguments:
    """An item that is all arguments of a call: ``func(*item)``, or ``func(**item)`` if it is a mapping."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item

    def unpack(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the positional arguments and the keywords."""
        return ((), self.item) if isinstance(self.item, Mapping) else (tuple(self.item), {})

    def __repr__(self) -> str:
        return repr(self.item)


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
    """

    reason: str
    traceback: str = ""
    error: BaseException | None = None
    worker_lost: bool = False
    unsuited_node: str = ""
    ends_run: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task sends back.

    Attributes:
        value: What the function returned.
        failure: Why it returned nothing.
        counts: What it reported: ``raw_counts`` if it succeeded, ``capped_counts`` if it failed, None if the
            worker died.
        timings: How long ago the work on items of each stage started, and last moved.
        warnings: What the user must know about its worker, each a sentence.
    """

    value: Any = None
    failure: Failure | None = None
    counts: Mapping[Key, Count] | None = None
    timings: StageTimings = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def run_attempt(
    function: Callable[..., Any],
    item: Any,
    kwargs: Mapping[str, Any],
    reporter: Reporter,
    sink: Sink | None = None,
    *,
    adopt_tqdm: bool = True,
    in_caller: bool = False,
) -> Outcome:
    """Call the user's function on an item, await what it returned if need be, and count what it reports.

    Args:
        function: The user's function.
        item: Its first argument.
        kwargs: Its other arguments.
        reporter: Counts what the function reports.
        sink: Where the counts are sent meanwhile; None if a feed of this process reads them.
        adopt_tqdm: Whether tqdm bars that the function makes count for the task.
        in_caller: Whether this is the thread of the run's caller, so that a KeyboardInterrupt ends the run.

    Returns:
        The outcome. ``sys.exit()`` in the function counts as the loss of a worker.
    """
    try:
        function, kwargs = prepared(function, kwargs)
    except PreparationError as error:
        return Outcome(failure=_preparation_failure(error), counts={})
    try:
        return _run_attempt(
            function, item, kwargs, reporter, sink, adopt_tqdm=adopt_tqdm, in_caller=in_caller
        )
    finally:  # once more, see _interrupts
        stop_capturing(reporter)
        forget(reporter)


def _run_attempt(
    function: Callable[..., Any],
    item: Any,
    kwargs: Mapping[str, Any],
    reporter: Reporter,
    sink: Sink | None,
    *,
    adopt_tqdm: bool,
    in_caller: bool,
) -> Outcome:
    with registered(reporter, sink), counting(reporter.own):
        try:
            with capturing_tqdm() if adopt_tqdm else nullcontext():
                value = _checked_result(awaited(_call(function, item, kwargs)))
        except Cancelled:  # the run ends, and not the function alone
            raise
        except KeyboardInterrupt as error:
            if in_caller or was_interrupted():  # as above
                raise
            failure = failure_of(error)
        except SystemExit as error:
            reason = f"sys.exit({shorten(error.code)}) in the function"
            if _is_of_ray(error):  # in a signal handler, as it takes the worker's resources away
                reason = "Ray ended the worker"
            failure = Failure(reason, _without_us(error), worker_lost=True)
        except ValueLostError as error:
            failure = Failure(str(error), error=error, worker_lost=True)
        except BaseException as error:  # user code may raise anything; the driver decides what it means
            row = None if reporter.input is None else reporter.input.row_of(error)
            place = "" if row is None else f", at row {row:,} of the input"
            failure = failure_of(error, place)
        else:
            return Outcome(value, None, reporter.raw_counts(), reporter.final_timings())
    return Outcome(None, failure, reporter.capped_counts(), reporter.timings())


def _call(function: Callable[..., Any], item: Any, kwargs: Mapping[str, Any]) -> Any:
    if isinstance(item, Arguments):
        args, keywords = item.unpack()
        return function(*args, **keywords, **kwargs)
    return function(resolve(item), **kwargs)


def failure_of(error: BaseException, place: str = "") -> Failure:
    """Return the failure that an exception of the user's code means.

    Args:
        error: The exception.
        place: What to add to the reason: ``", at row 45,123 of the input"``.
    """
    return Failure(_without_middle(plain_text(_reason(error)), MAX_LINE) + place, _without_us(error), error)


def _preparation_failure(error: PreparationError) -> Failure:
    failure = failure_of(error.__cause__ or error)
    return replace(failure, reason=f"a worker can't make its {error}: {failure.reason}", ends_run=True)


MAX_LINE, MAX_TEXT = 1_000, 10_000
"""Characters of a reason or a line, and of a traceback, in a failure: a message may have megabytes."""

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


def plain_text(text: str) -> str:
    """Return what an exception says without colours, and without the middle of what is too long.

    Example:
        >>> print(plain_text("x" * 3_000_000).replace("x" * 500, "xxx"))
        xxx … (2,999,000 characters) … xxx
    """
    lines = _COLOURS.sub("", text).splitlines(keepends=True)
    return _without_middle("".join(_without_middle(line, MAX_LINE) for line in lines), MAX_TEXT)


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … ({len(text) - most:,} characters) … {text[-most // 2 :]}"


_LAZY = (GeneratorType, AsyncGeneratorType, filter, map, starmap)
"""What a function may return that runs code of the user's only once it is iterated."""


def _checked_result(value: Any) -> Any:
    """Return what a function returned.

    Raises:
        TypeError: Nothing of it has run yet.
    """
    if isinstance(value, _LAZY):
        raise TypeError(
            f"the function returned {shorten(value)}, and none of that has run: return a list in place of "
            "it. multi_process_dataset takes generator functions"
        )
    return value


def _reason(error: BaseException) -> str:
    try:
        lines = traceback.format_exception_only(error)
        # Before that line there may be the place of a syntax error, indented; after it there may be notes.
        return next(line for line in lines if not line.startswith(" ")).strip()
    except Exception:  # formatting calls methods of the exception, which are user code
        return type(error).__name__


def _is_of_ray(error: BaseException) -> bool:
    """Return whether an exception was raised by code of Ray."""
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return str(innermost.f_globals.get("__name__")).startswith("ray.")


_OURS = {__name__, awaited.__module__, prepared.__module__}


def _without_us(error: BaseException) -> str:
    """Return the traceback from the user's function on, with which the exception is left."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in _OURS:
        trace = trace.tb_next
    BaseException.with_traceback(error, trace)  # in this process it is shown as the cause of a TaskError
    try:
        return plain_text("".join(traceback.format_exception(type(error), error, trace)))
    except Exception:  # as above
        return "".join([*traceback.format_tb(trace), _reason(error)])
