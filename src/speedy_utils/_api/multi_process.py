"""``multi_process``: a function over many items, in many workers, with one bar."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, cast

from .._display.base import Progress
from .._display.format import format_quantity
from .._engines.driver import Ended, drive
from .._engines.limits.retries import RetryOn, RetryWait
from .._engines.payload.refs import plain_function, resolve, shared_arguments
from .._engines.per_worker import called_with_items, makes_callables, per_worker
from .._engines.task import Arguments
from .._engines.worker_logs import WorkerLogs
from .._instrument.decorator import declared_total
from .._run.run import Run
from .._state.ledger import RUN_ITEMS
from .._validation import checked_choice, checked_count, checked_total, shorten
from ..errors import TaskError
from .arguments.items import SelectedItems, star_calls, task_items
from .arguments.options import Backend, RunOptions, checked_function, checked_ray_options
from .arguments.signature import checked_call
from .failed import FailedTasks
from .kept import Results

if TYPE_CHECKING:
    from .._checkpoint.folder import Checkpoint


def multi_process(
    func: Callable[..., Any],
    items: Iterable[Any],
    *,
    num_workers: int | None = None,
    backend: Backend | None = None,
    total_items: int | Callable[[Any], int] | None = None,
    desc: str | None = None,
    unit: str | None = None,
    leave: bool = True,
    poll_interval: float = 0.3,
    progress: Progress = True,
    adopt_tqdm: bool = True,
    worker_logs: WorkerLogs = "all",
    on_error: Literal["raise", "continue"] = "raise",
    star: bool = False,
    initial: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool | Literal["trust"] = True,
    max_retries: int = 3,
    retry_on: RetryOn = (),
    retry_wait: RetryWait = 1.0,
    task_timeout: float | None = None,
    stall_after: float | None = 300.0,
    chunksize: int | None = None,
    ray_options: Mapping[str, Any] | None = None,
    **func_kwargs: Any,
) -> list[Any]:
    """Call a function on each item, in many workers, and show one bar for all of them.

    Args:
        func: Called as ``func(item, **func_kwargs)``; a lambda or closure will do, and so will a coroutine
            function. Of a class whose instances can be called each worker makes one, as
            ``func(**func_kwargs)``, and calls that with each item; it ends with its ``close()``, if there is
            one. What it reports with ``report_progress``, ``track`` or ``tracked`` moves the bar.
        items: One task each. Other than a sequence, it is read before the first task starts. Strings
            and data frames are refused: they would yield characters and columns.
        num_workers: How many tasks run at once. None for the number of CPUs, those of a whole Ray cluster if
            one is running, and for 32 coroutines on ``"threads"``.
        backend: ``"processes"`` of this machine, ``"ray"`` for Ray tasks, ``"threads"`` of this process, or
            ``"seq"`` for one after another in the caller's thread. None for Ray if the program uses one, if
            RAY_ADDRESS or ``ray start`` on this machine names one, or if ``ray_options`` or a
            ``@ray.remote`` function ask for it, and for processes else.
        total_items: How many items the tasks have: in all, or a function of one of ``items``, such as
            ``len``. If None the bar counts tasks until one of them counts items, and then these, of as many
            as the tasks' own loops have; those of a ``@tracked`` function are known. In all means with
            ``initial``, as with tqdm.
        desc: What the bar is called.
        unit: What is counted, in the plural: the items or, if it is not known how many there are, the tasks.
            None for ``"items"`` and ``"tasks"``.
        leave: Whether the bars stay when the run is over.
        poll_interval: Seconds between two looks at the count. Workers on Ray send theirs every 0.2 seconds,
            and less often if there are more than 50.
        progress: False to show nothing; a function gets each :class:`Snapshot`, in a thread of its own.
        adopt_tqdm: Whether bars that ``func`` makes with tqdm count for the stages that they name, and draw
            nothing. False leaves them alone.
        worker_logs: Whose printed lines are shown: those of ``"all"`` workers, of the ``"first"`` that
            prints (once it is silent for a minute, of the next that does), or of ``"none"``. Ray's log
            files keep them all.
        on_error: ``"raise"`` stops at the first task that fails; ``"continue"`` puts its ``TaskError`` in
            the result, logs it and goes on.
        star: Whether items are the arguments of a call: tuples, as ``starmap`` takes them, or mappings of
            keywords.
        initial: How many items (or tasks, if the bar counts these) were done before: in the count, not in the
            rate.
        checkpoint: A folder that keeps results as they come. After a crash, or whatever stopped it, the same
            call runs only the tasks whose results are not there, and those that failed. Results are pickles:
            give only folders that you trust.
        resume: What to do with the results in ``checkpoint`` if this call differs: True refuses to start,
            ``"trust"`` keeps those of the same items, and False deletes them, whether it differs or not.
        max_retries: How often a task is started again: after its worker was lost, and for exceptions that
            ``retry_on`` names.
        retry_on: Exceptions of ``func`` after which a task is tried again: a tuple of types, such as
            ``(ConnectionError,)``, or a function that gets the exception, in the worker, and returns whether.
            What the failed attempt has counted is taken back.
        retry_wait: Seconds before the second attempt; doubled for each further one, up to 60, and shortened
            at random, so that tasks that failed together come back apart. Or a function of the failed
            attempt's number and its exception. An exception's ``retry_after`` is waited for in any case.
            Meanwhile other tasks run.
        task_timeout: Seconds that one attempt at a task may take in its worker. It then ends with a
            TimeoutError that says where it stood, which ``retry_on=(TimeoutError,)`` tries again; where
            nothing else helps its process is killed. On ``"threads"`` and ``"seq"`` a call that does not
            come back to Python can't be ended: its thread goes on, without the run on ``"threads"``.
        stall_after: Seconds after which a task that has counted nothing meanwhile is named beside the bar,
            and once in the log with the stack of the thread that works on it. None for never.
        chunksize: How many tasks travel to a worker together, which runs one after another. None to choose:
            the first alone, then as many as take about 0.2 seconds, and fewer towards the end. 1 sends each
            by itself. Tasks of a chunk whose results were still to be sent when its worker was lost run
            again, also those that had ended.
        ray_options: Options of Ray for the tasks, such as ``{"num_gpus": 1}``; other backends ignore them.
        **func_kwargs: Sent to the workers once, not with each task.

    Returns:
        What ``func`` returned, in the order of ``items``.

    Raises:
        TaskError: A task failed, and ``on_error`` is ``"raise"``. The exception of ``func`` is its cause.
            ``error.results`` holds what had finished, and ``UNFINISHED`` for the other tasks; so does any
            exception that ends the run.
        Interrupted: Ctrl-C or SIGTERM, after all tasks were stopped. It is a KeyboardInterrupt.
        TypeError: An argument has the wrong type, or can't be sent to a worker.
        ValueError: An argument has a value that is not allowed.
        RuntimeError: A worker can't make its instance of a class: its ``__init__`` has raised the cause.
        ResumeError: ``checkpoint`` holds results of a call that differs, or something else.
        BusyError: Another call is at work in ``checkpoint``.
        OSError: ``checkpoint`` can't be written.
        ConnectionError: No Ray answers at RAY_ADDRESS.

    Example:
        >>> from speedy_utils import multi_process, track
        >>> def total_length(words):
        ...     return sum(len(word) for word in track(words))
        >>> words = [["one", "bar"], ["whole"]]
        >>> multi_process(total_length, words, backend="seq", total_items=len, progress=False)
        [6, 5]
    """
    given = locals().copy()
    func, remote_options = plain_function(func)
    called = called_with_items(func)
    checked_function(called, "func")
    checked_choice(on_error, "on_error", ("raise", "continue"))
    options = RunOptions(
        backend=backend,
        num_workers=num_workers,
        desc=desc,
        unit=unit,
        leave=leave,
        poll_interval=poll_interval,
        progress=progress,
        adopt_tqdm=adopt_tqdm,
        worker_logs=worker_logs,
        max_retries=max_retries,
        retry_on=retry_on,
        retry_wait=retry_wait,
        task_timeout=task_timeout,
        stall_after=stall_after,
        chunksize=chunksize,
        ray_options=(remote_options or {}) | checked_ray_options(ray_options),
        asks_for_ray=remote_options is not None,
    )
    initial, total, totals = checked_count(initial, "initial"), None, None
    if total_items is not None and not callable(total_items):
        total = checked_count(total_items, "total_items", least=initial)
    items = calls = task_items(items)
    if not items:
        return []
    if star:
        calls = list(star_calls(items))
        items = [call.item for call in calls]
    run_signature = inspect.signature(multi_process)
    if called is func:
        checked_call(func, calls[0], func_kwargs, run_signature, given)
    else:  # a class that each worker makes an instance of
        checked_call(func, Arguments(()), func_kwargs, run_signature, given)
    if total is None:
        totals = _totals(func, calls, total_items, func_kwargs)
        total = None if totals is None else sum(totals) + initial
    task_unit = "tasks" if total is not None else options.unit or "tasks"
    unit = "items" if total is None else options.unit or "items"
    size = format_quantity(len(items), task_unit) if total is None else format_quantity(total, unit)
    kwargs = shared_arguments(func_kwargs)
    sizes, settings = options.small_tasks(raises=on_error == "raise", counts_apart=checkpoint is not None)
    failed = FailedTasks()

    def fail(error: TaskError) -> None:
        if on_error == "raise":
            raise error
        failed.add(error)
        results.values[error.index] = error

    def finish(ended: Ended) -> None:
        tasks = results.missing[ended.first : ended.first + max(1, len(ended.values))]
        if ended.failure is not None:
            fail(ended.error(tasks[0], items[tasks[0]]))
        elif checkpoint is None:  # then none is missing
            results.values[ended.first : ended.first + len(ended.values)] = ended.values
        else:
            for task, value in zip(tasks, ended.values, strict=True):
                if failure := results.add(task, value, ended.counts or {RUN_ITEMS: 0}):
                    fail(Ended(task, item=items[task], failure=failure).error())

    with (
        _opened(checkpoint, func, kwargs, items, resume) as opened,
        Results(len(items), opened).kept_at_any_end() as results,
    ):
        missing = results.missing
        kept_counts = results.kept_counts()
        left_totals = None if totals is None else [totals[task] for task in missing]
        kept_total = None if totals is None or left_totals is None else sum(totals) - sum(left_totals)
        workers = min(options.workers(called), len(missing))
        left = calls if len(missing) == len(items) else SelectedItems(calls, missing)
        there = left if type(calls) in (list, tuple) else ()
        engine = options.engine(per_worker(func), kwargs, workers, settings, there) if missing else None
        run = Run(
            options.desc or f"Processing {size}",
            total,
            tasks=len(items),
            tasks_done=len(items) - len(missing),
            kept=[(kept_counts, kept_total)] if kept_counts else (),
            kept_from=results.kept_from,
            workers=0 if engine is None else engine.workers,
            task_unit=task_unit,
            task_numbers=missing,
            unit=unit,
            initial=initial + (kept_counts[RUN_ITEMS] if kept_total is None else kept_total),
            initial_tasks=initial,
            display=options.display(),
            feed=engine,
            poll_interval=options.poll_interval,
            stall_after=options.stall_after,
        )
        with options.ending_on_sigterm(), run:
            try:
                if engine is not None:
                    retries = options.max_retries
                    drive(engine, run, left, finish, max_retries=retries, totals=left_totals, sizes=sizes)
                results.flush()
            finally:
                failed.close()
    return results.values


multi_process.__module__ = "speedy_utils"


def _opened(
    folder: str | os.PathLike[str] | None,
    func: Callable[..., Any],
    kwargs: Mapping[str, Any],
    items: Sequence[Any],
    resume: bool | Literal["trust"],
) -> AbstractContextManager[Checkpoint | None]:
    """Return the checkpoint of a call, if it has one."""
    if folder is None:
        return nullcontext()
    from .._checkpoint.folder import Checkpoint  # needs datasets, for fingerprints

    return Checkpoint.open(folder, func, kwargs, items, resume)


def _totals(
    func: Callable[..., Any], calls: Sequence[Any], total_items: Any, kwargs: dict[str, Any]
) -> list[int] | None:
    """Return the items of each task; None if they are not known."""
    if total_items is not None:
        return [
            _total_of(total_items, index, resolve(call.item if isinstance(call, Arguments) else call))
            for index, call in enumerate(calls)
        ]

    def declared(call: Any) -> int | None:
        args, keywords = call.unpack() if isinstance(call, Arguments) else ((call,), {})
        if not makes_callables(func):
            return declared_total(func, args, {**keywords, **kwargs})
        try:
            return declared_total(called_with_items(func), (object(), *args), dict(keywords))
        except Exception:  # it is a function of the instance, which only workers have
            return None

    totals = [declared(calls[0])]
    totals += [declared(call) for call in calls[1:]] if totals != [None] else []
    return None if None in totals else cast("list[int]", totals)


def _total_of(total_items: Callable[[Any], Any], index: int, item: Any) -> int:
    """Return how many items ``total_items`` says that one of ``items`` has."""
    try:
        total = total_items(item)
    except Exception as error:  # it is the user's function
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"total_items failed for item {index} ({shorten(item, 80)}): {type(error).__name__}: {error}"
        ) from error
    return checked_total(total, f"total_items({shorten(item, 40)})")
