"""Forked workers, and what replaces them, are forks of what the program was before the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REPLACED = """
import os, signal, threading, time
from speedy_utils import multi_process

guard = threading.Lock()  # it can't be pickled

def hold(snapshot):
    if not guard.locked():
        guard.acquire()
        open("held", "w").close()

def work(item):
    if item == 0 and not os.path.exists("died"):
        while not os.path.exists("held"):
            time.sleep(0.001)
        open("died", "w").close()
        {before}
        os.kill(os.getpid(), signal.SIGKILL)
    with guard:
        return os.getppid()

options = {{"backend": "processes", "num_workers": 2, "poll_interval": 0.01, "progress": {progress}}}
found = multi_process(work, range(6), **options)
print(len(found), len({{*found}}), os.getpid() in found)
"""


def test_what_replaces_a_lost_worker_has_no_lock_of_the_runs_threads(driver: Callable[..., Any]) -> None:
    """It is a fork of a process without threads, as the others; one of the program would wait for ever."""
    done = driver(REPLACED.format(before="", progress="hold"))
    assert done.stdout.split() == ["6", "1", "False"], done.stderr
    assert "task 0 (item 0) runs again" in done.stderr


def test_the_fork_server_may_be_killed(driver: Callable[..., Any]) -> None:
    """Another one takes its place when a worker has to be replaced, and the run goes on."""
    before = "os.kill(os.getppid(), signal.SIGKILL)"
    done = driver('open("held", "w").close()\n' + REPLACED.format(before=before, progress=False))
    assert done.stdout.split()[0] == "6", done.stderr
