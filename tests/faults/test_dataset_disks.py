"""Dataset runs on full disks, and with files that were damaged. Nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from support.recorder import Recorder
from support.rows import numbered, same, saved

from speedy_utils import multi_process_dataset
from speedy_utils.errors import FailedShardsError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)):
        yield folder


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Mount a file system, the last argument being its folder, or skip the test where that is not allowed."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount on this system")
    done = subprocess.run([mount, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([umount, "--lazy", arguments[-1]], check=True)


def test_an_input_on_a_read_only_mount(backend: str, tmp_path: Path) -> None:
    """It is cut, mapped, filtered and shuffled as any other; nothing has to be written beside it."""
    source, out = tmp_path / "in", tmp_path / "out"
    saved(numbered(40), source)

    def process(dataset: Any) -> Any:
        kept = dataset.filter(lambda row: row["id"] % 2).map(lambda row: {"text": row["text"].upper()})
        return kept.shuffle(seed=1)

    with mounted("--bind", str(source), str(source)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(source)], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            (source / "cache").touch()
        multi_process_dataset(
            source, process, out, num_workers=2, num_shards=4, seed=1, backend=backend, progress=False
        )
    result = load_from_disk(str(out))
    assert sorted(result["id"]) == list(range(1, 40, 2))
    assert all(row["text"] == f"ROW {row['id']}" for row in result)


@pytest.mark.parametrize("returned", [True, False], ids=["saved for it", "saved by it"])
def test_a_full_disk_is_an_error_and_the_same_call_goes_on(
    backend: str, returned: bool, recorder: Recorder, small_disk: Path
) -> None:
    """A full disk fails shards with the system's own words; with room again the same call ends exact."""
    out, ballast = small_disk / "out", small_disk / "ballast"
    ballast.write_bytes(bytes(2_000_000))

    def process(dataset: Any, output_path: str) -> Any:
        rows = Dataset.from_dict({"id": dataset["id"][:], "text": ["x" * 50_000] * len(dataset)})
        if returned:
            return rows
        rows.save_to_disk(output_path)
        return output_path

    def run() -> str:
        return multi_process_dataset(
            numbered(60), process, out, num_workers=2, num_shards=6, backend=backend, progress=recorder
        )

    with pytest.raises(FailedShardsError, match=r"of 6 shards failed") as caught:
        run()
    kept = 6 - len(caught.value.errors)
    assert kept == len(list(small_disk.glob("out.partial/shards/*/record.json"))) > 0
    assert os.strerror(errno.ENOSPC) in str(caught.value)
    ballast.unlink()
    run()
    assert list(load_from_disk(str(out))["id"]) == list(range(60))
    assert recorder.runs[1][0].initial == 10 * kept
    assert (recorder.last.done, recorder.last.total) == (60, 60)
    assert os.listdir(small_disk) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_disk_that_is_full_at_the_merge_keeps_all_shards(
    overwrite: bool, recorder: Recorder, small_disk: Path, tmp_path: Path
) -> None:
    """A merge that finds no room fails with the system's words; with room again no shard runs twice."""
    out, ballast, calls = small_disk / "out", small_disk / "ballast", tmp_path / "calls"
    if overwrite:
        saved(Dataset.from_dict({"id": [77]}), out)

    def process(dataset: Any, output_path: str) -> Any:
        first = dataset[0]["id"]
        with calls.open("a") as file:
            file.write(f"{first} ")
        # The first shard's column without a type takes that of the second: its file has to be rewritten.
        rows = {"id": dataset["id"][:], "text": ["x" * 30_000] * len(dataset)}
        Dataset.from_dict(rows | {"late": [first or None] * len(dataset)}).save_to_disk(output_path)
        if first:
            ballast.write_bytes(b"x" * 2_000_000)
        return output_path

    def run() -> str:
        return multi_process_dataset(
            numbered(60),
            process,
            out,
            num_shards=2,
            num_workers=1,
            backend="seq",
            overwrite=overwrite,
            progress=recorder,
        )

    with pytest.raises(OSError, match="No space left"):
        run()
    assert calls.read_text() == "0 30 "
    assert len(list(small_disk.glob("out.partial/shards/*/record.json"))) == 2
    assert (list(load_from_disk(str(out))["id"]) == [77]) if overwrite else not os.path.lexists(out)
    ballast.unlink()
    run()
    assert calls.read_text() == "0 30 "
    assert load_from_disk(str(out))["late"][:] == [None] * 30 + [30] * 30
    assert (recorder.last.done, recorder.last.total) == (60, 60)
    assert os.listdir(small_disk) == ["out"]


def test_a_disk_without_any_room_keeps_the_output_that_exists(small_disk: Path) -> None:
    """If not even the manifest can be written the error says so, and the old output stays as it was."""
    out, ballast = small_disk / "out", small_disk / "ballast"
    saved(Dataset.from_dict({"id": [77]}), out)
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass

    def run() -> str:
        return multi_process_dataset(
            numbered(4), same, out, num_workers=1, backend="seq", overwrite=True, progress=False
        )

    with pytest.raises(OSError, match="No space left") as caught:
        run()
    assert caught.value.errno == errno.ENOSPC
    assert list(load_from_disk(str(out))["id"]) == [77]
    ballast.unlink()
    run()
    assert list(load_from_disk(str(out))["id"]) == [0, 1, 2, 3]


def test_a_disk_that_is_full_at_the_very_end_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the output has its place, a disk that has no room for a note on that does not fail the run."""
    touch = Path.touch

    def touch_or_fail(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.parent.name == "out.partial":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        touch(self, *args, **kwargs)

    monkeypatch.setattr(Path, "touch", touch_or_fail)
    path = multi_process_dataset(numbered(4), same, tmp_path / "out", backend="seq", progress=False)
    assert list(load_from_disk(path)["id"]) == [0, 1, 2, 3]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("damage", ["truncated", "written over", "deleted", "emptied record"])
@pytest.mark.parametrize("name", ["threads", "seq"])
def test_a_damaged_shard_is_found_and_runs_again(
    name: str, damage: str, recorder: Recorder, tmp_path: Path
) -> None:
    """A file of a finished shard that is damaged between two calls makes that shard run again."""
    out, calls, mended = tmp_path / "out", tmp_path / "calls", tmp_path / "mended"
    calls.mkdir()

    def process(dataset: Any, output_path: str) -> Any:
        (calls / f"{dataset[0]['id']}-{uuid.uuid4()}").touch()
        if dataset[0]["id"] == 30 and not mended.exists():
            raise ValueError("not yet")
        dataset.save_to_disk(output_path)
        return output_path

    def run() -> str:
        return multi_process_dataset(
            numbered(40), process, out, num_workers=2, num_shards=4, backend=name, progress=recorder
        )

    with pytest.raises(FailedShardsError, match="not yet"):
        run()
    shard = tmp_path / "out.partial" / "shards" / "00001"
    (data,) = shard.glob("*/output/*.arrow")
    if damage == "truncated":
        os.truncate(data, data.stat().st_size // 2)
    elif damage == "written over":
        content = data.read_bytes()
        data.write_bytes(content[:-64] + bytes(255 - byte for byte in content[-64:]))  # the size stays
    elif damage == "deleted":
        data.unlink()
    else:
        os.truncate(shard / "record.json", 0)
    mended.touch()
    for file in calls.iterdir():
        file.unlink()
    run()
    assert sorted(file.name.split("-")[0] for file in calls.iterdir()) == ["10", "30"]
    assert list(load_from_disk(str(out))["id"]) == list(range(40))
    assert recorder.runs[1][0].initial == 20
