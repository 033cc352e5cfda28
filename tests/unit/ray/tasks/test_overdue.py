"""Ray workers that do not end their tasks at the limit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from speedy_utils._engines.limits.failure import Failure
from speedy_utils._engines.limits.retries import RetryPolicy
from speedy_utils._engines.limits.task_note import TaskNote, read_note
from speedy_utils._engines.task import Chunk, ChunkOutcome, TaskSettings
from speedy_utils._ray.tasks.overdue import Found, OverdueChunks, note_file

LOST = ChunkOutcome(failure=Failure("it died", worker_lost=True))


class Nodes:
    """Stands for the nodes of a Ray: says what a test lets it find, once it may answer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[float] = []
        self.found: list[Found] | None = []

    def look(self, name: str, limit: float) -> object:
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
    assert nodes.asked == [3.5, 7.0]


def test_a_chunk_that_has_begun_is_due_when_its_own_time_is_over() -> None:
    """The nodes say how long ago it has begun, which may be long after it was handed to Ray."""
    nodes = Nodes()
    chunks = nodes.chunks()
    chunks.start(Chunk(0, 1, [0]))
    nodes.now, nodes.found = 3.5, [Found(TaskNote(0, 1, 0, 1.0))]
    chunks.look()
    for tenth in range(36, 80):
        nodes.now = tenth / 10
        chunks.look()
    assert nodes.asked[:2] == [3.5, 6.0]


def test_a_lost_chunk_whose_worker_was_killed_has_a_timeout() -> None:
    """It says where it stood, as far as its worker has, and may be worth another attempt."""
    nodes = Nodes()
    chunks = nodes.chunks()
    chunk, other = Chunk(0, 1, [0, 1]), Chunk(2, 1, [2, 3])
    chunks.start(chunk)
    chunks.start(other)
    stood = Found(TaskNote(0, 1, 1, 4.0), killed=True, stack='File "a.py", line 1, in f')
    nodes.now, nodes.found = 4.0, [stood, Found(TaskNote(2, 1, 0, 1.0))]
    chunks.look()
    outcome = chunks.end(chunk, LOST)
    failure = outcome.failure
    assert outcome.stuck == 1
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
    nodes.now, nodes.found = 4.0, [Found(TaskNote(0, 1, 0, 4.0), killed=True)]
    chunks.look()
    done = ChunkOutcome([7])
    assert chunks.end(chunk, done) is done


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others have no files of that kind")
def test_a_note_can_be_read_while_its_task_runs() -> None:
    """It is there for the processes of the machine, and empty before and after."""
    note = note_file("speedy_utils-test")
    assert note is not None
    links = [Path(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
    (link,) = [each for each in links if each.is_symlink() and "speedy_utils-test" in os.readlink(each)]
    note.begin(24, 2, 11)
    note.begin(24, 2, 5)
    read = read_note(link.read_text())
    assert read is not None
    assert read[:3] == (24, 2, 5)
    assert 0 <= read.seconds < 60
    note.clear()
    assert read_note(link.read_text()) is None
    note.close()
    assert not os.path.lexists(link)
