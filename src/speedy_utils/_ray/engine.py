"""Ray tasks, on the Ray that is running or on a local one that is started."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from .. import __version__
from .._engines.base import WorkSpec
from .._engines.cpus import cpus
from .._engines.environment.surroundings import Surroundings
from .._engines.environment.thread_limits import ThreadLimits
from .._engines.payload.refs import ValueLostError, is_ref, resolve
from .._engines.payload.results import Sent, unpack_outcome
from .._engines.payload.shipment import PLAIN_TYPES, Shipment
from .._engines.payload.unsent import sending
from .._engines.per_worker import CLOSE_TIMEOUT_S, maker_of
from .._engines.task import Attempt, Failure, Outcome, plain_text
from .._interrupts import delaying_ctrl_c
from .._run.run import PREPARING, WAITING
from .._state.ledger import Report, Task
from .._state.timings import StageTimings
from .._validation import first_line
from .actor import start_actor
from .client import ActorName, ActorReader, locate_attempts
from .cluster.idle import end_idle_worker
from .cluster.nodes import Nodes
from .cluster.silence import LostAttempt, SilenceWatch
from .logs import RunLogs, choose_logs
from .relay import plan_relays, start_relays

if TYPE_CHECKING:
    from .kept_workers import KeptWorkers

logger = logging.getLogger("speedy_utils")


ACTOR_DELAY_S = 0.2
"""Seconds that a run lasts before its actors are started; see ``RayEngine._start_actors``."""


ACTOR_START_TIMEOUT_S = 10.0
"""Seconds that the end of a run waits for actors that are still starting."""


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


_CUDA = re.compile("CUDA|NVIDIA|HIP error")
"""What errors of a GPU say, such as "No CUDA GPUs are available"."""


_fields = attrgetter(*(each.name for each in fields(Attempt)))


class RayEngine:
    """Runs each attempt as a Ray task. Retries are the driver's: Ray has no public attempt number.

    Importing Ray takes seconds, and the bar must be there before: only :meth:`start` imports it.
    """

    def __init__(self, work: WorkSpec) -> None:
        ray = sys.modules.get("ray")
        running = ray is not None and ray.is_initialized()
        self._waiting_phase = PREPARING if maker_of(work.function, work.kwargs) else WAITING
        self._kept: KeptWorkers | None = None
        self.phase = self._waiting_phase if running else "starting Ray"
        self.workers = work.workers
        self._work = work
        self._connection: Any = None
        self._name = ActorName(f"speedy_utils-{uuid.uuid4().hex}")
        self._relays, self._sinks = plan_relays(self._name, work.workers)
        self._actors: list[Any] = []
        self._actors_ready: list[Any] = []
        self._reader: ActorReader | None = None
        self._logs: RunLogs | None = None
        self._attempts: dict[Any, Attempt] = {}
        self._item_refs: dict[Any, Any] = {}
        self._shared_refs: list[Any] = []
        self._differences: set[str] = set()
        self._reading = threading.Lock()
        self._unread: dict[Task, Report] = {}
        self.answered, self._answers = False, 0
        self._silence: SilenceWatch | None = None
        self._looked_at = 0.0
        self._given_up: dict[Any, tuple[LostAttempt, float]] = {}

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
        from .kept_workers import KeptWorkers
        from .worker import RayPickler, run_in_worker

        work = self._work
        name = getattr(work.function, "__qualname__", type(work.function).__qualname__)
        options = {"name": name, **work.options, "max_retries": 0}
        once = {name: options.pop(name) for name in ("max_calls",) if name in options}  # not for .options()
        if options.get("num_gpus"):  # as @ray.remote has it: a process that goes on holds memory of its GPU
            once.setdefault("max_calls", 1)
        task = ray.remote(**once)(run_in_worker) if once else ray.remote(run_in_worker)
        task.options(**options)  # a bad option is an error before anything starts
        self._shipment = Shipment(RayPickler)
        with sending("func", work.function, RayPickler):
            packed = [self._shipment.define(work.function)]
        with sending("the keyword arguments", work.kwargs, RayPickler):
            packed.append(self._shipment.define(work.kwargs))
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
        function, kwargs = (ray.put(each) for each in packed)
        # In a list: Ray would read an argument that is itself a reference again for each task.
        self._shared_refs = [ray.put((function, kwargs, self._sinks, surroundings))]
        self._started_at = time.monotonic()
        self._silence = SilenceWatch(ray.get_runtime_context().get_node_id(), _dead_nodes)

    def submit(self, attempt: Attempt, item: Any) -> None:
        """Start a Ray task."""
        self._check_ray()
        packed = None
        if not is_ref(item) and type(item) not in PLAIN_TYPES:
            packed, item = self._packed(attempt.task, item), None
        ref = self._task.remote(__version__, self._shared_refs, packed, item, _fields(attempt))
        self._attempts[ref] = attempt
        if self._silence is not None:
            self._silence.start(attempt.task, attempt.attempt)
        self._demand.submitted(attempt)
        if is_ref(item):
            self._item_refs[ref] = item

    def _packed(self, task: Task, item: Any) -> tuple[Any, ...]:
        """Return an item as it is sent, and let this and later tasks have what it needs."""
        import ray

        from .worker import RayPickler

        with sending(f"item {task}", item, RayPickler):
            packed, definitions = self._shipment.name(item)
        if definitions is not None:
            # A new list: tasks that have been sent keep theirs.
            self._shared_refs = [*self._shared_refs, ray.put(definitions)]
        return tuple(packed)

    def wait(self) -> list[tuple[Attempt, Outcome]]:
        """Wait for a task to end, half a second at most, and return all that have."""
        import ray

        self._check_ray()
        if self._reader is None and time.monotonic() - self._started_at >= ACTOR_DELAY_S:
            self._start_actors()
        timeout = ACTOR_DELAY_S if self._reader is None else WAIT_TIMEOUT_S
        starting = [] if self._kept is None else self._hand_out(self._kept)
        ready, _ = ray.wait([*self._refs(), *starting], timeout=timeout)
        self._check_ray()
        if ready and (refs := self._refs()):
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        ready = [ref for ref in ready if ref in self._attempts]
        ended = [(self._attempts.pop(ref), self._outcome(ref)) for ref in ready]
        ended += self._end_unanswered()
        if self._silence is not None:
            for attempt, _ in ended:
                self._silence.end(attempt.task)
        self._look(ended)
        return self._locate_lost(ended)

    def _hand_out(self, kept: KeptWorkers) -> list[Any]:
        """Hand attempts that wait to actors, and return what is ready once there are others."""
        for ticket, ref in kept.hand_out():
            self._attempts[ref] = self._attempts.pop(ticket)
            if ticket in self._item_refs:
                self._item_refs[ref] = self._item_refs.pop(ticket)
        return kept.starting()

    def _refs(self) -> list[Any]:
        """Return the references to what the attempts will send, of those that Ray has."""
        return [*self._attempts] if self._kept is None else self._kept.running()

    def _look(self, ended: list[tuple[Attempt, Outcome]]) -> None:
        """Show what Ray does not give, and let the workers follow the CPUs that join."""
        for attempt, _ in ended:
            self._demand.ended(attempt)
        in_flight = len(self._attempts) + len(ended)  # others will take the place of these
        failed = any(outcome.failure for _, outcome in ended)
        self.workers = max(self.workers, self._demand.look(in_flight, at_once=failed))
        self.phase = self._demand.phase or self._waiting_phase

    def _end_unanswered(self) -> list[tuple[Attempt, Outcome]]:
        """Return the attempts that won't be answered, each as the loss of its worker."""
        import ray

        now, silence = time.monotonic(), self._silence
        if silence is None or self._reader is None or now - self._looked_at < SILENCE_INTERVAL_S:
            return []
        self._looked_at = now
        if silence.unread_for() >= READ_INTERVAL_S:
            self._read()
        refs: dict[Task, Any] = {attempt.task: ref for ref, attempt in self._attempts.items()}
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
        return [(self._attempts.pop(ref), self._outcome_of_lost(ref)) for ref in over]

    def _give_up(self, ref: Any) -> None:
        """Keep an attempt from running: it may wait in a queue, of a node that has died."""
        import ray

        if self._kept is None:
            ray.cancel(ref, force=True)
        else:
            self._kept.end(ref, lost=True)

    def _outcome_of_lost(self, ref: Any) -> Outcome:
        self._item_refs.pop(ref, None)
        (task, reason, _, dead_node), _ = self._given_up.pop(ref)
        if dead_node:
            # No retry. Ray may wait for that node to take tasks of this kind, and start no other until then.
            text = f"task {task} starts again: {reason}"
            if self._nodes.leave_out(dead_node, text):
                self._task = self._remote.options(**self._nodes.options())
            else:
                logger.warning(text)
        failure = Failure(f"the worker was lost: {reason}", worker_lost=True, unsuited_node=dead_node)
        return Outcome(failure=failure)

    def _outcome(self, ref: Any) -> Outcome:
        sent = _sent_by(ref, self._item_refs.get(ref))
        if self._kept is not None:
            failure = sent.outcome.failure
            self._kept.end(ref, lost=failure is not None and failure.worker_lost)
        if ref in self._given_up and sent.outcome.failure and sent.outcome.counts is None:
            return self._outcome_of_lost(ref)
        self._item_refs.pop(ref, None)
        self._given_up.pop(ref, None)
        if self._logs is not None:
            self._logs.expect(*sent.printed)
        # Many workers have the same name otherwise: once is enough.
        new = {name: text for name, text in sent.differences if name not in self._differences}
        self._differences |= new.keys()
        outcome = unpack_outcome(sent)
        if (failure := outcome.failure) and failure.unsuited_node:
            if self._nodes.leave_out(failure.unsuited_node, failure.reason):
                self._task = self._remote.options(**self._nodes.options())
            else:
                outcome = replace(outcome, failure=replace(failure, unsuited_node=""))
        elif failure and _CUDA.search(failure.reason) and not self._work.options.get("num_gpus"):
            reason = f'{failure.reason}; it has asked for no GPU, as ray_options={{"num_gpus": 1}} does'
            outcome = replace(outcome, failure=replace(failure, reason=reason))
        return replace(outcome, warnings=(*outcome.warnings, *new.values())) if new else outcome

    def _start_actors(self) -> None:
        """Start the actors that merge live counts.

        Not at once: they would take worker processes that Ray has ready, and tasks would wait for others.
        And a run that is over before its bar can be read needs none.
        """
        actor = start_actor(None, "", self._name)
        self._actors = [actor, *start_relays(self._name, self._relays)]
        self._actors_ready = [each.__ray_ready__.remote() for each in self._actors]
        self._reader = ActorReader(actor)

    def _locate_lost(self, ended: list[tuple[Attempt, Outcome]]) -> list[tuple[Attempt, Outcome]]:
        """Add to failures which process was lost: Ray's own errors don't say."""
        lost: dict[Task, int] = {
            attempt.task: attempt.attempt
            for attempt, outcome in ended
            if outcome.failure and outcome.counts is None
        }
        if not lost:
            return ended
        addresses = locate_attempts(self._actors, lost)
        return [
            (attempt, _add_address(outcome, addresses.get(attempt.task, ""))) for attempt, outcome in ended
        ]

    def cancel(self) -> None:
        """Interrupt the tasks, and kill the workers of those that go on."""
        try:
            self._unfinished(FINISH_GRACE_S)
            running = self._cancel_running(force=False, timeout=WORKER_GRACE_S)
        except KeyboardInterrupt:  # a second Ctrl-C: kill at once
            running = True
        if running:
            self._cancel_running(force=True, timeout=WORKER_KILL_TIMEOUT_S)

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
            for ref in running:
                ray.cancel(ref, force=force)
            running = self._unfinished(timeout)
        return bool(running)

    def _unfinished(self, timeout: float) -> list[Any]:
        if not (refs := self._refs()) or self._death():
            return []  # perhaps Ray was not even imported
        import ray

        return list(ray.wait(refs, num_returns=len(refs), timeout=timeout)[1])

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return what has come to the actor since the last call; nothing before the actor is started."""
        timings = self._read()
        with self._reading:
            unread, self._unread = self._unread, {}
            answers = 0 if self._reader is None else self._reader.answers
            self.answered, self._answers = answers > self._answers, answers
        return unread.values(), timings

    def _read(self) -> StageTimings:
        """Read the actor, for the bar and for what is known of silent workers."""
        with self._reading:
            if self._reader is None or self._silence is None or self._death():
                return {}
            answers = self._reader.answers
            reports, timings = self._reader.collect()
            reports = list(reports)
            self._demand.begun(reports)
            self._unread.update((report.task, report) for report in reports)
            if self._reader.answers > answers:
                self._silence.hear(reports)
        return timings

    @property
    def trouble(self) -> str:
        """Which workers are silent, or whose answers don't come."""
        return "" if self._silence is None else self._silence.text()

    def forget(self, task: Task) -> None:
        """Let the actor forget a task that has ended for good."""
        if self._reader is not None:
            self._reader.forget(task)

    def close(self) -> None:
        """End the actors; Ray goes on."""
        if self._reader is not None:
            self._reader.close()
        try:
            dead = self._death()
            if self._kept is not None and not dead:
                self._kept.close(CLOSE_TIMEOUT_S)
            if self._logs is not None and not dead:
                self._logs.wait()
            if self._actors and not dead:
                self._end_actors()
        finally:
            # Handles and references are dropped now, and not when the garbage collector finds this engine:
            # that may be in a child that the program has forked. There Ray would report it on its parent's
            # connections, and what the parent sends next, such as its subscription to actors, would be lost.
            self._actors, self._actors_ready, self._shared_refs, self._attempts = [], [], [], {}
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

    def _end_actors(self) -> None:
        import ray

        try:
            if ready := self._actors_ready:  # Ray prints an error about an actor that ends while it starts
                ray.wait(ready, num_returns=len(ready), timeout=ACTOR_START_TIMEOUT_S)
        finally:
            for actor in self._actors:
                ray.kill(actor)


def _import_connection() -> Any:
    """Import Ray, and return the module that connects to it.

    A Ctrl-C within the import would leave half a Ray in this process, where it can't be imported again.
    """
    with delaying_ctrl_c():
        from .cluster import connection
    return connection


def _dead_nodes() -> set[str]:
    """Return the ids of the nodes that Ray calls dead."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def _sent_by(ref: Any, item: Any) -> Sent:
    """Return what a Ray task that has ended has sent; a failed outcome if Ray raises its error.

    Args:
        ref: The reference to its outcome.
        item: Its item if that is a reference, else None.
    """
    from ray import exceptions, get

    lost = (
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.RayActorError,
    )
    try:
        sent: Sent | str = get(ref)
    except lost as error:
        reason = f"the worker was lost: {first_line(error)}"
        return Sent(Outcome(failure=Failure(reason, error=error, worker_lost=True)))
    except exceptions.RayTaskError as error:
        if item is not None and (failure := _failure_of(item)):
            return Sent(Outcome(failure=failure))
        reason = f"its arguments could not be read: {first_line(error.cause)}"
        return Sent(Outcome(failure=Failure(reason, plain_text(str(error)), error)))
    except exceptions.RayError as error:
        return Sent(
            Outcome(
                failure=Failure(f"Ray did not run it: {first_line(error)}", plain_text(str(error)), error)
            )
        )
    return Sent(Outcome(failure=Failure(sent))) if isinstance(sent, str) else sent


def _failure_of(ref: Any) -> Failure | None:
    """Return why a reference has no value; None if it has one."""
    try:
        resolve(ref)
    except ValueLostError as error:
        return Failure(str(error), error=error, worker_lost=True)
    except Exception as error:  # that of the user's code which should have made the value
        return Failure(first_line(error), str(error.__cause__), error)
    return None


def _add_address(outcome: Outcome, address: str) -> Outcome:
    """Return a failed outcome with the address of the process that was lost, if that is known."""
    if not address or outcome.failure is None:
        return outcome
    return replace(outcome, failure=replace(outcome.failure, reason=f"{outcome.failure.reason} [{address}]"))
