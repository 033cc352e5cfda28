"""A program that is killed in the middle: the same call runs the rest only."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.backends import SLOW_RAY
from support.programs import environment

CALLS, WORKERS, CHUNK = 10_000, 4, 20

IN_HAND = 100
"""Calls of a worker, at most, whose results were not on the disk when the program was killed."""

PROGRAM = f"""
import sys
from pathlib import Path
from speedy_utils import multi_process

def ask(prompt, paid):
    with open(paid, "a") as file:
        file.write(prompt + chr(10))
    return prompt.upper()

if __name__ == "__main__":
    prompts = [f"prompt {{n}}" for n in range({CALLS})]
    paid = str(Path(__file__).with_name("paid"))
    options = {{"backend": sys.argv[1], "num_workers": {WORKERS}, "chunksize": {CHUNK}, "progress": False}}
    answers = multi_process(ask, prompts, checkpoint="answers", paid=paid, **options)
    assert answers == [prompt.upper() for prompt in prompts]
    print("all answers")
"""


def running_in(folder: Path) -> list[str]:
    """Return the processes that work in a folder: a program's workers too, and those of its Ray."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # it has ended
            if each.readlink() == folder:
                found.append(each.parent.name)
    return found


@pytest.mark.parametrize("name", [SLOW_RAY, "processes", "threads"])
def test_a_killed_program_pays_for_no_call_twice(
    name: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """After SIGKILL the same call runs what is missing; only what was in hand may be paid for twice."""
    script, paid = tmp_path / "program.py", tmp_path / "paid"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), name]
    options: Any = {"cwd": tmp_path, "env": environment(), "stderr": subprocess.PIPE, "text": True}

    def calls() -> list[str]:
        return paid.read_text().splitlines() if paid.exists() else []

    with subprocess.Popen(command, **options) as program:
        until(lambda: len(calls()) > CALLS // 4 or program.poll() is not None)
        program.send_signal(signal.SIGKILL)
        program.communicate(timeout=60)
    assert program.returncode == -signal.SIGKILL
    until(lambda: not running_in(tmp_path))  # workers may end calls just after their program was killed
    before = len(calls())
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=300, **options)
    assert (done.returncode, done.stdout) == (0, "all answers\n"), done.stderr[-2000:]
    said = re.search(r"resumed: ([\d,]+) of 10,000 results kept from \d\d:\d\d, ([\d,]+) to run", done.stderr)
    assert said, done.stderr[-2000:]
    kept, left = (int(number.replace(",", "")) for number in said.groups())
    assert kept + left == CALLS
    assert len(set(calls())) == CALLS
    assert len(calls()) - before == left
    # What the workers had in hand, or on its way, when the program was killed.
    assert before - kept <= IN_HAND * WORKERS
