"""What tests of runs share: a Ray for the session, a record of what the bar showed, and drivers to run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import rows, waiting
from support.programs import run_program, unignore_signals
from support.recorder import Recorder
from support.waiting import wait_until

from speedy_utils import Snapshot
from speedy_utils._display.base import Display, NullDisplay
from speedy_utils._run.run import draws_here
from speedy_utils.testing import RecordingDisplay

BACKENDS = [pytest.param("ray", marks=pytest.mark.ray), "threads", "seq"]


def pytest_configure() -> None:
    """Prepare this process before any test runs."""
    unignore_signals()


class Shown:
    """The displays of the runs of a test, in place of a terminal.

    Attributes:
        displays: One for each run that drew.
        hook: Called with each snapshot that is shown, in the poller's thread.
    """

    def __init__(self) -> None:
        self.displays: list[RecordingDisplay] = []
        self.hook: Callable[[Snapshot], None] = lambda snapshot: None

    def __call__(self, progress: bool, *, leave: bool = True) -> Display:
        """The display of a run that starts here."""
        if not (progress and draws_here()):
            return NullDisplay()
        shown = self

        class Hooked(RecordingDisplay):
            def show(self, snapshot: Snapshot) -> None:
                """Keep the snapshot, and tell the test."""
                super().show(snapshot)
                shown.hook(snapshot)

        self.displays.append(Hooked())
        return self.displays[-1]

    @property
    def only(self) -> RecordingDisplay:
        """The display of the one run that drew."""
        (display,) = self.displays
        return display

    @property
    def snapshots(self) -> list[Snapshot]:
        """What the one run showed."""
        return self.only.snapshots

    @property
    def last(self) -> Snapshot:
        """What the one run showed last."""
        return self.only.last

    @property
    def done(self) -> int:
        """What the newest run showed last as done; 0 before it has shown anything."""
        return sum(snapshot.done for display in self.displays[-1:] for snapshot in display.snapshots[-1:])

    @property
    def last_of_all(self) -> Snapshot:
        """What the newest run showed last."""
        return self.displays[-1].last


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Record what runs show."""
    shown = Shown()
    monkeypatch.setattr("speedy_utils._api.multi_process.display_here", shown)
    return shown


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
    ray.shutdown()
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
