"""Where tasks are at work, for whoever wants to know why one was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .ledger import Report, Task


class Places:
    """What each process was last at work on. It grows with the processes, not with the tasks.

    Example:
        >>> places = Places()
        >>> places.note("host-1 (process 7)", [Report(task=3, attempt=1, counts={})])
        >>> places.find({3: 1, 4: 1})
        {3: 'host-1 (process 7)'}
    """

    def __init__(self) -> None:
        self._attempts: dict[str, dict[Task, int]] = {}

    def note(self, place: str, reports: Iterable[Report]) -> None:
        """Note what a process reports; a place without a name is none.

        Args:
            place: What the process is called.
            reports: What it has sent in one call.
        """
        if place:
            self._attempts[place] = {report.task: report.attempt for report in reports}

    def find(self, attempts: Mapping[Task, int]) -> dict[Task, str]:
        """The places of some attempts, as far as they are known.

        Args:
            attempts: The number of the attempt by task.
        """
        return {
            task: place
            for place, known in self._attempts.items()
            for task, attempt in known.items()
            if attempts.get(task) == attempt
        }
