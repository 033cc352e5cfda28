"""Which of the lines that Ray forwards from workers are shown.

Ray prints what all workers of a program write, and has no public way to choose among them but
``ray.init(log_to_driver=False)``: that is for all runs at once, and not for a Ray that is running. So this
wraps the function that Ray prints with. Ray passes the name of the task with each batch of lines; a run that
does not show all of them gives its tasks a unique name.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .._engines.worker_logs import LogFilter, WorkerLogs

logger = logging.getLogger("speedy_utils")


_PRINT_HANDLER = "ray_print_logs"
"""The name under which Ray keeps the function that it prints with."""


_MAX_RUNS = 1000
"""How many runs are remembered: lines arrive after their run is over."""


_runs: OrderedDict[str, tuple[str, LogFilter]] = OrderedDict()
"""By the unique name of their tasks: the name to show for it, and which workers are shown."""


_warned = False


Batch = dict[str, Any]
"""Lines of one process, as Ray passes them: ``{"ip": ..., "pid": ..., "task_name": ..., "lines": [...]}``."""


def choose_logs(name: str, choice: WorkerLogs) -> str:
    """Show only some of the lines that the tasks of a run will print. Ray has to be connected.

    Args:
        name: The name of the tasks.
        choice: Whose lines are shown.

    Returns:
        The name that the tasks must have instead: ``"work [1f2e3d4c]"``.
    """
    if choice == "all" or not _filter_handlers():
        return name
    unique = f"{name} [{uuid.uuid4().hex[:8]}]"
    _runs[unique] = name, LogFilter(choice)
    while len(_runs) > _MAX_RUNS:
        _runs.popitem(last=False)
    return unique


class _FilteredPrint:
    """Prints a batch of lines unless its run has chosen others.

    Args:
        print_batch: Ray's function, which prints a batch of lines.
    """

    def __init__(self, print_batch: Callable[[Batch], object]) -> None:
        self._print_batch = print_batch

    def __call__(self, batch: Batch) -> None:
        run = _runs.get(batch.get("task_name") or "")
        if run is not None:
            name, log_filter = run
            if not log_filter.allows((batch.get("ip"), batch.get("pid"))):
                return
            batch = batch | {"task_name": name}
        self._print_batch(batch)


def _filter_handlers() -> bool:
    """Wrap the function that Ray prints with. Idempotent.

    Returns:
        Whether there is one: False if the user has turned forwarding off, or Ray has other internals.
    """
    global _warned
    try:
        dispatcher = import_module("ray._private.ray_logging").global_worker_stdstream_dispatcher
        handlers = [
            (name, _FilteredPrint(function) if _is_to_wrap(name, function) else function)
            for name, function in dispatcher.handlers
        ]
        # All at once: between the removal of one handler and the addition of another a batch could be lost.
        dispatcher.handlers = handlers
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        if not _warned:
            _warned = True
            logger.warning(
                "worker_logs: this Ray can't be made to leave lines out, so all are shown (%s: %s)",
                type(error).__name__,
                error,
            )
        return False
    return any(name == _PRINT_HANDLER for name, _ in handlers)


def _is_to_wrap(name: str, function: object) -> bool:
    return name == _PRINT_HANDLER and not isinstance(function, _FilteredPrint)
