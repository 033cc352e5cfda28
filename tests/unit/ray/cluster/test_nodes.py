"""The nodes that a run's tasks go to."""

from __future__ import annotations

from typing import Any

import pytest

from speedy_utils._ray.cluster.nodes import Nodes


def node(name: str, **resources: float) -> dict[str, Any]:
    """A node as Ray describes it."""
    return {"NodeID": name, "Alive": True, "Resources": resources, "Labels": {"ray.io/node-id": name}}


NODES = [node("a", CPU=4, GPU=1), node("b", CPU=4), node("c", CPU=0)]


def test_tasks_go_to_the_other_nodes(caplog: pytest.LogCaptureFixture) -> None:
    """A node that was left out is named once, and tasks get options that keep them from it."""
    nodes = Nodes({"num_cpus": 2}, lambda: NODES)
    assert nodes.options() == {"num_cpus": 2}
    assert nodes.leave_out("a", "a can't read the input")
    assert nodes.leave_out("a", "a can't read the input")
    assert caplog.messages == ["a can't read the input. It gets no more tasks of this run"]
    options = nodes.options()
    assert options.pop("scheduling_strategy").hard[0].key == "ray.io/node-id"
    assert options == {"num_cpus": 2}


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({}, ["a", "b"]),
        ({"num_gpus": 1}, ["a"]),
        ({"resources": {"disk": 1}}, ["b"]),
        ({"scheduling_strategy": object()}, ["a"]),
        ({"label_selector": {"zone": "x"}}, ["a"]),
    ],
    ids=["no CPUs", "no GPU", "no disk", "a strategy", "labels"],
)
def test_no_node_may_be_left(options: dict[str, Any], left_out: list[str]) -> None:
    """Nodes that lack what the tasks need are none, and options that say where tasks run stay as they are."""
    nodes = Nodes(options, lambda: NODES)
    assert not [nodes.leave_out(name, "it can't read the input") for name in left_out][-1]
