"""A cluster that begins without a CPU, grows, and loses a machine that tasks ask for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCRIPT = """
import os, pathlib, threading, time
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from speedy_utils import multi_process

folder = pathlib.Path(os.getcwd()) / "here"
folder.mkdir()

def wait_for(condition):
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def meet(i, others):
    (folder / str(i)).touch()
    wait_for(lambda: len(list(folder.iterdir())) >= others)
    return i

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.connect()
    shown, results = [], []

    def run():
        results.extend(multi_process(meet, range(6), progress=shown.append, others=5))

    thread = threading.Thread(target=run)  # Ray wants nodes to be added by the main thread
    thread.start()
    wait_for(lambda: shown and shown[-1].phase == "no node has 1 CPU")
    node = cluster.add_node(num_cpus=5)
    (node_id,) = (each["NodeID"] for each in ray.nodes() if each["Resources"].get("CPU"))
    thread.join()
    print("GREW", results, flush=True)
    cluster.remove_node(node, allow_graceful=False)
    wait_for(lambda: not ray.cluster_resources().get("CPU"))
    options = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
    try:
        multi_process(abs, [1], num_workers=1, ray_options=options, progress=False)
    except Exception as error:
        print("LOST", type(error).__name__, error.reason.splitlines()[0])
    ray.shutdown()
    cluster.shutdown()
"""


def test_workers_follow_a_cluster_that_grows(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Five tasks run at once on five CPUs that joined; where a node is gone the error has Ray's reason."""
    done = driver(SCRIPT, timeout=280)
    assert done.returncode == 0, done.stderr
    grew, lost = (line for line in done.stdout.splitlines() if line.startswith(("GREW", "LOST")))
    assert grew == "GREW [0, 1, 2, 3, 4, 5]"
    assert lost.startswith("LOST TaskError Ray did not run it: TaskUnschedulableError: ")
