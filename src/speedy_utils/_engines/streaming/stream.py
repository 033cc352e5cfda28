"""Hand out results as tasks end, while their items are read."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from ..._run.run import Run
from ..base import Engine
from ..chunk_sizes import ChunkSizes
from ..driver import Driver, Ended
from ..task_queue import Tasks
from .dropped import Interrupts
from .read_ahead import ReadAhead

CHUNKS_AHEAD = 4
"""Chunks of each worker that are read, run, or finished and not taken."""

LOOK_INTERVAL_S = 0.05
"""Seconds between two looks whether items were read, while a worker is free and others run."""


def stream(
    engine: Engine,
    run: Run,
    items: Iterable[Any],
    *,
    max_retries: int,
    sizes: ChunkSizes,
    ordered: bool,
    raises: bool,
    interrupts: Interrupts,
) -> Generator[Any, None, int]:
    """Run a task for each item, and yield what it returned.

    It works while the next result is asked for. If no more are, tasks that run are waited for, unless Ctrl-C
    has ended the loop that asked.

    Args:
        engine: Runs them. It is started and, whatever happens, closed.
        run: Counts them.
        items: Their items.
        max_retries: How often a task is started again.
        sizes: How many tasks travel together.
        ordered: Whether results are yielded in the order of the items, and not as they come.
        raises: Whether the error of a task that fails is raised, and not yielded.
        interrupts: What has interrupted the program, also in the code of the loop.

    Returns:
        How many items there were.

    Raises:
        TaskError: A task has failed, and ``raises`` is True.
    """
    source, results = ReadAhead(items), _Results(ordered=ordered, raises=raises)
    driver = Driver(engine, run, Tasks(source, None, sizes), results.add, max_retries)
    interrupted, cancels = interrupts.count, True
    try:
        engine.start()
        source.start()
        while True:
            ahead = CHUNKS_AHEAD * engine.workers * sizes.next(None, engine.workers)
            source.allow(results.yielded + max(ahead, CHUNKS_AHEAD * engine.workers))
            if driver.start_chunks():
                starved = not (source.full or source.exhausted)
                driver.wait(LOOK_INTERVAL_S if starved else None)
                driver.end_chunks()
            elif source.exhausted:
                break
            else:
                source.wait()
            looked_at, interrupted = time.monotonic(), interrupts.count
            for value in results.ready():
                yield value
                # The next result may be asked for much later: workers that are free get their next tasks.
                if engine.workers > 1 and time.monotonic() - looked_at >= LOOK_INTERVAL_S:
                    if driver.start_chunks() and driver.running:
                        driver.wait(0.0)
                        driver.end_chunks()
                    looked_at = time.monotonic()
        source.raise_error()
    except BaseException as error:
        try:
            results.drop()
            if isinstance(error, GeneratorExit) and interrupts.count == interrupted:
                driver.stop()
                driver.run_to_end()
                cancels = False
        finally:
            if cancels:  # no task may go on without its run
                driver.cancel()
        raise
    finally:
        source.close()
        engine.close()
    return results.yielded


class _Results:
    """What tasks have returned, and has not been yielded.

    Attributes:
        yielded: How many results were.
    """

    def __init__(self, *, ordered: bool, raises: bool) -> None:
        self._ordered, self._raises = ordered, raises
        self._dropped = False
        self.yielded = 0
        self._next: deque[Any] = deque()
        self._later: dict[int, list[Any]] = {}  # by their first tasks: those that others come before

    def drop(self) -> None:
        """Take no more results."""
        self._dropped = True

    def add(self, ended: Ended) -> None:
        """Take the values of tasks that have ended, or the error of one that has failed.

        Raises:
            TaskError: It has failed.
        """
        if self._dropped:
            return
        values = list(ended.values)
        if ended.failure is not None:
            error = ended.error()
            if self._raises:
                raise error
            values = [error]
        if self._ordered:
            self._later[ended.first] = values
        else:
            self._next.extend(values)

    def ready(self) -> Iterator[Any]:
        """Yield the results that are there, and forget them."""
        while True:
            while self._next:
                value = self._next.popleft()
                self.yielded += 1
                yield value
            # Tasks are numbered in their order, and none is left out.
            if (values := self._later.pop(self.yielded, None)) is None:
                return
            self._next.extend(values)
