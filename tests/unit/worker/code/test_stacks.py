"""Where the code of a task is, seen from another thread."""

from __future__ import annotations

import asyncio
import faulthandler
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.waiting import wait_until

from speedy_utils._engines.task import TaskSettings, run_chunk
from speedy_utils._worker.chunk_reporter import ChunkReporter
from speedy_utils._worker.code.stacks import MAX_FRAMES, dumped_stack, stack_of
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock


@contextmanager
def at_work(function: Callable[[threading.Event], Any], reporter: Reporter | None = None) -> Iterator[int]:
    """Let a thread work on a task until the block ends, and give the block its identifier."""
    go_on, reporter = threading.Event(), reporter or Reporter(0)
    chunk = ChunkReporter(lambda _: reporter, apart=True)
    work = (function, [go_on], {}, chunk, TaskSettings())
    thread = threading.Thread(target=run_chunk, args=work)
    thread.start()
    try:
        yield wait_until(lambda: reporter.thread)
    finally:
        go_on.set()
        thread.join()


def waits(go_on: threading.Event) -> None:
    """Wait as a task does."""
    go_on.wait()


def names(stack: str) -> list[str]:
    """Return the functions that a stack has, without those of the standard library."""
    return [line.rpartition(" in ")[2] for line in stack.splitlines() if __file__ in line or "more" in line]


def test_a_stack_begins_with_the_users_function() -> None:
    """What has called it, this package and the thread's own code, says nothing."""
    with at_work(waits) as thread:
        stack = wait_until(lambda: "in wait\n" in (text := stack_of(thread)) and text)
    first, *_ = stack.splitlines()
    assert first.startswith(f'File "{__file__}", line ')
    assert first.endswith(", in waits")
    assert stack_of(thread) == ""


def deep(go_on: threading.Event, depth: int = 100) -> None:
    """Wait in a deep recursion."""
    if depth:
        deep(go_on, depth - 1)
    else:
        waits(go_on)


def test_a_deep_stack_is_cut_in_the_middle() -> None:
    """Where it began and where it is are what counts."""
    with at_work(deep) as thread:
        stack = wait_until(lambda: "in waits" in (text := stack_of(thread)) and text)
    assert len(stack.splitlines()) == MAX_FRAMES + 1
    assert [name for name in names(stack) if name != "deep"][-1] == "waits"
    assert "... 8" in stack


async def awaits(go_on: threading.Event) -> None:
    """Await what is in an asyncio task of its own."""
    await asyncio.create_task(child(go_on))


async def child(go_on: threading.Event) -> None:
    """Await in steps."""
    while not go_on.is_set():
        await asyncio.sleep(0.005)


async def blocks(go_on: threading.Event) -> None:
    """Block the loop."""
    go_on.wait()


@pytest.mark.parametrize(("function", "place"), [(awaits, ["awaits", "child"]), (blocks, ["blocks"])])
def test_of_a_coroutine_it_is_where_it_awaits_or_what_blocks_the_loop(
    function: Callable[[threading.Event], Any], place: list[str]
) -> None:
    """The worker's own thread only waits for it."""
    with at_work(function) as thread:
        assert wait_until(lambda: names(stack_of(thread)) == place)


def test_a_written_stack_has_the_names_that_the_files_have(tmp_path: Path) -> None:
    """It is written for any terminal, and so in ASCII."""
    file = tmp_path / "stacks"
    space: dict[str, Any] = {"file": file.open("w"), "dump": faulthandler.dump_traceback}
    with space["file"]:
        exec(compile("def täglich():\n    dump(file)\ntäglich()", "/home/jürgen/😀.py", "exec"), space)
    assert 'File "/home/jürgen/😀.py", line 2, in täglich' in dumped_stack(file.read_text()).splitlines()


def test_reports_have_a_stack_once_the_task_has_not_moved_for_a_while() -> None:
    """It is taken anew now and then, and is gone as the task moves."""
    clock = FakeClock()
    reporter = Reporter(0, stack_after=10.0, clock=clock)
    with at_work(waits, reporter) as thread:
        wait_until(lambda: "in wait\n" in stack_of(thread))
        clock.advance(9.9)
        assert reporter.report().stack == ""
        clock.advance(0.1)
        assert names(reporter.report().stack) == ["waits"]
        reporter.own.n += 1
        assert reporter.report().stack == ""
        clock.advance(10.0)
        assert names(reporter.report().stack) == ["waits"]
    assert names(reporter.report().stack) == ["waits"]
    clock.advance(2.0)
    assert reporter.report().stack == ""
