"""Very many tasks, reports and items: no count is lost, memory stays, and the driver has little to do.

SPEEDY_UTILS_ROUNDS above its default of 1 makes all of it larger.
"""

from __future__ import annotations

import threading
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder
from support.rounds import ROUNDS

from speedy_utils import Snapshot, multi_process, report_progress, track

BILLION = 10**9

MEGABYTE = 1 << 20


def memory() -> int:
    """Bytes of this process that are in memory and of no file; a fork may share them for a while."""
    fields = Path("/proc/self/smaps_rollup").read_text().split()
    return int(fields[fields.index("Anonymous:") + 1]) * 1024


class Watch:
    """Notes the memory of the driver when a third of the run is done, and the most after that."""

    def __init__(self, recorder: Recorder) -> None:
        self.third = self.most = 0
        self._recorder = recorder
        recorder.hook = self.look

    def look(self, snapshot: Snapshot) -> None:
        """Look at one snapshot, and forget it: they are the test's own."""
        del self._recorder.snapshots[:-1]
        if snapshot.total and snapshot.done >= snapshot.total // 3:
            self.third = self.third or memory()
            self.most = max(self.most, memory())

    @property
    def growth(self) -> int:
        """By how many bytes the driver has grown."""
        return self.most - self.third


def lines(recorder: Recorder) -> list[int]:
    """What the bar's lines ended at: the tasks, and what they reported."""
    return [recorder.last.tasks_done, *(stage.done for stage in recorder.last.stages)]


@pytest.mark.parametrize("name", ["threads", "seq"])
def test_tens_of_thousands_of_tiny_tasks(name: str, recorder: Recorder) -> None:
    """All tasks run and count, in order, and the driver's memory stays."""
    watch = Watch(recorder)
    count = 30_000 * ROUNDS

    def tiny(i: int) -> int:
        report_progress(3, desc="Own")  # nothing is known of a total, so nothing can be credited
        return i

    results = multi_process(tiny, range(count), backend=name, num_workers=2, progress=recorder)
    assert results == list(range(count))
    assert lines(recorder) == [count, 3 * count]
    assert (recorder.last.tasks_done, recorder.last.tasks_failed) == (count, 0)
    # The results alone take some; so do leftovers of other tests.
    assert watch.growth < 32 * MEGABYTE * ROUNDS


@pytest.mark.ray
def test_many_tiny_tasks_on_ray(ray_session: None, recorder: Recorder) -> None:
    """The same on Ray, where a task costs a millisecond: 2,000 of them, and 100,000 with more rounds."""
    watch = Watch(recorder)
    count = 2_000 if ROUNDS == 1 else 100_000

    def tiny(i: int) -> int:
        report_progress(3, desc="Own")  # nothing is known of a total, so nothing can be credited
        return i

    results = multi_process(tiny, range(count), num_workers=8, progress=recorder)
    assert results == list(range(count))
    assert lines(recorder) == [count, 3 * count]
    assert watch.growth < 64 * MEGABYTE * ROUNDS


def test_two_thousand_tasks_report_at_once(recorder: Recorder) -> None:
    """Two thousand tasks that are all under way, and report together, lose no count."""
    count, each = 2_000, 50
    together = threading.Barrier(count)
    seen: list[int] = []
    all_seen = threading.Event()

    def look(snapshot: Snapshot) -> None:
        seen.append(snapshot.done)
        if snapshot.done == count * each:
            all_seen.set()

    def task(i: int) -> int:
        together.wait(240)
        for _ in track(iter(range(each)), every=1):  # of no known length, which would move it in proportion
            pass
        assert all_seen.wait(240)  # every count arrives while the tasks still run
        return i

    recorder.hook = look
    results = multi_process(
        task,
        range(count),
        backend="threads",
        num_workers=count,
        total_items=lambda i: each * 2,
        poll_interval=0.05,
        progress=recorder,
    )
    assert results == list(range(count))
    assert (recorder.last.done, recorder.last.total) == (2 * count * each, 2 * count * each)
    assert seen == sorted(seen)


@pytest.mark.ray
def test_two_thousand_threads_report_to_one_actor(ray_session: None, tmp_path: Path) -> None:
    """Two thousand sources that send to one actor from a few workers lose no count."""
    import ray

    from speedy_utils import create_progress_tracker, set_progress_context

    def source(actor: Any) -> int:
        threads = 500
        together = threading.Barrier(threads)

        def report() -> None:
            with set_progress_context(actor):
                together.wait(240)
                for _ in range(20):
                    report_progress(5)

        started = [threading.Thread(target=report) for _ in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        return threads

    actor = create_progress_tracker(total=4 * 500 * 100)
    assert sum(ray.get([ray.remote(source).remote(actor) for _ in range(4)])) == 2_000
    deadline = time.monotonic() + 240
    while (state := ray.get(actor.get_progress.remote()))["processed"] < 4 * 500 * 100:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    assert state["processed"] == 4 * 500 * 100


def test_a_task_of_a_billion_items(backend: str, recorder: Recorder) -> None:
    """A billion items of one task count to the last one, whatever the way they are reported in."""
    watch = Watch(recorder)
    loop = 3_000_000 * ROUNDS

    def task(i: int) -> int:
        if i == 0:  # a plain loop, as long as there is time for
            for _ in track(repeat(None, loop), desc="Own"):
                pass
            report_progress(BILLION - loop, desc="Own")
        elif i == 1:
            for _ in track(range(1_000_000), desc="Own", size=lambda batch: 1_000):
                pass
        else:
            for _ in range(1_000_000):
                report_progress(1_000, desc="Own")
        return i

    assert multi_process(task, range(3), backend=backend, num_workers=2, progress=recorder) == [0, 1, 2]
    assert lines(recorder) == [3, 3 * BILLION]
    assert watch.growth < 64 * MEGABYTE


@pytest.mark.ray
def test_the_driver_has_little_to_do(ray_session: None, recorder: Recorder, tmp_path: Path) -> None:
    """While four workers report millions of items the driver uses less than half a core."""

    def task(i: int) -> int:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for _ in range(10_000):
                report_progress()
        return i

    multi_process(abs, range(2), num_workers=2)  # what is loaded, and started, on first use
    wall, busy = time.monotonic(), time.process_time()
    multi_process(
        task, range(4), num_workers=4, total_items=lambda i: BILLION, poll_interval=0.1, progress=recorder
    )
    share = (time.process_time() - busy) / (time.monotonic() - wall)
    assert share < 0.5
