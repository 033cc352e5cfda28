"""Which of the lines that Ray forwards from workers are shown.

Ray prints what all workers of a program write, and has no public way to choose among them but
``ray.init(log_to_driver=False)``: that is for all runs at once, and not for a Ray that is running. So this
stands before the function that Ray itself prints with. Ray says with each batch of lines which task they come
from; a run that does not show all of them gives its tasks a name of their own.
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


_PRINTING = "ray_print_logs"
"""What Ray calls its own function."""


_MANY = 1000
"""How many runs are remembered: lines arrive after their run is over."""


_runs: OrderedDict[str, tuple[str, LogFilter]] = OrderedDict()
"""By name of their tasks: the name that is shown for it, and who is shown."""


_told = False


Batch = dict[str, Any]


def choose_logs(name: str, choice: WorkerLogs) -> str:
    """Show only some of the lines that the tasks of a run will print. Ray has to be connected.

    Args:
        name: The name of the tasks.
        choice: Whose lines are shown.

    Returns:
        The name that the tasks must have instead.
    """
    if choice == "all" or not _stand_before_ray():
        return name
    own = f"{name} [{uuid.uuid4().hex[:8]}]"
    _runs[own] = name, LogFilter(choice)
    while len(_runs) > _MANY:
        _runs.popitem(last=False)
    return own


class _Chosen:
    """Prints the lines that are chosen.

    Args:
        print_batch: Prints a batch of lines.
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


def _stand_before_ray() -> bool:
    """Stand before the function that Ray prints with, unless that is done already.

    Returns:
        Whether there is one: not where the user has turned forwarding off.
    """
    global _told
    try:
        dispatcher = import_module("ray._private.ray_logging").global_worker_stdstream_dispatcher
        printing = [
            (name, _Chosen(function) if name == _PRINTING and not isinstance(function, _Chosen) else function)
            for name, function in dispatcher.handlers
        ]
        # At once: between taking one out and putting another in, a batch could be lost.
        dispatcher.handlers = printing
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        if not _told:
            _told = True
            logger.warning(
                "worker_logs: this Ray can't be made to leave lines out, so all are shown (%s: %s)",
                type(error).__name__,
                error,
            )
        return False
    return any(name == _PRINTING for name, _ in printing)
