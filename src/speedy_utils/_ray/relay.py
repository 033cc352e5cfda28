"""Between many workers and their actor: each relay hands on what some hundred workers report, in one call.

A call costs an actor half a millisecond, whatever it holds, and a report in it two microseconds. So the
number of calls is what counts: workers that all called one actor would either flood it or have to wait
for many seconds between two calls. A relay may die or lag as the actor may: what is lost is freshness,
and every worker says everything again within two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .._state.ledger import Ledger, Report, Task
from .._state.timings import StageClock, StageTimings
from .._worker.flusher import Sink
from .actor import TaskLocations
from .client import ActorName, ActorSink

WORKERS_PER_RELAY = 100
"""Workers that share a relay."""


MAX_DIRECT_WORKERS = 200
"""Workers up to which all call the actor itself: small runs start no process for this."""


class Relay:
    """Joins reports and hands them on. Made a Ray actor by :func:`start_relays`.

    It has no thread: what waits goes with the next call, and a worker calls at least every two seconds. It
    remembers nothing beyond that but the last task of each process, so there is nothing to forget when
    tasks end.

    Args:
        sink: Where the reports go.
        clock: Seconds that only grow.
    """

    def __init__(self, sink: Sink, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._clock = clock
        self._waiting = Ledger()
        self._locations = TaskLocations()
        self._stage_clock = StageClock(clock)
        self._sent = clock()

    def report(self, reports: Iterable[Report], timings: StageTimings, location: str = "") -> None:
        """Take in the state of some tasks, as the actor does; where they run is kept here."""
        now = self._clock()
        known = [Report(*report) for report in reports]
        self._waiting.merge(known)
        self._locations.note(location, known)
        self._stage_clock.merge(timings)
        if now - self._sent < self._sink.interval:
            return
        if self._sink.send(self._waiting.changes(), self._stage_clock.timings()):
            self._waiting, self._sent = Ledger(), now

    def locate(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Where some attempts were at work, as far as they have reported to this relay."""
        return self._locations.find(attempts)


def plan_relays(actor: ActorName, workers: int) -> tuple[list[ActorName], list[ActorSink]]:
    """How the workers of a run reach its actor.

    Args:
        actor: The actor's name.
        workers: How many report.

    Returns:
        The names of the relays to start, none for a small run; and the sinks, of which each worker
        process takes any one.
    """
    if workers <= MAX_DIRECT_WORKERS:
        return [], [ActorSink(actor, workers)]
    names = [ActorName(f"{actor}-{number}") for number in range(-(-workers // WORKERS_PER_RELAY))]
    return names, [ActorSink(name, WORKERS_PER_RELAY) for name in names]


def start_relays(actor: ActorName, names: Sequence[ActorName]) -> list[Any]:
    """Start the relays of a run, spread over the nodes of its Ray.

    Args:
        actor: The name of the actor that they call. Not its handle: Ray warns of an argument that holds one,
            as it may be gone when the relay starts again.
        names: What :func:`plan_relays` has named.

    Returns:
        Their handles: a relay ends with its last one.
    """
    import ray

    sink = ActorSink(actor, len(names), placed=False)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD")(Relay)
    return [remote.options(name=name).remote(sink) for name in names]
