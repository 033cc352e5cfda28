"""Files that can't be deleted while a process has them open, as on NFS, end no call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from datasets import load_from_disk
from support.disks import busy
from support.shards import FINGERPRINT, leave_interrupted, start, work

from speedy_utils._sharding.merge import merge_shards
from speedy_utils._sharding.workspace import Workspace


@pytest.mark.parametrize("resume", [True, False])
def test_leftovers_are_set_aside_and_deleted_by_a_later_call(
    resume: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Leftovers in a shard, the merged folder and the old output do no harm; what stays is said."""
    output = tmp_path / "out"
    workspace, plan = start(output)
    with workspace:
        work(workspace, plan)
        merge_shards(workspace, plan)
    (output / ".nfs0004").touch()
    folder = leave_leftovers(output)
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy(os.unlink))
        workspace, plan = start(output, overwrite=True, resume=resume)
        with workspace:
            assert sorted(plan.finished) == ([0] if resume else [])
            work(workspace, plan)
            assert len(load_from_disk(str(merge_shards(workspace, plan)))) == 10
        assert workspace.published
        assert f"is complete, but {folder} can't be deleted yet" in caplog.text
        assert sorted(os.listdir(tmp_path)) == ["out", "out.partial"]
        # Not even a half deleted old output comes back if the new one was moved away.
        output.rename(tmp_path / "moved")
        with Workspace.open(output):
            assert not output.exists()
    workspace, plan = start(output)
    with workspace:
        assert plan.finished == {}
        work(workspace, plan)
        merge_shards(workspace, plan)
    assert sorted(os.listdir(tmp_path)) == ["moved", "out"]


def leave_leftovers(output: Path) -> Path:
    """Leave an interrupted run behind, with files that can't be deleted; the folder it worked in."""
    output.rename(output.with_name("aside"))
    folder = leave_interrupted(output, 0)
    output.with_name("aside").rename(output)
    for place in ("shards/00001", "merged", "old"):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / ".nfs0001").touch()
    return folder


def test_a_leftover_alone_does_not_make_a_folder_another_programs(tmp_path: Path) -> None:
    """A folder in which nothing but such a file is left can be used again."""
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / ".nfs0001").touch()
    workspace, plan = start(tmp_path / "out", FINGERPRINT)
    with workspace:
        assert len(plan.missing) == 4
