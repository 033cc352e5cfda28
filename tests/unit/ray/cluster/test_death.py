"""A Ray that dies is noticed without a call of it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speedy_utils._ray.cluster.death import Watch, death_of, raylet_silence, silence_of


@pytest.fixture
def gcs() -> Iterator[socket.socket]:
    """A server that accepts connections as a GCS does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def foreign(gcs: socket.socket) -> Iterator[Any]:
    """A Ray that others have started, as Ray describes it."""
    folder = tempfile.mkdtemp(prefix="su-", dir="/tmp")
    with socket.socket(socket.AF_UNIX) as raylet:
        raylet.bind(f"{folder}/raylet")
        raylet.listen()
        yield SimpleNamespace(
            all_processes={},
            gcs_address=f"127.0.0.1:{gcs.getsockname()[1]}",
            raylet_socket_name=f"{folder}/raylet",
        )
    Path(folder, "raylet").unlink(missing_ok=True)
    Path(folder).rmdir()


def process(code: str) -> subprocess.Popen[bytes]:
    """Return a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", code])
    ended.wait()
    return ended


@pytest.mark.parametrize(
    ("code", "death"),
    [
        ("import os; os.kill(os.getpid(), 9)", f"its raylet was killed by {signal.SIGKILL.name}"),
        ("raise SystemExit(3)", "its raylet ended with exit code 3"),
    ],
)
def test_a_process_that_has_ended_is_named(code: str, death: str) -> None:
    """What has died of a Ray of this program, and how."""
    node = SimpleNamespace(all_processes={"raylet": [SimpleNamespace(process=process(code))]})
    assert death_of(node) == death
    assert death_of(SimpleNamespace(all_processes={})) == ""


def test_a_ray_of_others_is_said_to_be_silent_and_to_answer_again(
    gcs: socket.socket, foreign: Any, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """One line when its GCS or its raylet refuses connections, and one when it is back."""
    assert silence_of(foreign) == raylet_silence(foreign) == raylet_silence(None) == ""
    there = [foreign]
    watch = Watch(foreign, None, current=lambda: there[-1], interval=0.01)
    watch.start()
    socket_name, foreign.raylet_socket_name = foreign.raylet_socket_name, "/nowhere/raylet"
    until(lambda: len(caplog.messages) == 1)
    foreign.raylet_socket_name = socket_name
    until(lambda: len(caplog.messages) == 2)
    there.append(None)
    watch.join()
    silent, answers = caplog.messages
    assert "does not answer (its raylet on this machine: No such file or directory)" in silent
    assert answers.endswith("answers again")
    gcs.close()
    assert silence_of(foreign).startswith(f"its GCS at {foreign.gcs_address}: Connection refused")
