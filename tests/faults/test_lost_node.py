"""A machine of the cluster that is lost, and another one that joins."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SCRIPT = """
import os, pathlib, threading, time
import ray
from ray.cluster_utils import Cluster
from speedy_utils import multi_process, track
from speedy_utils._ray import client

ITEMS = 1000
folder = pathlib.Path(os.getcwd())
client.LOCATE_TIMEOUT_S = 60.0  # on a busy machine an answer takes longer

def wait_for(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def task(i, head, doomed):
    node = ray.get_runtime_context().get_node_id()
    for done in track(range(ITEMS)):
        if done == ITEMS // 2:
            (folder / f"half-{i}-{node}").touch()
            if node == doomed:
                time.sleep(1000)
            # The first node is kept busy, so that the one that joins has to do the others' work.
            wait_for((folder / ("others done" if node == head else "dropped")).exists)
    if node != head:
        (folder / f"done-{i}-{node}").touch()
    return i * i

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.connect()
    head = ray.get_runtime_context().get_node_id()
    lost = cluster.add_node(num_cpus=1)
    (doomed,) = {node["NodeID"] for node in ray.nodes()} - {head}
    shown = []
    results = []

    def run():
        results.extend(multi_process(
            task, range(5), num_workers=3, total_items=lambda i: ITEMS, poll_interval=0.05,
            progress=shown.append, head=head, doomed=doomed,
        ))

    thread = threading.Thread(target=run)  # Ray wants nodes to be added by the main thread
    thread.start()
    wait_for(lambda: len(list(folder.glob("half-*"))) == 2)
    cluster.add_node(num_cpus=1)
    wait_for(lambda: len(list(folder.glob("half-*"))) == 3)
    wait_for(lambda: shown[-1].done == 3 * ITEMS // 2)
    cluster.remove_node(lost, allow_graceful=False)
    wait_for(lambda: shown[-1].done == 2 * ITEMS // 2)  # no count of the dead attempt stays
    (folder / "dropped").touch()
    wait_for(lambda: len(list(folder.glob("done-*"))) == 4)
    (folder / "others done").touch()
    thread.join()
    nodes = {path.name.split("-")[2] for path in folder.glob("half-*")}
    print("END", len(nodes), results, shown[-1].done, shown[-1].total, shown[-1].retries)
    ray.shutdown()
    cluster.shutdown()
"""


def test_a_node_may_be_lost_and_another_one_join(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A machine that joins gets tasks; those of a lost one run again, and its counts are dropped."""
    done = driver(SCRIPT, timeout=280)
    assert done.returncode == 0, done.stderr
    # Ray tells of the lost node on stdout too.
    (end,) = [line for line in done.stdout.splitlines() if line.startswith("END")]
    assert end == "END 3 [0, 1, 4, 9, 16] 5000 5000 1"
    (retried,) = [line for line in done.stderr.splitlines() if "runs again, attempt 2 of 4" in line]
    assert re.search(r"\[\S+ \(node \w+, process \d+\)\]", retried), done.stderr
    # The progress actor runs on the node of the driver, and was not lost with the other. It may be slow.
    assert not re.search(r"actor does not answer \((?!no answer in time)", done.stderr), done.stderr
