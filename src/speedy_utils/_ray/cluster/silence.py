"""Workers and nodes without a word, and answers that don't come.

A network that is cut without a reset says nothing. gRPC, which Ray speaks, notices after 300 s of silence
and another 120 s without an answer to its ping; until then a task that runs beyond the cut seems to run on.
And an answer that was under way may be lost for good although the network is back: then both ends wait.

What is known here is when a worker was last heard of, as one that is well sends word every two seconds; which
attempts their workers have called ended; and Ray's own table of nodes, which tells that a node is dead after
a minute or so. From then on its workers can't answer any more: Ray ends those that come back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from ..._state.ledger import ENDED, Location, Report, Task
from ..._state.running import RunningTask, RunningTasks

logger = logging.getLogger("speedy_utils")


SILENT_AFTER_S = 9.0
"""Seconds without a word after which a node is called silent, if none of its workers is heard."""


PROCESS_SILENT_AFTER_S = SILENT_AFTER_S + 3.0
"""Seconds for a worker of a node where others are heard: by then a node that is cut off is silent as a whole.

Together with the interval of readings it is less than 15 s.
"""


ASK_AFTER_S = 5.0
"""Seconds without a word of some attempt after which Ray is asked which nodes are dead, and asked again."""


UNHEARD_AFTER_S = 60.0
"""Seconds after which an attempt that never sent word is taken to be on a node that has died meanwhile.

It may also wait for a CPU, or import what its function needs.
"""


LATE_AFTER_S = 5.0
"""Seconds after which an answer is called late. Its worker says that it has ended once it should be here."""


LOST_AFTER_S = 20.0
"""Seconds after which a late answer is taken to be lost."""


MAX_PAUSE_S = 5.0
"""Seconds without a reading that count as silence: if there is none for longer, no worker could be heard."""


class LostAttempt(NamedTuple):
    """An attempt that won't be answered.

    Attributes:
        task: The task.
        reason: What is known of it, in one line.
        idle: The process that has ended it, and that Ray keeps for it; None if there is none.
        dead_node: The id of a node that has died, if nothing but that speaks for the loss: it may also wait.
    """

    task: Task
    reason: str
    idle: Location | None = None
    dead_node: str = ""


@dataclass
class _Trouble:
    """Tasks that wait for the same node, some of its processes, or an answer."""

    name: str
    since: float
    text: str
    tasks: list[RunningTask]
    whole: bool = False


class SilenceWatch:
    """Knows when the workers of a run were last heard of. Any thread may use it.

    Args:
        home: Ray's id of the node of this program, which can't be cut off from it.
        dead_nodes: Returns the ids of the nodes that Ray calls dead; it may take long, and raise anything.
        clock: Monotonic clock, in seconds.

    Example:
        >>> from speedy_utils._state.ledger import Location
        >>> now = 0.0
        >>> watch = SilenceWatch("1f2e", set, clock=lambda: now)
        >>> watch.start(3, attempt=1)
        >>> watch.hear([Report(3, 1, {}, reading=1, location=Location("node-2", 4711, "77aa"))])
        >>> for now in range(1, 13):
        ...     watch.hear([])
        >>> watch.check()
        []
        >>> watch.text()
        'no word from node-2 for 12 s: 1 task waits for it'
    """

    def __init__(
        self,
        home: str,
        dead_nodes: Callable[[], set[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._dead_nodes, self._clock = home, dead_nodes, clock
        self._new: dict[Task, tuple[int, float]] = {}  # attempts, and when they were handed over
        self._known = RunningTasks()
        self._lock = threading.Lock()  # the poller reads while the driver submits
        self._read_at = clock()
        self._now = 0.0  # time in which there were readings: without any, no worker is silent
        self._asked_at = 0.0
        self._question: threading.Thread | None = None
        self._dead: set[str] | None = None  # not asked yet
        self._died: tuple[str, float] = "", -inf  # the last node that has died in this run, and when
        self._troubles: dict[Task, _Trouble] = {}  # by the id of a node, or by task: late answers

    def start(self, task: Task, attempt: int) -> None:
        """Note that an attempt is handed to a worker."""
        with self._lock:
            self._new[task] = attempt, self._now

    def end(self, task: Task) -> None:
        """Note that an attempt was answered, or is given up."""
        with self._lock:
            if self._new.pop(task, None) is not None and not self._troubles:
                return  # as most short ones
            self._tasks.end(task)
            running = {id(each) for each in self._tasks} if self._troubles else ()
            self._troubles = {
                key: trouble
                for key, trouble in self._troubles.items()
                if any(id(each) in running for each in trouble.tasks)
            }

    @property
    def _tasks(self) -> RunningTasks:
        """What is known of the attempts; nothing is made of those that end before it is asked for."""
        for task, (attempt, now) in self._new.items():
            self._known.start(task, attempt, None, None, now)
        self._new.clear()
        return self._known

    def unread_for(self) -> float:
        """Return the seconds since the last reading."""
        return self._clock() - self._read_at

    def hear(self, reports: Iterable[Report], *, from_all: bool = True) -> None:
        """Note a reading: which tasks were heard of since the last one.

        Args:
            reports: What was read.
            from_all: Whether all workers could be heard; else those that were not are not called silent.
        """
        with self._lock:
            if from_all:
                now = self._clock()
                self._now += min(now - self._read_at, MAX_PAUSE_S)
                self._read_at = now
            for report in reports:
                task = self._tasks.get(report.task)
                if task is not None and task.attempt == report.attempt:  # those of earlier ones may come late
                    task.read(report, self._now)

    def late(self) -> list[Task]:
        """Return the tasks that their workers call ended, and whose answers should be here."""
        with self._lock:
            return [
                each.task
                for each in self._tasks
                if ENDED in each.counts and self._now - each.moved >= LATE_AFTER_S
            ]

    def check(self) -> list[LostAttempt]:
        """Log who is silent and who speaks again, and return the attempts that are lost."""
        with self._lock:
            ended = [each for each in self._tasks if ENDED in each.counts]
            working = [each for each in self._tasks if each.location and ENDED not in each.counts]
            if any(self._now - each.heard >= ASK_AFTER_S for each in self._tasks):
                self._ask()
            self._note_troubles(self._silent(working) | self._late(ended))
            return [lost for each in self._tasks if (lost := self._lost(each))]

    def _lost(self, task: RunningTask) -> LostAttempt | None:
        unheard, (dead_node, died_at) = self._now - task.heard, self._died
        if task.location is None:
            if task.started > died_at or unheard < UNHEARD_AFTER_S:
                return None
            reason = (
                f"it has sent no word for {unheard:.0f} s, and may be on node {dead_node[:8]}, which has died"
            )
            return LostAttempt(task.task, reason, dead_node=dead_node)
        if task.location.node_id in (self._dead or ()):
            return LostAttempt(task.task, f"Ray calls its node dead, which was silent for {unheard:.0f} s")
        late = self._now - task.moved
        if ENDED not in task.counts or late < LOST_AFTER_S:
            return None
        reason = f"it has ended, and its result did not come within {late:.0f} s: it was lost on the way"
        return LostAttempt(task.task, reason, idle=task.location)

    def text(self) -> str:
        """Return who is silent: ``"no word from node-2 for 15 s: 3 tasks wait for it"``; or nothing."""
        with self._lock:
            if not self._troubles:
                return ""
            longest = min(self._troubles.values(), key=lambda each: each.since)
            return longest.text.format(_duration(self._now - longest.since))

    def _silent(self, working: list[RunningTask]) -> dict[Task, _Trouble]:
        """Return the nodes of which no process is heard, and the silent processes of other nodes."""
        nodes: dict[str, list[tuple[Location, RunningTask]]] = defaultdict(list)
        for each in working:
            if each.location:
                nodes[each.location.node_id].append((each.location, each))
        troubles: dict[Task, _Trouble] = {}
        for node_id, tasks in nodes.items():
            silent = [each for _, each in tasks if self._now - each.heard >= SILENT_AFTER_S]
            node = tasks[0][0].node
            if len(silent) == len(tasks) and node_id != self._home:
                troubles[node_id] = _silence(node, silent, whole=True)
                continue
            long = [(at, each) for at, each in tasks if self._now - each.heard >= PROCESS_SILENT_AFTER_S]
            if pids := {location.pid for location, _ in long}:
                name = f"{len(pids):,} processes" if len(pids) > 1 else f"process {pids.pop()}"
                troubles[node_id] = _silence(f"{name} on {node}", [each for _, each in long])
        return troubles

    def _late(self, ended: list[RunningTask]) -> dict[Task, _Trouble]:
        """Return the tasks that have ended, and whose answers don't come."""
        return {
            each.task: _Trouble(
                f"task {each.task}",
                each.moved,
                f"task {each.task} has ended on {_node(each)}, and its result has not come for {{}}",
                [each],
            )
            for each in ended
            if self._now - each.moved >= LATE_AFTER_S
        }

    def _note_troubles(self, troubles: dict[Task, _Trouble]) -> None:
        for key, trouble in troubles.items():
            before = self._troubles.get(key)
            if before is None or (trouble.whole and not before.whole):
                text = trouble.text.format(_duration(self._now - trouble.since))
                next_step = "; what it has runs again elsewhere once Ray calls it dead" * trouble.whole
                logger.warning("%s%s", text, next_step)
        for key, trouble in self._troubles.items():
            if key not in troubles:
                logger.warning("%s: heard again", trouble.name)
        self._troubles = troubles

    def _ask(self) -> None:
        """Ask Ray which nodes are dead, in a thread: nothing says when it answers."""
        busy = self._question is not None and self._question.is_alive()
        if busy or self._now - self._asked_at < ASK_AFTER_S:
            return
        self._asked_at = self._now
        self._question = threading.Thread(target=self._answer, name="speedy_utils-nodes", daemon=True)
        self._question.start()

    def _answer(self) -> None:
        try:
            dead = self._dead_nodes()
        except Exception as error:  # Ray raises many things; it is asked again
            logger.debug("Ray does not say which nodes are dead: %s", error)
            return
        with self._lock:
            if self._dead is not None and (died := dead - self._dead):
                self._died = died.pop(), self._now
            self._dead = dead


def _silence(name: str, tasks: list[RunningTask], *, whole: bool = False) -> _Trouble:
    count = f"{len(tasks):,} tasks wait" if tasks[1:] else "1 task waits"
    since = max(each.heard for each in tasks)
    it = "them" if "processes" in name else "it"
    return _Trouble(name, since, f"no word from {name} for {{}}: {count} for {it}", tasks, whole)


def _node(task: RunningTask) -> str:
    return task.location.node if task.location else "a node"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min"
