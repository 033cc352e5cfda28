"""A machine of the cluster that is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
import os, pathlib, threading, time
import ray
from ray.cluster_utils import Cluster
from speedy_utils import multi_process, track
from speedy_utils.multi_worker import process
from speedy_utils.testing import RecordingDisplay

ITEMS = 1000
folder = pathlib.Path(os.getcwd())

def task(i, first):
    node = ray.get_runtime_context().get_node_id()
    for done in track(range(ITEMS)):
        if done == ITEMS // 2 and not (folder / "lost").exists():
            (folder / f"half-{i}-{node}").touch()
            deadline = time.monotonic() + 60
            while not (folder / "lost").exists() or node != first:  # elsewhere it waits for its end
                assert time.monotonic() < deadline
                time.sleep(0.01)
    return i * i

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.connect()  # to the first node: the second one will be lost
    node = cluster.add_node(num_cpus=1)
    display = RecordingDisplay()
    process.display_here = lambda progress: display

    def lose():
        deadline = time.monotonic() + 60
        while len({path.name.split("-")[2] for path in folder.glob("half-*")}) < 2:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)
        (folder / "lost").touch()

    thread = threading.Thread(target=lose)
    thread.start()
    first = ray.get_runtime_context().get_node_id()
    results = multi_process(
        task, range(5), num_workers=2, total_items=lambda i: ITEMS, poll_interval=0.05, first=first
    )
    thread.join()
    print((folder / "lost").exists(), results, display.last.done, display.last.total, display.last.retries)
    ray.shutdown()
    cluster.shutdown()
"""


def test_a_lost_node_loses_no_work(driver: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The tasks of a machine that is lost run again elsewhere; results and count stay exact."""
    done = driver(SCRIPT)
    assert done.returncode == 0, done.stderr
    # Ray tells of the lost node on stdout too.
    ends = [line for line in done.stdout.splitlines() if line.startswith("True")]
    assert ends == ["True [0, 1, 4, 9, 16] 5000 5000 1"]
