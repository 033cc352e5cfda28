"""Who counts here: tasks, their threads and coroutines, forked children, and threads bound by hand."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from speedy_utils import ProgressActor, multi_process, report_progress, set_progress_context, track
from speedy_utils._engines.task import run_attempt
from speedy_utils._engines.threads import ThreadEngine
from speedy_utils._instrument import tqdm_capture as adopt
from speedy_utils._state.ledger import RUN_ITEMS
from speedy_utils._worker import context
from speedy_utils._worker.context import bind, counting, owns_terminal, registered, tally_here, unbind
from speedy_utils._worker.reporter import Reporter, Tally
from speedy_utils.testing import RecordingSink


def in_thread(work: Callable[[], Any]) -> None:
    """Do it in a thread that inherits nothing, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_fork(work: Callable[[], Any]) -> int:
    """Do it in a forked child; its exit code, 0 where nothing was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn where threads are running
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -9


def processed(actor: ProgressActor) -> int:
    """What an actor has counted."""
    count: int = actor.get_progress()["processed"]
    return count


def test_nothing_counts_outside_a_run() -> None:
    """Without a task there is no tally."""
    assert tally_here() is None


def test_a_task_counts_until_its_block_ends() -> None:
    """What happens inside counts, and what happens after does not."""
    reporter = Reporter(0)
    with registered(reporter), counting(reporter.own):
        report_progress(2)
    report_progress(5)
    assert reporter.own.capped_count() == 2
    assert tally_here() is None


def test_inner_blocks_give_back_the_outer_one() -> None:
    """A block within a block counts for itself, and the outer one goes on after it."""
    outer, inner = Reporter(0), Reporter(1)
    with counting(outer.own):
        with counting(inner.own):
            report_progress(1)
        report_progress(2)
    assert (outer.own.capped_count(), inner.own.capped_count()) == (2, 1)


def test_thread_of_the_only_task_counts() -> None:
    """A thread that a task started finds the task where it is the only one."""
    with RecordingSink() as sink:
        in_thread(lambda: report_progress(3))
        in_thread(lambda: list(track([1, 2])))
    assert sink.done == 5


def test_thread_counts_for_nobody_where_two_tasks_run() -> None:
    """A thread with no context is not guessed to belong to one of two tasks."""
    with RecordingSink() as first, RecordingSink() as second:
        in_thread(lambda: report_progress(3))
    assert (first.done, second.done) == (0, 0)


def test_thread_after_the_task_counts_nothing() -> None:
    """A thread that outlives its task counts no more."""
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait(30)
        report_progress(3)
        done.set()

    with RecordingSink() as sink:
        thread = threading.Thread(target=late)
        thread.start()
    go.set()
    assert done.wait(30)
    thread.join()
    assert sink.done == 0


def test_the_fallback_is_for_other_threads_only() -> None:
    """The thread that registered a task is not guessed to work for it: its context says whether it does."""
    reporter = Reporter(0)
    with registered(reporter):
        report_progress(3)
        in_thread(lambda: report_progress(4))
    assert reporter.own.capped_count() == 4


def test_asyncio_carries_the_task() -> None:
    """Gathered coroutines and ``asyncio.to_thread`` count for the task, also beside another one."""

    async def one() -> None:
        await asyncio.sleep(0)
        report_progress(1)

    async def work() -> None:
        await asyncio.gather(one(), one(), asyncio.to_thread(report_progress, 5))

    with RecordingSink() as other, RecordingSink() as sink:
        asyncio.run(work())
    assert (sink.done, other.done) == (7, 0)


def test_context_may_end_in_a_foreign_context() -> None:
    """A block that is closed elsewhere, as an abandoned coroutine's is, ends without an error."""
    block = counting(Reporter(0).own)
    contextvars.copy_context().run(block.__enter__)
    assert not block.__exit__(None, None, None)
    assert tally_here() is None


def test_forked_child_counts_nothing() -> None:
    """A forked child neither counts for its parent's task nor hangs, and may count for a task of its own."""

    def child() -> None:
        assert tally_here() is None
        report_progress(100)
        found = []
        in_thread(lambda: found.append(tally_here()))
        assert found == [None]
        assert not owns_terminal()
        actor = ProgressActor()
        with set_progress_context(actor):
            report_progress(3)
        assert processed(actor) == 3

    actor = ProgressActor()
    with set_progress_context(actor):
        report_progress(2)
        assert in_fork(child) == 0
        report_progress(2)
    assert processed(actor) == 4


def test_forked_child_gets_a_flusher_of_its_own() -> None:
    """A fork while the flusher holds its lock does not block the child."""
    actor = ProgressActor()

    def child() -> None:
        with set_progress_context(actor):
            report_progress(1)
        assert processed(actor) == 1

    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with context.flusher._wake:
            held.set()
            forked.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    code = in_fork(child)
    forked.set()
    holder.join()
    assert code == 0


def test_main_process_owns_the_terminal_outside_tasks() -> None:
    """A run may draw in the driver, and not inside a task."""
    assert owns_terminal()
    with RecordingSink():
        assert not owns_terminal()
    assert owns_terminal()


def test_spawned_child_does_not_own_the_terminal(tmp_path: Path) -> None:
    """A process that multiprocessing started never draws."""
    answer = tmp_path / "answer"
    code = (
        "from pathlib import Path; from speedy_utils._worker.context import owns_terminal; "
        f"Path({str(answer)!r}).write_text(str(owns_terminal()))"
    )
    child = multiprocessing.get_context("spawn").Process(target=exec, args=(code,))
    child.start()
    child.join(30)
    assert answer.read_text() == "False"


def test_a_bound_thread_counts_until_it_is_unbound() -> None:
    """Between bind() and unbind() a thread, and those it starts, count; the end sends the last counts."""
    reporter, sink = Reporter("mine"), RecordingSink()
    bind(reporter, sink)
    report_progress(4)
    in_thread(lambda: report_progress(3))
    unbind(reporter)
    report_progress(100)
    in_thread(lambda: report_progress(100))
    assert sink.reports[-1].counts[RUN_ITEMS] == 7
    assert tally_here() is None


def test_registered_reporters_are_sent_to_their_sink() -> None:
    """Live counts of a registered task reach its sink while it works."""
    arrived = threading.Event()

    class Signal(RecordingSink):
        def send(self, reports: Any, age: float | None, *, last: bool = False) -> bool:
            if reports[0].counts[RUN_ITEMS] == 2:
                arrived.set()
            return True

    reporter = Reporter(0)
    with ExitStack() as stack:
        stack.enter_context(registered(reporter, Signal()))
        stack.enter_context(counting(reporter.own))
        report_progress(2)
        assert arrived.wait(30)


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
    """A child of a task has not Ray's handler of SIGTERM; it keeps another, and nothing else changes."""
    before = signal.signal(signal.SIGTERM, handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with registered(Reporter(0)) if in_task else nullcontext():
            assert in_fork(lambda: os.kill(os.getpid(), signal.SIGTERM)) == ends_with
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_sigterm_that_comes_early_is_not_lost() -> None:
    """It ends a child that has not yet let go of Ray's handler, in which Python drops exceptions."""
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
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")


@pytest.mark.parametrize(
    ("location", "step", "sends"),
    [
        (context.flusher, "add", True),
        (context.flusher, "remove", True),
        (context.flusher, "remove", False),
        (adopt, "_patch_tqdm", False),
        (adopt._TaskBars, "close", False),
    ],
)
def test_a_task_that_is_cancelled_at_any_moment_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, location: Any, step: str, sends: bool
) -> None:
    """Struck while it begins to count, or ends, a task leaves nobody busy with its counts or bars."""
    struck: list[None] = []
    where = getattr(location, step)

    def strike(*args: Any) -> None:
        if step in ("add", "_patch_tqdm") or struck:
            where(*args)
        if not struck:
            struck.append(None)
            raise KeyboardInterrupt

    monkeypatch.setattr(location, step, strike)
    with pytest.raises(KeyboardInterrupt):
        run_attempt(abs, -1, {}, Reporter(0), RecordingSink() if sends else None)
    assert not context._active
    assert not context.flusher._routes
    assert not adopt._tasks


def test_what_a_task_leaves_bound_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may strike a task of "seq" before it has unbound what counts: later runs draw all the same."""

    @contextmanager
    def struck(tally: Tally) -> Iterator[None]:
        context.current.set(tally)
        yield

    monkeypatch.setattr("speedy_utils._engines.task.counting", struck)
    multi_process(abs, range(2), backend="seq", progress=False)
    assert context.current.get() is None
    assert owns_terminal()


def test_a_second_ctrl_c_leaves_no_thread_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it comes before the tasks of "threads" have been cancelled, they are cancelled at the close."""
    begun = threading.Barrier(2)
    threads: list[threading.Thread] = []

    def task(i: int) -> None:
        threads.append(threading.current_thread())
        begun.wait(60)
        if i == 0:
            raise ValueError("as if Ctrl-C was pressed here")
        while True:
            pass

    def struck(engine: ThreadEngine) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadEngine, "cancel", struck)
    with pytest.raises(KeyboardInterrupt):
        multi_process(task, range(2), backend="threads", num_workers=2, progress=False)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
