"""A Ray that dies under the program: the next call works, or the program says why it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Driver = Callable[..., "subprocess.CompletedProcess[str]"]

SCRIPT = """
import os, pathlib, sys, threading, time
from speedy_utils import multi_process, report_progress

started = pathlib.Path(os.getcwd()) / "started"

def task(i, seconds=0.0):
    report_progress()
    if seconds:
        (started / str(i)).touch()
        time.sleep(seconds)
    return i

def wait_for(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

def kill(name):
    import ray
    ray._private.worker._global_node.all_processes[name][0].process.kill()

def kill_in_run(name):
    wait_for(lambda: len(list(started.iterdir())) == 2)
    kill(name)

if __name__ == "__main__":
    started.mkdir()
    if IN_RUN:
        threading.Thread(target=kill_in_run, args=[NAME], daemon=True).start()
        try:
            multi_process(task, range(4), num_workers=2, backend="ray", seconds=60)
        except ConnectionError as error:
            print("RAISED", error)
    else:
        multi_process(task, range(4), num_workers=2, backend="ray")
        kill(NAME)
        import ray
        killed = time.monotonic()
        wait_for(lambda: not ray.is_initialized())
        print("ENDED", time.monotonic() - killed)
    print("AGAIN", multi_process(task, range(4), num_workers=2, backend="ray"))
"""


def died(driver: Driver, name: str, *, in_run: bool) -> tuple[str, str]:
    """Return what the program printed before its next call, and stderr."""
    done = driver(f"IN_RUN, NAME = {in_run}, {name!r}\n{SCRIPT}")
    assert done.returncode == 0, done.stderr
    # Ray prints the last lines of the raylet's log.
    first, again = (
        line for line in done.stdout.splitlines() if line.startswith(("RAISED", "ENDED", "AGAIN"))
    )
    assert again == "AGAIN [0, 1, 2, 3]"
    return first, done.stderr


def test_a_ray_that_dies_in_a_run_ends_the_run_alone(driver: Driver) -> None:
    """The run fails with what has died, and the next call starts a new Ray."""
    first, _ = died(driver, "raylet", in_run=True)
    assert "the local Ray of this program has died (its raylet was killed by SIGKILL)" in first


def test_a_ray_that_dies_between_runs_is_replaced(driver: Driver, here: Callable[[float], float]) -> None:
    """It is said, shut down before it can end the program, and the next call starts a new one."""
    first, stderr = died(driver, "gcs_server", in_run=False)
    assert float(first.split()[1]) < here(30)
    said = "the local Ray of this program has died (its gcs_server was killed by SIGKILL)"
    assert stderr.count(said) == 1, stderr
