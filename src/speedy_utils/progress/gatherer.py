"""Between many workers and their actor: each gatherer hands on what some hundred workers report, in one call.

A call costs an actor half a millisecond, whatever it holds, and a report in it two microseconds. So the
number of calls is what counts: workers that all called one actor would either flood it or have to wait
for many seconds between two calls. A gatherer may die or lag as the actor may: what is lost is freshness,
and every worker says everything again within two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .flusher import Sink
from .ledger import Ledger, Report, Task
from .link import ActorName, ActorSink
from .places import Places
from .spans import Ages, Spans

_EACH = 100
"""Workers that share a gatherer."""

_DIRECT = 200
"""Workers up to which all call the actor itself: small runs start no process for this."""


class Gatherer:
    """Joins reports and hands them on. Made a Ray actor by :func:`start_gatherers`.

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
        self._places = Places()
        self._spans = Spans(clock)
        self._sent = clock()

    def report(self, reports: Iterable[Report], ages: Ages, place: str = "") -> None:
        """Take in the state of some tasks, as the actor does; where they run is kept here."""
        now = self._clock()
        known = [Report(*report) for report in reports]
        self._waiting.merge(known)
        self._places.note(place, known)
        self._spans.merge(ages)
        if now - self._sent < self._sink.interval:
            return
        if self._sink.send(self._waiting.changes(), self._spans.ages()):
            self._waiting, self._sent = Ledger(), now

    def where(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Where some attempts were at work, as far as they have reported to this gatherer."""
        return self._places.find(attempts)


def plan_sinks(actor: ActorName, workers: int) -> tuple[list[ActorName], list[ActorSink]]:
    """How the workers of a run reach its actor.

    Args:
        actor: The actor's name.
        workers: How many report.

    Returns:
        The names of the gatherers to start, none for a small run; and the sinks, of which each worker
        process takes any one.
    """
    if workers <= _DIRECT:
        return [], [ActorSink(actor, workers)]
    names = [ActorName(f"{actor}-{number}") for number in range(-(-workers // _EACH))]
    return names, [ActorSink(name, _EACH) for name in names]


def start_gatherers(actor: ActorName, names: Sequence[ActorName]) -> list[Any]:
    """Start the gatherers of a run, spread over the nodes of its Ray.

    Args:
        actor: The name of the actor that they call. Not its handle: Ray warns of an argument that holds one,
            as it may be gone when the gatherer starts again.
        names: What :func:`plan_sinks` has named.

    Returns:
        Their handles: a gatherer ends with its last one.
    """
    import ray

    sink = ActorSink(actor, len(names), placed=False)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD")(
        Gatherer
    )
    return [remote.options(name=name).remote(sink) for name in names]
