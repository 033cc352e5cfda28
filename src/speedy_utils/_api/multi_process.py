"""``multi_process``: a function over many items, in many workers, with one bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from .._display.base import Progress
from .._display.format import format_quantity
from .._engines.driver import drive, task_error
from .._engines.payload.refs import plain_function, resolve, shared_arguments
from .._engines.per_worker import called_with_items, per_worker
from .._engines.task import Attempt, Outcome
from .._engines.worker_logs import WorkerLogs
from .._instrument.decorator import declared_total
from .._run.run import Run
from .._validation import checked_choice, checked_count, checked_total, shorten
from ..errors import UNFINISHED
from .items import task_items
from .kept import keeping_results
from .options import Backend, RunOptions, checked_function, checked_ray_options


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
    max_retries: int = 3,
    stall_after: float | None = 300.0,
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
            as the tasks' own loops have; those of a ``@tracked`` function are known.
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
            the result and goes on.
        max_retries: How often a task is started again after its worker was lost. Exceptions of ``func``
            are never retried.
        stall_after: Seconds after which a task that has counted nothing meanwhile is named beside the bar,
            and once in the log with the stack of the thread that works on it. None for never.
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
        ConnectionError: No Ray answers at RAY_ADDRESS.

    Example:
        >>> from speedy_utils import multi_process, track
        >>> def total_length(words):
        ...     return sum(len(word) for word in track(words))
        >>> words = [["one", "bar"], ["whole"]]
        >>> multi_process(total_length, words, backend="seq", total_items=len, progress=False)
        [6, 5]
    """
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
        stall_after=stall_after,
        ray_options=(remote_options or {}) | checked_ray_options(ray_options),
        asks_for_ray=remote_options is not None,
    )
    total, totals = None, None
    if total_items is not None and not callable(total_items):
        total = checked_count(total_items, "total_items")
    items = task_items(items)
    if not items:
        return []
    if total is None:
        totals = _totals(func, items, total_items, func_kwargs)
        total = None if totals is None else sum(totals)
    task_unit = "tasks" if total is not None else options.unit or "tasks"
    unit = "items" if total is None else options.unit or "items"
    size = format_quantity(len(items), task_unit) if total is None else format_quantity(total, unit)
    workers = min(options.workers(called), len(items))
    engine = options.engine(per_worker(func), shared_arguments(func_kwargs), workers)
    run = Run(
        options.desc or f"Processing {size}",
        total,
        tasks=len(items),
        workers=engine.workers,
        task_unit=task_unit,
        unit=unit,
        display=options.display(),
        feed=engine,
        poll_interval=options.poll_interval,
        stall_after=options.stall_after,
    )
    results: list[Any] = [UNFINISHED] * len(items)

    def finish(ended: Attempt, outcome: Outcome) -> None:
        if outcome.failure is None:
            results[ended.task] = outcome.value
            return
        error = task_error(ended.task, items[ended.task], ended.attempt, outcome.failure)
        if on_error == "raise":
            raise error
        results[ended.task] = error

    def attempt(task: int, number: int) -> Attempt:
        task_total = None if totals is None else totals[task]
        return Attempt(task, number, task_total, options.adopt_tqdm, stall_after=options.stall_after)

    with keeping_results(results), options.ending_on_sigterm(), run:
        drive(engine, run, items, attempt, finish, max_retries=options.max_retries)
    return results


multi_process.__module__ = "speedy_utils"


def _totals(
    func: Callable[..., Any], items: Sequence[Any], total_items: Any, kwargs: dict[str, Any]
) -> list[int] | None:
    """Return the items of each task; None if they are not known."""
    if total_items is not None:
        return [_total_of(total_items, index, resolve(item)) for index, item in enumerate(items)]
    first = declared_total(func, (items[0],), kwargs)
    if first is None:
        return None
    return [first, *(declared_total(func, (item,), kwargs) or 0 for item in items[1:])]


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
