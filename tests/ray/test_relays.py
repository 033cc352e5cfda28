"""Large runs go through relays; here a small one does, as each worker takes a CPU."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import Snapshot, multi_process, report_progress
from speedy_utils._ray import client, relay

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def _two_relays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let four workers be many: two share a relay, and none writes into the driver's folder."""
    few = functools.partial(relay.plan_relays, max_direct=2, per_relay=2)
    monkeypatch.setattr("speedy_utils._ray.tasks.live_counts.plan_relays", few)
    # As on other nodes than the driver's.
    monkeypatch.setattr("speedy_utils._ray.tasks.live_counts.NearbyFolder.sink", lambda _, actor: actor)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The relays that a run has started."""
    handles: list[Any] = []
    start = relay.start_relays

    def kept(*args: Any) -> list[Any]:
        handles.extend(start(*args))
        return handles

    monkeypatch.setattr("speedy_utils._ray.tasks.live_counts.start_relays", kept)
    return handles


def test_a_relay_that_does_not_answer_is_passed_over(
    ray_session: None, recorder: Recorder, started: list[Any], tmp_path: Path, until: Callable[..., Any]
) -> None:
    """Its node may be cut off: workers of other nodes go on with the next relay, and are not silent."""
    import ray

    stopped, seen, pids = tmp_path / "stopped", tmp_path / "seen", []

    def task(i: int) -> int:
        report_progress(100)
        until(stopped.exists)
        report_progress(50)
        until(seen.exists)
        return i

    def look(snapshot: Snapshot) -> None:
        if snapshot.done == 400 and not pids:
            pids.append(ray.get(started[0].__ray_call__.remote(lambda self: os.getpid())))
            os.kill(pids[0], signal.SIGSTOP)
            stopped.touch()
        if snapshot.done == 600 and not seen.exists():
            os.kill(pids[0], signal.SIGCONT)
            seen.touch()

    recorder.hook = look
    results = multi_process(
        task, range(4), num_workers=4, total_items=lambda _: 200, poll_interval=0.02, progress=recorder
    )
    assert (results, recorder.last.done, recorder.last.retries) == ([0, 1, 2, 3], 800, 0)


def test_relays_may_be_killed(
    ray_session: None, recorder: Recorder, started: list[Any], tmp_path: Path, until: Callable[..., Any]
) -> None:
    """Counts arrive through relays, also through killed ones that start again; they end with the run."""
    import ray

    killed, seen = tmp_path / "killed", tmp_path / "seen"

    def task(i: int) -> int:
        report_progress(100)
        until(killed.exists)
        report_progress(50)
        until(seen.exists)
        return os.getpid()

    def look(snapshot: Snapshot) -> None:
        if snapshot.done == 400 and not killed.exists():
            for handle in started:
                ray.kill(handle, no_restart=False)
            killed.touch()
        if snapshot.done == 600:
            seen.touch()

    recorder.hook = look
    pids = multi_process(
        task, range(4), num_workers=4, total_items=lambda _: 200, poll_interval=0.02, progress=recorder
    )
    assert len(set(pids)) == 4
    assert (recorder.last.done, recorder.last.total, recorder.last.retries) == (800, 800, 0)
    dones = [snapshot.done for snapshot in recorder.snapshots]
    assert dones == sorted(dones), "the bar went back"
    assert len(started) == 2

    def ended(handle: Any) -> bool:
        try:
            ray.get(handle.report.remote([], {}), timeout=240)
        except ray.exceptions.RayActorError:
            return True
        return False  # the kill is still on its way

    until(lambda: all(ended(handle) for handle in started))


def test_a_lost_worker_is_found_through_its_relay(
    ray_session: None,
    recorder: Recorder,
    tmp_path: Path,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The warning about a lost task in a large run names the process it ran in, not that of its relay."""
    monkeypatch.setattr(client, "LOCATE_TIMEOUT_S", 60.0)  # on a busy machine an answer takes longer
    seen = tmp_path / "seen"

    def task(i: int) -> None:
        died = tmp_path / "died"
        if i == 1 and not died.exists():
            report_progress(100)
            until(seen.exists)
            died.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        until(died.exists)

    recorder.hook = lambda snapshot: snapshot.done == 100 and seen.touch()
    multi_process(
        task, range(4), num_workers=4, total_items=lambda _: 200, poll_interval=0.02, progress=recorder
    )
    (line,) = [record.getMessage() for record in caplog.records if "runs again" in record.getMessage()]
    pid = (tmp_path / "died").read_text()
    assert re.search(rf"\(node \w+, process {pid}\)", line), line
