"""What is missing of what tasks need is named shortly for the line, and in full for the log."""

from __future__ import annotations

import pytest

from speedy_utils._ray.cluster.shortage import GIB, Node, find_shortage, needs_of

FREE = Node("a", {"CPU": 4, "memory": 8 * GIB}, {"CPU": 4, "memory": 8 * GIB})
TAKEN = Node("b", {"CPU": 4, "GPU": 2}, {"GPU": 2})


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, {"CPU": 1}),
        ({"num_cpus": 0, "name": "task"}, {}),
        ({"num_cpus": None, "memory": 2**30}, {"CPU": 1, "memory": 2**30}),
        ({"num_cpus": 0.5, "accelerator_type": "T4"}, {"CPU": 0.5, "accelerator_type:T4": 0.001}),
    ],
)
def test_options_say_what_a_task_needs(options: dict[str, object], needs: dict[str, float]) -> None:
    """A task needs a CPU unless its options say otherwise."""
    assert needs_of(options) == needs


@pytest.mark.parametrize(
    ("needs", "nodes", "waiting", "phase"),
    [
        ({"CPU": 1}, [FREE], 0, None),
        ({}, [FREE], 0, None),
        ({"CPU": 1}, [], 2, "no node has 1 CPU"),
        ({"CPU": 1, "GPU": 4}, [FREE, TAKEN], 2, "no node has 4 GPUs"),
        ({"GPU": 1, "memory": GIB}, [FREE, TAKEN], 0, "no node has 1 GPU, 1 GiB of memory"),
        ({"memory": 2048 * GIB}, [FREE], 0, "no node has 2,048 GiB of memory"),
        ({"special": 0.5}, [FREE], 0, "no node has 0.5 special"),
        ({"CPU": 1}, [TAKEN], 4, "all of 4 CPUs taken"),
        ({"CPU": 1}, [TAKEN], 3, "all of 4 CPUs taken"),
        ({"CPU": 2}, [FREE], 0, "Ray has room for 2 tasks"),
        ({"GPU": 1}, [FREE, TAKEN], 2, "Ray has room for 2 tasks"),
    ],
)
def test_the_line_says_what_four_tasks_lack(
    needs: dict[str, float], nodes: list[Node], waiting: int, phase: str | None
) -> None:
    """What no node has, what others have taken, and for how many tasks there is room."""
    shortage = find_shortage(needs, nodes, in_flight=4, waiting=waiting, asked=True)
    assert (shortage and shortage.phase) == phase


def test_fewer_workers_than_ray_has_cpus_were_not_asked_for() -> None:
    """If the number of workers is Ray's own, tasks that wait for a GPU each are no shortage."""
    assert find_shortage({"GPU": 1}, [TAKEN], in_flight=4, waiting=0, asked=False) is None


def test_the_log_says_what_the_nodes_have() -> None:
    """The reason names what each task needs, what is free on the nodes, and what to do."""
    shortage = find_shortage({"CPU": 1, "GPU": 1}, [FREE] * 5, in_flight=4, waiting=4, asked=True)
    assert shortage is not None
    assert shortage.reason.startswith("no node has 1 GPU: each task needs 1 CPU, 1 GPU; ")
    assert "a has 4 of 4 CPUs, 0 of 0 GPUs free; " in shortage.reason
    assert "2 more nodes. The run waits for such a node to join" in shortage.reason


@pytest.mark.parametrize(
    ("needs", "waiting", "reason"),
    [
        (
            {"CPU": 1},
            3,
            "all of 4 CPUs taken, so 3 tasks wait: each task needs 1 CPU; b has 0 of 4 CPUs free.",
        ),
        ({"CPU": 4}, 0, "Ray has room for 1 task, so 3 tasks wait: each task needs 4 CPUs; b has 0 of 4 "),
    ],
)
def test_the_log_says_how_many_tasks_wait(needs: dict[str, float], waiting: int, reason: str) -> None:
    """Tasks and not workers, of which there are more while the last tasks of a run are under way."""
    shortage = find_shortage(needs, [TAKEN], in_flight=4, waiting=waiting, asked=True)
    assert shortage is not None
    assert shortage.reason.startswith(reason)
