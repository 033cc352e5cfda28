"""Submit, wait, retry: the loop that runs the tasks of a run on any engine."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from .._run.run import Run
from .._validation import shorten
from ..errors import TaskError
from .base import Engine
from .task import Attempt, Failure, Outcome

logger = logging.getLogger("speedy_utils")


def drive(
    engine: Engine,
    run: Run,
    items: Sequence[Any],
    attempt: Callable[[int, int], Attempt],
    finish: Callable[[Attempt, Outcome], bool | None],
    *,
    max_retries: int,
) -> None:
    """Run a task for each item, as many at once as the engine has workers, and again if one is lost.

    Args:
        engine: Runs them. It is started and, whatever happens, closed.
        run: Counts them.
        items: Their items; each is looked up when an attempt at its task starts.
        attempt: Makes an attempt from a task's position in ``items`` and the attempt's number, from 1.
        finish: Gets each task's last attempt and its outcome, and returns True to start no more tasks; those
            that run are waited for. An exception that it raises cancels the rest.
        max_retries: How often a task is started again after its worker was lost.
    """
    new_tasks = iter(range(len(items)))
    to_retry: list[tuple[Attempt, Failure]] = []
    moved: Counter[int] = Counter()  # attempts that say nothing of the task, as their node lacked its files
    running, stopped = 0, False
    warned: set[str] = set()

    def submit(started: Attempt, failure: Failure | None = None) -> None:
        nonlocal running
        item = items[started.task]
        if failure is not None and not failure.unsuited_node:
            _warn_of_retry(started, item, max_retries + moved[started.task], failure)
        run.attempt(started.task, started.attempt, total=started.total, item=item)
        engine.submit(started, item)
        running += 1

    try:
        engine.start()
        while True:
            while to_retry and running < engine.workers and not stopped:
                submit(*to_retry.pop())
            for task in islice(new_tasks, 0 if stopped else engine.workers - running):
                submit(attempt(task, 1))
            if not running:
                break
            # What succeeded first: a failure may end the run, and no result that is there is lost by that.
            for ended, outcome in sorted(engine.wait(), key=lambda each: each[1].failure is not None):
                running -= 1
                for warning in outcome.warnings:
                    if warning not in warned:
                        warned.add(warning)
                        logger.warning(warning)
                failure = outcome.failure
                refuse_unprepared(failure)
                if failure is None:
                    run.commit(ended.task, outcome.counts or {}, total=ended.total, timings=outcome.timings)
                    stopped = bool(finish(ended, outcome)) or stopped
                elif failure.unsuited_node or (
                    failure.worker_lost and ended.attempt - moved[ended.task] <= max_retries
                ):
                    moved[ended.task] += bool(failure.unsuited_node)
                    to_retry.append((attempt(ended.task, ended.attempt + 1), failure))
                else:
                    run.fail(ended.task, outcome.counts, timings=outcome.timings)
                    stopped = bool(finish(ended, outcome)) or stopped
    except BaseException:  # Ctrl-C too: no task may go on without its run
        run.enter("stopping")
        engine.cancel()
        raise
    finally:
        engine.close()


def _warn_of_retry(started: Attempt, item: Any, max_retries: int, failure: Failure) -> None:
    logger.warning(
        "task %d (item %s) runs again, attempt %d of %d: %s",
        started.task,
        shorten(item, 80),
        started.attempt,
        max_retries + 1,
        failure.reason,
    )


def refuse_unprepared(failure: Failure | None) -> None:
    """Raise a RuntimeError if a worker can't be prepared."""
    if failure is None or not failure.ends_run:
        return
    cause = failure.error
    shown = cause is not None and cause.__traceback__ is not None  # by Python, as that of the cause
    text = "" if shown else f"\n\nTraceback in the worker:\n{failure.traceback.rstrip()}"
    raise RuntimeError(failure.reason + text) from cause


def task_error(index: int, item: Any, attempts: int, failure: Failure) -> TaskError:
    """Return the error for a task that failed for good."""
    error = TaskError(index, item, attempts, failure.reason, failure.traceback)
    error.__cause__ = failure.error
    return error
