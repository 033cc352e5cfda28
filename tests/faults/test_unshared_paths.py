"""A node of the cluster that does not see the input, or the folder of the output."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

CAN_HIDE = shutil.which("unshare") and not subprocess.run(["unshare", "-m", "true"], check=False).returncode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(not CAN_HIDE, reason="no permission to give a process mounts of its own"),
]

SCRIPT = """
import os, pathlib, signal, subprocess, sys, time
import ray
from datasets import Dataset, load_from_disk
from ray.cluster_utils import Cluster
from speedy_utils import multi_process_dataset
from speedy_utils.errors import FailedShardsError

here = pathlib.Path(os.getcwd())
(here / "hidden").mkdir()

def work(shard):
    if shard[0]["id"] == 22 and not pathlib.Path("mended").exists():
        open("/no/such/file")
    time.sleep(0.2)
    for row in shard:
        yield {"id": row["id"], "node": ray.get_runtime_context().get_node_id()}

def run(source, out, **options):
    return multi_process_dataset(source, work, out, num_workers=3, num_shards=12, progress=False,
                                 ray_options=options)

def attempt(*args, **options):
    try:
        result = load_from_disk(run(*args, **options))
        print("ROWS", sorted(result["id"]) == list(range(24)), len(set(result["node"])), flush=True)
    except FailedShardsError as error:
        print("FAILED", str(error).splitlines()[0], "|", error.errors[0].reason, flush=True)

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={cluster.address}",
             "--num-cpus=2", '--resources={"blind": 4}', "--block"]
    blind = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(here / "hidden"), *start],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    while len(ray.nodes()) < 2:
        time.sleep(0.1)
    rows = Dataset.from_dict({"id": list(range(24))})
    rows.save_to_disk("hidden/in")
    attempt("hidden/in", "out")
    pathlib.Path("mended").touch()
    attempt("hidden/in", "out")
    print("NEXT", file=sys.stderr, flush=True)
    attempt(rows, "hidden/out")
    print("NEXT", file=sys.stderr, flush=True)
    attempt("hidden/in", "other", resources={"blind": 1})
    ray.shutdown()
    os.killpg(blind.pid, signal.SIGTERM)
    blind.wait()
    cluster.shutdown()
"""


def test_a_node_that_can_not_see_a_path_is_named_once_and_left_out(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Its shards run elsewhere; an error comes only if no node is left, or from the function itself."""
    done = driver(SCRIPT, timeout=280)
    assert done.returncode == 0, done.stderr
    failed, rows, others, none_left = done.stdout.splitlines()
    assert failed.startswith("FAILED 1 of 12 shards failed; 11 of 12 shards are finished, and kept in ")
    assert failed.endswith("| FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'")
    assert rows == others == "ROWS True 1"
    unread = (
        r"\(node \w+\) can't read the files of its input \(FileNotFoundError: .*'.*/hidden/in/data-00000.*"
    )
    assert re.match(rf"FAILED \d of 12 shards failed; none .* \| \S+ {unread}keep_in_memory=True", none_left)
    said = [
        [line for line in part.splitlines() if "It gets no more tasks" in line]
        for part in done.stderr.split("NEXT")
    ]
    # In the second run too: it has one shard to do, and begins it anywhere.
    assert 1 <= len(said[0]) <= 2
    assert [len(lines) for lines in said[1:]] == [1, 1]
    assert all(re.search(unread, line) for line in said[0])
    assert re.search(r"can't write to the run's folder '.*/hidden/out.partial/shards' \(No such", said[1][0])
    assert "Traceback" not in done.stderr
