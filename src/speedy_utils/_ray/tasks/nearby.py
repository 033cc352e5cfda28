"""Counts of workers on the node of the driver: they write them into a folder, and need no actor for that.

The process of an actor starts beside those of the workers, which may take seconds on a busy machine, and a
call of it takes as long as it has to wait for a CPU. A file is there at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from ..._state.ledger import Location, Report, Task
from ..._state.timings import StageTimings
from ..._worker.channel.flusher import Sink
from ..._worker.channel.state_file import RUN
from ..._worker.channel.writer import WRITE_INTERVAL_S, FolderSink, read_run
from ..client import process_address


class NearbySink:
    """Writes states into the folder of a run where that is found, and sends them to an actor elsewhere.

    Args:
        actor: What sends them to the actor.
        folder: The folder of the run.
        run: The id of the run.
        node: Ray's id of the node of the driver.
    """

    def __init__(self, actor: Sink, folder: str, run: str, node: str) -> None:
        self._actor = actor
        self._folder, self._run, self._node = folder, run, node
        self._near: bool | None = None
        self._was_near = False

    @property
    def interval(self) -> float:
        """Seconds between two calls of :meth:`send`."""
        return WRITE_INTERVAL_S if self._is_near() else self._actor.interval

    def send(self, reports: Sequence[Report], timings: StageTimings, *, last: bool = False) -> bool:
        """Send the state of some tasks; see :class:`~speedy_utils._worker.channel.flusher.Sink`."""
        if self._is_near():
            try:
                # A new one: the tasks that this process has ended are of no use in its file any more.
                return FolderSink(self._folder, self._run).send(reports, timings)
            except OSError:  # the disk is full, or the run is over
                self._near, self._was_near = False, True
        sent = self._actor.send(reports, timings, last=last)
        return sent or (self._was_near and self._actor.settled())  # without an actor too the run is over

    def lost(self) -> bool:
        """Return whether the last state is known to be lost: what was written stays."""
        return not self._is_near() and self._actor.lost()

    def settled(self) -> bool:
        """Return whether the last state is known to have arrived, or to be of no use any more."""
        return self._is_near() or self._actor.settled()

    def _is_near(self) -> bool:
        """Return whether the driver reads what this worker writes."""
        if self._near is None:
            import ray

            self._near = False
            # A folder on storage that nodes share would tell late what has changed.
            if ray.get_runtime_context().get_node_id() == self._node:
                with suppress(OSError, ValueError):  # this worker has another file system, or may not read it
                    owner = os.stat(os.path.join(self._folder, RUN)).st_uid
                    same_user = owner == getattr(os, "geteuid", lambda: owner)()
                    self._near = same_user and read_run(self._folder) == self._run
        return self._near


class NearbyFolder:
    """The folder of a run, at the driver.

    Args:
        node: Ray's id of this node.

    Raises:
        OSError: Even the temporary folder can't be written to.
    """

    def __init__(self, node: str) -> None:
        # Not for the workers.
        from ..._worker.channel.folder import RunFolder
        from ..._worker.channel.reader import FolderReader

        self._node = node
        self._folder = RunFolder()
        self._new_reader = partial(FolderReader, self._folder.path, self._folder.run)
        self._reader = self._new_reader()

    def sink(self, actor: Sink) -> Sink:
        """Return what workers of any node send to."""
        return NearbySink(actor, str(self._folder.path), self._folder.run, self._node)

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return what has been written since the last call, and how long ago the stages began and moved."""
        reports, timings = self._reader.collect()
        return [each._replace(location=self._located(each.location)) for each in reports], timings

    def locate(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """Return the addresses of the processes that some attempts ran in, as far as they have written."""
        reports, _ = self._new_reader().collect()  # all, and the other one misses nothing
        return {
            each.task: process_address(*location)
            for each in reports
            if attempts.get(each.task) == each.attempt and (location := self._located(each.location))
        }

    def _located(self, location: Location | None) -> Location | None:
        return location and location._replace(node_id=self._node)

    def close(self) -> None:
        """Remove the folder. Idempotent."""
        self._folder.close()
