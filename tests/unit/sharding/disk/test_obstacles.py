"""What would stop a run at its very end is found before it begins."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import Dataset

from speedy_utils._sharding.saved_dataset import silence_datasets
from speedy_utils._sharding.workspace import Workspace


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return the place of an old output."""
    output = tmp_path / "an out"
    with silence_datasets():
        Dataset.from_dict({"id": [1]}).save_to_disk(str(output))
    return output


def run(*command: str | Path) -> None:
    """Run a program of the system, or skip the test where that is not possible."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"there is no {command[0]} on this system")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"not possible here: {done.stderr.strip()}")


@pytest.fixture(params=["the output", "a folder in it", "bound to itself"])
def mounted(request: pytest.FixtureRequest, output: Path) -> Iterator[Path]:
    """Mount a file system at the output, or in it."""
    place = output
    if request.param == "bound to itself":
        run("mount", "--bind", output, output)
    else:
        if request.param == "the output":
            shutil.rmtree(output)
        else:
            place = output / "images"
        place.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place)
    yield place
    run("umount", "--lazy", place)


def test_a_mount_point_is_refused(mounted: Path, output: Path, tmp_path: Path) -> None:
    """A folder that is mounted, or holds one that is, can't be replaced: an error that names it."""
    with pytest.raises(FileExistsError, match=r"can't be replaced: .* is a mount point\. Choose") as caught:
        Workspace.open(output, overwrite=True)
    assert mounted == output or str(mounted) in str(caught.value)
    assert os.listdir(tmp_path) == ["an out"]


def test_an_immutable_file_is_refused(output: Path, tmp_path: Path) -> None:
    """An old output that could not be deleted is an error before any work, with the file's name."""
    file = output / "state.json"
    run("chattr", "+i", file)
    try:
        with pytest.raises(FileExistsError, match=r"state\.json' is immutable"):
            Workspace.open(output, overwrite=True)
    finally:
        run("chattr", "-i", file)
    with Workspace.open(output, overwrite=True):
        pass


def test_a_folder_without_permission_is_refused(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old output that this user may not change is an error before any work."""
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("images"))
    (output / "images").mkdir()
    with pytest.raises(FileExistsError, match=r"no permission to change '.*images'"):
        Workspace.open(output, overwrite=True)


@pytest.mark.parametrize("kind", ["name", "path", "beyond"])
def test_what_is_too_long_is_refused(kind: str, tmp_path: Path) -> None:
    """A name or path that leaves no room for the run's own names is a ValueError; nothing is made."""
    deep = tmp_path.joinpath(*["d" * 200] * ((3950 - len(str(tmp_path))) // 201), "e" * 100)
    output = {"path": deep, "name": tmp_path / ("n" * 250), "beyond": deep.joinpath(*["f" * 200] * 9)}[kind]
    with pytest.raises(ValueError, match=r"too long: it.* bytes shorter"):
        Workspace.open(output)
    assert os.listdir(tmp_path) == []
    with Workspace.open(tmp_path / ("n" * 247)):
        pass
