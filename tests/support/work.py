"""Tasks that a test drives by hand, and the lines that they make."""

from __future__ import annotations

from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._state.ledger import Count, Key, Ledger, Report, Stage
from speedy_utils._state.stage_limit import StageLimit
from speedy_utils._state.stages import Stages
from speedy_utils._state.timings import StageClock, StageTimings
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock


class Work:
    """Real reporters, a ledger and the stages that are read from it, without a run.

    Args:
        total: As of a run.
        tasks: How many tasks it has.
        initial: Items that were done before.
    """

    def __init__(self, total: int | None, *, tasks: int = 0, initial: int = 0) -> None:
        self.clock = FakeClock()
        self.stages = Stages("Run", total, initial=initial, tasks=tasks)
        self.reporters: dict[int, Reporter] = {}
        self._limit = StageLimit(50)
        self._ledger, self._stage_clock = Ledger(), StageClock(self.clock)

    def start(self, task: int, total: int | None = None, attempt: int = 1) -> Reporter:
        """Start an attempt at a task, in place of the last one."""
        reporter = Reporter(task, attempt, total=total, clock=self.clock)
        self._ledger.merge([Report(task, attempt, {})])
        self.reporters[task] = reporter
        return reporter

    def finish(self, reporter: Reporter) -> None:
        """Let a task succeed."""
        counts = self._limit.counts(reporter.raw_counts())
        final = self.stages.task_succeeded(reporter.task, counts, reporter.total)
        self._close(reporter, final, reporter.final_timings())

    def fail(self, reporter: Reporter) -> None:
        """Let a task fail for good."""
        counts = self._limit.counts(reporter.capped_counts())
        self._close(
            reporter, self.stages.task_failed(reporter.task, counts, self._ledger.sums), reporter.timings()
        )

    def read(self) -> Snapshot:
        """Return what the lines show now."""
        for reporter in self.reporters.values():
            report = reporter.report()
            report = report._replace(counts=self._limit.counts(report.counts))
            self.stages.observe(report.task, report.counts)
            self._ledger.merge([report])
            self._stage_clock.merge(self._limit.timings(reporter.timings()))
        run_line, stages, shown, lines = self.stages.read(self._ledger.sums, self._stage_clock, self.clock())
        return Snapshot(run_line, stages, shown, stage_lines=lines)

    def stage(self, name: str) -> StageSnapshot:
        """Return a named line."""
        (found,) = [stage for stage in self.read().stages if stage.name == name]
        return found

    def _close(self, reporter: Reporter, counts: dict[Key, Count], timings: StageTimings) -> None:
        del self.reporters[int(reporter.task)]
        self._ledger.commit(reporter.task, counts)
        self._stage_clock.merge(self._limit.timings(timings))


def count(reporter: Reporter, stage: Stage, n: int, *, declared: int | None = None) -> None:
    """Count in a stage of a task, which may declare a total first."""
    if declared is not None:
        reporter.declare(stage, declared)
    reporter.mark_started(stage)
    reporter.stage(stage).n += n
