"""A Ray of its own for drivers, beside the one of the session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 2}
"""The environment of a driver that the Ray below accepts."""


class Head(NamedTuple):
    """A Ray that runs on this machine, which drivers can join.

    Attributes:
        address: What RAY_ADDRESS must be.
        token: What else must be in the environment, as this Ray asks for a token.
        folder: What RAY_TMPDIR must be, for a driver to find it without an address.
    """

    address: str
    folder: str
    token: dict[str, str] = TOKEN


def free_port() -> int:
    """Return a port that is free."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A Ray that was started with ``ray start``, with two CPUs and a resource called ``here``."""
    folder = tempfile.mkdtemp(prefix="su-", dir="/tmp")
    port = free_port()
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()"),
        *("start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"),
        *("--num-cpus=2", '--resources={"here": 4}', "--include-dashboard=false"),
    ]
    with Path(folder, "log").open("w") as log:
        process = subprocess.Popen(
            command, env=env | TOKEN | {"RAY_TMPDIR": folder}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 240
        while "Ray runtime started" not in Path(folder, "log").read_text():
            assert process.poll() is None, Path(folder, "log").read_text()
            assert time.monotonic() < deadline, "ray start takes too long"
            time.sleep(0.1)
        yield Head(f"127.0.0.1:{port}", folder)
    finally:
        process.send_signal(signal.SIGTERM)  # ends all that it has started
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
