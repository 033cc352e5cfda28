"""What is known of workers that are not heard of, and what follows."""

from __future__ import annotations

import logging
import threading

import pytest
from support.counts import items
from support.waiting import wait_until

from speedy_utils._ray.cluster.silence import (
    ASK_AFTER_S,
    LATE_AFTER_S,
    LOST_AFTER_S,
    MAX_PAUSE_S,
    PROCESS_SILENT_AFTER_S,
    UNHEARD_AFTER_S,
    SilenceWatch,
)
from speedy_utils._state.ledger import ENDED, Location, Report
from speedy_utils.testing import FakeClock

HOME, AWAY = "1f2e", "77aa"


class Cluster:
    """Workers that speak every second, unless they are silent, and a Ray that knows which nodes are dead."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.dead: set[str] = set()
        self.places: dict[int, Location] = {}
        self.silent: set[Location] = set()
        self.ended: set[int] = set()
        self.readings = 0
        self.watch = SilenceWatch(HOME, lambda: self.dead, clock=self.clock)

    def start(self, task: int, pid: int, node: str, attempt: int = 1) -> Location:
        """Hand a task to a process of a node."""
        self.watch.start(task, attempt)
        self.places[task] = Location("driver" if node == HOME else "node-2", pid, node)
        return self.places[task]

    def report(self, task: int, attempt: int = 1) -> Report:
        """What a worker sends."""
        self.readings += 1
        counts = items(3) | ({ENDED: 1} if task in self.ended else {})
        return Report(task, attempt, counts, self.readings, self.places[task])

    def run(self, seconds: float) -> None:
        """Let time go by."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.watch.hear(
                [self.report(each) for each in self.places if self.places[each] not in self.silent]
            )
            self.watch.check()
            wait_until(lambda: not self.asks())

    @staticmethod
    def asks() -> bool:
        """Whether Ray is being asked which nodes are dead. No time goes by meanwhile."""
        return any(thread.name == "speedy_utils-nodes" for thread in threading.enumerate())

    def lost(self) -> list[int]:
        """The tasks that are lost."""
        return [int(each.task) for each in self.watch.check()]


@pytest.fixture
def cluster() -> Cluster:
    """Two workers on a node, and one on that of the program."""
    cluster = Cluster()
    cluster.start(0, 10, HOME)
    cluster.start(1, 11, AWAY)
    cluster.start(2, 12, AWAY)
    return cluster


@pytest.mark.parametrize(
    ("silent", "text"),
    [
        pytest.param([], "", id="none"),
        pytest.param([1, 2], "no word from node-2 for 12 s: 2 tasks wait for it", id="a node"),
        pytest.param([2], "no word from process 12 on node-2 for 12 s: 1 task waits for it", id="a process"),
        pytest.param(
            [1, 2, 4], "no word from 3 processes on node-2 for 12 s: 3 tasks wait for them", id="processes"
        ),
        pytest.param([0], "no word from process 10 on driver for 12 s: 1 task waits for it", id="here"),
    ],
)
def test_silent_nodes_and_processes_are_named_until_they_speak_again(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, silent: list[int], text: str
) -> None:
    """They are named in the line, logged once, and taken back; the program's own node is never cut off."""
    if 4 in silent:
        cluster.start(3, 13, AWAY)
        cluster.start(4, 14, AWAY)
    cluster.run(3)
    cluster.silent = {cluster.places[task] for task in silent}
    cluster.run(PROCESS_SILENT_AFTER_S)
    assert cluster.watch.text() == text
    assert cluster.lost() == []
    cluster.silent.clear()
    cluster.run(2)
    assert cluster.watch.text() == ""
    said = text.partition(" for ")[0].removeprefix("no word from ")
    messages = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [message.split(" for ")[0] for message in messages] == (
        [f"no word from {said}", f"{said}: heard again"] if silent else []
    )


def test_the_workers_of_a_node_that_fall_silent_one_after_another_are_said_once(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Each sends its word at another time: the node is named, and not the worker that fell silent first."""
    cluster.run(3)
    for task in (1, 2):
        cluster.silent.add(cluster.places[task])
        cluster.run(2)
    cluster.run(PROCESS_SILENT_AFTER_S)
    (record,) = caplog.records
    assert record.message.startswith("no word from node-2 for 9 s: 2 tasks wait for it")


def test_tasks_of_a_dead_node_are_lost_at_once(cluster: Cluster) -> None:
    """Once Ray calls a silent node dead its tasks are lost, and no others."""
    cluster.run(3)
    cluster.silent = {cluster.places[1], cluster.places[2]}
    cluster.dead = {AWAY, "long ago"}
    cluster.run(ASK_AFTER_S)

    def lost() -> bool:
        cluster.run(1)
        return cluster.lost() == [1, 2]

    wait_until(lost)
    for task in (1, 2):
        cluster.watch.end(task)
    assert (cluster.lost(), cluster.watch.text()) == ([], "")


def test_reports_of_a_dead_attempt_change_nothing(cluster: Cluster) -> None:
    """A task that runs again is known by its new attempt; the old one may speak late, or end."""
    cluster.run(3)
    late = cluster.report(1)
    cluster.watch.end(1)
    cluster.start(1, 10, HOME, attempt=2)
    cluster.ended = {1}
    for _ in range(int(LOST_AFTER_S) + 2):
        cluster.clock.advance(1)
        cluster.watch.hear([late, cluster.report(1)])
    assert (cluster.watch.late(), cluster.lost()) == ([], [])


def test_an_ended_task_without_an_answer_is_named_and_then_lost(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Its worker calls it ended: after a few seconds that is said, later its answer is taken to be lost."""
    cluster.run(3)
    cluster.ended = {2}
    cluster.run(LATE_AFTER_S + 2)
    cluster.silent = {cluster.places[2]}  # it has said so, and waits
    assert cluster.watch.late() == [2]
    text = "task 2 has ended on node-2, and its result has not come for 6 s"
    assert (cluster.watch.text(), cluster.lost()) == (text, [])
    cluster.run(LOST_AFTER_S)
    ((task, reason, idle, dead_node),) = cluster.watch.check()
    assert (task, idle, dead_node) == (2, cluster.places[2], "")
    assert reason.endswith("it was lost on the way")
    assert [record.message.partition(" for ")[0] for record in caplog.records] == [
        "task 2 has ended on node-2, and its result has not come"
    ]


def test_without_readings_no_worker_is_silent(cluster: Cluster) -> None:
    """While the actor does not answer, or the program is stopped, no worker could be heard."""
    cluster.run(3)
    cluster.clock.advance(1000)
    cluster.watch.hear([])
    cluster.watch.check()
    assert MAX_PAUSE_S < PROCESS_SILENT_AFTER_S
    assert cluster.watch.text() == ""


def test_tasks_that_never_spoke_are_not_silent_and_lost_only_if_a_node_has_died() -> None:
    """They may wait for a free CPU; or they were handed to a node that was cut off before they spoke."""
    cluster = Cluster()
    cluster.dead = {"long ago"}
    cluster.watch.start(0, 1)
    cluster.run(UNHEARD_AFTER_S)
    assert (cluster.watch.text(), cluster.lost()) == ("", [])
    cluster.dead = {"long ago", AWAY}

    def lost() -> bool:
        cluster.run(1)
        return bool(cluster.lost())

    wait_until(lost)
    cluster.run(1)
    cluster.watch.start(1, 1)  # after that node was dead
    cluster.run(UNHEARD_AFTER_S + 1)
    ((task, reason, idle, dead_node),) = cluster.watch.check()
    assert (task, idle, dead_node) == (0, None, AWAY)
    assert reason.endswith(f"may be on node {AWAY}, which has died")


def test_a_ray_that_cannot_say_which_nodes_are_dead_is_asked_again(cluster: Cluster) -> None:
    """An error of Ray's ends nothing."""
    asked: list[int] = []

    def dead_nodes() -> set[str]:
        asked.append(1)
        if len(asked) == 1:
            raise RuntimeError("no GCS")
        return {AWAY}

    cluster.watch = SilenceWatch(HOME, dead_nodes, clock=cluster.clock)
    cluster.watch.start(1, 1)
    cluster.run(2)
    cluster.silent = {cluster.places[1], cluster.places[2]}

    def lost() -> bool:
        cluster.run(1)
        return cluster.lost() == [1]

    wait_until(lost)
