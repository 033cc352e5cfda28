"""Whose printed lines a driver shows, on each backend."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support.backends import BACKENDS

PROGRAM = """
import os, sys, threading, time, uuid
from pathlib import Path
os.environ["RAY_DEDUP_LOGS"] = "0"
os.environ["RAY_COLOR_PREFIX"] = "0"
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
        print("out", run, who, item, n, "end")
        print("err", run, who, item, n, "end", file=sys.stderr)
    return who

def shard(dataset, path, **kwargs):
    work(dataset[0]["n"], **kwargs)
    return dataset

class Heard:
    # Shows what is printed, in whole lines, as Ray's thread may write between a print and its line's end.
    def __init__(self, stream):
        self.stream, self.text = stream, ""
        self.lock, self.own = threading.Lock(), threading.local()
    def write(self, text):
        whole, end, self.own.rest = (getattr(self.own, "rest", "") + text).rpartition("\\n")
        with self.lock:
            self.text += whole + end
            self.stream.write(whole + end)
        return len(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)

def shows(who):
    return all(f"{{who}} 0 2 end" in heard.text for heard in (sys.stdout, sys.stderr))

def settle():
    # Ray reads its files in turn: once lines of later tasks are there, twice, so are the former.
    for _ in range(2):
        mark = uuid.uuid4().hex
        workers = multi_process(work, [0, 0], num_workers=2, run=mark, together=True, progress=False)
        until(lambda: all(shows(f"{{mark}} {{who}}") for who in workers))

if __name__ == "__main__":
    sys.stdout, sys.stderr = Heard(sys.stdout), Heard(sys.stderr)
    backend, together = {backend!r}, {backend!r} != "seq"
{body}
    if backend == "ray":
        settle()
"""

IN_TURN = """
    for choice in ("all", "first", "none"):
        for progress in (True, False):
            print("driver begins")
            workers = multi_process(work, range(4), backend=backend, num_workers=2, worker_logs=choice,
                                    progress=progress, run=f"{choice}-{progress}", together=together)
            print("driver ends", choice, progress, *set(workers))
"""


def said(done: subprocess.CompletedProcess[str], run: str) -> dict[str, list[str]]:
    """What a run's workers said, by stream, each line as who, item and number."""
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[str]] = {}
    for stream, text in (("out", done.stdout), ("err", done.stderr)):
        lines = [line.partition(f"{stream} {run} ")[2] for line in text.splitlines()]
        found[stream] = [line.removesuffix(" end") for line in lines if line]
    return found


@pytest.mark.parametrize("name", BACKENDS)
def test_a_run_shows_the_lines_that_it_is_asked_for(
    driver: Callable[..., subprocess.CompletedProcess[str]], name: str
) -> None:
    """All workers' lines are shown, those of one, or none, each once, whether progress is shown or not."""
    done = driver(PROGRAM.format(backend=name, body=IN_TURN))
    ends = [line.split()[2:] for line in done.stdout.splitlines() if line.startswith("driver ends")]
    assert done.stdout.count("driver begins\n") == len(ends) == 6
    for choice, progress, *workers in ends:
        lines = said(done, f"{choice}-{progress}")
        assert len(workers) == (1 if name == "seq" else 2)
        heard = {line.split()[0] for line in lines["out"]}
        assert len(heard) == {"all": len(workers), "first": 1, "none": 0}[choice]
        assert sorted(lines["out"]) == sorted(lines["err"])
        for who in heard:
            own = [line.split()[1:] for line in lines["out"] if line.split()[0] == who]
            items = list(dict.fromkeys(item for item, _ in own))
            assert own == [[item, str(number)] for item in items for number in range(3)]
        assert choice != "all" or len(lines["out"]) == 12


SEVERAL = """
    if backend == "ray":  # room for all workers at once
        import ray
        ray.init(num_cpus=6, include_dashboard=False, logging_level="ERROR")
    threads = [
        threading.Thread(target=multi_process, args=(work, range(4)), kwargs=dict(
            backend=backend, num_workers=2, worker_logs=choice, run=choice, together=together))
        for choice in ("all", "first", "none")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize("name", BACKENDS)
def test_runs_at_once_choose_each_for_itself(
    driver: Callable[..., subprocess.CompletedProcess[str]], name: str
) -> None:
    """Runs in threads of one driver, of the same function, each show the lines that they were asked for."""
    done = driver(PROGRAM.format(backend=name, body=SEVERAL))
    lines = {choice: said(done, choice)["out"] for choice in ("all", "first", "none")}
    assert len(lines["all"]) == 12
    assert len({line.split()[0] for line in lines["first"]}) == 1
    assert lines["none"] == []


SHARDS = """
    from datasets import Dataset
    from speedy_utils import multi_process_dataset
    rows = Dataset.from_dict({"n": list(range(4))})
    for choice in ("none", "first"):
        multi_process_dataset(rows, shard, f"out-{choice}", dict(run=choice, together=together), 2,
                              backend=backend, num_shards=4, worker_logs=choice)
"""


@pytest.mark.parametrize("name", BACKENDS)
def test_runs_over_a_dataset_too(driver: Callable[..., subprocess.CompletedProcess[str]], name: str) -> None:
    """A run over a dataset chooses in the same way."""
    done = driver(PROGRAM.format(backend=name, body=SHARDS))
    assert said(done, "none") == {"out": [], "err": []}
    assert len({line.split()[0] for line in said(done, "first")["out"]}) == 1


RUNNING = """
    import ray
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver={forward})
    multi_process(work, range(4), num_workers=2, worker_logs={choice!r}, run="one", together=True)
    if not {forward}:
        sys.exit()
"""


@pytest.mark.ray
@pytest.mark.parametrize(
    ("forward", "choice", "log_filter"), [(True, "none", 0), (True, "first", 1), (False, "all", 0)]
)
def test_a_ray_that_the_user_has_started_is_chosen_from(
    driver: Callable[..., subprocess.CompletedProcess[str]], forward: bool, choice: str, log_filter: int
) -> None:
    """The choice holds on a Ray that is running; one that forwards nothing goes on forwarding nothing."""
    done = driver(PROGRAM.format(backend="ray", body=RUNNING.format(forward=forward, choice=choice)))
    lines: Any = said(done, "one")
    assert len({line.split()[0] for line in lines["out"] + lines["err"]}) == log_filter


OTHERWISE = """
    import ray._private.ray_logging
    del ray._private.ray_logging.global_worker_stdstream_dispatcher
    multi_process(work, range(4), num_workers=2, worker_logs="none", run="one", together=True)
"""


@pytest.mark.ray
def test_a_ray_with_other_insides_shows_all(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Where Ray's own parts are not what they were, all lines are shown, and a warning says so."""
    done = driver(PROGRAM.format(backend="ray", body=OTHERWISE))
    assert len(said(done, "one")["out"]) == 12
    assert "worker_logs: this Ray can't be made to leave lines out" in done.stderr
