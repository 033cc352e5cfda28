"""Ends a worker that waits for ever, as the answer that it has sent was lost."""

from __future__ import annotations

import os
import signal

from ..._state.ledger import Location


def end_idle_worker(location: Location) -> None:
    """Let Ray end a worker that has nothing to do, and go on at once.

    Ray believes that it still runs the task whose answer was lost, and gives its CPU to no other task.
    ``ray.cancel`` does not change that: the worker knows of no such task.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(location.node_id, soft=False)
    ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(kill_if_idle).remote(location.pid)


def kill_if_idle(pid: int) -> bool:
    """Kill a process of this machine, and return whether it was a worker of Ray that had nothing to do."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as title:
            idle = title.read().startswith(b"ray::IDLE")
        if idle:
            os.kill(pid, signal.SIGKILL)
    except OSError:  # it has ended, or this is no Linux
        return False
    return idle
