"""Between many workers and their actor: a relay joins what a hundred workers report into one call.

A call costs an actor half a millisecond, whatever it holds, and a report in it two microseconds. So the
number of calls is what counts: if thousands of workers called one actor, they would either flood it or have
to wait for many seconds between two calls. A relay may die or lag as the actor may: what is lost is
freshness, and every worker sends everything again within two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .._state.ledger import Ledger, Report, Task
from .._state.timings import StageClock, StageTimings
from .._worker.channel.flusher import Sink
from .actor import TaskLocations
from .client import ActorName, ActorSink

WORKERS_PER_RELAY = 100
"""Workers that share a relay: each calls it every 0.4 s, and 50 relays call the actor every 0.2 s."""


MAX_DIRECT_WORKERS = 200
"""Workers up to which all call the actor itself, every 0.8 s at the most: small runs start no relays."""


class Relay:
    """Joins reports and sends them on. Made a Ray actor by :func:`start_relays`.

    It has no thread: what waits is sent with the next report that comes. It remembers nothing but what
    waits and the last tasks of each process, so there is nothing to forget when tasks end.

    Args:
        sink: Where the reports go.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, sink: Sink, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._clock = clock
        self._waiting = Ledger()
        self._locations = TaskLocations()
        self._stage_clock = StageClock(clock)
        self._sent_at = clock()

    def report(self, reports: Iterable[Report], timings: StageTimings, address: str = "") -> None:
        """Take in the state of some tasks, as :meth:`ProgressActor.report` does; the address stays here."""
        now = self._clock()
        known = [Report(*report) for report in reports]
        self._waiting.merge(known)
        self._locations.note(address, known)
        self._stage_clock.merge(timings)
        if now - self._sent_at < self._sink.interval:
            return
        if self._sink.send(self._waiting.changes(), self._stage_clock.timings()):
            self._waiting, self._sent_at = Ledger(), now

    def locate(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Return the addresses of the processes that some attempts ran in, if they reported to this relay."""
        return self._locations.find(attempts)


def plan_relays(
    actor: ActorName,
    workers: int,
    *,
    max_direct: int = MAX_DIRECT_WORKERS,
    per_relay: int = WORKERS_PER_RELAY,
) -> tuple[list[ActorName], list[ActorSink]]:
    """Return how the workers of a run reach its actor.

    Args:
        actor: The actor's name.
        workers: How many report.
        max_direct: Workers up to which all call the actor itself.
        per_relay: Workers that share a relay.

    Returns:
        The names of the relays to start, none for a small run; and the sinks, of which each worker
        process takes any one.
    """
    if workers <= max_direct:
        return [], [ActorSink(actor, workers)]
    names = [ActorName(f"{actor}-{number}") for number in range(-(-workers // per_relay))]
    return names, [
        ActorSink(name, per_relay, others=names[number:] + names[:number])
        for number, name in enumerate(names, start=1)
    ]


def start_relays(actor: ActorName, names: Sequence[ActorName]) -> list[Any]:
    """Start the relays of a run, spread over the nodes of its Ray.

    Args:
        actor: The name of the actor that they call. Not its handle: Ray warns of an argument that holds one,
            as the actor may be gone when the relay starts again.
        names: The names that :func:`plan_relays` has returned.

    Returns:
        Their handles: a relay ends with its last one.
    """
    import ray

    sink = ActorSink(actor, len(names), send_address=False)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD")(Relay)
    return [remote.options(name=name).remote(sink) for name in names]
