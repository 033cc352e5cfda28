"""Workers on the driver's node write their counts into its folder, all others send them to an actor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.counts import items

from speedy_utils._ray.actor import ProgressActor
from speedy_utils._ray.client import ActorName, ActorSink
from speedy_utils._ray.tasks.live_counts import LiveCounts
from speedy_utils._ray.tasks.nearby import NearbyFolder
from speedy_utils._state.ledger import Report, Task
from speedy_utils._worker.channel.flusher import Sink

NODE = "1f2e3d4c5b6a"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[NearbyFolder]:
    """Return the folder of a run whose driver is on the node of this process."""
    ray = pytest.importorskip("ray")

    class Context:
        def get_node_id(self) -> str:
            return NODE

    monkeypatch.setattr(ray, "get_runtime_context", Context)
    folder = NearbyFolder(NODE)
    yield folder
    folder.close()


def report(task: Task = 3, count: int = 5) -> Report:
    """Return what the first attempt at a task has counted."""
    return Report(task, 1, items(count), reading=count)


def sent(sink: Sink) -> bool:
    """Send a report, and return whether the sink has taken it."""
    return sink.send([report()], {None: (2.0, 1.0)})


def test_a_nearby_worker_writes(folder: NearbyFolder) -> None:
    """It does so often, and the actor hears nothing; the driver knows the node and the process."""
    actor = ProgressActor()
    sink = folder.sink(ActorSink(actor))
    assert sink.interval < ActorSink(actor).interval
    assert sent(sink)
    assert sink.settled()
    assert not sink.lost()
    (found,), timings = folder.collect()
    assert (found.task, found.counts, found.location.node_id) == (3, items(5), NODE)
    assert timings[None][0] >= 2.0
    assert actor.get_progress()["processed"] == 0


def test_lost_attempts_are_located(folder: NearbyFolder) -> None:
    """The address is that of the process which has written last for the attempt, read before or not."""
    sink = folder.sink(ActorSink(ProgressActor()))
    assert folder.locate({3: 1}) == {}
    assert sent(sink)
    for _ in range(2):
        address = folder.locate({3: 1, 4: 1})[3]
        assert f"(node {NODE[:8]}, process {os.getpid()})" in address
        folder.collect()
    assert folder.locate({3: 2, 4: 1}) == {}


@pytest.mark.parametrize("far", ["another node", "another file system", "another user"])
def test_other_workers_send_to_the_actor(
    folder: NearbyFolder, monkeypatch: pytest.MonkeyPatch, far: str
) -> None:
    """So do those that don't find the folder, or whose files the driver would not read."""
    actor = ProgressActor()
    other = NearbyFolder("another" if far == "another node" else NODE)
    sink = other.sink(ActorSink(actor))
    if far == "another file system":
        other.close()
    elif far == "another user":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert sink.interval == ActorSink(actor).interval
    assert sent(sink)
    assert list(other.collect()[0]) == []
    assert actor.get_progress()["processed"] == 5
    other.close()


def test_a_folder_that_is_lost_leaves_the_actor(folder: NearbyFolder) -> None:
    """Where a file can't be written any more the counts go to the actor."""
    actor = ProgressActor()
    sink = folder.sink(ActorSink(actor))
    assert sent(sink)
    folder.close()
    assert sent(sink)
    assert actor.get_progress()["processed"] == 5


def test_after_the_run_a_worker_has_nothing_to_send(
    folder: NearbyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the folder and the actor the run is over: nothing is offered again and again."""

    def get_actor(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr("ray.get_actor", get_actor)
    sink = folder.sink(ActorSink(ActorName("ended")))
    assert sent(sink)
    folder.close()
    assert sent(sink)
    assert sink.settled()


def test_without_a_folder_workers_use_the_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes on where no folder can be made."""

    def full(node: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("speedy_utils._ray.tasks.live_counts.NearbyFolder", full)
    heard: list[object] = []
    live = LiveCounts(8, lambda *all_: heard.append(all_))
    live.open_folder(NODE)
    assert [type(each) for each in live.sinks] == [ActorSink]
    assert live.read() == {}
    assert heard == []


def test_what_was_read_last_counts(folder: NearbyFolder) -> None:
    """Several readings before the bar asks are one; where all workers write, it needs no actor."""
    heard: list[tuple[int, bool]] = []
    live = LiveCounts(8, lambda reports, from_all: heard.append((len(reports), from_all)))
    live.open_folder(NODE)
    try:
        live.read()
        (sink,) = live.sinks
        for count in (5, 7):
            sink.send([report(count=count)], {})
            live.read()
        (unread,), answered = live.take_unread()
        assert (unread.counts, answered) == (items(7), True)
        assert heard == [(0, False), (1, True), (1, True)]
        assert live.take_unread()[1] is False
    finally:
        live.release()
