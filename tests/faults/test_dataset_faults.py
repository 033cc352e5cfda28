"""Datasets under fire: killed drivers and workers, Ctrl-C, full disks, damaged files. Nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import runpy
import shutil
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk

from speedy_utils import multi_process_dataset, track
from speedy_utils._api import multi_process_dataset as dataset_sharding
from speedy_utils.errors import FailedShardsError

BACKENDS = [pytest.param("ray", marks=pytest.mark.ray), "mp"]

AS_IT_STANDS = """
import time
from datasets import Dataset
from speedy_utils import multi_process_dataset, report_progress


def save_to_disk(results, path):
    Dataset.from_list(results).save_to_disk(path)


def generate():
    for i in range(10000):
        yield {'text': f'Sample {i}', 'id': i}


def process_shard(dataset, output_path):
    results = []
    for i, item in enumerate(dataset):
        time.sleep(0.001)
        results.append({'text': item['text'].upper()})
        if i % 100 == 0 and i > 0:
            report_progress(100)
    save_to_disk(results, output_path)
    return output_path


if __name__ == '__main__':
    dataset = Dataset.from_generator(generate)
    print('GENERATED')
    path = multi_process_dataset(dataset, process_shard, 'out', num_workers=8, backend='ray')
    print('RETURNED', path)
"""


@pytest.mark.ray
def test_the_script_ends_exact_with_one_bar(
    terminal: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight workers that report every hundredth row draw one bar, which ends at 10,000/10,000."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    program = terminal(AS_IT_STANDS)
    assert program.wait() == 0, program.text[-2000:]
    _, _, text = program.text.partition("GENERATED")
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    drawn = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    # Beside much that is to be said the title is cut.
    bars = [line for line in drawn if re.match(r"Processing( 10,000 items)?:", line)]
    others = [line for line in drawn if line not in bars]
    assert [line.strip() for line in others] == ["RETURNED out"]
    assert any("starting Ray" in line for line in bars)
    assert "100%" in bars[-1]
    assert "10,000/10,000" in bars[-1]
    assert "8/8 shards" in bars[-1]
    # One line, drawn over and over: the terminal goes to the next one only once, when it is closed.
    between = text[text.index("Processing") : text.index("RETURNED")]
    assert between.count("\n") == 1
    assert load_from_disk(str(tmp_path / "out"))["text"][:] == [f"SAMPLE {i}" for i in range(10_000)]


# --- Drivers that die ------------------------------------------------------------------------------------

SHARDS, ROWS = 10, 40

DRIVER = """
import time, uuid, pathlib
from datasets import Dataset, load_from_disk
from speedy_utils import multi_process_dataset, track

here = pathlib.Path(__file__).parent
folder = str(here / "calls")

def process(dataset, output_path, pause):
    (pathlib.Path(folder) / f"{dataset[0]['id']}-{uuid.uuid4().hex}").touch()
    rows = []
    for row in track(dataset):
        time.sleep(pause)
        rows.append({"id": row["id"], "text": row["text"].upper()})
    Dataset.from_list(rows).map(lambda row: {"half": row["id"] / 2}).save_to_disk(output_path)
    return output_path

if __name__ == "__main__":
    multi_process_dataset(here / "data", process, here / "out", {"pause": 0.02}, num_workers=2, num_shards=10,
                          backend="@backend@", poll_interval=0.05, ray_options={"num_cpus": 1})
"""


def finished(folder: Path) -> dict[int, tuple[int, ...]]:
    """The finished shards of an interrupted run: when and where their records were written."""
    found = {}
    for record in (folder / "out.partial" / "shards").glob("*/record.json"):
        with contextlib.suppress(FileNotFoundError):
            stat = record.stat()
            found[int(record.parent.name)] = (stat.st_ino, stat.st_mtime_ns)
    return found


def started(folder: Path) -> Counter[int]:
    """How often each shard was started."""
    return Counter(int(file.name.split("-")[0]) // ROWS for file in (folder / "calls").iterdir())


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with what the driver works on."""
    rows = SHARDS * ROWS
    data = Dataset.from_dict({"text": [f"row {i}" for i in range(rows)], "id": list(range(rows))})
    with dataset_sharding.silence_datasets():
        data.save_to_disk(str(tmp_path / "data"))
    (tmp_path / "calls").mkdir()
    return tmp_path


def check_second_call(program: Any, folder: Path, kept: dict[int, Any], before: Counter[int]) -> None:
    """The second call ran only what was missing, started its bar at what was done, and ended exact."""
    assert program.wait() == 0, program.text[-2000:]
    again = started(folder) - before
    missing = set(range(SHARDS)) - kept.keys()
    assert again == Counter(missing)
    drawn = [line for line in re.split(r"[\r\n]+", program.text) if "Processing" in line]
    bars = [line for line in re.split(r"[\r\n]+", program.text) if "%|" in line]
    assert all(re.search("Processing|Map:", line) for line in bars)  # the run's own line, and that of a stage
    assert f"{len(kept) * ROWS}/400" in drawn[0]
    assert "400/400" in drawn[-1]
    assert "10/10 shards" in drawn[-1]
    assert not (folder / "out.partial").exists()
    # Shards of 40 rows at 20 ms a row, two at once: what is faster counts rows of the first call.
    (rate,) = re.findall(r"([\d,.]+) items/s", drawn[-1])
    assert float(rate.replace(",", "")) < 103


def undisturbed(folder: Path) -> Dataset:
    """The output of a run of the same function that nothing happened to."""
    process = runpy.run_path(str(folder / "driver.py"))["process"]
    path = multi_process_dataset(
        folder / "data",
        process,
        folder / "undisturbed",
        {"pause": 0},
        num_shards=SHARDS,
        backend="seq",
        progress=False,
    )
    return load_from_disk(path)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_killed_driver_loses_no_finished_shard(
    name: str,
    terminal: Callable[[str], Any],
    prepared: Path,
    until: Callable[..., Any],
) -> None:
    """After SIGKILL at about 60 % the same call runs only unfinished shards, as if nothing had happened."""
    script = DRIVER.replace("@backend@", name)
    program = terminal(script)
    until(lambda: len(finished(prepared)) >= 6)
    assert bool(program.workers()) == (name == "ray")
    program.kill()
    program.wait()
    until(lambda: not program.processes())  # the workers that were left behind have ended too
    kept, before = finished(prepared), started(prepared)
    assert 6 <= len(kept) < SHARDS
    assert not (prepared / "out").exists()
    # Whatever backend goes on: with threads that takes no Ray to start.
    check_second_call(terminal(DRIVER.replace("@backend@", "mp")), prepared, kept, before)
    assert load_from_disk(str(prepared / "out"))[:] == undisturbed(prepared)[:]


@pytest.mark.parametrize("name", BACKENDS)
def test_ctrl_c_keeps_the_finished_shards(
    name: str,
    terminal: Callable[[str], Any],
    prepared: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
) -> None:
    """Ctrl-C ends the run by KeyboardInterrupt; the call goes on where it stopped, on any backend."""
    script = DRIVER.replace("@backend@", name)
    program = terminal(script)
    until(lambda: len(finished(prepared)) >= 4)
    program.press_ctrl_c()
    assert program.wait() in (-signal.SIGINT, 1), program.text[-2000:]
    assert "KeyboardInterrupt" in program.text
    until(lambda: not program.processes(), here(10))
    kept, before = finished(prepared), started(prepared)
    (told,) = re.findall(r"stopped: (\d+) of 10 shards are finished", program.text)
    assert int(told) <= len(kept)  # a shard may end while its run is stopped
    assert 4 <= len(kept) < SHARDS
    check_second_call(terminal(DRIVER.replace("@backend@", "mp")), prepared, kept, before)
    assert list(load_from_disk(str(prepared / "out"))["id"]) == list(range(SHARDS * ROWS))


# --- Workers that die ------------------------------------------------------------------------------------


@pytest.fixture
def shown(shown: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Record what dataset runs show."""
    monkeypatch.setattr(dataset_sharding, "display_here", shown)
    return shown


def numbered(rows: int) -> Dataset:
    """Rows of known content, in memory."""
    return Dataset.from_dict({"id": list(range(rows))})


@pytest.mark.ray
@pytest.mark.parametrize("moment", ["working", "written"])
def test_a_killed_worker_runs_its_shard_again(
    moment: str, ray_session: None, shown: Any, tmp_path: Path
) -> None:
    """A worker killed in its shard, or after it wrote half of the output, is replaced; all stays exact."""
    out = tmp_path / "out"

    def process(dataset: Any, output_path: str) -> Any:
        first = dataset[0]["id"]
        mark = tmp_path / f"died-{first}"
        dies = first in (10, 30) and not mark.exists()
        for done, _ in enumerate(track(dataset, every=1)):
            if dies and done == 5:
                mark.touch()
                if moment == "written":
                    dataset.select(range(5)).save_to_disk(output_path)
                os.kill(os.getpid(), signal.SIGKILL)
        dataset.save_to_disk(output_path)
        return output_path

    multi_process_dataset(numbered(40), process, out, num_workers=2, num_shards=4, poll_interval=0.05)
    assert list(load_from_disk(str(out))["id"]) == list(range(40))
    assert (shown.last.done, shown.last.total, shown.last.retries) == (40, 40, 2)
    assert (shown.last.tasks_done, shown.last.tasks_failed) == (4, 0)
    assert sorted(os.listdir(tmp_path)) == ["died-10", "died-30", "out"]


@pytest.mark.ray
def test_a_shard_that_always_kills_its_worker_fails_alone(
    ray_session: None, shown: Any, tmp_path: Path
) -> None:
    """After max_retries the shard is listed with its attempts; the others are kept, and the rest resumes."""
    out, mended = tmp_path / "out", tmp_path / "mended"

    def process(dataset: Any, output_path: str) -> Any:
        if dataset[0]["id"] == 10 and not mended.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return dataset

    def run() -> str:
        return multi_process_dataset(numbered(30), process, out, num_workers=2, num_shards=3, max_retries=1)

    with pytest.raises(FailedShardsError, match="1 of 3 shards failed") as caught:
        run()
    (error,) = caught.value.errors
    assert (error.index, str(error.item), error.attempts) == (1, "shard 1 (rows 10-19)", 2)
    assert "worker was lost" in str(caught.value)
    mended.touch()
    assert list(load_from_disk(run())["id"]) == list(range(30))
    assert [display.snapshots[0].initial for display in shown.displays] == [0, 20]


@pytest.mark.parametrize("kept", ["old", "new"])
def test_an_output_that_is_its_own_input_survives_a_killed_swap(kept: str, tmp_path: Path) -> None:
    """Where the old data wait beside the place of the output, the same call finds its input again."""
    out, partial = tmp_path / "out", tmp_path / "out.partial"

    def process(dataset: Any, output_path: str) -> Any:
        if not broken:
            raise ValueError("not yet")
        return dataset.map(lambda row: {"id": row["id"] + 1})

    broken: list[None] = []
    with dataset_sharding.silence_datasets():
        numbered(30).save_to_disk(str(out))

    def run() -> str:
        return multi_process_dataset(
            out, process, out, num_shards=3, backend="seq", overwrite=True, progress=False, resume="trust"
        )

    with pytest.raises(FailedShardsError):
        run()
    broken.append(None)
    os.rename(out, partial / "old")  # what a swap does first
    if kept == "new":  # and then
        with dataset_sharding.silence_datasets():
            numbered(30).save_to_disk(str(out))
    run()
    assert list(load_from_disk(str(out))["id"]) == list(range(1, 31))
    assert os.listdir(tmp_path) == ["out"]


KILLED_MERGES = """
import os, pathlib, signal, sys
from datasets import Dataset, load_from_disk
from speedy_utils import multi_process_dataset

out, partial = pathlib.Path("out"), pathlib.Path("out.partial")

def process(dataset, path, version):
    return Dataset.from_dict({"id": dataset["id"][:], "version": [version] * len(dataset)})

def run(version):
    multi_process_dataset(Dataset.from_dict({"id": list(range(20))}), process, out, {"version": version},
                          num_shards=2, backend="seq", progress=False, overwrite=True)

def version():
    rows = load_from_disk(str(out))[:]
    assert rows["id"] == list(range(20)), rows
    (found,) = set(rows["version"])
    return found

def die_before(step):
    # Python tells each step on files before it is done: openings, links, renamings, removals.
    seen = []
    def watch(event, args):
        if seen or (event == "os.mkdir" and os.path.basename(args[0]) == "merged"):  # where it begins
            if event == "open" or event.startswith(("os.", "shutil.")):
                seen.append(event)
                if len(seen) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

run(0)
met, turn, killed = [], 0, True
while killed:
    turn += 1
    child = os.fork()
    if not child:
        die_before(turn)
        run(turn)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or status == 0, status
    if out.exists():
        met.append("after" if version() == turn else "before")
    else:
        met.append("between")
        assert (partial / "old").is_dir()
    if killed:
        run(turn)
    assert version() == turn
    assert sorted(os.listdir()) == ["driver.py", "out"], os.listdir()
print(*met)
"""


def test_a_driver_that_is_killed_while_it_merges_loses_nothing(driver: Callable[..., Any]) -> None:
    """Killed before any step of a merge it leaves the old output or the new one, and the same call ends."""
    done = driver(KILLED_MERGES)
    assert done.returncode == 0, done.stderr[-2000:]
    met = done.stdout.split()
    assert met == sorted(met, key=["before", "between", "after"].index), "the output went back"
    assert met.count("before") >= 10, met
    assert met.count("between") >= 1, met
    assert met.count("after") >= 5, met


# --- Disks -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount on this system")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run([umount, "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("returned", [True, False], ids=["saved for it", "saved by it"])
def test_a_full_disk_is_told_and_the_same_call_goes_on(
    backend: str, returned: bool, shown: Any, small_disk: Path
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
        return multi_process_dataset(numbered(60), process, out, num_workers=2, num_shards=6, backend=backend)

    with pytest.raises(FailedShardsError, match=r"of 6 shards failed") as caught:
        run()
    kept = 6 - len(caught.value.errors)
    assert kept == len(list(small_disk.glob("out.partial/shards/*/record.json"))) > 0
    assert os.strerror(errno.ENOSPC) in str(caught.value)
    ballast.unlink()
    run()
    assert list(load_from_disk(str(out))["id"]) == list(range(60))
    assert shown.displays[1].snapshots[0].initial == 10 * kept
    assert (shown.last_of_all.done, shown.last_of_all.total) == (60, 60)
    assert os.listdir(small_disk) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_disk_that_is_full_at_the_merge_keeps_all_shards(
    overwrite: bool, shown: Any, small_disk: Path, tmp_path: Path
) -> None:
    """A merge that finds no room fails with the system's words; with room again no shard runs twice."""
    out, ballast, calls = small_disk / "out", small_disk / "ballast", tmp_path / "calls"
    if overwrite:
        with dataset_sharding.silence_datasets():
            Dataset.from_dict({"id": [77]}).save_to_disk(str(out))

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
            numbered(60), process, out, num_shards=2, num_workers=1, backend="seq", overwrite=overwrite
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
    assert (shown.last_of_all.done, shown.last_of_all.total) == (60, 60)
    assert os.listdir(small_disk) == ["out"]


def test_a_disk_without_any_room_keeps_the_output_that_exists(shown: Any, small_disk: Path) -> None:
    """Where not even the manifest can be written the error says so, and the old output stays as it was."""
    out, ballast = small_disk / "out", small_disk / "ballast"
    with dataset_sharding.silence_datasets():
        Dataset.from_dict({"id": [77]}).save_to_disk(str(out))
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass

    def process(dataset: Any, output_path: str) -> Any:
        return dataset

    with pytest.raises(OSError, match="No space left") as caught:
        multi_process_dataset(numbered(4), process, out, num_workers=1, backend="seq", overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert list(load_from_disk(str(out))["id"]) == [77]
    ballast.unlink()
    multi_process_dataset(numbered(4), process, out, num_workers=1, backend="seq", overwrite=True)
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

    def process(dataset: Any, output_path: str) -> Any:
        return dataset

    monkeypatch.setattr(Path, "touch", touch_or_fail)
    path = multi_process_dataset(numbered(4), process, tmp_path / "out", backend="seq", progress=False)
    assert list(load_from_disk(path)["id"]) == [0, 1, 2, 3]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("damage", ["truncated", "written over", "deleted", "emptied record"])
@pytest.mark.parametrize("name", ["mp", "seq"])
def test_a_damaged_shard_is_found_and_runs_again(name: str, damage: str, shown: Any, tmp_path: Path) -> None:
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
        return multi_process_dataset(numbered(40), process, out, num_workers=2, num_shards=4, backend=name)

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
    assert shown.displays[1].snapshots[0].initial == 20
