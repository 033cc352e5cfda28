"""File operations that a crash can't leave half done, also where a system can do less."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.disks import busy

from speedy_utils._sharding.files import (
    checksum,
    discard,
    link_or_copy,
    remove_path,
    swap_in,
    sync,
    undo_swap,
    write_json,
)


def test_json_appears_whole_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced in one step: if its content can't be flushed the one before stays as it was."""
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1, "a": [2]}
    assert os.listdir(tmp_path) == ["a.json"]

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", {})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": 1, "a": [2]}


def test_a_folder_that_can_not_be_opened_needs_no_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system that opens no folders, as Windows, files are flushed and folders left alone."""
    flushed = []
    open_file, fsync = os.open, os.fsync

    def open_no_folder(path: Any, flags: int, *rest: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        flushed.append(Path(path).name)
        return open_file(path, flags, *rest)

    monkeypatch.setattr(os, "open", open_no_folder)
    write_json(tmp_path / "a.json", 1)
    assert flushed == ["a.json.tmp"]
    assert json.loads((tmp_path / "a.json").read_text()) == 1

    def denied(path: Any, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PermissionError):  # a file that can't be flushed is an error
        sync(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        *((code, "") for code in ("EXDEV", "EPERM", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EINVAL", "EMLINK")),
        ("ENOSPC", "No space left"),
    ],
)
def test_a_file_is_copied_if_it_can_not_be_linked(
    code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where hard links are possible no byte is copied, elsewhere all are; a full disk is an error."""

    def fail(*_: object) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    (tmp_path / "a").write_text("text")
    link_or_copy(tmp_path / "a", tmp_path / "linked")
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "linked").stat().st_ino
    monkeypatch.setattr(os, "link", fail)
    if says:
        with pytest.raises(OSError, match=says):
            link_or_copy(tmp_path / "a", tmp_path / "b")
        assert not (tmp_path / "b").exists()
    else:
        link_or_copy(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b").read_text() == "text"


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    """Files, folders and links are removed, nothing behind a link is; what is not there is no error."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for name in ("link", "folder", "none"):
        remove_path(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["file"]


def test_what_can_not_be_deleted_yet_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a file that refuses makes its name free; one that can be deleted is."""
    for name in ("busy", "free"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".nfs0001").touch()
    discard(tmp_path / "free", tmp_path / "rubbish")
    assert os.listdir(tmp_path) == ["busy"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy(os.unlink))
        discard(tmp_path / "busy", tmp_path / "rubbish")
    assert os.listdir(tmp_path) == ["rubbish"]
    assert [os.listdir(path) for path in (tmp_path / "rubbish").iterdir()] == [[".nfs0001"]]
    discard(tmp_path / "never was", tmp_path / "rubbish")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_swap_is_undone_only_if_the_new_folder_has_no_place(swapped: bool, tmp_path: Path) -> None:
    """The old folder returns to its place unless the new one is there."""
    new, target, aside = tmp_path / "new", tmp_path / "target", tmp_path / "aside"
    (new / "new file").mkdir(parents=True)
    (target / "old file").mkdir(parents=True)
    (aside / "left by an earlier swap").mkdir(parents=True)
    if swapped:
        swap_in(new, target, aside)
        assert os.listdir(tmp_path) == ["target"]
    else:
        remove_path(aside)
        os.rename(target, aside)
    undo_swap(target, aside)
    assert os.listdir(target) == (["new file"] if swapped else ["old file"])
    undo_swap(target, aside)


def test_a_checksum_shows_damage(tmp_path: Path) -> None:
    """One bit that differs changes the checksum, also in a file of several megabytes."""
    content = bytearray(3_000_000)
    (tmp_path / "a").write_bytes(content)
    before = checksum(tmp_path / "a")
    content[2_500_000] ^= 1
    (tmp_path / "a").write_bytes(content)
    assert checksum(tmp_path / "a") != before
