"""The folder of a run: its user's own, one run at a time, and nothing is left of it."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from speedy_utils import BusyError
from speedy_utils._state.ledger import Report
from speedy_utils._worker.channel import folder as folder_module
from speedy_utils._worker.channel.folder import RunFolder
from speedy_utils._worker.channel.reader import FolderReader
from speedy_utils._worker.channel.writer import FolderSink


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the folders of runs be made here."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_a_run_folder_is_its_users_own(base: Path) -> None:
    """No other user can read the folder of a run, and it goes at the end."""
    folder = RunFolder()
    assert folder.path.parent == base
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.close()
    folder.close()
    assert list(base.iterdir()) == []


def test_nothing_is_left_where_only_the_temporary_folder_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be made in the other places, the temporary folder has it until the end."""
    monkeypatch.setattr(folder_module, "_parents", lambda: [str(tmp_path / "gone"), str(tmp_path)])
    folder = RunFolder()
    assert folder.path.parent == tmp_path
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_place_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a folder can be made but no file be written the next place has it, or an error says so."""
    full, free = tmp_path / "full", tmp_path / "free"
    full.mkdir()
    free.mkdir()
    write = RunFolder._write_run

    def write_if_free(folder: RunFolder, path: Path) -> None:
        if path.parent == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, path)

    monkeypatch.setattr(RunFolder, "_write_run", write_if_free)
    monkeypatch.setattr(folder_module, "_parents", lambda: [str(full), str(free)])
    folder = RunFolder()
    assert folder.path.parent == free
    folder.close()
    monkeypatch.setattr(folder_module, "_parents", lambda: [str(full)])
    with pytest.raises(OSError, match=r"no place for the counts of a run .*full\. Make room") as raised:
        RunFolder()
    assert raised.value.errno == errno.ENOSPC
    assert [*full.iterdir(), *free.iterdir()] == []


ABANDON = """
import os
from speedy_utils._worker.channel.folder import RunFolder
print(RunFolder().path, flush=True)
os.kill(os.getpid(), 9)
"""


def test_the_folder_of_a_killed_driver_goes_with_the_next_run(base: Path) -> None:
    """What a killed driver has left is removed, and the folder of a run that goes on is not."""
    running = RunFolder()
    killed = subprocess.run(
        [sys.executable, "-c", ABANDON], capture_output=True, text=True, check=False, timeout=120
    )
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    following = RunFolder()
    assert sorted(base.iterdir()) == sorted([running.path, following.path])
    running.close()
    following.close()


def test_a_folder_whose_driver_has_not_locked_it_yet_stays(base: Path) -> None:
    """Two drivers that start at the same moment leave each other's folder alone."""
    folder = RunFolder()
    starting = base / folder.path.name.replace("-run-", "-new-").replace(folder.path.name[-8:], "abcdefgh")
    folder.close()
    starting.mkdir()
    (starting / "lock").touch()
    RunFolder().close()
    assert list(base.iterdir()) == [starting]
    os.utime(starting, (0, 0))
    RunFolder().close()
    assert list(base.iterdir()) == []


def test_a_link_in_the_place_of_a_folder_is_not_followed(base: Path, tmp_path_factory: Any) -> None:
    """What a link leads to stays when the folders of dead drivers are removed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    folder = RunFolder()
    link = base / folder.path.name.replace(folder.path.name[-8:], "abcdefgh")
    folder.close()
    for each in (elsewhere / "lock", elsewhere / "precious"):
        each.touch()
    os.utime(elsewhere, (0, 0))
    link.symlink_to(elsewhere)
    RunFolder().close()
    assert sorted(each.name for each in elsewhere.iterdir()) == ["lock", "precious"]


def test_a_given_folder_is_cleared_and_nothing_else_goes(tmp_path: Path) -> None:
    """States that an earlier run has left don't count, and what is not of a run stays."""
    given = tmp_path / "shared" / "progress"
    given.mkdir(parents=True)
    (given / "notes.txt").touch()
    with RunFolder(given) as killed:
        FolderSink(given, killed.run).send([Report(0, 1, {})], {})
        sink = FolderSink(given)
        sink.send([Report(1, 1, {})], {})
        (given / "4711-00000000-12.new").touch()
        assert [report.task for report in FolderReader(given, killed.run).collect()[0]] == [1]
    assert [each.name for each in given.iterdir()] == ["notes.txt"]
    with RunFolder(given) as folder:
        sink.send([Report(2, 1, {})], {})  # a process of the earlier run goes on
        assert FolderReader(given, folder.run).collect()[0] == []
    assert [each.name for each in given.iterdir()] == ["notes.txt"]


def test_a_given_folder_that_the_run_has_made_goes_with_it(tmp_path: Path) -> None:
    """The folder may be used again at once, and is gone in the end."""
    for _ in range(2):
        with RunFolder(tmp_path / "a" / "b") as folder:
            assert folder.path == tmp_path / "a" / "b"
            assert json.loads((folder.path / "run").read_text())["pid"] == os.getpid()
        assert list((tmp_path / "a").iterdir()) == []


OTHERS = {"notes.txt": "mine", "1700000000-1a2b3c4d.json": '{"loss": 0.1}', "config.json": "{}"}


def test_files_that_are_just_called_like_those_of_runs_stay(tmp_path: Path) -> None:
    """No file of the user's is deleted; one in the place of what the run needs is an error at once."""
    for name, text in OTHERS.items():
        (tmp_path / name).write_text(text)
    with RunFolder(tmp_path) as folder:
        FolderSink(tmp_path, folder.run).send([Report(0, 1, {})], {})
    for name in ("run", "lock"):
        (tmp_path / name).write_text("make all")
        with pytest.raises(FileExistsError, match=f"holds '{name}', which no run has made"):
            RunFolder(tmp_path)
        assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {**OTHERS, name: "make all"}
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        with pytest.raises(FileExistsError, match="for runs alone"):
            RunFolder(tmp_path)
        (tmp_path / name).rmdir()


HOLD = """
import sys
from speedy_utils._worker.channel.folder import RunFolder
folder = RunFolder(sys.argv[1])
print(flush=True)
input()
"""


def test_a_folder_that_a_run_holds_is_refused(tmp_path: Path) -> None:
    """The error names the run, whose states stay; once its driver is killed the folder is free."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        FolderSink(tmp_path).send([Report(0, 1, {})], {})
        before = sorted(tmp_path.iterdir())
        with pytest.raises(
            BusyError, match=rf"folder='{tmp_path}' \(process {holder.pid} on .*another folder"
        ):
            RunFolder(tmp_path)
        assert sorted(tmp_path.iterdir()) == before
    finally:
        holder.kill()
        holder.communicate()
    with RunFolder(tmp_path):
        assert sorted(each.name for each in tmp_path.iterdir()) == ["lock", "run"]
