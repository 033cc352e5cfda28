"""What a loop costs while the progress actor is cut off, against the same loop while it answers.

python benchmarks/cut_off.py [seconds] [rounds]

One worker runs slices of three loops in turn for the whole time. Its actor is stopped for so long, answers
for as long, is stopped again, and so on; the slices of each time are held against those before and after it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import ray

from speedy_utils import create_progress_tracker, report_progress, set_progress_context, track

ITEMS = 200_000


class Slice(NamedTuple):
    """One slice of a loop: when it ran, what an item cost its thread and its process, the count after it."""

    loop: str
    began: float
    ended: float
    thread: float
    process: float
    counted: int


def bare() -> int:
    for _ in range(ITEMS):
        pass
    return 0


def tracked_loop() -> int:
    for _ in track(range(ITEMS)):
        pass
    return ITEMS


def reporting_loop() -> int:
    for _ in range(ITEMS):
        report_progress()
    return ITEMS


LOOPS: dict[str, Callable[[], int]] = {
    "a bare loop": bare,
    "track": tracked_loop,
    "report_progress": reporting_loop,
}


def work(actor: Any, seconds: float) -> list[Slice]:
    """Run slices in turn."""
    slices, counted = [], 0
    end = time.monotonic() + seconds
    with set_progress_context(actor):
        while time.monotonic() < end:
            for name, loop in LOOPS.items():
                began, thread, process = time.monotonic(), time.thread_time(), time.process_time()
                counted += loop()
                thread, process = time.thread_time() - thread, time.process_time() - process
                slices.append(Slice(name, began, time.monotonic(), thread / ITEMS, process / ITEMS, counted))
    return slices


def wait(seconds: float) -> tuple[float, float]:
    """Let some time pass, and say from when to when."""
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


def cost(slices: list[Slice], loop: str, what: str, times: list[tuple[float, float]]) -> float:
    """The median of what an item cost in those slices that lie in one of some times as a whole."""
    return median(
        getattr(each, what)
        for each in slices
        if each.loop == loop and any(a <= each.began and each.ended <= b for a, b in times)
    )


def main(seconds: float = 20.0, rounds: int = 3) -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    actor = create_progress_tracker()
    pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    working = ray.remote(work).remote(actor, (2 * rounds + 1) * seconds + 5)
    while not ray.get(actor.get_progress.remote())["processed"]:
        time.sleep(0.1)
    free, cut = [wait(seconds)], []
    read: list[list[tuple[float, int]]] = []
    for _ in range(rounds):
        os.kill(pid, signal.SIGSTOP)
        try:
            cut.append(wait(seconds))
        finally:
            os.kill(pid, signal.SIGCONT)
        read.append([])
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            read[-1].append((time.monotonic(), ray.get(actor.get_progress.remote())["processed"]))
            time.sleep(0.05)
        free.append((began, time.monotonic()))
    slices = ray.get(working)
    ray.shutdown()

    print(f"CPU time of an item in {rounds} times of {seconds:g} s without the actor, over that with it")
    for what in ("thread", "process"):
        for loop in LOOPS:
            ratios = [
                cost(slices, loop, what, [cut[i]]) / cost(slices, loop, what, free[i : i + 2])
                for i in range(rounds)
            ]
            answered = cost(slices, loop, what, free)
            each = ", ".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"{what:>8} {loop:<16} {median(ratios):.3f}  ({each}; {1e9 * answered:.1f} ns with it)")
    lags = []
    for (_, resumed), counts in zip(cut, read, strict=True):
        owed = max(each.counted for each in slices if each.ended <= resumed)
        lags.append(next((at for at, count in counts if count >= owed), float("inf")) - resumed)
    print(
        f"All that was counted meanwhile had arrived {', '.join(f'{lag:.2f}' for lag in lags)} s afterwards"
    )


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, int), sys.argv[1:], strict=False)))
