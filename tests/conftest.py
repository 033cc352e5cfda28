"""What tests of runs share: a Ray for the session, a record of what the bar showed, and drivers to run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import rows, waiting
from support.backends import BACKENDS
from support.programs import run_program, unignore_signals
from support.recorder import Recorder
from support.waiting import wait_until


def pytest_configure() -> None:
    """Prepare this process before any test runs."""
    unignore_signals()


@pytest.fixture
def recorder() -> Recorder:
    """Return what records the snapshots of runs that have it as their ``progress``."""
    return Recorder()


@pytest.fixture
def until() -> Callable[..., Any]:
    """Return what waits for a condition."""
    return wait_until


@pytest.fixture
def here() -> Callable[[float], float]:
    """Return how many seconds a promised time may take here: more if all CPUs are busy."""
    return lambda seconds: seconds * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="session", autouse=True)
def _rays_apart() -> Iterator[None]:
    """Keep the tests' Rays, and one that runs on this machine, from finding each other."""
    folder = tempfile.mkdtemp(prefix="su-", dir="/tmp")  # short: Ray's sockets have long names in it
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    yield
    if before is None:
        del os.environ["RAY_TMPDIR"]
    else:
        os.environ["RAY_TMPDIR"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _ray() -> Iterator[None]:
    """One local Ray for all tests that need one."""
    import ray

    address = os.environ.pop("RAY_ADDRESS", None)
    ray.init(
        address="local",
        num_cpus=4,
        resources={"special": 4},
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    # Workers can't import test modules, so their functions travel with their code.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.cloudpickle.register_pickle_by_value(waiting)
    ray.cloudpickle.register_pickle_by_value(rows)
    yield
    # After the faults that tests put it through Ray 2.60 may wait for an answer of its GCS for ever.
    node = ray._private.worker._global_node
    end_gcs = threading.Timer(60, lambda: node.kill_gcs_server(check_alive=False))
    end_gcs.start()
    ray.shutdown()
    end_gcs.cancel()
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


@pytest.fixture
def ray_session(_ray: None, request: pytest.FixtureRequest) -> None:
    """The session's Ray, which can run what the test module defines."""
    import ray

    ray.cloudpickle.register_pickle_by_value(request.module)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    return str(request.param)


@pytest.fixture
def driver(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs a program in a process of its own, with its output captured."""
    return partial(run_program, tmp_path / "driver.py")
