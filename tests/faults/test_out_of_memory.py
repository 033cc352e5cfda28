"""A worker that takes more memory than its machine has."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HEADROOM = 2 << 30
"""Bytes above what is in use now at which Ray takes the machine for full."""

SCRIPT = """
import os, pathlib, time
from speedy_utils import TaskError, multi_process, report_progress

greedy = pathlib.Path(os.getcwd()) / "greedy"

def task(i, always):
    report_progress(10)
    if i == 1 and (always or not greedy.exists()):
        greedy.touch()
        held = []
        while len(held) < 3 * @headroom@ >> 26:  # 64 MB a turn, really touched
            held.append(b"x" * (1 << 26))
            time.sleep(0.01)
        raise AssertionError("there is more memory than expected")
    return i

if __name__ == "__main__":
    shown = []
    results = multi_process(
        task, range(4), backend="ray", num_workers=2, total_items=lambda i: 20, progress=shown.append,
        always=False,
    )
    last = shown[-1]
    print("FIRST", results, last.done, last.total, last.tasks_failed, last.retries >= 1)
    results = multi_process(task, range(4), backend="ray", num_workers=2, max_retries=0, on_error="continue",
                            always=True)
    print("SECOND", [r for r in results if not isinstance(r, TaskError)])
    print("ERROR", results[1].reason)
"""


def memory() -> dict[str, int]:
    """What the system says of its memory, in bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].removesuffix(":"): int(words[1]) * 1024 for words in lines}


def container_limit() -> int:
    """What a container may have of the memory, in bytes; more than there is where nothing is said."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # there is no such file, or it says "max"
            return int(Path("/sys/fs/cgroup", name).read_text())
    return 1 << 63


def test_a_worker_out_of_memory_is_reported_and_runs_again(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A task that Ray kills for its memory runs again, and the end is exact; else the error tells."""
    known = memory()
    if (limit := container_limit()) < known["MemTotal"]:
        pytest.skip(f"a container's limit of {limit:,} bytes is what Ray would go by")
    if known["MemAvailable"] < 4 * HEADROOM:
        pytest.skip("too little memory is free to let a worker take it")
    threshold = (known["MemTotal"] - known["MemAvailable"] + HEADROOM) / known["MemTotal"]
    done = driver(
        SCRIPT.replace("@headroom@", str(HEADROOM)),
        env={"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "100"},
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.split(" ")[0].isupper())
    assert said["FIRST"] == "[0, 1, 2, 3] 80 80 0 True"
    assert said["ERROR"].startswith("the worker was lost: OutOfMemoryError: ")
    # Ray may take another worker along.
    assert "1" not in said["SECOND"]
    assert (
        "task 1 (item 1) runs again, attempt 2 of 4: the worker was lost: OutOfMemoryError: " in done.stderr
    )
