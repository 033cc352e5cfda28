"""Functions that fork, start threads, run event loops and start runs of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import multi_process, multi_process_dataset, report_progress, track, tracked

# Python 3.12 and later warn of any fork in a process with threads. That is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

TEN = 10


def ten(item: Any) -> int:
    """Any item stands for ten."""
    return TEN


def fork(i: int) -> int:
    """Fork by hand; the child counts, prints nothing and leaves."""
    report_progress(3)
    pid = os.fork()
    if pid == 0:
        try:
            report_progress(5)
            for _ in track(range(5), every=1):
                pass
            os._exit(7)
        finally:
            os._exit(1)  # whatever happened: it must not go on as a second worker
    report_progress(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_in_child(queue: Any) -> None:
    """What a child process does: it counts, and starts a run of its own."""
    report_progress(5)
    queue.put(multi_process(abs, [-1, -2], backend="threads", num_workers=2, desc="In a child"))


def child_process(i: int) -> int:
    """Start a process by ``multiprocessing``."""
    report_progress(3)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=count_in_child, args=(queue,))
    child.start()
    sums = sum(queue.get())
    child.join()
    report_progress(3)
    assert child.exitcode == 0
    return sums + 4


def pool(i: int) -> int:
    """Start a pool of two processes."""
    with multiprocessing.get_context("fork").Pool(2) as workers:
        for _ in track(workers.imap(abs, range(-6, 0))):
            pass
    return 7


def program(i: int) -> int:
    """Start another program."""
    report_progress(6)
    code = "from speedy_utils import multi_process, report_progress; report_progress(2)"
    code += "; print(sum(multi_process(abs, [-7], backend='seq')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@tracked
def one() -> None:
    """Count for one."""


async def loops() -> None:
    """Count in coroutines that take turns."""

    async def part(n: int) -> None:
        for _ in track(range(n)):
            await asyncio.sleep(0)

    await asyncio.gather(part(2), part(1), asyncio.to_thread(report_progress, 2))
    one()


def event_loop(i: int) -> int:
    """Run an event loop."""
    asyncio.run(loops())
    return 7


def nested(i: int) -> int:
    """Start runs of its own, in each of the ways that need no second Ray."""
    report_progress(6)
    assert multi_process(abs, [-1], backend="seq", desc="Inner") == [1]
    return sum(multi_process(abs, range(-3, 0), backend="threads", num_workers=2, desc="Inner")) + 1


def at_once(backend: str, work: Callable[[int], int] = fork) -> int:
    """How many tasks may do it at once: filelock, which comes with Ray, lets one thread of a process fork."""
    return 1 if backend == "threads" and work in (fork, child_process, pool) else 2


@pytest.mark.parametrize("work", [fork, child_process, pool, program, event_loop, nested])
def test_functions_may_do_what_they_like(
    backend: str, recorder: Recorder, work: Callable[[int], int]
) -> None:
    """Forks, processes, pools, programs, event loops and runs in a task: results are right, counts exact.

    Where children count too, nothing is counted twice; and one bar is drawn, which is the run's.
    """
    most: list[int] = []
    recorder.hook = lambda snapshot: most.append(snapshot.done)
    workers = at_once(backend, work)
    assert multi_process(
        work, range(3), backend=backend, num_workers=workers, total_items=ten, progress=recorder
    ) == [7, 7, 7]
    assert (recorder.last.done, recorder.last.total) == (3 * TEN, 3 * TEN)
    assert [stage.name for stage in recorder.last.lines] == ["Processing 30 items"]
    assert max(most) == 3 * TEN


@pytest.mark.parametrize("work", [fork, child_process, pool, program, event_loop, nested])
def test_processes_of_a_task_count_for_it(
    backend: str, recorder: Recorder, work: Callable[[int], int]
) -> None:
    """Tasks that fail count for what they and their processes have reported, but not for runs in either.

    On threads they count for what they have reported themselves, as they share one environment.
    """
    of_processes = {child_process: 15, program: 6}.get(work, 0)
    if backend == "threads":
        of_processes = 0

    def failing(i: int) -> None:
        raise ValueError(f"{work(i)} of {i}")

    errors = multi_process(
        failing,
        range(3),
        backend=backend,
        num_workers=at_once(backend, work),
        total_items=lambda i: 100,  # so that no limit hides what is too much
        on_error="continue",
        progress=recorder,
    )
    assert [error.reason for error in errors] == [f"ValueError: 7 of {i}" for i in range(3)]
    most = max(snapshot.done for snapshot in recorder.snapshots)
    if work is fork and backend != "threads":  # what a child that calls os._exit() counted may be lost
        assert 18 <= recorder.last.done <= most <= 48
    else:
        assert most == recorder.last.done == 18 + of_processes


def test_threads_of_a_ray_task_count(ray_session: None, recorder: Recorder) -> None:
    """Threads that a task starts count for it, as it is the only one in its worker."""

    def work(i: int) -> int:
        threads = [threading.Thread(target=report_progress, args=(4,), kwargs={"desc": "Own"}) for _ in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return i

    assert multi_process(work, range(4), num_workers=2, progress=recorder) == [0, 1, 2, 3]
    assert [(stage.name, stage.done) for stage in recorder.last.stages] == [("Own", 32)]


test_threads_of_a_ray_task_count = pytest.mark.ray(test_threads_of_a_ray_task_count)


@pytest.mark.ray
def test_a_run_on_ray_in_a_ray_task(ray_session: None, recorder: Recorder) -> None:
    """A task may start a run on the same Ray, with CPUs to spare; only the outer one draws."""

    def outer(i: int) -> int:
        report_progress(5)
        return sum(multi_process(abs, range(-3, 0), num_workers=1, desc="Inner"))

    results = multi_process(outer, range(2), num_workers=2, total_items=ten, progress=recorder)
    assert results == [6, 6]
    assert (recorder.last.done, recorder.last.total) == (2 * TEN, 2 * TEN)


def test_datasets_may_map_in_processes(
    backend: str, recorder: Recorder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """``Dataset.map(num_proc=2)`` in a process_func gives the right rows, and draws no bar of its own."""
    from datasets import Dataset, load_from_disk

    def process(dataset: Any, output_path: str) -> Any:
        def double(row: dict[str, int]) -> dict[str, int]:
            report_progress(1)
            return {"id": row["id"], "double": 2 * row["id"]}

        mapped = dataset.map(double, num_proc=2)
        mapped.save_to_disk(output_path)
        return output_path

    rows = Dataset.from_dict({"id": list(range(40))})
    out = tmp_path / "out"
    multi_process_dataset(
        rows, process, out, num_workers=at_once(backend), num_shards=2, backend=backend, progress=recorder
    )
    assert load_from_disk(str(out))["double"][:] == [2 * i for i in range(40)]
    assert (recorder.last.done, recorder.last.total) == (40, 40)
    assert max(snapshot.done for snapshot in recorder.snapshots) == 40
    assert "%|" not in "".join(capfd.readouterr())
