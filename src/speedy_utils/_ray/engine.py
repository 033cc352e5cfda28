"""Ray tasks, on the Ray that is running or on a local one that is started."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .._engines.base import WorkSpec
from .._engines.cpus import cpus
from .._engines.environment.surroundings import Surroundings
from .._engines.environment.thread_limits import ThreadLimits
from .._engines.limits.failure import Failure
from .._engines.payload.results import Sent, unpack_outcome
from .._engines.per_worker import CLOSE_TIMEOUT_S, maker_of
from .._engines.task import Chunk, ChunkOutcome
from .._interrupts import delaying_ctrl_c
from .._run.feed import PREPARING, WAITING
from .._state.ledger import Report, Task
from .._state.timings import StageTimings
from .cluster.idle import end_idle_worker
from .cluster.nodes import Nodes, dead_nodes
from .cluster.silence import LostAttempt, SilenceWatch
from .logs import RunLogs, choose_logs
from .tasks.live_counts import ACTOR_DELAY_S, LiveCounts
from .tasks.outcomes import sent_by_all, with_addresses, with_gpu_hint
from .tasks.overdue import OverdueChunks, look_on_nodes
from .tasks.short_chunks import AHEAD, BATCH_TIMEOUT_S, ShortChunks, bound_to_node

if TYPE_CHECKING:
    from .tasks.kept_workers import KeptWorkers

logger = logging.getLogger("speedy_utils")

WAIT_TIMEOUT_S = 0.5
"""Seconds that ``RayEngine.wait`` waits for a task to end."""

FINISH_GRACE_S = 0.05
"""Seconds in which tasks may end by themselves before they are cancelled: see ``_cancel_running``."""

WORKER_GRACE_S = 1.5
"""Seconds in which a cancelled task may end before its worker is killed."""

WORKER_KILL_TIMEOUT_S = 5.0
"""Seconds to wait for killed workers to end."""

SILENCE_INTERVAL_S = 1.0
"""Seconds between two looks at which workers are silent."""

READ_INTERVAL_S = 2.0
"""Seconds after which the driver reads the actor if the bar does not: with a long ``poll_interval``."""

GIVE_UP_TIMEOUT_S = 5.0
"""Seconds that Ray has to give up a task that is lost."""


class RayEngine:
    """Runs each chunk as a Ray task. Retries are the driver's: Ray has no public attempt number.

    Importing Ray takes seconds, and the bar must be there before: only :meth:`start` imports it.
    """

    def __init__(self, work: WorkSpec) -> None:
        ray = sys.modules.get("ray")
        running = ray is not None and ray.is_initialized()
        makes = maker_of(work.function, work.kwargs) is not None
        self._waiting_phase = PREPARING if makes else WAITING
        self._kept: KeptWorkers | None = None
        self.phase = self._waiting_phase if running else "starting Ray"
        self.workers = work.workers
        self._work = work
        self._connection: Any = None
        self._live = LiveCounts(work.workers, self._hear)
        self._logs: RunLogs | None = None
        self._chunks: dict[Any, Chunk] = {}
        self._item_refs: dict[Any, Any] = {}
        self._shipment: Any = None
        self._differences: set[str] = set()
        self.answered = False
        self._silence: SilenceWatch | None = None
        self._looked_at = 0.0
        self._given_up: dict[Any, tuple[LostAttempt, float]] = {}
        self._overdue: OverdueChunks | None = None
        self.ahead = 0
        self._short = ShortChunks(possible=work.settings.most_seconds is None and not makes)
        self._bound: Any = None
        self._unstarted: list[Chunk] = []

    @classmethod
    def default_workers(cls, *, awaits: bool = False) -> int:  # noqa: ARG003 - each needs a process
        """Return the CPUs of the Ray that is running, or of this machine if none can be."""
        if "ray" in sys.modules or os.environ.get("RAY_ADDRESS"):
            return _import_connection().running_cpus() or cpus()
        return cpus()

    def start(self) -> None:
        """Connect to Ray, or start one, and send it what all tasks share.

        Raises:
            ConnectionError: No Ray answers at RAY_ADDRESS.
            TypeError: Ray can't pickle the function or its arguments, or does not know an option.
            ValueError: An option has a value that Ray does not allow.
        """
        # First: Ray changes the environment.
        surroundings, threads = Surroundings.of_program(), ThreadLimits.of_workers(self._work.workers)
        connection = _import_connection()
        import ray

        from .cluster.demand import Demand
        from .cluster.resources import RayCluster
        from .cluster.shortage import needs_of
        from .tasks.kept_workers import KeptWorkers
        from .tasks.options import remote_task
        from .tasks.shipping import TaskShipment

        work = self._work
        task, options = remote_task(work)
        self._shipment = shipment = TaskShipment(work)
        self._connection = connection
        connection.connect(work.workers, self)
        self._logs = choose_logs(options["name"], work.worker_logs)
        if self._logs is not None:
            options["name"] = self._logs.task_name
        self.phase = self._waiting_phase
        if cpus_of_ray := connection.own_cpus():
            # All workers fit in a Ray that is ours, also if it was started for fewer. Ray counts in
            # ten-thousandths of a CPU.
            surroundings = replace(surroundings, threads=threads)
            options.setdefault("num_cpus", min(10_000, cpus_of_ray * 10_000 // work.workers) / 10_000)
        if self._waiting_phase is PREPARING:
            self._kept = KeptWorkers(work.workers, options)
        self._remote, self._nodes = self._kept or task, Nodes(options)
        self._task = self._remote.options(**options)
        needs = needs_of(options)
        self._demand = Demand(needs, RayCluster(needs, options), asked=not work.may_grow)
        home = ray.get_runtime_context().get_node_id()
        self._live.open_folder(home)
        if work.settings.task_timeout is not None:
            self._overdue = OverdueChunks(work.settings, work.retries, look_on_nodes)
        note = self._overdue.name if self._overdue else ""
        shipment.share(self._live.sinks, surroundings, work.settings, note)
        if self._short.possible:
            bound = bound_to_node(home, options, work.workers)
            self._bound = bound and task.options(**bound)
        self._looked_at = time.monotonic()
        self._silence = SilenceWatch(home, dead_nodes)

    def submit(self, chunk: Chunk) -> None:
        """Start a Ray task.

        Raises:
            UnsentItemError: An item of the chunk can't be pickled.
        """
        self._check_ray()
        self._send(chunk, shared=not self._short.are_short)
        if self._silence is not None:
            self._silence.start(chunk.task, chunk.attempt)
        if self._overdue is not None:
            self._overdue.start(chunk)
        self._demand.submitted(chunk)

    def _send(self, chunk: Chunk, *, shared: bool) -> None:
        """Hand a chunk to Ray, with references to what all tasks share, or without."""
        arguments = self._shipment.arguments(chunk, shared=shared)
        ref = (self._bound if self.ahead else self._task).remote(*arguments)
        self._chunks[ref] = chunk
        if len(arguments) > 2:  # the item is a reference
            self._item_refs[ref] = arguments[2]

    def wait(self, timeout: float | None = None) -> None:
        """Wait for a chunk to end, half a second at most."""
        import ray

        self._check_ray()
        self._live.start_if_needed()
        most = WAIT_TIMEOUT_S if self._live.started else ACTOR_DELAY_S
        starting = [] if self._kept is None else self._hand_out(self._kept)
        refs, number = [*self._refs(), *starting], 1
        if self.ahead:
            most, number = BATCH_TIMEOUT_S, min(self.ahead // 2, len(refs))
        ray.wait(refs, num_returns=number, timeout=most if timeout is None else min(most, timeout))

    def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Return the chunks that have ended, and look at what the others wait for."""
        self._check_ray()
        ended = self._ended()
        unstarted, self._unstarted = self._unstarted, []
        for chunk in unstarted:
            self._send(chunk, shared=True)
        self._short.observe(outcome for _, outcome in ended)
        self.ahead = AHEAD if self._bound is not None and self._short.are_short else 0
        if (overdue := self._overdue) is not None:
            ended = [(chunk, overdue.end(chunk, outcome)) for chunk, outcome in ended]
            overdue.look()
        ended += self._end_unanswered()
        if self._silence is not None:
            for attempt, _ in ended:
                self._silence.end(attempt.task)
        self._look(ended)
        return with_addresses(ended, self._live.locate)

    def _hand_out(self, kept: KeptWorkers) -> list[Any]:
        """Hand chunks that wait to actors, and return what is ready once there are others."""
        for ticket, ref in kept.hand_out():
            self._chunks[ref] = self._chunks.pop(ticket)
            if ticket in self._item_refs:
                self._item_refs[ref] = self._item_refs.pop(ticket)
        return kept.starting()

    def _refs(self) -> list[Any]:
        """Return the references to what the chunks will send, of those that Ray has."""
        return [*self._chunks] if self._kept is None else self._kept.running()

    def _look(self, ended: list[tuple[Chunk, ChunkOutcome]]) -> None:
        """Show what Ray does not give, and let the workers follow the CPUs that join."""
        for attempt, _ in ended:
            self._demand.ended(attempt)
        # Others will take the place of those that have ended.
        in_flight = min(len(self._chunks) + len(ended), self.workers)
        failed = any(outcome.failure or outcome.others for _, outcome in ended)
        if (cpus := self._demand.look(in_flight, at_once=failed)) > self.workers:
            self.workers, self._bound = cpus, None
        self.phase = self._demand.phase or self._waiting_phase

    def _end_unanswered(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Return the attempts that won't be answered, each as the loss of its worker."""
        import ray

        now, silence = time.monotonic(), self._silence
        if silence is None or now - self._looked_at < SILENCE_INTERVAL_S:
            return []
        self._looked_at = now
        if silence.unread_for() >= READ_INTERVAL_S:
            self._read()
        refs: dict[Task, Any] = {attempt.task: ref for ref, attempt in self._chunks.items()}
        if late := {refs[task]: task for task in silence.late() if task in refs}:
            # Those that Ray has heard of are not lost, but large: they are being fetched.
            for ref in ray.wait([*late], num_returns=len(late), timeout=0, fetch_local=False)[0]:
                silence.end(late[ref])
        for lost in silence.check():
            ref = refs[lost.task]
            if ref not in self._given_up:
                if lost.idle:
                    end_idle_worker(lost.idle)
                if lost.dead_node:
                    self._give_up(ref)
                at_once = not (lost.idle or lost.dead_node)
                self._given_up[ref] = lost, now + (0 if at_once else GIVE_UP_TIMEOUT_S)
        over = [ref for ref, (_, deadline) in self._given_up.items() if now >= deadline]
        return [(self._chunks.pop(ref), self._outcome_of_lost(ref)) for ref in over]

    def _give_up(self, ref: Any) -> None:
        """Keep a chunk from running: it may wait in a queue, of a node that has died."""
        import ray

        if self._kept is None:
            ray.cancel(ref, force=True)
        else:
            self._kept.end(ref, lost=True)

    def _outcome_of_lost(self, ref: Any) -> ChunkOutcome:
        self._item_refs.pop(ref, None)
        (task, reason, _, dead_node), _ = self._given_up.pop(ref)
        if dead_node:
            # No retry. Ray may wait for that node to take tasks of this kind, and start no other until then.
            text = f"task {task} starts again: {reason}"
            if self._nodes.leave_out(dead_node, text):
                self._task, self._bound = self._remote.options(**self._nodes.options()), None
            else:
                logger.warning(text)
        failure = Failure(f"the worker was lost: {reason}", worker_lost=True, unsuited_node=dead_node)
        return ChunkOutcome(failure=failure)

    def _outcome(self, ref: Any, sent: Sent) -> ChunkOutcome:
        if self._kept is not None:
            failure = sent.outcome.failure
            self._kept.end(ref, lost=failure is not None and failure.worker_lost)
        if ref in self._given_up and sent.outcome.failure:
            return self._outcome_of_lost(ref)
        self._item_refs.pop(ref, None)
        self._given_up.pop(ref, None)
        if self._logs is not None:
            self._logs.expect(*sent.printed)
        # Many workers have the same name otherwise: once is enough.
        new = {name: text for name, text in sent.differences if name not in self._differences}
        self._differences |= new.keys()
        outcome = unpack_outcome(sent)
        outcome.warnings = (*outcome.warnings, *new.values())
        outcome.failure = outcome.failure and self._explained(outcome.failure)
        for place, other in outcome.others.items():
            if other.failure is not None:
                outcome.others[place] = replace(other, failure=self._explained(other.failure))
        return outcome

    def _explained(self, failure: Failure) -> Failure:
        """Return a failure with what else is to be said, and leave out a node that can't see its files."""
        if failure.unsuited_node:
            if not self._nodes.leave_out(failure.unsuited_node, failure.reason):
                return replace(failure, unsuited_node="")
            self._task, self._bound = self._remote.options(**self._nodes.options()), None
        elif not self._work.options.get("num_gpus"):
            return with_gpu_hint(failure)
        return failure

    def handed_back(self) -> Mapping[tuple[Task, int], int]:
        """Return how many tasks late chunks keep, as far as the actor has heard."""
        self._read()
        return self._live.take_handed_back()

    def cancel(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Interrupt the tasks, and kill the workers of those that go on.

        Returns:
            The chunks that had ended.
        """
        # Actors can't be interrupted. A chunk of several ends soon, and then brings what it has finished.
        several = self._kept is not None and any(len(each.items) > 1 for each in self._chunks.values())
        try:
            self._unfinished(WORKER_GRACE_S if several else FINISH_GRACE_S)
            running = self._cancel_running(force=False, timeout=WORKER_GRACE_S)
        except KeyboardInterrupt:  # a second Ctrl-C: kill at once
            running = True
        if running:
            self._cancel_running(force=True, timeout=WORKER_KILL_TIMEOUT_S)
        return self._ended()

    def _ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        refs = [ref for ref in self._refs() if ref in self._chunks]
        if not refs or self._death():
            return []
        import ray

        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        ended = []
        for ref, sent in zip(ready, sent_by_all(ready, self._item_refs), strict=True):
            chunk = self._chunks.pop(ref)
            if sent is None:
                self._unstarted.append(chunk)
            else:
                ended.append((chunk, self._outcome(ref, sent)))
        return ended

    def _cancel_running(self, *, force: bool, timeout: float) -> bool:
        """Cancel the tasks that run, and return whether some still do after ``timeout`` seconds.

        Those that have ended are left out, as Ray may abort the program if a task is cancelled while its
        result is on its way ("Tried to complete task that was not pending").
        """
        if running := self._unfinished(0):
            import ray

            if self._kept is not None:
                self._kept.kill_busy()
                return False
            for ref in reversed(running):  # first those that wait, which would take the place of others
                ray.cancel(ref, force=force)
            running = self._unfinished(timeout)
        return bool(running)

    def _unfinished(self, timeout: float) -> list[Any]:
        if not (refs := self._refs()) or self._death():
            return []  # perhaps Ray was not even imported
        import ray

        return list(ray.wait(refs, num_returns=len(refs), timeout=timeout)[1])

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return what has come to the actor, or into the folder, since the last call."""
        timings = self._read()
        unread, self.answered = self._live.take_unread()
        return unread, timings

    def _read(self) -> StageTimings:
        return {} if self._death() else self._live.read()

    def _hear(self, reports: Sequence[Report], from_all: bool) -> None:
        self._demand.begun(reports)
        if self._silence is not None:
            self._silence.hear(reports, from_all=from_all)

    @property
    def trouble(self) -> str:
        """Which workers are silent, or whose answers don't come."""
        return "" if self._silence is None else self._silence.text()

    def forget(self, task: Task) -> None:
        """Let the actor forget a task that has ended for good."""
        self._live.forget(task)

    def close(self) -> None:
        """End the actors; Ray goes on."""
        self._live.stop_reading()
        try:
            dead = self._death()
            if self._kept is not None and not dead:
                self._kept.close(CLOSE_TIMEOUT_S)
            if self._logs is not None and not dead:
                self._logs.wait()
            if not dead:
                self._live.end()
        finally:
            # Handles and references are dropped now, and not when the garbage collector finds this engine:
            # that may be in a child that the program has forked. There Ray would report it on its parent's
            # connections, and what the parent sends next, such as its subscription to actors, would be lost.
            self._live.release()
            self._shipment, self._chunks = None, {}
            self._item_refs, self._given_up, self._kept = {}, {}, None
            if self._connection is not None:
                self._connection.release(self)

    def _death(self) -> str:
        """Return what has died of Ray; empty if all lives, it was not started by us, or not at all."""
        return "" if self._connection is None else str(self._connection.own_death())

    def _check_ray(self) -> None:
        """Raise a ConnectionError if the Ray of this run has died: a call of it would end the program."""
        if death := self._death():
            raise ConnectionError(
                f"the local Ray of this program has died ({death}), and with it what its tasks had done: "
                "the next call starts a new one"
            )


def _import_connection() -> Any:
    """Import Ray, and return the module that connects to it.

    A Ctrl-C within the import would leave half a Ray in this process, where it can't be imported again.
    """
    with delaying_ctrl_c():
        from .cluster import connection
    return connection
