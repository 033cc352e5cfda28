"""Actors in place of tasks: each keeps a process, its GPU, and the instance that it has made of a class.

An actor waits for its resources for as long as it takes, while others are long free again. So an attempt is
handed to an actor only once that has its place::

    submit ── Ticket ─┐                     ┌─ actor that is ready and has no attempt ── ref
                      └─ waits in the run ──┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import ray

from ..worker import run_in_worker

_OF_TASKS = ("name", "max_retries", "max_calls", "num_returns", "retry_exceptions")
"""Options of tasks that actors don't have, or that mean something else there."""


class KeptWorker:
    """An actor that runs one attempt at a time."""

    def run(self, *arguments: Any) -> Any:
        """Run an attempt; the arguments are those of ``run_in_worker``."""
        return run_in_worker(*arguments)

    def close(self) -> None:
        """Close what it has made."""
        from speedy_utils._ray.worker import close_shared

        close_shared()


KeptWorker.__module__ = "__main__"  # by value, as `run_in_worker` is


class Ticket:
    """An attempt that waits for an actor."""

    __slots__ = ("arguments",)

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments


class KeptWorkers:
    """The actors of a run. They are made as attempts come, and again if one is lost.

    Args:
        most: How many there may be.
        options: Those of the tasks that they stand for.
    """

    def __init__(self, most: int, options: Mapping[str, Any]) -> None:
        self._most = most
        self._class = ray.remote(type(str(options["name"]), (KeptWorker,), {"__module__": "__main__"}))
        self._tickets: deque[Ticket] = deque()
        self._starting: dict[Any, Any] = {}  # actors, by the reference that is ready once they are
        self._idle: list[Any] = []
        self._busy: dict[Any, Any] = {}  # actors, by the reference to what they run
        self.options(**options)

    def options(self, **options: Any) -> KeptWorkers:
        """Let actors that are made from now on have options, those of tasks; return this."""
        kept = {name: value for name, value in options.items() if name not in _OF_TASKS}
        # By default an actor needs no CPU once it is placed.
        self._options = {"num_cpus": 1, **kept, "max_restarts": 0, "max_task_retries": 0}
        return self

    def remote(self, *arguments: Any) -> Ticket:
        """Let an attempt wait for an actor; the arguments are those of ``run_in_worker``."""
        ticket = Ticket(arguments)
        self._tickets.append(ticket)
        return ticket

    def hand_out(self) -> list[tuple[Ticket, Any]]:
        """Hand attempts that wait to actors that are ready, and return each with its reference."""
        if not self._tickets:
            return []
        if self._starting:
            for ref in ray.wait([*self._starting], num_returns=len(self._starting), timeout=0)[0]:
                self._idle.append(self._starting.pop(ref))  # if it could not start, its first attempt says so
        for _ in range(len(self._tickets) - len(self._idle) - len(self._starting)):
            if len(self._idle) + len(self._starting) + len(self._busy) < self._most:
                actor = self._class.options(**self._options).remote()
                self._starting[actor.__ray_ready__.remote()] = actor
        handed = []
        while self._tickets and self._idle:
            ticket, actor = self._tickets.popleft(), self._idle.pop()
            ref = actor.run.remote(*ticket.arguments)
            self._busy[ref] = actor
            handed.append((ticket, ref))
        return handed

    def starting(self) -> list[Any]:
        """Return the references that are ready once an actor is that attempts wait for."""
        return [*self._starting] if self._tickets else []

    def running(self) -> list[Any]:
        """Return the references to what actors run."""
        return [*self._busy]

    def end(self, ref: Any, *, lost: bool) -> None:
        """Note that an attempt has ended, and perhaps its actor with it."""
        actor = self._busy.pop(ref, None)
        if actor is None:
            return
        if lost:
            ray.kill(actor)  # it may be out of reach, and come back
        else:
            self._idle.append(actor)

    def kill_busy(self) -> None:
        """End the actors that run something: they can't be interrupted."""
        for actor in self._busy.values():
            ray.kill(actor)
        self._busy.clear()
        self._tickets.clear()

    def close(self, timeout: float) -> None:
        """Let the actors close what they have made, and end them.

        Args:
            timeout: Seconds to wait for that.
        """
        closing = [actor.close.remote() for actor in self._idle]
        try:
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=timeout)
        finally:
            for actor in (*self._idle, *self._starting.values(), *self._busy.values()):
                ray.kill(actor)
            self._idle, self._starting, self._busy = [], {}, {}
