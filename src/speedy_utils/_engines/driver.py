"""Submit, wait, retry: the loop that runs the tasks of a run on any engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._run.run import Run
from .._validation import shorten
from .._worker.flusher import logger
from ..errors import TaskError
from .base import Engine
from .task import Attempt, Failure, Outcome


def drive(
    engine: Engine,
    run: Run,
    items: Sequence[Any],
    call: Callable[[int, int], Attempt],
    finish: Callable[[Attempt, Outcome], None],
    *,
    workers: int,
    max_retries: int,
) -> None:
    """Run a task for each item, at most ``workers`` at once, and again where a worker is lost.

    Args:
        engine: What runs them; it is closed at the end.
        run: What counts them.
        items: Their items; each is looked up when its task starts.
        call: Makes the call for a task and the number of an attempt.
        finish: Gets the last outcome of each task; an exception that it raises cancels the rest.
        workers: How many run at once.
        max_retries: How often a task is started again after its worker was lost.
    """
    fresh = iter(range(len(items)))
    again: list[tuple[Attempt, Failure]] = []
    running = 0
    try:
        while True:
            while running < workers:
                task = None if again else next(fresh, None)
                if task is None and not again:
                    break
                started, before = again.pop() if task is None else (call(task, 1), None)
                item = items[started.task]
                if before is not None:
                    _tell_retry(started, item, max_retries, before)
                run.attempt(started.task, started.attempt)
                engine.submit(started, item)
                running += 1
            if not running:
                break
            for ended, outcome in engine.wait():
                running -= 1
                failure = outcome.failure
                if failure is None:
                    total = ended.total if ended.counts_items else 1
                    run.commit(ended.task, outcome.counts or {}, total=total, timings=outcome.timings)
                    finish(ended, outcome)
                elif failure.lost and ended.attempt <= max_retries:
                    again.append((call(ended.task, ended.attempt + 1), failure))
                else:
                    run.fail(ended.task, outcome.counts, timings=outcome.timings)
                    finish(ended, outcome)
        run.complete()
    except BaseException:  # Ctrl-C too: no task may go on without its run
        run.phase = "stopping"
        engine.cancel()
        raise
    finally:
        engine.close()


def _tell_retry(started: Attempt, item: Any, max_retries: int, before: Failure) -> None:
    """Log that a task runs again, and why."""
    logger.warning(
        "task %d (item %s) runs again, attempt %d of %d: %s",
        started.task,
        shorten(item, 80),
        started.attempt,
        max_retries + 1,
        before.reason,
    )


def task_error(index: int, item: Any, attempts: int, failure: Failure) -> TaskError:
    """The error for a task that failed for good."""
    error = TaskError(index, item, attempts, failure.reason, failure.traceback)
    error.__cause__ = failure.error
    return error
