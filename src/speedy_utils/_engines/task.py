"""Tasks that travel together, their outcomes, and what runs around the user's function in a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import starmap
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from .._instrument.tqdm.capture import capturing_tqdm, stop_capturing
from .._interrupts import Cancelled, TimedOut, was_interrupted
from .._state.ledger import Count, Key
from .._state.timings import StageTimings
from .._validation import shorten
from .._worker.channel.children import Children
from .._worker.channel.flusher import Sink
from .._worker.chunk_reporter import ChunkReporter
from .._worker.context import counting, forget, register
from .._worker.context import current as counted_here
from .._worker.event_loop import awaited
from .._worker.reporter import Reporter
from .environment.surroundings import UNNOTICED_S, noted_changes
from .limits.failure import Failure, failure_of, is_raised_by, traceback_of_user
from .limits.retries import NO_RETRIES, RetryPolicy
from .limits.task_note import NoteFile
from .limits.time_limit import TimeLimit
from .payload.refs import ValueLostError, resolve
from .payload.shipment import PLAIN_TYPES
from .per_worker import PreparationError, prepared


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What the workers of a run need to know of all its tasks.

    Attributes:
        adopt_tqdm: Whether tqdm bars that a task makes count for it.
        total_is_rows: Whether the items of the tasks are the rows of a dataset.
        stall_after: Seconds without a count after which a task is said to stand; None for never.
        stop_at_failure: Whether a chunk ends with a task that fails: what has not begun is handed back.
        most_seconds: Seconds after which a chunk hands back the tasks that have not begun; None for never.
        counts_apart: Whether it must be known what each task counts, and not just a chunk.
        task_timeout: Seconds that a task may take; None for any time.
    """

    adopt_tqdm: bool = True
    total_is_rows: bool = False
    stall_after: float | None = None
    stop_at_failure: bool = False
    most_seconds: float | None = None
    counts_apart: bool = False
    task_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Attempts at tasks side by side, which travel together and run one after another.

    Attributes:
        task: The first of the tasks: the position of its item in ``items`` of the run.
        attempt: Which attempt it is at each of them, from 1.
        items: What the function is called with.
        totals: The items of each task; None if these are not known.
        uncounted: How many of the earlier attempts say nothing of the tasks, and are no retries.
    """

    task: int
    attempt: int
    items: Sequence[Any]
    totals: Sequence[int] | None = None
    uncounted: int = 0

    def reporter(self, settings: TaskSettings, children: Children | None) -> ChunkReporter:
        """Return a reporter for these attempts, which counts what children of the tasks count too."""
        return chunk_reporter(self.task, self.attempt, len(self.items), self.totals, settings, children)


def chunk_reporter(
    task: int,
    attempt: int,
    tasks: int,
    totals: Sequence[int] | None,
    settings: TaskSettings,
    children: Children | None = None,
) -> ChunkReporter:
    """Return a reporter for attempts at tasks side by side.

    Args:
        task: The first of them.
        attempt: The number of the attempts.
        tasks: How many they are.
        totals: The items of each; None if these are not known.
        settings: What holds for all tasks of the run.
        children: What processes count that the tasks start; None if they count nothing.
    """

    def make(total: int | None) -> Reporter:
        reporter = Reporter(
            task,
            attempt,
            total=total,
            total_is_rows=settings.total_is_rows,
            # Earlier than stacks are needed, as reports of tasks that don't move are rare.
            stack_after=settings.stall_after and settings.stall_after / 2,
        )
        reporter.children = children
        return reporter

    apart = tasks == 1 or settings.counts_apart
    return ChunkReporter(make, totals, apart=apart, most_seconds=settings.most_seconds)


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
class Outcome:
    """What is known of a task that has ended, besides its value.

    Attributes:
        failure: Why it returned nothing; None if it succeeded.
        counts: What it reported: ``raw_counts`` if it succeeded, ``capped_counts`` if it failed, None if the
            worker died.
        timings: How long ago the work on items of each stage started, and last moved.
    """

    failure: Failure | None = None
    counts: Mapping[Key, Count] | None = None
    timings: StageTimings = field(default_factory=dict)


@dataclass(slots=True)
class ChunkOutcome:
    """What a chunk sends back.

    Attributes:
        values: What the function returned for each task that has ended, in order; None for one that failed.
        others: By their places in the chunk, the tasks that failed, or counted something else than items of
            no stage. Of all others there is no more to say.
        items: What these others counted together.
        seconds: How long the chunk took, from what it was sent as to what is sent back.
        size: The bytes of its items and values, as far as they are known; 0 within this process.
        failure: Why the tasks after those have not ended, if they are not just handed back: the worker was
            lost, or could not read something. If the chunk is of one task, that has failed.
        warnings: What the user must know about the worker, each a sentence.
        stuck: The place of the task that ``failure`` is of, if the worker was killed for it: none of the
            others has failed, and which of them has ended is not known.
    """

    values: list[Any] = field(default_factory=list)
    others: dict[int, Outcome] = field(default_factory=dict)
    items: int = 0
    seconds: float = 0.0
    size: int = 0
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    stuck: int | None = None


def run_chunk(
    function: Callable[..., Any],
    items: Sequence[Any],
    kwargs: Mapping[str, Any],
    reporter: ChunkReporter,
    settings: TaskSettings,
    sink: Sink | None = None,
    outcome: ChunkOutcome | None = None,
    *,
    in_caller: bool = False,
    renew: Callable[[], None] | None = None,
    retries: RetryPolicy = NO_RETRIES,
    on_stuck: Callable[[TimeLimit], bool] | None = None,
    note: NoteFile | None = None,
) -> ChunkOutcome:
    """Call the user's function on each item, await what it returns if need be, and count what it reports.

    Args:
        function: The user's function.
        items: Its first argument, for each call.
        kwargs: Its other arguments.
        reporter: Counts what the function reports.
        settings: What holds for all tasks of the run.
        sink: Where the counts are sent meanwhile; None if a feed of this process reads them.
        outcome: What to fill: it is there also if the chunk is interrupted.
        in_caller: Whether this is the thread of the run's caller, so that a KeyboardInterrupt ends the run.
        renew: Takes back what a call may have left: called between two, if it may have left something.
        retries: Which exceptions are worth another attempt.
        on_stuck: Called if a task can't be ended at its ``task_timeout``; see :class:`TimeLimit`.
        note: Where to note which task runs, if these have a time limit.

    Returns:
        The outcome. ``sys.exit()`` in the function counts as the loss of a worker.
    """
    outcome = ChunkOutcome() if outcome is None else outcome
    try:
        function, kwargs = prepared(function, kwargs)
    except PreparationError as error:
        outcome.failure = _preparation_failure(error)
        return outcome
    try:
        register(reporter, sink)
        reporter.begin(items)
        while reporter.left:
            if _run_tasks(
                *(function, kwargs, reporter, settings, outcome, renew, retries, on_stuck, note),
                in_caller=in_caller,
            ):
                break
    finally:
        try:
            _end_chunk(reporter, outcome, note)
        except BaseException:  # once more, see _interrupts
            _end_chunk(reporter, outcome, note)
            raise
    return outcome


def _end_chunk(reporter: ChunkReporter, outcome: ChunkOutcome, note: NoteFile | None) -> None:
    if note is not None:
        note.clear()
    outcome.items, outcome.seconds = reporter.plain_items, reporter.seconds()
    stop_capturing(reporter.current)
    forget(reporter)


def _run_tasks(
    function: Callable[..., Any],
    kwargs: Mapping[str, Any],
    reporter: ChunkReporter,
    settings: TaskSettings,
    outcome: ChunkOutcome,
    renew: Callable[[], None] | None,
    retries: RetryPolicy,
    on_stuck: Callable[[TimeLimit], bool] | None,
    note: NoteFile | None,
    *,
    in_caller: bool,
) -> bool:
    """Run tasks until one has failed or counted something that must be read; return whether to stop there."""
    values, current, own = outcome.values, reporter.current, reporter.current.own
    take, deadline, timeout = reporter.left.popleft, reporter.deadline, settings.task_timeout
    started = reporter.started
    if values and renew is not None:
        renew()
    with counting(own):
        try:
            with capturing_tqdm() if settings.adopt_tqdm else nullcontext():
                while True:
                    try:
                        item = take()
                    except IndexError:
                        return False
                    if timeout is not None:
                        if note is not None:
                            note.begin(current.task, current.attempt, reporter.position)
                        value = _call_limited(TimeLimit(timeout, on_stuck), function, item, kwargs)
                    else:
                        if type(item) not in PLAIN_TYPES:
                            value = _call(function, item, kwargs)
                        else:
                            value = function(item, **kwargs) if kwargs else function(item)
                        if type(value) not in PLAIN_TYPES:
                            value = _checked_result(awaited(value))
                    values.append(value)
                    if not reporter.next_if_plain():
                        break
                    ended = reporter.started
                    if noted_changes or ended - started > UNNOTICED_S or counted_here.get() is not own:
                        if renew is not None:
                            renew()
                        counted_here.set(own)  # the call may have left this thread bound
                    if ended >= deadline:
                        return True
                    started = ended
        except Cancelled:  # the run ends, and not the function alone
            raise
        except KeyboardInterrupt as error:
            if in_caller or was_interrupted():  # as above
                raise
            failure = failure_of(error)
        except SystemExit as error:
            reason = f"sys.exit({shorten(error.code)}) in the function"
            if is_raised_by(error, "ray"):  # in a signal handler, as it takes the worker's resources away
                reason = "Ray ended the worker"
            failure = Failure(reason, traceback_of_user(error), worker_lost=True)
        except ValueLostError as error:
            failure = Failure(str(error), error=error, worker_lost=True)
        except BaseException as error:  # user code may raise anything; the driver decides what it means
            row = None if current.input is None else current.input.row_of(error)
            place = "" if row is None else f", at row {row:,} of the input"
            failure = failure_of(error, place, retries, current.attempt)
        else:
            counts = current.raw_counts()
            outcome.others[len(values) - 1] = Outcome(None, counts, current.final_timings())
            reporter.next(counts)
            return reporter.started >= deadline
    outcome.others[len(values)] = Outcome(failure, current.capped_counts(), current.timings())
    values.append(None)
    reporter.next(None)
    return (settings.stop_at_failure and failure.retry_in is None) or reporter.started >= deadline


def _call(function: Callable[..., Any], item: Any, kwargs: Mapping[str, Any]) -> Any:
    if isinstance(item, Arguments):
        args, keywords = item.unpack()
        return function(*args, **keywords, **kwargs)
    return function(resolve(item), **kwargs)


def _call_limited(
    limit: TimeLimit, function: Callable[..., Any], item: Any, kwargs: Mapping[str, Any]
) -> Any:
    """Return what the function returns for an item, awaited if need be, within a time limit."""
    try:
        with limit:
            return _checked_result(awaited(_call(function, item, kwargs)))
    except TimedOut:  # raised just outside the block, see _interrupts
        limit.end()
        raise limit.error() from None


def _preparation_failure(error: PreparationError) -> Failure:
    failure = failure_of(error.__cause__ or error)
    return replace(failure, reason=f"a worker can't make its {error}: {failure.reason}", ends_run=True)


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
