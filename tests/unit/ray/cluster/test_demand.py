"""A run says what Ray does not give: in the line at once, in the log after ten seconds."""

from __future__ import annotations

import pytest

from speedy_utils._engines.task import Chunk
from speedy_utils._ray.cluster.demand import Demand
from speedy_utils._ray.cluster.shortage import NEVER, Node, Shortage
from speedy_utils._state.ledger import Report


class FakeRay:
    """A Ray of one node, as :class:`~speedy_utils._ray.cluster.demand.Cluster`."""

    def __init__(self) -> None:
        self.free, self.total, self.requests = 2.0, 2.0, 0
        self.group: Shortage | None = None
        self.looks, self.now = 0, 0.0

    def obstacle(self) -> Shortage | None:
        """Return what a test has set."""
        self.looks += 1
        return self.group

    def nodes(self) -> list[Node]:
        """Return the node."""
        return [Node("a", {"CPU": self.total}, {"CPU": self.free})]

    def pending(self) -> int:
        """Return what a test has set."""
        return self.requests

    def cpus(self) -> int:
        """Return the CPUs of the node."""
        return int(self.total)


@pytest.fixture
def cluster() -> FakeRay:
    """Return a Ray of two CPUs."""
    return FakeRay()


def demand_of(cluster: FakeRay, *, asked: bool = True) -> Demand:
    """Return a run that has submitted two tasks of one CPU each."""
    demand = Demand({"CPU": 1}, cluster, asked=asked, clock=lambda: cluster.now)
    for task in range(2):
        demand.submitted(Chunk(task, 1, [None]))
    return demand


def phases(cluster: FakeRay, demand: Demand, seconds: int) -> list[str]:
    """Look twice a second, and return what was shown after each second."""
    shown = []
    for _ in range(seconds):
        for _ in range(2):
            cluster.now += 0.5
            demand.look(2)
        shown.append(demand.phase)
    return shown


def test_workers_that_start_are_no_shortage(cluster: FakeRay, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks that have their CPUs and have not begun yet wait for their workers, and not for Ray."""
    cluster.free = 0.0
    assert phases(cluster, demand_of(cluster), 20) == [""] * 20
    assert not caplog.records


def test_what_others_have_taken_is_shown_at_once_and_logged_once(
    cluster: FakeRay, caplog: pytest.LogCaptureFixture
) -> None:
    """The line has it after a second or two, the log after ten more, and it goes when the tasks begin."""
    cluster.free, cluster.requests = 0.0, 2
    demand = demand_of(cluster)
    assert phases(cluster, demand, 9)[1:] == ["all of 2 CPUs taken"] * 8
    assert not caplog.records
    phases(cluster, demand, 20)
    (record,) = caplog.records
    assert "each task needs 1 CPU; a has 0 of 2 CPUs free" in record.message
    demand.begun([Report(0, 1, {})])
    demand.ended(Chunk(1, 1, [None]))
    assert phases(cluster, demand, 2)[-1] == ""


def test_others_that_wait_for_the_same_are_not_taken_for_tasks_of_the_run(cluster: FakeRay) -> None:
    """Ray counts the requests of all programs together, so tasks that have begun are left out."""
    cluster.free, cluster.requests = 0.0, 50
    demand = demand_of(cluster)
    demand.begun([Report(task, 1, {}) for task in range(2)])
    assert phases(cluster, demand, 5) == [""] * 5


def test_what_keeps_the_tasks_from_all_nodes_comes_first(cluster: FakeRay) -> None:
    """A placement group that has no place is said, and not what the nodes have."""
    cluster.group = Shortage("group", "no place", "no place for it")
    assert phases(cluster, demand_of(cluster), 1) == ["no place"]


def test_what_never_ends_fails_the_run(cluster: FakeRay) -> None:
    """A placement group that was removed is an error with the reason."""
    cluster.group = Shortage(NEVER, "", "it was removed")
    with pytest.raises(RuntimeError, match="it was removed"):
        demand_of(cluster).look(2)


def test_a_ray_that_does_not_say_lacks_nothing(cluster: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work goes on if Ray does not answer."""
    monkeypatch.setattr(cluster, "nodes", lambda: 1 / 0)
    assert phases(cluster, demand_of(cluster), 3) == [""] * 3


def test_the_cpus_of_the_cluster_are_returned_if_the_workers_follow_them(cluster: FakeRay) -> None:
    """Where no number of workers was given it is that of the CPUs, also of those that join."""
    cluster.total = 0.0
    demand = demand_of(cluster, asked=False)
    assert (demand.look(2), demand.phase) == (0, "no node has 1 CPU")
    cluster.total, cluster.now = 64.0, 2.0
    assert (demand.look(2), demand.phase) == (64, "")
    assert demand_of(cluster).look(2) == 0


def test_a_run_that_lacks_nothing_looks_rarely(cluster: FakeRay) -> None:
    """A look costs milliseconds, so there is one in ten seconds while all tasks run, or on request."""
    demand = demand_of(cluster)
    demand.begun([Report(task, 1, {}) for task in range(2)])
    phases(cluster, demand, 20)
    assert cluster.looks == 2
    demand.look(2, at_once=True)
    assert cluster.looks == 3
