"""The Ray task of a run, and its options."""

from __future__ import annotations

from typing import Any

import ray

from ..._engines.base import WorkSpec
from ..worker import run_in_worker


def remote_task(work: WorkSpec) -> tuple[Any, dict[str, Any]]:
    """Return what runs each chunk, and the options with which it is called.

    Args:
        work: What the tasks share.

    Raises:
        TypeError: Ray does not know an option.
        ValueError: An option has a value that Ray does not allow.
    """
    name = getattr(work.function, "__qualname__", type(work.function).__qualname__)
    options = {"name": name, **work.options, "max_retries": 0}
    once = {name: options.pop(name) for name in ("max_calls",) if name in options}  # not for .options()
    if options.get("num_gpus"):  # as @ray.remote has it: a process that goes on holds memory of its GPU
        once.setdefault("max_calls", 1)
    task = ray.remote(**once)(run_in_worker) if once else ray.remote(run_in_worker)
    task.options(**options)  # a bad option is an error before anything starts
    return task, options
