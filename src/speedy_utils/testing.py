"""For tests of code that counts: no Ray, no terminal, no waiting.

Example:
    >>> from speedy_utils import track
    >>> from speedy_utils.testing import RecordingSink
    >>> with RecordingSink() as sink:
    ...     words = [word.upper() for word in track(["one", "bar"], desc="Shout")]
    >>> sink.stages
    {'Shout': 2}
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from ._state.ledger import Key, Metric, Report
from ._state.snapshot import Snapshot
from ._state.timings import StageTimings
from ._worker.context import counting, registered
from ._worker.reporter import Reporter

__all__ = ["FailingSink", "FakeClock", "RecordingDisplay", "RecordingSink"]


class FakeClock:
    """A clock that moves only when :meth:`advance` is called.

    Example:
        >>> from speedy_utils.testing import FakeClock
        >>> clock = FakeClock()
        >>> clock.advance(1.5)
        >>> clock()
        1.5
    """

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Return the seconds since the clock was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock on.

        Args:
            seconds: By how much, 0 or more.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds must be at least 0, not {seconds!r}")
        self._now += seconds


class RecordingSink:
    """Keeps what is counted: as a context manager, what the code in its block counts.

    What can't be counted, such as NaN, raises in the block, where a run would leave it out. It is a sink as
    well, for tests of code that sends reports: then it keeps these in ``reports``.

    Attributes:
        reports: Every report that was sent to it, in order. The block sends none.

    Example:
        >>> from speedy_utils import report_progress
        >>> from speedy_utils.testing import RecordingSink
        >>> with RecordingSink() as sink:
        ...     report_progress(3, tokens=512)
        >>> sink.done, sink.counters
        (3, {None: {'tokens': 512}})
    """

    interval = 0.05

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self._reporter = Reporter(0, declare_lengths=False)
        self._reporter.strict = True
        self._stack = ExitStack()

    @property
    def done(self) -> int:
        """Items counted in the block so far, outside named stages."""
        return self._reporter.own.capped_count()

    @property
    def stages(self) -> dict[str, int]:
        """Items counted in the block so far, by named stage."""
        return {
            key.stage: int(done) for key, done in self._counts(Metric.ITEMS).items() if key.stage is not None
        }

    @property
    def counters(self) -> dict[str | None, dict[str, float]]:
        """Counters that were added to in the block so far, by stage; None is the run's own."""
        found: dict[str | None, dict[str, float]] = {}
        for key, amount in self._counts(Metric.COUNTER).items():
            found.setdefault(key.stage, {})[key.label] = amount
        return found

    @property
    def totals(self) -> dict[str | None, int]:
        """Totals that were declared in the block so far, by stage; None is the run's own."""
        return {key.stage: int(total) for key, total in self._counts(Metric.TOTAL).items()}

    def _counts(self, metric: Metric) -> dict[Key, float]:
        counts = self._reporter.capped_counts()
        return {key: amount for key, amount in counts.items() if key.metric is metric}

    def send(
        self,
        reports: Sequence[Report],
        timings: StageTimings,  # noqa: ARG002 - the protocol's
        *,
        last: bool = False,  # noqa: ARG002 - the same
    ) -> bool:
        """Keep the reports."""
        self.reports += reports
        return True

    def lost(self) -> bool:
        """Return False: all reports have arrived."""
        return False

    def settled(self) -> bool:
        """Return True: all reports have arrived."""
        return True

    def __enter__(self) -> RecordingSink:
        self._stack.enter_context(registered(self._reporter))
        self._stack.enter_context(counting(self._reporter.own))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class FailingSink:
    """Raises whenever a report is sent to it.

    Args:
        error: The exception to raise; None for a ``ConnectionError``.

    Attributes:
        calls: How often something was sent to it.

    Example:
        >>> from speedy_utils.testing import FailingSink
        >>> FailingSink().send([], {})
        Traceback (most recent call last):
        ConnectionError: this sink fails
    """

    interval = 0.05

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self._error = error or ConnectionError("this sink fails")

    def send(
        self,
        reports: Sequence[Report],  # noqa: ARG002 - the protocol's
        timings: StageTimings,  # noqa: ARG002 - the same
        *,
        last: bool = False,  # noqa: ARG002 - the same
    ) -> bool:
        """Raise the exception."""
        self.calls += 1
        raise self._error

    def lost(self) -> bool:
        """Return False: there is nothing to send again."""
        return False

    def settled(self) -> bool:
        """Return True: there is nothing to wait for."""
        return True


class RecordingDisplay:
    """Keeps the snapshots that it is given to show.

    Attributes:
        snapshots: All snapshots, in order.
        closed: Whether it was closed.

    Example:
        >>> from speedy_utils import ProgressActor, ProgressPoller
        >>> from speedy_utils.testing import RecordingDisplay
        >>> display = RecordingDisplay()
        >>> with ProgressPoller(ProgressActor(total=3), display):
        ...     pass
        >>> display.last.total, display.closed
        (3, True)
    """

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.closed = False

    @property
    def last(self) -> Snapshot:
        """The last snapshot."""
        return self.snapshots[-1]

    def show(self, snapshot: Snapshot) -> None:
        """Keep the snapshot."""
        self.snapshots.append(snapshot)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
