"""Runs in processes that a program has started: they log, and are silent if a task has started them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.programs import run_program

PROGRAM = """
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from speedy_utils import multi_process, tracked

def drive(desc):
    return multi_process(abs, [-1, -2], backend="seq", desc=desc)

@tracked(total=1)
def once(desc):
    pass

def start(desc, driver=drive):
    for method in ("fork", "spawn"):
        process = multiprocessing.get_context(method).Process(target=driver, args=(f"{desc} {method}",))
        process.start()
        process.join()
        assert process.exitcode == 0
    return desc

if __name__ == "__main__":
    start("child")
    start("tracked", once)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(drive, "pool").result() == [1, 2]
    if (child := os.fork()) == 0:
        multi_process(drive, ["inside"], backend="threads", desc="forked")
        os._exit(0)
    os.waitpid(child, 0)
    assert multi_process(start, ["of a task"], backend="seq", desc="program") == ["of a task"]
"""


@pytest.mark.parametrize(
    ("choice", "shown"),
    [(None, ["child fork", "child spawn", "pool", "forked", "program"]), ("none", [])],
)
def test_a_run_in_a_child_logs_and_one_of_a_tasks_child_is_silent(
    tmp_path: Path, choice: str | None, shown: list[str]
) -> None:
    """So does a worker of a pool; a tracked call in a child is no run, and what is chosen wins."""
    program = run_program(
        tmp_path / "program.py", PROGRAM, env={"SPEEDY_UTILS_PROGRESS": choice, "PYTHONWARNINGS": "ignore"}
    )
    assert program.returncode == 0, program.stderr
    names = [line.split(" ", 1)[1].partition(":")[0] for line in program.stderr.splitlines()]
    assert list(dict.fromkeys(names)) == shown
