"""A network between two nodes that is cut, for good or for a while, and a worker that is stopped."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.network import ADDRESSES, Network, why_no_network

from speedy_utils import multi_process
from speedy_utils._worker.channel.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ITEMS = 100

PROGRAM = """
import json, os, pathlib, time
import ray
from speedy_utils import multi_process, track
from speedy_utils._ray.cluster import silence

silence.SILENT_AFTER_S, silence.PROCESS_SILENT_AFTER_S = 5.0, 8.0
silence.LOST_AFTER_S = 5.0  # the answer is lost for sure: its worker says so only once it could be here
folder = pathlib.Path(os.getcwd())

def wait_for(*names):
    deadline = time.monotonic() + 150
    while not any((folder / name).exists() for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.01)

def task(i, home):
    away = ray.get_runtime_context().get_node_id() != home
    if not away:
        wait_for("cut")
    for _ in track(range(ITEMS)):
        pass
    if away:
        (folder / "away").touch()
        wait_for(AWAY_UNTIL)
    return i * i

if __name__ == "__main__":
    ray.init(logging_level="ERROR")
    while sum(node["Alive"] for node in ray.nodes()) < 2:
        time.sleep(0.1)

    def show(snapshot):
        if snapshot.done >= ITEMS - 1 and (folder / "away").exists():
            (folder / "heard").touch()
        if snapshot.phase.startswith(("no word from", "task ")) and not (folder / "said").exists():
            (folder / "said").write_text(snapshot.phase)
        shown[:] = [snapshot]

    shown = []
    home = ray.get_runtime_context().get_node_id()
    results = multi_process(
        task, range(4), num_workers=2, total_items=lambda i: ITEMS, progress=show, home=home
    )
    (end,) = shown
    (folder / "end.json").write_text(json.dumps([results, end.done, end.total, end.retries]))
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Two machines."""
    if why := why_no_network():
        pytest.skip(why)
    with Network(tmp_path) as network:
        yield network


def start(network: Network, folder: Path, away_until: str, until: Callable[..., Any]) -> Any:
    """Start the program on machine a, and return once a task on machine b was heard of."""
    (folder / "driver.py").write_text(
        PROGRAM.replace("ITEMS", str(ITEMS)).replace("AWAY_UNTIL", repr(away_until))
    )
    env = {"RAY_ADDRESS": f"{ADDRESSES['a']}:6379", "RAY_AUTH_MODE": "disabled"}
    program = network.start("a", sys.executable, "driver.py", env=env)
    until(lambda: (folder / "heard").exists() or program.poll() is not None, 90)
    assert program.poll() is None, network.output()
    return program


@pytest.mark.parametrize(
    ("away_until", "joined_after", "retries"),
    [
        pytest.param("never", None, [1], id="for good"),
        pytest.param("cut", 12.0, [0, 1], id="for a while"),  # the answer may get through
    ],
)
def test_a_cut_network_is_said_and_its_tasks_run_again(
    network: Network,
    tmp_path: Path,
    away_until: str,
    joined_after: float | None,
    retries: list[int],
    until: Callable[..., Any],
    here: Callable[[float], float],
) -> None:
    """It is named soon; tasks of a dead node, or with a lost answer, run again; the end is exact."""
    # Ray calls a node dead after 5 x (1 + 1) s in place of 5 x (3 + 10) s.
    soon = {"RAY_health_check_timeout_ms": "1000", "RAY_health_check_period_ms": "1000"}
    env = soon if joined_after is None else {}
    for machine in ADDRESSES:
        network.start_ray(machine, cpus=1, env=env)
    program = start(network, tmp_path, away_until, until)
    network.cut()
    cut_at = time.monotonic()
    (tmp_path / "cut").touch()
    until(lambda: (tmp_path / "said").exists() or program.poll() is not None, 60)
    assert time.monotonic() - cut_at < here(15), network.output()
    assert "no word from" in (tmp_path / "said").read_text()
    if joined_after is not None:
        until(lambda: time.monotonic() - cut_at > joined_after)
        network.join()
    until(lambda: program.poll() is not None, 120)
    assert program.returncode == 0, network.output()
    results, done, total, retried = json.loads((tmp_path / "end.json").read_text())
    assert (results, done, total) == ([0, 1, 4, 9], 4 * ITEMS, 4 * ITEMS)
    assert retried in retries


@pytest.mark.usefixtures("ray_session")
def test_a_stopped_worker_is_named_until_it_goes_on(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """A process that is stopped is named in the log, and taken back, also where the bar is off."""
    with RunFolder() as folder:
        folders = folder.path.parent

    def task(i: int) -> int:
        (tmp_path / "pid").write_text(str(os.getpid()))
        until((tmp_path / "go on").exists)
        return i

    def stop_and_go_on() -> None:
        file = tmp_path / "pid"
        until(lambda: file.exists() and file.read_text())
        pid = int(file.read_text())
        until(lambda: any(folders.glob(f"*/{pid}-*.json")))  # it has sent word
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: f"no word from process {pid}" in caplog.text)
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: ": heard again" in caplog.text)
        (tmp_path / "go on").touch()

    thread = threading.Thread(target=stop_and_go_on)
    thread.start()
    assert multi_process(task, [3], num_workers=1, progress=False, poll_interval=60) == [3]
    thread.join()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
