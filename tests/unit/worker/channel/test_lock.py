"""One run at a time in a folder, also where the file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_from_disk
from support.shards import leave_interrupted, start, work
from support.waiting import wait_until

from speedy_utils._sharding.merge import merge_shards
from speedy_utils._sharding.workspace import Workspace
from speedy_utils._worker.channel import lock as lock_module
from speedy_utils.errors import BusyError


@pytest.fixture(params=["ENOLCK", "EOPNOTSUPP", "EIO", "ENOSYS"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take the locks from the file system; the words of its error."""
    code = getattr(errno, request.param)

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(code)


def test_a_lease_takes_the_place_of_a_lock(
    no_locks: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run works as with a lock, says why it has none, refuses a second one, and leaves nothing."""
    leave_interrupted(tmp_path / "out", 0, 2)
    caplog.clear()
    workspace, plan = start(tmp_path / "out")
    with workspace:
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert f"without locks ({no_locks})" in caplog.text
        assert sorted(plan.finished) == [0, 2]
        with pytest.raises(BusyError, match=rf"process {os.getpid()} on .*delete '.*lease'"):
            Workspace.open(tmp_path / "out")
        work(workspace, plan)
        assert len(load_from_disk(str(merge_shards(workspace, plan)))) == 10
    assert os.listdir(tmp_path) == ["out"]
    with Workspace.open(tmp_path / "a" / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("no_locks", ["ENOLCK"], indirect=True)
def test_the_lease_of_a_process_that_died_is_taken_over(
    no_locks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run leaves its lease; the next one on the host goes on, at the latest as it expires."""
    monkeypatch.setattr(lock_module, "LEASE_S", 0.5)
    program = (
        "import errno, fcntl, os, sys\n"
        "def flock(*_): raise OSError(errno.ENOLCK, 'none')\n"
        "fcntl.flock = flock\n"
        "from speedy_utils._worker.channel import lock\n"
        "from speedy_utils._sharding.workspace import Workspace\n"
        "lock.LEASE_S = 0.5\n"
        "workspace = Workspace.open(sys.argv[1])\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], check=True)
    assert "lease" in os.listdir(tmp_path / "out.partial")
    with Workspace.open(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("no_locks", ["ENOLCK"], indirect=True)
def test_the_lease_of_another_host_is_watched_until_it_has_expired(
    no_locks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run of a host that died does not hold the folder for ever."""
    monkeypatch.setattr(lock_module, "LEASE_S", 0.5)
    with Workspace.open(tmp_path / "out"):
        marker = (tmp_path / "out.partial" / "lease").read_text()
        holder = json.loads((tmp_path / "out.partial" / "holder.json").read_text())
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "lease").write_text(marker.replace(holder["host"], "node-2"))
    (tmp_path / "out.partial" / "holder.json").write_text(json.dumps({"pid": 1, "host": "node-2"}))
    with Workspace.open(tmp_path / "out"):
        assert "to see whether a run on node-2 is alive" in caplog.text


@pytest.mark.parametrize("no_locks", ["ENOLCK"], indirect=True)
def test_a_run_that_has_lost_its_lease_publishes_nothing(
    no_locks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another run has taken the folder the first one ends with a BusyError."""
    monkeypatch.setattr(lock_module, "LEASE_S", 0.3)
    workspace, plan = start(tmp_path / "out")
    with workspace:
        work(workspace, plan)
        (tmp_path / "out.partial" / "lease").unlink()
        wait_until(lambda: lock_module.is_lost(workspace._lock))
        with pytest.raises(BusyError, match="not heard of for so long"):
            merge_shards(workspace, plan)
    assert not (tmp_path / "out").exists()
