"""Dataset runs whose driver or workers are killed, or stopped by Ctrl-C. Nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from support.backends import SLOW_RAY
from support.recorder import Recorder
from support.rows import numbered, saved

from speedy_utils import multi_process_dataset, track
from speedy_utils.errors import FailedShardsError

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


@pytest.mark.slow
@pytest.mark.ray
def test_the_script_ends_exact_with_one_bar(
    terminal: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight workers that report every hundredth row draw one bar, which ends at 10,000/10,000."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    program = terminal(AS_IT_STANDS)
    assert program.wait() == 0, program.text[-2000:]
    _, _, text = program.text.partition("GENERATED")
    text = re.sub(r"\x1b(\[[0-9;]*[A-Za-z]|[78D])", "", text)
    drawn = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    # Beside long remarks the title is cut.
    bars = [line for line in drawn if re.match(r"Processing( 10,000 items)?:", line)]
    others = [line for line in drawn if line not in bars]
    assert [line.strip() for line in others] == [f"RETURNED {tmp_path / 'out'}"]
    starting = [line for line in bars if "starting Ray" in line]
    assert starting
    assert all("0/10,000 [00:00<" in line for line in starting)  # that time does not count
    assert "100%" in bars[-1]
    assert "10,000/10,000" in bars[-1]
    assert "32/32 shards" in bars[-1]
    # One line, drawn over and over: the terminal goes to the next one only once, when it is closed.
    between = text[text.index("Processing") : text.index("RETURNED")]
    assert between.count("\n") == 1
    assert load_from_disk(str(tmp_path / "out"))["text"][:] == [f"SAMPLE {i}" for i in range(10_000)]


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
    """Return the finished shards of an interrupted run: when and where their records were written."""
    found = {}
    for record in (folder / "out.partial" / "shards").glob("*/record.json"):
        with contextlib.suppress(FileNotFoundError):
            stat = record.stat()
            found[int(record.parent.name)] = (stat.st_ino, stat.st_mtime_ns)
    return found


def started(folder: Path) -> Counter[int]:
    """Return how often each shard was started."""
    return Counter(int(file.name.split("-")[0]) // ROWS for file in (folder / "calls").iterdir())


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Return a folder with what the driver works on."""
    saved(numbered(SHARDS * ROWS), tmp_path / "data")
    (tmp_path / "calls").mkdir()
    return tmp_path


def check_second_call(program: Any, folder: Path, kept: dict[int, Any], before: Counter[int]) -> None:
    """Check that a second call ran only what was missing, began its bar at what was done, and ended exact."""
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
    # Shards of 40 rows at 20 ms a row, two at once: a faster one would count rows of the first call.
    (rate,) = re.findall(r"([\d,.]+) items/s", drawn[-1])
    assert float(rate.replace(",", "")) < 103


def undisturbed(folder: Path) -> Dataset:
    """Return the output of an undisturbed run of the same function."""
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


@pytest.mark.parametrize("name", [SLOW_RAY, "processes", "threads"])
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
    # On another backend, which takes no Ray to start.
    check_second_call(terminal(DRIVER.replace("@backend@", "threads")), prepared, kept, before)
    assert load_from_disk(str(prepared / "out"))[:] == undisturbed(prepared)[:]


@pytest.mark.parametrize("name", [SLOW_RAY, "processes", "threads"])
def test_ctrl_c_keeps_the_finished_shards(
    name: str,
    terminal: Callable[[str], Any],
    prepared: Path,
    until: Callable[..., Any],
    here: Callable[[float], float],
) -> None:
    """Ctrl-C ends the run by KeyboardInterrupt, whose text says last what is kept; the call then goes on."""
    script = DRIVER.replace("@backend@", name)
    program = terminal(script)
    until(lambda: len(finished(prepared)) >= 4)
    program.press_ctrl_c()
    assert program.wait() in (-signal.SIGINT, 1), program.text[-2000:]
    until(lambda: not program.processes(), here(10))
    kept, before = finished(prepared), started(prepared)
    last = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", program.text).split("\n")
    (said,) = re.findall(
        r"^KeyboardInterrupt: stopped: (\d+) of 10 shards are finished, and kept in '.*/out\.partial'; "
        "the same call runs only the others$",
        [line.strip() for line in last if line.strip()][-1],
    )
    assert int(said) <= len(kept)  # a shard may end while its run is stopped
    assert 4 <= len(kept) < SHARDS
    check_second_call(terminal(DRIVER.replace("@backend@", "threads")), prepared, kept, before)
    assert list(load_from_disk(str(prepared / "out"))["id"]) == list(range(SHARDS * ROWS))


@pytest.mark.ray
@pytest.mark.parametrize("moment", ["working", "written"])
def test_a_killed_worker_runs_its_shard_again(
    moment: str, ray_session: None, recorder: Recorder, tmp_path: Path
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

    multi_process_dataset(
        numbered(40), process, out, num_workers=2, num_shards=4, poll_interval=0.05, progress=recorder
    )
    assert list(load_from_disk(str(out))["id"]) == list(range(40))
    assert (recorder.last.done, recorder.last.total, recorder.last.retries) == (40, 40, 2)
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (4, 0)
    assert sorted(os.listdir(tmp_path)) == ["died-10", "died-30", "out"]


@pytest.mark.ray
def test_a_killed_worker_lists_each_bad_row_once(
    ray_session: None, recorder: Recorder, tmp_path: Path
) -> None:
    """Rows that a killed attempt had skipped are skipped and listed by the next one, and counted once."""
    out = tmp_path / "out"

    def unreadable(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if bad := [i for i in batch["id"] if i in (3, 12, 14, 25)]:
            raise OSError(f"image {bad[0]} is truncated")
        return batch

    def process(dataset: Any) -> Any:
        for row in track(dataset, on_bad_row="skip"):
            mark = tmp_path / f"died-{row['id']}"
            if row["id"] in (17, 29) and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"id": row["id"]}

    multi_process_dataset(
        numbered(40).with_transform(unreadable),
        process,
        out,
        num_workers=2,
        num_shards=4,
        poll_interval=0.05,
        progress=recorder,
    )
    assert list(load_from_disk(str(out))["id"]) == [i for i in range(40) if i not in (3, 12, 14, 25)]
    listed = [json.loads(line) for line in (out / "bad_rows.jsonl").read_text("utf-8").splitlines()]
    assert [line["row"] for line in listed] == [3, 12, 14, 25]
    assert (recorder.last.done, recorder.last.total, recorder.last.retries) == (40, 40, 2)
    assert recorder.last.run_line.counters == {"bad_rows": 4}


@pytest.mark.ray
def test_a_shard_that_always_kills_its_worker_fails_alone(
    ray_session: None, recorder: Recorder, tmp_path: Path
) -> None:
    """After max_retries the shard is listed with its attempts; the others are kept, and the rest resumes."""
    out, mended = tmp_path / "out", tmp_path / "mended"

    def process(dataset: Any, output_path: str) -> Any:
        if dataset[0]["id"] == 10 and not mended.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return dataset

    def run() -> str:
        return multi_process_dataset(
            numbered(30), process, out, num_workers=2, num_shards=3, max_retries=1, progress=recorder
        )

    with pytest.raises(FailedShardsError, match="1 of 3 shards failed") as caught:
        run()
    (error,) = caught.value.errors
    assert (error.index, str(error.item), error.attempts) == (1, "shard 1 (rows 10-19)", 2)
    assert "worker was lost" in str(caught.value)
    mended.touch()
    assert list(load_from_disk(run())["id"]) == list(range(30))
    assert [snapshots[0].initial for snapshots in recorder.runs] == [0, 20]


@pytest.mark.parametrize("kept", ["old", "new"])
def test_an_output_that_is_its_own_input_survives_a_killed_swap(kept: str, tmp_path: Path) -> None:
    """If the old data wait beside the place of the output, the same call finds its input again."""
    out, partial = tmp_path / "out", tmp_path / "out.partial"

    def process(dataset: Any, output_path: str) -> Any:
        if not broken:
            raise ValueError("not yet")
        return dataset.map(lambda row: {"id": row["id"] + 1})

    broken: list[None] = []
    saved(numbered(30), out)

    def run() -> str:
        return multi_process_dataset(
            out, process, out, num_shards=3, backend="seq", overwrite=True, progress=False, resume="trust"
        )

    with pytest.raises(FailedShardsError):
        run()
    broken.append(None)
    os.rename(out, partial / "old")  # what a swap does first
    if kept == "new":  # and then
        saved(numbered(30), out)
    run()
    assert list(load_from_disk(str(out))["id"]) == list(range(1, 31))
    assert os.listdir(tmp_path) == ["out"]


STORY = """
import pathlib
from datasets import Dataset
from speedy_utils import multi_process_dataset, track

def score(row):
    return row["id"] // (row["id"] - 21)

def process(dataset):
    pathlib.Path(f"started-{dataset[0]['id']}").touch()
    for row in track(dataset):
        yield {"id": row["id"], "score": score(row)}

def main(**options):
    rows = Dataset.from_dict({"id": list(range(32))})
    multi_process_dataset(
        rows, process, "out", num_workers=2, num_shards=16, backend="processes", **options
    )

if __name__ == "__main__":
    main()
"""


def test_after_a_bug_was_corrected_one_shard_runs(driver: Callable[..., Any], tmp_path: Path) -> None:
    """The script is refused with the line that has changed, and with "trust" keeps the other 15 shards."""

    def started() -> list[str]:
        found = sorted(path.name for path in tmp_path.glob("started-*"))
        for name in found:
            (tmp_path / name).unlink()
        return found

    done = driver(STORY)
    assert "1 of 16 shards failed; 15 of 16 shards are finished, and kept in" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert len(started()) == 16
    corrected = STORY.replace("//", "/").replace("(row[", "(0.5 + row[")
    corrected = corrected.replace(
        "    rows =", "    # A comment, and a print.\n    print('begun')\n    rows ="
    )
    done = driver(corrected)
    assert (
        "score has `return row['id'] / (0.5 + row['id'] - 21)`; it was `return row['id'] // (row['id'] - 21)`"
        in (done.stderr)
    )
    assert started() == []
    done = driver(corrected.replace("    main()", "    main(resume='trust')"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"resumed: 15 of 16 shards kept from \d\d:\d\d, 1 to run", done.stderr)
    assert started() == ["started-20"]
    result = load_from_disk(str(tmp_path / "out"))
    assert str(result.features["score"].dtype) == "float64"  # those of the other shards were integers
    assert result["id"][:] == list(range(32))
    assert result["score"][:] == [i // (i - 21) if i not in (20, 21) else i / (i - 20.5) for i in range(32)]


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
    # Python reports each step on files before it is done: openings, links, renamings, removals.
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


@pytest.mark.slow
def test_a_driver_that_is_killed_while_it_merges_loses_nothing(driver: Callable[..., Any]) -> None:
    """Killed before any step of a merge it leaves the old output or the new one, and the same call ends."""
    done = driver(KILLED_MERGES)
    assert done.returncode == 0, done.stderr[-2000:]
    met = done.stdout.split()
    assert met == sorted(met, key=["before", "between", "after"].index), "the output went back"
    assert met.count("before") >= 10, met
    assert met.count("between") >= 1, met
    assert met.count("after") >= 5, met
