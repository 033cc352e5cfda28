"""What a driver shows of what its workers print and log, on each backend: whose lines, whole and in order."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import NamedTuple

import pytest
from support.backends import BACKENDS
from support.programs import run_program

PROGRAM = """
import logging, os, sys, threading, time
from pathlib import Path
from speedy_utils import multi_process

here = Path.cwd()

def until(condition):
    deadline = time.monotonic() + 240
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        threading.Event().wait(0.01)

def work(item, run, together):
    who = f"{{os.getpid()}}-{{threading.get_ident()}}"
    (here / f"{{run}} {{who}}").touch()
    if together:  # two workers are there, whatever the order in which they come
        until(lambda: len(list(here.glob(f"{{run}} *"))) > 1)
    for n in range(3):
        for name, stream in (("out", sys.stdout), ("err", sys.stderr)):  # each line at once: threads may mix
            print(f"{{name}} {{run}} {{who}} {{item}} {{n}} end\\n", end="", file=stream)
    return who

def shard(dataset, path, **kwargs):
    work(dataset[0]["n"], **kwargs)
    return dataset

if __name__ == "__main__":
    backend, together = {backend!r}, {backend!r} != "seq"
{body}
"""

RUNS = """
    if backend == "ray":  # room for all workers at once, on a Ray that the user has started
        import ray
        ray.init(num_cpus=6, include_dashboard=False, logging_level="ERROR")
    for choice in ("all", "first", "none"):
        for progress in (True, False):
            print("driver begins")
            workers = multi_process(work, range(4), backend=backend, num_workers=2, worker_logs=choice,
                                    progress=progress, run=f"{choice}-{progress}", together=together)
            print("driver ends", choice, progress, *set(workers))
    threads = [
        threading.Thread(target=multi_process, args=(work, range(4)), kwargs=dict(
            backend=backend, num_workers=2, worker_logs=choice, run=f"{choice}-at-once", together=together))
        for choice in ("all", "first", "none")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    from datasets import Dataset
    from speedy_utils import multi_process_dataset
    rows = Dataset.from_dict({"n": list(range(4))})
    for choice in ("none", "first"):
        arguments = dict(run=f"{choice}-dataset", together=together)
        multi_process_dataset(rows, shard, f"out-{choice}", arguments, 2, backend=backend, num_shards=4,
                              worker_logs=choice)
"""


class Done(NamedTuple):
    """A program that has ended, and the backend of its runs."""

    backend: str
    program: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module", params=BACKENDS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Return a program whose runs choose among lines, on each backend."""
    script = tmp_path_factory.mktemp("runs") / "driver.py"
    return Done(request.param, run_program(script, PROGRAM.format(backend=request.param, body=RUNS)))


def said(done: subprocess.CompletedProcess[str], run: str) -> dict[str, list[str]]:
    """What a run's workers said, by stream, each line as who, item and number."""
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[str]] = {}
    for stream, text in (("out", done.stdout), ("err", done.stderr)):
        lines = [line.partition(f"{stream} {run} ")[2] for line in text.splitlines()]
        found[stream] = [line.removesuffix(" end") for line in lines if line]
    return found


def test_a_run_shows_the_lines_that_it_is_asked_for(done: Done) -> None:
    """All workers' lines are shown, those of one, or none, each once, whether progress is shown or not."""
    stdout = done.program.stdout
    ends = [line.split()[2:] for line in stdout.splitlines() if line.startswith("driver ends")]
    assert stdout.count("driver begins\n") == len(ends) == 6, done.program.stderr[-2000:]
    for choice, progress, *workers in ends:
        lines = said(done.program, f"{choice}-{progress}")
        assert len(workers) == (1 if done.backend == "seq" else 2)
        heard = {line.split()[0] for line in lines["out"]}
        assert len(heard) == {"all": len(workers), "first": 1, "none": 0}[choice]
        assert sorted(lines["out"]) == sorted(lines["err"])
        for who in heard:
            own = [line.split()[1:] for line in lines["out"] if line.split()[0] == who]
            items = list(dict.fromkeys(item for item, _ in own))
            assert own == [[item, str(number)] for item in items for number in range(3)]
        assert choice != "all" or len(lines["out"]) == 12


def test_runs_at_once_choose_each_for_itself(done: Done) -> None:
    """Runs in threads of one driver, of the same function, each show the lines that they were asked for."""
    lines = {choice: said(done.program, f"{choice}-at-once")["out"] for choice in ("all", "first", "none")}
    assert len(lines["all"]) == 12
    assert len({line.split()[0] for line in lines["first"]}) == 1
    assert lines["none"] == []


def test_runs_over_a_dataset_too(done: Done) -> None:
    """A run over a dataset chooses in the same way."""
    assert said(done.program, "none-dataset") == {"out": [], "err": []}
    assert len({line.split()[0] for line in said(done.program, "first-dataset")["out"]}) == 1


ALIKE = """
    logging.basicConfig(format="<%(levelname)s|%(name)s> %(message)s", level=logging.INFO)
    logging.getLogger("su.library").setLevel(logging.ERROR)

    def task(number):
        for line in range(40):
            print(f"saved shard {{number}}, line {{line}}\\n", end="")
        logging.getLogger("su.task").info("logged by %d", number)
        logging.getLogger("su.library").warning("not shown")

    def with_its_own(number):
        logging.basicConfig(format="own %(message)s", level=logging.ERROR)
        logging.getLogger("su.task").warning("not shown")
        logging.getLogger("su.task").error("error of %d", number)

    for function in (task, with_its_own)[: 1 + (backend == "ray")]:
        multi_process(function, range(8), backend=backend, num_workers=8)
        print("driver goes on")
        print("driver goes on", file=sys.stderr)
"""


@pytest.mark.parametrize("name", BACKENDS)
def test_lines_that_look_alike_are_all_shown_before_the_program_goes_on(
    driver: Callable[..., subprocess.CompletedProcess[str]], name: str
) -> None:
    """None is taken for a repetition, each stands whole and plain in a file, and in its task's order.

    The program's levels and format hold for what tasks log, unless the task sets up its own.
    """
    done = driver(PROGRAM.format(backend=name, body=ALIKE.format()))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\x1b" not in done.stdout + done.stderr
    printed, after, rest = done.stdout.partition("driver goes on\n")
    assert (after, "saved" in rest) == ("driver goes on\n", False)
    lines = [line.partition("saved shard ")[2].split(", line ") for line in printed.splitlines()]
    assert len(lines) == 320
    for number in range(8):
        assert [int(line) for of, line in lines if of == str(number)] == list(range(40))
    assert "not shown" not in done.stderr
    logged, own, *_ = done.stderr.split("driver goes on\n")
    for number in range(8):
        assert logged.count(f"<INFO|su.task> logged by {number}\n") == 1
        assert own.count(f"own error of {number}\n") == (name == "ray")


FORWARDS_NOTHING = """
    import ray
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    multi_process(work, range(4), num_workers=2, worker_logs="all", run="one", together=True)
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_that_forwards_nothing_goes_on_so(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """The choice of the user who has started Ray wins."""
    done = driver(PROGRAM.format(backend="ray", body=FORWARDS_NOTHING))
    assert said(done, "one") == {"out": [], "err": []}


OTHERWISE = """
    import io
    os.environ["RAY_DEDUP_LOGS"] = "0"
    import ray._private.ray_logging
    del ray._private.ray_logging.global_worker_stdstream_dispatcher
    heard = sys.stdout = io.StringIO()
    multi_process(work, range(4), num_workers=2, backend=backend, worker_logs="none", run="one",
                  together=True)
    until(lambda: heard.getvalue().count(" end\\n") == 12)  # the run can't wait for them
    sys.__stdout__.write(heard.getvalue())
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_with_other_insides_shows_all(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Where Ray's own parts are not what they were, all lines are shown, and a warning says so."""
    done = driver(PROGRAM.format(backend="ray", body=OTHERWISE))
    assert len(said(done, "one")["out"]) == 12
    assert "worker_logs: this Ray can't be made to leave lines out" in done.stderr
