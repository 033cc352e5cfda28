"""``multi_process_iter``: results as they come, of items that are read as they are needed."""

from __future__ import annotations

import atexit
import inspect
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from typing import Any, Literal
from weakref import WeakSet

from .._display.base import Progress
from .._display.format import format_quantity
from .._engines.limits.retries import RetryOn, RetryWait
from .._engines.payload.refs import plain_function, shared_arguments
from .._engines.per_worker import called_with_items, per_worker
from .._engines.streaming.dropped import ResultIterator, counting_interrupts
from .._engines.streaming.stream import stream
from .._engines.task import Arguments
from .._engines.worker_logs import WorkerLogs
from .._interrupts import Cancelled, after_fork_in_child
from .._run.run import Run
from .._validation import checked_choice, checked_count
from .arguments.items import checked_items, star_calls
from .arguments.options import Backend, RunOptions, checked_function, checked_ray_options
from .arguments.signature import UNREAD, checked_call


def multi_process_iter(
    func: Callable[..., Any],
    items: Iterable[Any],
    *,
    ordered: bool = True,
    num_workers: int | None = None,
    backend: Backend | None = None,
    total_items: int | None = None,
    initial: int = 0,
    star: bool = False,
    desc: str | None = None,
    unit: str | None = None,
    leave: bool = True,
    poll_interval: float = 0.3,
    progress: Progress = True,
    adopt_tqdm: bool = True,
    worker_logs: WorkerLogs = "all",
    on_error: Literal["raise", "continue"] = "raise",
    max_retries: int = 3,
    retry_on: RetryOn = (),
    retry_wait: RetryWait = 1.0,
    task_timeout: float | None = None,
    stall_after: float | None = 300.0,
    chunksize: int | None = None,
    ray_options: Mapping[str, Any] | None = None,
    **func_kwargs: Any,
) -> Iterator[Any]:
    """Call a function on each item, in many workers, and yield what it returns as it comes.

    For more items or results than fit in memory, or without an end: no more of them are held than a few
    chunks for each worker. The other arguments are those of ``multi_process``.

    The arguments are checked at the call, and work starts when the first result is asked for. A thread reads
    the items meanwhile. A loop that ends early, by ``break`` or ``close()``, waits for the tasks that run,
    and the bar ends at what was done. Ctrl-C, also in the code of the loop, stops them.

    Args:
        func: Called as ``func(item, **func_kwargs)``.
        items: One task each: any iterable, also one without an end.
        ordered: Whether results are yielded in the order of ``items``; False for each as soon as it is there.
        num_workers: How many tasks run at once.
        backend: ``"ray"``, ``"processes"``, ``"threads"`` or ``"seq"``; None to choose.
        total_items: How many items there are, if ``items`` does not know its length: the total of the bar.
            If it does, how many items the tasks have in all.
        initial: How many items were done before: they are in the count and in ``total_items``, and not in the
            rate.
        star: Whether each item is a tuple of arguments, or a mapping of keywords.
        desc: What the bar is called.
        unit: What is counted, in the plural.
        leave: Whether the bars stay when the run is over.
        poll_interval: Seconds between two looks at the count.
        progress: False to show nothing; a function gets each :class:`Snapshot`.
        adopt_tqdm: Whether bars that ``func`` makes with tqdm count for the stages that they name.
        worker_logs: Whose printed lines are shown.
        on_error: ``"raise"`` raises the error of the first task that fails; ``"continue"`` yields its
            ``TaskError`` in place of a result.
        max_retries: How often a task is started again.
        retry_on: After which exceptions.
        retry_wait: After how many seconds.
        task_timeout: Seconds that one attempt at a task may take.
        stall_after: Seconds after which a task that has counted nothing is named.
        chunksize: How many tasks travel to a worker together; None to choose.
        ray_options: Options of Ray for the tasks.
        **func_kwargs: Sent to the workers once.

    Returns:
        An iterator over what ``func`` returned.

    Raises:
        TaskError: A task failed, and ``on_error`` is ``"raise"``; from the iterator.
        TypeError: An argument has the wrong type, or can't be sent to a worker.
        ValueError: An argument has a value that is not allowed.

    Example:
        >>> from itertools import count
        >>> from speedy_utils import multi_process_iter
        >>> for square in multi_process_iter(lambda n: n * n, count(), backend="threads", progress=False):
        ...     print(square)
        ...     if square >= 4:
        ...         break
        0
        1
        4
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
    initial = checked_count(initial, "initial")
    total = None if total_items is None else checked_count(total_items, "total_items", least=initial)
    checked_items(items)
    first = items[0] if isinstance(items, Sequence) and items else UNREAD
    if called is not func or (star and first is not UNREAD):
        first = Arguments(()) if called is not func else next(star_calls([first]))
    if not (star and first is UNREAD):
        checked_call(func, first, func_kwargs, inspect.signature(multi_process_iter), given)
    results = _results(
        *(func, items, func_kwargs, options, total, initial),
        star=star,
        ordered=ordered,
        raises=on_error == "raise",
    )
    _unfinished.add(results)
    return ResultIterator(results)


logger = logging.getLogger("speedy_utils")

multi_process_iter.__module__ = "speedy_utils"

_unfinished: WeakSet[Generator[Any, None, None]] = WeakSet()


def _cancel_unfinished() -> None:
    """Cancel the runs whose iterators are still held at the end: to close these would wait for their tasks.

    Later would be too late: their threads can't run any more while Python frees what is left.
    """
    for results in list(_unfinished):
        with suppress(Cancelled, ValueError):  # another thread is in it
            results.throw(Cancelled())


def _cancel_at_exit() -> None:
    """Let the program's end cancel them before anything waits for their workers, as multiprocessing does.

    What is registered last runs first, and that registers when it is imported.
    """
    atexit.unregister(_cancel_unfinished)
    atexit.register(_cancel_unfinished)


def _note_fork() -> None:
    _unfinished.clear()


after_fork_in_child(_note_fork)


def _results(
    func: Callable[..., Any],
    items: Iterable[Any],
    func_kwargs: dict[str, Any],
    options: RunOptions,
    total: int | None,
    initial: int,
    *,
    star: bool,
    ordered: bool,
    raises: bool,
) -> Generator[Any, None, None]:
    """Run the tasks, from when the first result is asked for."""
    length = tasks = len(items) if isinstance(items, Sized) else None
    if length == 0:
        return
    if isinstance(items, Sequence):  # it may have its own notion of iterating, which need not even end
        items = map(items.__getitem__, range(len(items)))
    if star:
        items = star_calls(items)
    if tasks is None and total is not None:  # each task is taken to be an item, until one counts its own
        tasks, total = total - initial or None, None
    unit = options.unit or ("tasks" if total is None else "items")
    size = total if total is not None else None if tasks is None else tasks + initial
    workers = options.workers(called_with_items(func))
    workers = workers if length is None else min(workers, length)
    sizes, settings = options.small_tasks(raises=raises)
    engine = options.engine(per_worker(func), shared_arguments(func_kwargs), workers, settings)
    _cancel_at_exit()
    run = Run(
        options.desc or ("Processing" if size is None else f"Processing {format_quantity(size, unit)}"),
        total,
        tasks=tasks,
        workers=engine.workers,
        task_unit="tasks" if total is not None else unit,
        unit=unit if total is not None else "items",
        initial=initial,
        initial_tasks=initial,
        display=options.display(),
        feed=engine,
        poll_interval=options.poll_interval,
        stall_after=options.stall_after,
    )
    with counting_interrupts() as interrupts, options.ending_on_sigterm(), run:
        count = yield from stream(
            *(engine, run, items),
            max_retries=options.max_retries,
            sizes=sizes,
            ordered=ordered,
            raises=raises,
            interrupts=interrupts,
        )
        if tasks is not None and count != tasks:
            logger.warning("there were %s items, and total_items says %s", f"{count:,}", f"{tasks:,}")
