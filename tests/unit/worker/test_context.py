"""Which task code counts for: in tasks, their threads and coroutines, and in forked children."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from support.forks import in_fork

from speedy_utils import ProgressActor, report_progress, set_progress_context, track
from speedy_utils._state.ledger import RUN_ITEMS
from speedy_utils._worker import context
from speedy_utils._worker.context import bind, counting, owns_terminal, registered, tally_here, unbind
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink


def in_thread(work: Callable[[], Any]) -> None:
    """Do it in a thread that inherits nothing, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


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


def test_outer_block_goes_on_after_an_inner_one() -> None:
    """A block within a block counts for itself, and the outer one goes on after it."""
    outer, inner = Reporter(0), Reporter(1)
    with counting(outer.own):
        with counting(inner.own):
            report_progress(1)
        report_progress(2)
    assert (outer.own.capped_count(), inner.own.capped_count()) == (2, 1)


def test_thread_of_the_only_task_counts() -> None:
    """A thread that a task started finds the task if it is the only one."""
    with RecordingSink() as sink:
        in_thread(lambda: report_progress(3))
        in_thread(lambda: list(track([1, 2])))
    assert sink.done == 5


def test_thread_counts_for_no_task_if_two_run() -> None:
    """A thread with no context is not guessed to belong to one of two tasks."""
    with RecordingSink() as first, RecordingSink() as second:
        in_thread(lambda: report_progress(3))
    assert (first.done, second.done) == (0, 0)


def test_thread_after_the_task_counts_nothing() -> None:
    """A thread that outlives its task counts no more."""
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait(240)
        report_progress(3)
        done.set()

    with RecordingSink() as sink:
        thread = threading.Thread(target=late)
        thread.start()
    go.set()
    assert done.wait(240)
    thread.join()
    assert sink.done == 0


def test_the_fallback_is_for_other_threads_only() -> None:
    """The thread that registered a task counts for it only in its context, not because it is the only one."""
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
            forked.wait(240)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(240)
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
        def send(self, reports: Any, timings: Any, *, last: bool = False) -> bool:
            if reports[0].counts[RUN_ITEMS] == 2:
                arrived.set()
            return True

    reporter = Reporter(0)
    with registered(reporter, Signal()), counting(reporter.own):
        report_progress(2)
        assert arrived.wait(240)
