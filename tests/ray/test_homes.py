"""Where actors live in a cluster of several machines."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
import ray
from ray.cluster_utils import Cluster
from speedy_utils import create_progress_tracker

def node(actor):
    return ray.get_runtime_context().get_node_id()

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.connect()
    cluster.add_node(num_cpus=1)
    home = ray.get_runtime_context().get_node_id()
    actors = [create_progress_tracker() for _ in range(8)]
    print("HOME", sum(ray.get(actor.__ray_call__.remote(node)) == home for actor in actors))
    ray.shutdown()
    cluster.shutdown()
"""


def test_actors_live_where_the_driver_does(driver: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Each progress actor is on the driver's machine, so that the loss of another one leaves it alive."""
    done = driver(SCRIPT)
    assert done.returncode == 0, done.stderr
    assert "HOME 8" in done.stdout.splitlines()
