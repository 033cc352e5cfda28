"""One bar for programs that share nothing but a folder, and for workers of ``datasets`` and torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import foreign_work
from support.programs import environment, run_program
from support.recorder import Recorder

from speedy_utils import BusyError, multi_process, report_progress, tracking

PROGRAM = """
import os
import sys
from speedy_utils import multi_process, report_progress, track
os.chdir("/")
for _ in track(range(int(sys.argv[1]))):
    pass
def work(n):
    report_progress(n)
multi_process(work, [1, 2], backend="seq")
"""


def _start(script: Path, n: int, **changes: str) -> subprocess.Popen[str]:
    script.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(script), str(n)],
        env=environment(changes),
        cwd=script.parent,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_script_that_starts_python_counts(tmp_path: Path, recorder: Recorder) -> None:
    """Programs that a shell starts find the run; a run in one counts there, and draws and logs nothing."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    with tracking(total=36, progress=recorder):
        command = f"'{sys.executable}' '{script}' 10 && '{sys.executable}' '{script}' 20"
        done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
        assert done.stderr == ""
    assert (recorder.last.done, recorder.last.complete) == (36, True)


ENDED_WHILE_IT_WRITES = """
import os, signal, sys, threading
from speedy_utils import report_progress
report_progress(3)
def end(event, arguments):
    if event == "open" and os.environ["SPEEDY_UTILS_RUN"] in str(arguments[0]):
        if threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), signal.SIGTERM)
sys.addaudithook(end)
"""


def test_a_signal_while_the_last_state_is_written_loses_nothing(recorder: Recorder) -> None:
    """A pool may end a process that is about to end by itself, and writes what it has counted."""
    with tracking(total=3, progress=recorder):
        subprocess.run([sys.executable, "-c", ENDED_WHILE_IT_WRITES], check=False, timeout=240)
    assert recorder.last.done == 3


def test_an_array_of_jobs_shares_a_folder(tmp_path: Path, recorder: Recorder) -> None:
    """Programs in process groups of their own, which know the folder alone, count for the run that has it."""
    folder = tmp_path / "shared"
    with tracking(total=39, progress=recorder, folder=folder) as run:
        assert run.address == str(folder)
        with pytest.raises(BusyError), tracking(folder=folder, progress=False):
            pass
        names = {10: str(folder), 20: folder.name}  # one from where the job is started
        jobs = [_start(tmp_path / f"job-{n}.py", n, SPEEDY_UTILS_RUN=name) for n, name in names.items()]
        assert [job.communicate(timeout=240)[1] for job in jobs] == ["", ""]
        report_progress(3)
    assert (recorder.last.done, recorder.last.complete) == (39, True)
    assert not folder.exists()
    late = _start(tmp_path / "late.py", 1, SPEEDY_UTILS_RUN=str(folder))
    assert "names no run that is open" in late.communicate(timeout=240)[1]
    assert late.returncode == 0


def _count_rows(batch: dict[str, list[int]]) -> dict[str, list[int]]:
    report_progress(len(batch["n"]))
    return batch


def _is_even(row: dict[str, int]) -> bool:
    report_progress()
    return row["n"] % 2 == 0


def test_workers_of_datasets_count(recorder: Recorder) -> None:
    """``map`` and ``filter`` with ``num_proc`` start processes of their own, which are ended by a signal."""
    datasets: Any = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"n": list(range(40))})
    with tracking(total=80, progress=recorder):
        rows.map(_count_rows, batched=True, batch_size=5, num_proc=2)
        assert len(rows.filter(_is_even, num_proc=2)) == 20
    assert (recorder.last.done, recorder.last.complete) == (80, True)


class _Rows:
    """Rows for a loader of torch."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        report_progress()
        return index


def test_workers_of_a_torch_loader_count(recorder: Recorder) -> None:
    """What the workers of a ``DataLoader`` read counts."""
    torch: Any = pytest.importorskip("torch.utils.data")
    with tracking(total=20, progress=recorder):
        assert len([*torch.DataLoader(_Rows(), num_workers=2)]) == 20
    assert (recorder.last.done, recorder.last.complete) == (20, True)


def _in_a_block(ns: list[int]) -> int:
    from concurrent.futures import ProcessPoolExecutor

    with tracking(), ProcessPoolExecutor(1) as pool:
        return sum(pool.map(foreign_work.loop, ns))


def test_processes_that_a_task_starts_in_a_block_count_for_the_task(recorder: Recorder) -> None:
    """They count for the run of the task, and for no more than the task's total."""
    items = [[1, 2, 3], [4, 5]]
    done = multi_process(
        _in_a_block, items, backend="processes", num_workers=2, total_items=sum, progress=recorder
    )
    assert done == [6, 9]
    assert (recorder.last.done, recorder.last.complete) == (15, True)


def _in_a_pool(ns: list[int]) -> int:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        return sum(pool.map(foreign_work.loop, ns))


@pytest.mark.parametrize(("backend", "workers"), [("processes", 2), ("threads", 1), ("seq", 1)])
def test_processes_that_tasks_in_a_block_start_count_once(
    backend: str, workers: int, recorder: Recorder
) -> None:
    """They count for the tasks, if at all, whose run counts for the block, and not for the block as well."""
    with tracking(progress=recorder):
        multi_process(_in_a_pool, [[1, 2, 3], [4, 5]], backend=backend, num_workers=workers, total_items=sum)
    assert recorder.last.done == max(snapshot.done for snapshot in recorder.snapshots) == 15
    assert "SPEEDY_UTILS_RUN" not in os.environ


def test_runs_of_bound_calls_count_there(recorder: Recorder) -> None:
    """``multi_process`` in a worker of another engine counts for the run that the call is bound to."""
    from concurrent.futures import ProcessPoolExecutor

    with tracking(total=30, progress=recorder) as run, ProcessPoolExecutor(1) as pool:
        work = run.bind(multi_process)
        assert pool.submit(work, foreign_work.loop, [10, 20], backend="threads").result() == [10, 20]
    assert (recorder.last.done, recorder.last.complete) == (30, True)
    assert "SPEEDY_UTILS_RUN" not in os.environ


UNSENT = """
import os
from speedy_utils import tracking
from speedy_utils._worker.channel import writer
with tracking(total=9, progress=False, folder="run") as run:
    bound = run.bind(abs)
    child = os.fork()
    if not child:
        os.mkdir(f"run/{writer._name}.json")  # in the place of its file
        assert [bound(-n) for n in range(9)] == [*range(9)]
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
def test_calls_whose_counts_cant_be_sent_go_on(tmp_path: Path) -> None:
    """It is said once in a process, not for each call."""
    done = run_program(tmp_path / "program.py", UNSENT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("can't be sent to its run") == 1, done.stderr
