"""Ray tasks that do not end at their limit: in a call that does not end, or in a process that is stopped.

Each worker notes which task it runs, and since when; see ``task_note``. Once a chunk is late the driver kills
the workers that are over the limit, on its own node and, by a task, on each other one.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from ..._engines.limits.failure import timeout_failure
from ..._engines.limits.retries import RetryPolicy
from ..._engines.limits.task_note import KILL_GRACE_S, NoteFile, TaskNote, read_note, stacks_of
from ..._engines.task import Chunk, ChunkOutcome, TaskSettings
from ..._state.ledger import Task

ANSWER_TIMEOUT_S = 3.0
"""Seconds that the nodes have to say whether they have killed the worker of a chunk that is lost."""

GIVE_UP_AFTER_S = 60.0
"""Seconds after which nodes that have not answered are not waited for."""

_FILE = "/memfd:{} (deleted)"
"""Where a link of ``/proc`` leads that stands for such a note."""


def note_file(name: str) -> NoteFile | None:
    """Return where this worker notes which task it runs; None without Linux.

    Other processes read it at ``/proc/4711/fd/9``, and it is gone with its own.

    Args:
        name: What it is called, by the run.
    """
    return NoteFile(FileIO(os.memfd_create(name), "r+")) if hasattr(os, "memfd_create") else None


class Found(NamedTuple):
    """A task that a worker runs.

    Attributes:
        note: Which.
        killed: Whether its worker was killed for it.
        stack: Where it stood then, as lines of a traceback; empty if that is not known.
    """

    note: TaskNote
    killed: bool = False
    stack: str = ""


Look = Callable[[float], "list[Found] | None"]
"""Returns what was found on the nodes, waiting some seconds for it at most; None if it is not known yet."""


class OverdueChunks:
    """Ends the chunks of a run whose tasks have gone on for longer than their limit allows.

    The driver's thread calls its methods.

    Args:
        settings: What holds for all tasks; with a ``task_timeout``.
        retries: Whether a task that has come to its limit is worth another attempt.
        look: Lets the nodes kill workers that are over a limit in seconds, and returns what will tell what
            all of them run; :func:`look_on_nodes`.
        clock: Monotonic clock, in seconds.

    Attributes:
        name: What the notes of its workers are called.
    """

    def __init__(
        self,
        settings: TaskSettings,
        retries: RetryPolicy,
        look: Callable[[str, float], Look],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"speedy_utils-{uuid.uuid4().hex}"
        self._timeout, self._retries = settings.task_timeout or 0.0, retries
        self._limit = self._timeout + KILL_GRACE_S
        self._look, self._clock = look, clock
        self._due: dict[tuple[Task, int], float] = {}  # when a task of a chunk may be over its limit
        self._looking: Look | None = None
        self._looked_at = 0.0
        self._killed: dict[tuple[Task, int], Found] = {}

    def start(self, chunk: Chunk) -> None:
        """Note that a chunk is handed to Ray."""
        self._due[chunk.task, chunk.attempt] = self._clock() + self._limit

    def look(self) -> None:
        """Let the workers be killed of chunks that are due."""
        self._read(0.0)
        now = self._clock()
        if self._looking is None and any(due <= now for due in self._due.values()):
            self._looking, self._looked_at = self._look(self.name, self._limit), now

    def end(self, chunk: Chunk, outcome: ChunkOutcome) -> ChunkOutcome:
        """Forget a chunk that has ended, and return its outcome: a timeout if it was killed."""
        key = chunk.task, chunk.attempt
        if lost := outcome.failure is not None and outcome.failure.worker_lost and not outcome.values:
            self._read(ANSWER_TIMEOUT_S)
        killed = self._killed.pop(key, None)
        self._due.pop(key, None)
        if not lost or killed is None:
            return outcome
        failure = timeout_failure(self._timeout, killed.stack, self._retries, chunk.attempt)
        return ChunkOutcome(failure=failure, stuck=killed.note.place)

    def _read(self, timeout: float) -> None:
        if self._looking is None or (found := self._looking(timeout)) is None:
            return
        self._looking = None
        tasks: dict[tuple[Task, int], Found] = {(each.note.task, each.note.attempt): each for each in found}
        for key, due in self._due.items():
            each = tasks.get(key)
            if each is not None and each.killed:
                self._killed[key] = each
            # What had not begun by then can't be over its limit before that time and the limit have passed.
            begun = self._looked_at - (0.0 if each is None else each.note.seconds)
            self._due[key] = max(due, begun + self._limit)


def look_on_nodes(name: str, limit: float) -> Look:
    """Let the workers of a run that are over a limit be killed, on each node, and go on at once.

    Args:
        name: What their notes are called.
        limit: The seconds that a task may take.

    Returns:
        What will tell which tasks were found.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = "" if ray.util.client.ray.is_connected() else ray.get_runtime_context().get_node_id()
    tasks = kill_overdue(name, limit)  # a task might wait for a process to be started for it
    refs = []
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] != here:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(kill_overdue)
            refs.append(task.remote(name, limit))

    deadline = time.monotonic() + GIVE_UP_AFTER_S

    def found(timeout: float) -> list[Found] | None:
        ready, left = ray.wait(refs, num_returns=len(refs), timeout=timeout) if refs else ([], [])
        if left and time.monotonic() < deadline:
            return None
        for ref in ready:
            with suppress(ray.exceptions.RayError):  # its node is lost
                tasks.extend(ray.get(ref))
        return tasks

    return found


def kill_overdue(name: str, limit: float) -> list[Found]:
    """Kill the processes of this machine that are over a limit, and return what all of them run.

    Args:
        name: What their notes are called.
        limit: The seconds that a task may take.
    """
    found, overdue = [], {}
    for process, path in notes(name):
        with suppress(OSError):  # it has ended
            if (note := read_note(path.read_text())) is not None:
                if note.seconds < limit:
                    found.append(Found(note))
                else:
                    overdue[process] = note, path
    stacks = stacks_of({process: path for process, (_, path) in overdue.items()}) if overdue else {}
    for process, (note, _) in overdue.items():
        with suppress(OSError):  # as above
            os.kill(process, signal.SIGKILL)
        found.append(Found(note, killed=True, stack=stacks.get(process, "")))
    return found


def notes(name: str) -> Iterator[tuple[int, Path]]:
    """Yield where the notes of this machine are that are called so, each with the number of a process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if not (folder / "cmdline").read_bytes().startswith(b"ray::"):
                continue
            for link in (folder / "fd").iterdir():
                if os.readlink(link) == _FILE.format(name):
                    yield int(folder.name), link
