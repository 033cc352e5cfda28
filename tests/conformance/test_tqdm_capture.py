"""Functions written with tqdm have their stages on every engine, unchanged."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest
from support.recorder import Recorder
from tqdm import tqdm

from speedy_utils import multi_process, multi_process_dataset, track

SHARDS = [range(100 * n) for n in range(1, 5)]
DRAWING = ("it/s", "100%")


def pipeline(rows: range) -> int:
    """Three steps, each with a bar as in a script for one process."""
    read = list(tqdm(rows, desc="Read"))
    with tqdm(total=len(read) // 2, desc="Keep: ", unit="rows") as bar:
        kept = []
        for row in read[::2]:
            kept.append(row)
            bar.set_postfix(row=row)
            bar.update()
    for row in kept:
        for _ in tqdm("ab", desc="Letters", leave=False):
            assert row >= 0
    return len(kept)


def test_loops_with_bars_have_a_line_a_stage(
    backend: str, recorder: Recorder, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bars of all tasks are summed by their descriptions, end at exactly their totals, and draw nothing."""
    found = multi_process(
        pipeline, SHARDS, backend=backend, num_workers=2, total_items=len, progress=recorder
    )
    assert found == [50, 100, 150, 200]
    assert [(line.name, line.done, line.total, line.unit) for line in recorder.last.stages] == [
        ("Read", 1_000, 1_000, "items"),
        ("Keep", 500, 500, "rows"),
        ("Letters", 1_000, 1_000, "items"),
    ]
    assert not any(sign in "".join(capfd.readouterr()) for sign in DRAWING)


def test_unnamed_bars_move_the_runs_own_line(
    backend: str, recorder: Recorder, until: Any, tmp_path: Path
) -> None:
    """A bar without a description counts the run's items while its task works; one inside it does not."""
    seen = tmp_path / "seen"

    def hook(snapshot: Any) -> None:
        if snapshot.done == 60:
            seen.touch()

    def work(rows: range) -> None:
        for row in tqdm(rows, mininterval=0, miniters=1):
            list(tqdm("abc"))
            if row == 60:
                until(seen.exists)

    recorder.hook = hook
    multi_process(
        work,
        SHARDS[:1],
        backend=backend,
        num_workers=1,
        total_items=len,
        desc="All",
        poll_interval=0.02,
        progress=recorder,
    )
    assert [(line.name, line.done, line.total) for line in recorder.last.lines] == [("All", 100, 100)]


def test_bars_are_left_alone_where_asked(backend: str, recorder: Recorder) -> None:
    """With adopt_tqdm=False nothing that a bar counts is seen, and it is a bar of tqdm as any other."""

    def work(rows: range) -> tuple[int, Any]:
        bar = tqdm(total=len(rows), desc="Read", mininterval=100, file=None)
        bar.update(3)
        interval = bar.mininterval
        bar.close()
        return bar.n, interval

    found = multi_process(
        work, SHARDS[:2], backend=backend, num_workers=2, total_items=len, adopt_tqdm=False, progress=recorder
    )
    assert found == [(3, 100)] * 2
    assert [line.name for line in recorder.last.lines] == ["Processing 300 items"]
    assert recorder.last.done == 300


def test_a_task_that_fails_keeps_what_its_bars_had_counted(backend: str, recorder: Recorder) -> None:
    """An exception ends the bars of its task where they were."""

    def work(rows: range) -> None:
        for row in tqdm(rows, desc="Read"):
            if row == 60 and len(rows) == 200:
                raise ValueError(row)

    errors = multi_process(
        work,
        SHARDS[:2],
        backend=backend,
        num_workers=1,
        total_items=len,
        on_error="continue",
        progress=recorder,
    )
    assert [type(error).__name__ for error in errors] == ["NoneType", "TaskError"]
    assert [(line.name, line.done) for line in recorder.last.lines if line.name == "Read"] == [("Read", 160)]


def test_what_is_counted_by_track_as_well_counts_once(backend: str, recorder: Recorder) -> None:
    """A loop with both has one count, under the name or without one."""

    def work(rows: range) -> None:
        for _ in track(tqdm(rows)):
            pass
        for _ in tqdm(track(rows, desc="Again"), desc="Again"):
            pass

    multi_process(
        work, SHARDS, backend=backend, num_workers=2, total_items=len, desc="All", progress=recorder
    )
    assert [(line.name, line.done, line.total) for line in recorder.last.lines] == [
        ("All", 1_000, 1_000),
        ("Again", 1_000, 1_000),
    ]


def test_after_a_run_in_this_process_bars_draw(recorder: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    """After a run in this process the next bar of tqdm draws as ever, on the first line."""
    multi_process(pipeline, SHARDS, backend="threads", num_workers=4, total_items=len, progress=recorder)
    with tqdm(total=1, disable=False) as bar:
        assert bar.pos == 0
        bar.update()
    assert "100%" in capfd.readouterr().err


@pytest.mark.ray
def test_threads_and_children_of_a_ray_task(ray_session: None, recorder: Recorder) -> None:
    """Bars in a task's threads count, and a parallel map counts in the task, not in its children."""

    def work(rows: range) -> list[int]:
        def letters(row: int) -> int:
            return len(list(tqdm("abc", desc="Letters")))

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(letters, range(4))) == [3] * 4
        table = datasets.Dataset.from_dict({"n": list(rows)})

        def double(row: dict[str, int]) -> dict[str, int]:
            list(tqdm("ab", desc="In a child"))
            return {"n": 2 * row["n"]}

        return list(table.map(double, num_proc=2, desc="Double")["n"])

    found = multi_process(work, [range(40)], backend="ray", num_workers=1, total_items=len, progress=recorder)
    assert found == [[2 * n for n in range(40)]]
    lines = {line.name: (line.done, line.total) for line in recorder.last.lines}
    assert lines == {"Letters": (12, 12), "Double (num_proc=2)": (40, 40)}


def shard_with_bars(dataset: datasets.Dataset, output_path: str) -> datasets.Dataset:
    """Filter and map a shard as datasets do."""
    return dataset.filter(lambda row: row["n"] % 2 == 0).map(lambda row: {"n": row["n"] + 1})


def test_a_dataset_run_shows_the_bars_of_datasets(backend: str, recorder: Recorder, tmp_path: Path) -> None:
    """Filters and maps in a shard's function have their lines without a word about them."""
    rows = datasets.Dataset.from_dict({"n": list(range(100))})
    out = multi_process_dataset(
        rows,
        shard_with_bars,
        str(tmp_path / "out"),
        num_workers=2,
        backend=backend,
        num_shards=4,
        progress=recorder,
    )
    assert sorted(datasets.load_from_disk(out)["n"]) == list(range(1, 101, 2))
    lines = {line.name: (line.done, line.total) for line in recorder.last.lines}
    assert (lines["Filter"], lines["Map"]) == ((100, 100), (50, 50))


def go_through_bars_of_ray(rows: range) -> None:
    """Loop over a bar of Ray's, move another by hand, and read what they say."""
    from ray.experimental import tqdm_ray

    assert list(tqdm_ray.tqdm(rows, desc="Embed")) == list(rows)
    gc.collect()  # nothing closes that bar, or keeps it
    bar = tqdm_ray.tqdm(total=20, desc="Load", unit="kB")
    for _ in range(20):
        bar.update(1)
    bar.set_description("loaded")
    assert (bar.n, bar.total) == (20, 20)
    bar.close()


def test_bars_of_ray_count_as_those_of_tqdm(
    backend: str, recorder: Recorder, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bars of ``ray.experimental.tqdm_ray`` are summed by their names, end exactly, and draw nothing."""
    from ray.experimental import tqdm_ray

    if not hasattr(tqdm_ray.tqdm, "n"):
        pytest.skip("the bars of this Ray don't say how many items they have counted")
    multi_process(
        go_through_bars_of_ray,
        SHARDS,
        backend=backend,
        num_workers=2,
        total_items=len,
        progress=recorder,
    )
    assert [(line.name, line.done, line.total, line.unit) for line in recorder.last.lines] == [
        ("Embed", 1_000, 1_000, "items"),
        ("Load", 80, 80, "kB"),
    ]
    assert not any(sign in "".join(capfd.readouterr()) for sign in (*DRAWING, "Embed", "ray_tqdm"))
