"""A worker is killed only if it is one of Ray's, and has nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from speedy_utils._ray.cluster.idle import kill_if_idle


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs the /proc of Linux")
@pytest.mark.parametrize(("title", "killed"), [("ray::IDLE", True), ("ray::func", False), ("python", False)])
def test_only_an_idle_worker_is_killed(title: str, killed: bool) -> None:
    """Its number may belong to another process by now, or the worker may have got another task."""
    command = [title, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert kill_if_idle(process.pid) is killed
        process.communicate(b"\n")
    assert (process.returncode != 0) is killed


def test_a_process_that_is_gone_is_not_idle() -> None:
    """Nothing is raised."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert kill_if_idle(process.pid) is False
    assert kill_if_idle(os.getpid()) is False
