"""Which task code counts for: in tasks, their threads and coroutines, and in forked children."""

from __future__ import annotations

import asyncio
import contextvars
import threading

from support.forks import in_fork
from support.threads import held, in_thread
from support.waiting import wait_until

from speedy_utils import ProgressActor, report_progress, set_progress_context, track
from speedy_utils._state.ledger import RUN_ITEMS
from speedy_utils._worker import context
from speedy_utils._worker.context import bind, counting, in_task, registered, tally_here, unbind
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink


def processed(actor: ProgressActor) -> int:
    """Return what an actor has counted."""
    count: int = actor.get_progress()["processed"]
    return count


def test_a_task_counts_until_its_block_ends() -> None:
    """A block within a block counts for itself, the outer one goes on after it; outside nothing counts."""
    outer, inner = Reporter(0), Reporter(1)
    assert tally_here() is None
    with counting(outer.own):
        with counting(inner.own):
            report_progress(1)
        report_progress(2)
    report_progress(5)
    assert tally_here() is None
    assert (outer.own.capped_count(), inner.own.capped_count()) == (2, 1)


def test_threads_without_a_context_count_for_the_only_task() -> None:
    """A thread finds the task if it is the only one; it is not guessed to be of one of two, nor of none."""
    go = threading.Event()
    late = threading.Thread(target=lambda: (go.wait(240), report_progress(100)))
    with RecordingSink() as first:
        late.start()
        in_thread(lambda: report_progress(3))
        in_thread(lambda: list(track([1, 2])))
        with RecordingSink() as second:
            in_thread(lambda: report_progress(100))
    go.set()
    late.join()
    assert (first.done, second.done) == (5, 0)


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


def test_forked_child_counts_for_itself() -> None:
    """A child that is forked while the flusher's lock is held counts for a task of its own, and no other."""

    def child() -> None:
        found = [tally_here()]
        report_progress(100)
        in_thread(lambda: found.append(tally_here()))
        assert found == [None, None]
        assert in_task()
        own = ProgressActor()
        with set_progress_context(own):
            report_progress(3)
        assert processed(own) == 3

    actor = ProgressActor()
    with set_progress_context(actor):
        report_progress(2)
        with held(context.flusher._wake):
            assert in_fork(child) == 0
        report_progress(2)
    assert processed(actor) == 4


def test_code_is_in_a_task_until_the_task_ends() -> None:
    """So are the processes that it forks, and not those that are forked before and after it."""

    def outside() -> None:
        assert not in_task()

    def inside() -> None:
        with RecordingSink():  # a task of its own does not hide whose child it is
            assert in_task()
        assert in_task()

    outside()
    assert in_fork(outside) == 0
    with RecordingSink():
        assert in_task()
        assert in_fork(inside) == 0
    outside()
    assert in_fork(outside) == 0


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
    reporter, sink = Reporter(0), RecordingSink()
    with registered(reporter, sink), counting(reporter.own):
        report_progress(2)
        wait_until(lambda: any(report.counts[RUN_ITEMS] == 2 for report in sink.reports))
