"""Simulated workers against a real progress actor, poller and bar.

A source is what the actor sees of a worker: it has done ``PACE`` items a second since a known moment, and
says so every interval, with one call under way. What it has done at any time is therefore known without
asking it. Two Ray tasks host all sources of a run; where a run of that size has relays, these are real
:class:`Relay` objects in the hosts, which call the actor over the network as they would from processes
of their own. All go about it as in a run that has lasted for a minute: in its first ten seconds it is told,
and asks, more often.
"""

from __future__ import annotations

import heapq
import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from speedy_utils._display.bars import BarDisplay
from speedy_utils._display.terminal.screen import Screen
from speedy_utils._ray.actor import start_actor
from speedy_utils._ray.client import ActorName, ActorReader, ActorSink
from speedy_utils._ray.relay import Relay, plan_relays, start_relays
from speedy_utils._run.run import Run
from speedy_utils._state.ledger import Report
from speedy_utils._state.snapshot import Snapshot

from .measure import cpu_of, cpu_seconds, find_process

PACE = 100.0
"""Items a second of each source."""

HOSTS = 2
WARM_UP = 3.0

KEPT_UP = 0.95
"""The part of the reports that must have been made for a cost to be fitted."""


@dataclass(frozen=True)
class Scale:
    """What some number of sources cost.

    Attributes:
        sources: How many there were.
        calls: How many processes called the actor: the sources, or their relays.
        actor: CPU of the actor, as a part of one core.
        driver: The same of the driver with its poller and bar.
        look: Seconds that the driver's looks at the actor took: the median, and the longest.
        lag: Seconds that the bar was behind: the median, that of 95 in 100 moments, and the longest.
        memory: Megabytes of the actor's process, and of the driver's.
        kept_up: The part of the reports that the hosts had time to make.
        calls_made: Calls of the actor in a second, the driver's own left out.
        reports_made: Reports in them, in a second.
    """

    sources: int
    calls: int
    actor: float
    driver: float
    look: tuple[float, float]
    lag: tuple[float, float, float]
    memory: tuple[float, float]
    kept_up: float
    calls_made: float
    reports_made: float

    def of_a_worker(self, call: float, report: float) -> float:
        """The part of a core that a source costs the actor, by the seconds of a call and of a report."""
        return (call * self.calls_made + report * self.reports_made) / self.sources


@ray.remote(num_cpus=0.5, max_retries=0)
def host(actor: Any, numbers: Sequence[int], relays: int, interval: float, start: float, end: float) -> int:
    """Be some sources from ``start`` to ``end``, and say how many reports they made."""
    if relays:
        mine = [Relay(ActorSink(actor, relays, placed=False)) for _ in range(-(-relays // HOSTS))]
        ways = [mine[number % len(mine)].report for number in numbers]
    else:
        sinks = [ActorSink(actor) for _ in numbers]
        ways = [sink.send for sink in sinks]  # each with one call under way
    due = [(start + interval * place / len(numbers), place) for place in range(len(numbers))]
    heapq.heapify(due)
    made = 0
    while (now := time.monotonic()) < end:
        at, place = due[0]
        if at > now:
            time.sleep(min(at, end) - now)
            continue
        age = max(0.0, now - start)
        ways[place]([Report(numbers[place], 1, {None: int(PACE * age)})], {None: (age, 0.0)})
        made += 1
        heapq.heapreplace(due, (max(at + interval, now), place))
    return made


class _Watched(BarDisplay):
    """The usual bar, which remembers when it drew what."""

    def __init__(self) -> None:
        super().__init__(Screen(io.StringIO(), size=lambda: (100, 24)))
        self.drawn: list[tuple[float, int]] = []

    def show(self, snapshot: Snapshot) -> None:
        super().show(snapshot)
        self.drawn.append((time.monotonic(), snapshot.done))


class Looks:
    """Stands in for the feed's ``collect`` and keeps how long each look took that asked the actor."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self._collect = ActorReader.collect

    def __enter__(self) -> Looks:
        def timed(feed: ActorReader) -> Any:
            start, answered = time.perf_counter(), feed._answered
            try:
                return self._collect(feed)
            finally:
                if feed._call is not None or feed._answered > answered:
                    self.took.append(time.perf_counter() - start)

        ActorReader.collect = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        ActorReader.collect = self._collect  # type: ignore[method-assign]


def a_minute_on() -> Callable[[], float]:
    """A clock for something that is made now and has been at work for a minute."""
    begun = iter([time.monotonic() - 60.0])
    return lambda: next(begun, time.monotonic())


def simulate(sources: int, seconds: float, *, direct: bool = False) -> Scale:
    """Let sources report to an actor of their own for some seconds, and see what it costs.

    Args:
        sources: How many.
        seconds: How long, after a warm-up.
        direct: Whether each calls the actor itself, however many they are.
    """
    actor = start_actor(None, "")
    names, sinks = plan_relays(ActorName(""), sources)
    relays = 0 if direct else len(names)
    workers = sources if direct else sinks[0]._workers
    interval = ActorSink(actor, workers, clock=a_minute_on()).interval
    ray.get(actor.get_progress.remote())
    process = find_process("ray::ProgressActor")
    start = time.monotonic() + 1.0
    end = start + WARM_UP + seconds
    hosts = [
        host.remote(actor, range(part, sources, HOSTS), relays, interval, start, end)
        for part in range(min(HOSTS, sources))
    ]
    display = _Watched()
    # As the engine does, and no seldomer without relays, where the reports are late as it is.
    feed = ActorReader(actor, calm=not (relays or direct), clock=a_minute_on())
    with Looks() as looks, Run("Simulated", 10**15, display=display, feed=feed):
        time.sleep(start + WARM_UP - time.monotonic())
        before, own_before, first = cpu_of(process), cpu_seconds(), len(looks.took)
        time.sleep(end - time.monotonic())
        spent, own, took = cpu_of(process) - before, cpu_seconds() - own_before, looks.took[first:]
        memory = process.memory_info().rss / 1e6
        made = sum(ray.get(hosts))
        feed.close()
    ray.kill(actor)
    lags = lags_of(display.drawn, start, sources * PACE, (start + WARM_UP, end))
    return Scale(
        sources,
        relays or sources,
        spent / seconds,
        own / seconds,
        (statistics.median(took), max(took)),
        lags,
        (memory, memory_here()),
        made / (sources * (end - start) / interval),
        relays / max(ActorSink(actor, relays, placed=False).interval, interval / 100)
        if relays
        else made / (end - start),
        made / (end - start),
    )


def lags_of(
    drawn: Sequence[tuple[float, int]], start: float, pace: float, window: tuple[float, float]
) -> tuple[float, float, float]:
    """How far a bar was behind at every hundredth of a second: the median, 95 in 100, and the longest."""
    lags = []
    place = 0
    for tick in range(round((window[1] - window[0]) * 100)):
        now = window[0] + tick / 100
        while place + 1 < len(drawn) and drawn[place + 1][0] <= now:
            place += 1
        lags.append(now - start - drawn[place][1] / pace)
    lags.sort()
    return statistics.median(lags), lags[int(len(lags) * 0.95)], lags[-1]


def memory_here() -> float:
    """Megabytes of this process."""
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def one_gatherer(workers: int, seconds: float) -> float:
    """CPU of the process of one relay with so many sources, as a part of a core."""
    name = ActorName("benchmark")
    actor = start_actor(None, "", name)
    [relay] = start_relays(name, [ActorName("benchmark-0")])
    ray.get([actor.get_progress.remote(), relay.report.remote([], {})])
    process = find_process("ray::Relay")
    start = time.monotonic() + 1.0
    end = start + WARM_UP + seconds
    interval = ActorSink(relay, workers, clock=a_minute_on()).interval
    hosts = [
        host.remote(relay, range(part, workers, HOSTS), 0, interval, start, end) for part in range(HOSTS)
    ]
    time.sleep(start + WARM_UP - time.monotonic())
    before = cpu_of(process)
    time.sleep(end - time.monotonic())
    spent = cpu_of(process) - before
    ray.get(hosts)
    ray.kill(relay)
    ray.kill(actor)
    return spent / seconds
