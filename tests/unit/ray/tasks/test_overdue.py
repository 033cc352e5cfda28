"""Ray workers that do not end their tasks at the limit."""

from __future__ import annotations

import os
import sys

import pytest

from speedy_utils._engines.limits.retries import RetryPolicy
from speedy_utils._engines.task import Chunk, ChunkOutcome, Failure, TaskSettings
from speedy_utils._ray.tasks.overdue import Begun, BegunNote, Limits, OverdueChunks
from speedy_utils._state.ledger import Report

LOST = ChunkOutcome(failure=Failure("it died", worker_lost=True))


class Nodes:
    """Stands for the nodes of a Ray: says what a test lets it find, once it may answer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[float] = []
        self.found: list[Begun] | None = []

    def look(self, name: str, limits: Limits) -> object:
        """Note when it was asked, and answer with what is found by then."""
        self.asked.append(self.now)
        return lambda timeout: self.found

    def chunks(self) -> OverdueChunks:
        """Return the chunks of a run with a limit of two seconds for a task."""
        settings = TaskSettings(task_timeout=2.0, most_seconds=0.5)
        return OverdueChunks(settings, RetryPolicy((TimeoutError,), 0), self.look, lambda: self.now)  # type: ignore[arg-type]


def test_the_nodes_are_asked_once_a_chunk_may_be_over_its_limit() -> None:
    """Not before, and not again before a chunk that had not begun by then can be."""
    nodes = Nodes()
    chunks = nodes.chunks()
    chunks.start(Chunk(0, 1, [0, 1]))
    for tenth in range(100):
        nodes.now = tenth / 10
        chunks.look()
    assert nodes.asked == [4.0, 8.0]


def test_a_chunk_that_has_begun_is_due_when_its_own_time_is_over() -> None:
    """The nodes say how long ago it has begun, which may be long after it was handed to Ray."""
    nodes = Nodes()
    chunks = nodes.chunks()
    chunks.start(Chunk(0, 1, [0]))
    nodes.now, nodes.found = 3.5, [Begun(0, 1, 1.0, killed=False)]
    chunks.look()
    for tenth in range(36, 80):
        nodes.now = tenth / 10
        chunks.look()
    assert nodes.asked[:2] == [3.5, 6.0]


def test_a_lost_chunk_whose_worker_was_killed_has_a_timeout() -> None:
    """It says where it stood, as far as a report has said so, and may be worth another attempt."""
    nodes = Nodes()
    chunks = nodes.chunks()
    chunk, other = Chunk(0, 1, [0, 1]), Chunk(2, 1, [2, 3])
    chunks.start(chunk)
    chunks.start(other)
    chunks.hear([Report(0, 1, 1, {}, stack='File "a.py", line 1, in f')])
    nodes.now, nodes.found = 4.0, [Begun(0, 1, 4.0, killed=True), Begun(2, 1, 1.0, killed=False)]
    chunks.look()
    failure = chunks.end(chunk, LOST).failure
    assert failure is not None
    assert isinstance(failure.error, TimeoutError)
    assert failure.reason.endswith('and stood in File "a.py", line 1, in f')
    assert failure.retry_in == 0
    assert chunks.end(other, LOST) is LOST


def test_a_chunk_that_has_ended_by_itself_keeps_its_outcome() -> None:
    """Its worker was to be killed, and was faster."""
    nodes = Nodes()
    chunks = nodes.chunks()
    chunk = Chunk(0, 1, [0])
    chunks.start(chunk)
    nodes.now, nodes.found = 4.0, [Begun(0, 1, 4.0, killed=True)]
    chunks.look()
    done = ChunkOutcome([7])
    assert chunks.end(chunk, done) is done


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have no files of that kind")
def test_a_note_can_be_read_while_its_chunk_runs() -> None:
    """It is there for the processes of the machine, and empty before and after."""
    note = BegunNote("speedy_utils-test")
    (link,) = [
        f"/proc/self/fd/{each}"
        for each in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{each}")
        and "speedy_utils-test" in os.readlink(f"/proc/self/fd/{each}")
    ]

    def read() -> str:
        with open(link) as file:
            return file.read()

    with note.begun(24, 2, 5):
        assert read().split()[:3] == ["24", "2", "5"]
    assert read() == ""
    note.close()
    note.close()
    assert not os.path.lexists(link)
