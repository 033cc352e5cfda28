"""What kind of process this is, and how SIGTERM ends what a task forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
from support.forks import in_fork
from support.programs import run_program

from speedy_utils._worker.context import in_task, registered
from speedy_utils._worker.process import in_ray_worker, is_child_process
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink


def test_main_process_is_no_child() -> None:
    """This process is neither a child nor a Ray worker; what it forks is a child."""

    def child() -> None:
        assert is_child_process()

    assert not is_child_process()
    assert not in_ray_worker()
    assert in_fork(child) == 0


def test_a_ray_that_another_thread_is_importing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks in threads may import Ray at once: the module is there before what is in it."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    assert not in_ray_worker()


def whose() -> tuple[bool, bool]:
    """Return whether this is a child process, and one that a task has started."""
    return is_child_process(), in_task()


@pytest.mark.parametrize("in_a_task", [True, False])
def test_spawned_child_knows_whether_a_task_has_started_it(in_a_task: bool) -> None:
    """A process that multiprocessing spawns is a child, and a task's child if it was started in one."""
    with RecordingSink() if in_a_task else nullcontext():
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        found = pool.submit(whose)
    with pool:
        assert found.result(240) == (True, in_a_task)


LATE = """
import os, signal, sys, threading
from speedy_utils._worker.process import repeat_signal
def end(number, frame):
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
signal.signal(signal.SIGTERM, end)
repeat_signal(signal.SIGTERM, end)
if pid := os.fork():
    os.waitpid(pid, 0)  # a child that ends by the signal writes into no pipe of this process's
else:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)
print("goes on", flush=True)
main, ends = threading.get_native_id(), os.pipe()
def send():
    pause = threading.Event()
    while not open(f"/proc/self/task/{main}/syscall").read().startswith("0 "):  # it reads
        pause.wait(0.01)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    pause.wait()
threading.Thread(target=send, daemon=True).start()
os.read(ends[0], 1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what a thread does in the kernel")
def test_a_signal_that_came_as_the_main_thread_began_to_wait_ends_it(tmp_path: Path) -> None:
    """A signal that interrupts no call of C is sent again: its handler runs, in this process alone."""
    done = run_program(tmp_path / "program.py", LATE)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "goes on\n", "")


def as_rays(signum: int, frame: object) -> None:
    """Handle a signal as Ray does."""
    raise SystemExit(1)


as_rays.__module__ = "ray._private.worker"


def as_users(signum: int, frame: object) -> None:
    """Handle a signal in another way."""
    os._exit(3)


@pytest.mark.parametrize(
    ("handler", "in_task", "ends_with"),
    [(as_rays, True, -signal.SIGTERM), (as_rays, False, 1), (as_users, True, 3)],
)
def test_sigterm_ends_what_a_task_forks(
    handler: Callable[[int, object], None], in_task: bool, ends_with: int
) -> None:
    """A child of a task does not keep Ray's handler of SIGTERM, only any other; nothing else changes."""
    before = signal.signal(signal.SIGTERM, handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with registered(Reporter(0)) if in_task else nullcontext():
            assert in_fork(lambda: os.kill(os.getpid(), signal.SIGTERM)) == ends_with
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_sigterm_that_comes_early_is_not_lost(tmp_path: Path) -> None:
    """It ends a child that has not yet reset Ray's handler, whose exception Python would drop."""
    code = """
import os, signal
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))  # runs before those of below
from speedy_utils._worker.context import registered
from speedy_utils._worker.reporter import Reporter
def handler(signum, frame):
    raise SystemExit(1)
handler.__module__ = "ray._private.worker"
signal.signal(signal.SIGTERM, handler)
with registered(Reporter(0)):
    child = os.fork()
    if not child:
        os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run_program(tmp_path / "program.py", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{-signal.SIGTERM}\n", "")
