"""Ray tasks that do not end at their limit: in a call that does not end, or in a process that is stopped.

Such a worker may be unable to say anything: C code can hold the interpreter, and what is stopped is silent.
So each notes where others of its machine can read it which chunk it has begun, and when. Once a chunk is
late the driver kills those that are over their limit, on its own node and, by a task, on each other one::

    worker  /proc/4711/fd/9 -> /memfd:speedy_utils-5f0c…    "24 1 2 81234.5": task, attempt, tasks, when
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..._engines.limits.retries import RetryPolicy
from ..._engines.limits.time_limit import GRACE_S
from ..._engines.task import Chunk, ChunkOutcome, TaskSettings, timeout_failure
from ..._state.ledger import Report, Task

KILL_GRACE_S = GRACE_S + 0.5
"""Seconds after the limit of a task in which its worker may end it, before it is killed."""

ANSWER_TIMEOUT_S = 3.0
"""Seconds that the nodes have to say whether they have killed the worker of a chunk that is lost."""

GIVE_UP_AFTER_S = 60.0
"""Seconds after which nodes that have not answered are not waited for."""

_FILE = "/memfd:{} (deleted)"
"""Where a link of ``/proc`` leads that stands for such a note."""


class BegunNote:
    """Says to the other processes of this machine which chunk this one has begun, and when.

    It is gone with its process. Where there are no such files, as without Linux, it says nothing.

    Args:
        name: What it is called, by the run.
    """

    def __init__(self, name: str) -> None:
        self._fd = os.memfd_create(name) if hasattr(os, "memfd_create") else None

    @contextmanager
    def begun(self, task: Task, attempt: int, tasks: int) -> Iterator[None]:
        """Say so until the block ends."""
        if self._fd is None:
            yield
            return
        os.pwrite(self._fd, f"{task} {attempt} {tasks} {time.monotonic()}".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Take it away. Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Begun(NamedTuple):
    """A chunk that a worker has begun.

    Attributes:
        task: Its first task.
        attempt: The number of the attempts.
        seconds: How long ago.
        killed: Whether its worker was killed for it.
    """

    task: int
    attempt: int
    seconds: float
    killed: bool


class Limits(NamedTuple):
    """How long the chunks of a run may take.

    Attributes:
        chunk: Seconds in which a chunk of several tasks hands back those that have not begun.
        task: Seconds that a task may take, and its worker to end it.
    """

    chunk: float
    task: float

    def of(self, tasks: int) -> float:
        """Return the seconds that a chunk of some tasks may take: the last one ends at its own limit."""
        return self.task + (self.chunk if tasks > 1 else 0.0)


Look = Callable[[float], "list[Begun] | None"]
"""Returns what was found on the nodes, waiting some seconds for it at most; None if it is not known yet."""


class OverdueChunks:
    """Ends the chunks of a run that have gone on for longer than the limits of their tasks allow.

    The driver's thread calls its methods; :meth:`hear` is for any.

    Args:
        settings: What holds for all tasks; with a ``task_timeout``.
        retries: Whether a task that has come to its limit is worth another attempt.
        look: Lets the nodes kill workers that are over their limits, and returns what will tell which chunks
            they have found; :func:`look_on_nodes`.
        clock: Monotonic clock, in seconds.

    Attributes:
        name: What the notes of its workers are called.
    """

    def __init__(
        self,
        settings: TaskSettings,
        retries: RetryPolicy,
        look: Callable[[str, Limits], Look],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"speedy_utils-{uuid.uuid4().hex}"
        self._timeout, self._retries = settings.task_timeout or 0.0, retries
        self._limits = Limits(settings.most_seconds or 0.0, self._timeout + KILL_GRACE_S)
        self._look, self._clock = look, clock
        self._due: dict[tuple[Task, int], float] = {}
        self._tasks: dict[tuple[Task, int], int] = {}
        self._stacks: dict[tuple[Task, int], str] = {}
        self._looking: Look | None = None
        self._looked_at = 0.0
        self._killed: set[tuple[Task, int]] = set()

    def start(self, chunk: Chunk) -> None:
        """Note that a chunk is handed to Ray."""
        key = chunk.task, chunk.attempt
        self._tasks[key] = len(chunk.items)
        self._due[key] = self._clock() + self._limits.of(len(chunk.items))

    def hear(self, reports: Iterable[Report]) -> None:
        """Note where the tasks stood that have not moved for some time."""
        for report in reports:
            if report.stack and (report.task, report.attempt) in self._due:
                self._stacks[report.task, report.attempt] = report.stack

    def look(self) -> None:
        """Let the workers be killed of chunks that are due."""
        self._read(0.0)
        now = self._clock()
        if self._looking is None and any(due <= now for due in self._due.values()):
            self._looking, self._looked_at = self._look(self.name, self._limits), now

    def end(self, chunk: Chunk, outcome: ChunkOutcome) -> ChunkOutcome:
        """Forget a chunk that has ended, and return its outcome: a timeout if it was killed."""
        key = chunk.task, chunk.attempt
        if lost := outcome.failure is not None and outcome.failure.worker_lost and not outcome.values:
            self._read(ANSWER_TIMEOUT_S)
        stack = self._stacks.pop(key, "")
        self._due.pop(key, None)
        self._tasks.pop(key, None)
        if not lost or key not in self._killed:
            return outcome
        self._killed.remove(key)
        return ChunkOutcome(failure=timeout_failure(self._timeout, stack, self._retries, chunk.attempt))

    def _read(self, timeout: float) -> None:
        if self._looking is None or (found := self._looking(timeout)) is None:
            return
        self._looking = None
        # What has not begun by then can't be due before that time and its limit are over.
        begun: dict[tuple[Task, int], Begun] = {(each.task, each.attempt): each for each in found}
        for key, due in self._due.items():
            if (each := begun.get(key)) is not None and each.killed:
                self._killed.add(key)
            seconds = 0.0 if each is None else each.seconds
            self._due[key] = max(due, self._looked_at - seconds + self._limits.of(self._tasks[key]))


def look_on_nodes(name: str, limits: Limits) -> Look:
    """Let the workers of a run that are over their limits be killed, on each node, and go on at once.

    Args:
        name: What their notes are called.
        limits: The limits.

    Returns:
        What will tell which chunks were found.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = "" if ray.util.client.ray.is_connected() else ray.get_runtime_context().get_node_id()
    begun = kill_overdue(name, limits)  # a task might wait for a process to be started for it
    refs = []
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] != here:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(kill_overdue)
            refs.append(task.remote(name, limits))

    deadline = time.monotonic() + GIVE_UP_AFTER_S

    def found(timeout: float) -> list[Begun] | None:
        ready, left = ray.wait(refs, num_returns=len(refs), timeout=timeout) if refs else ([], [])
        if left and time.monotonic() < deadline:
            return None
        for ref in ready:
            with suppress(ray.exceptions.RayError):  # its node is lost
                begun.extend(Begun(*each) for each in ray.get(ref))
        return begun

    return found


def kill_overdue(name: str, limits: Limits) -> list[Begun]:
    """Kill the processes of this machine that are over their limits, and return what all have begun.

    Args:
        name: What their notes are called.
        limits: The limits.
    """
    found, limits = [], Limits(*limits)
    for process, note in notes(name):
        task, attempt, tasks, begun = note.split()
        seconds = time.monotonic() - float(begun)
        overdue = seconds >= limits.of(int(tasks))
        if overdue:
            with suppress(OSError):  # it has ended
                os.kill(process, signal.SIGKILL)
        found.append(Begun(int(task), int(attempt), seconds, overdue))
    return found


def notes(name: str) -> Iterator[tuple[int, str]]:
    """Yield the notes of this machine that are called so, each with the number of a process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if not (folder / "cmdline").read_bytes().startswith(b"ray::"):
                continue
            for link in (folder / "fd").iterdir():
                if os.readlink(link) == _FILE.format(name) and (note := link.read_text()):
                    yield int(folder.name), note
