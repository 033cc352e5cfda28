"""The loop that submits, waits and retries, on an engine that follows a script."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from speedy_utils import Snapshot
from speedy_utils._display.base import choose_display
from speedy_utils._engines.driver import Ended, drive
from speedy_utils._engines.limits.failure import Failure
from speedy_utils._engines.task import Chunk, ChunkOutcome, Outcome
from speedy_utils._interrupts import Terminated, ending_on_sigterm
from speedy_utils._run.feed import LocalFeed
from speedy_utils._run.run import Run

LOST = ChunkOutcome(failure=Failure("the worker was lost", worker_lost=True))
FAILED = ChunkOutcome([None], {0: Outcome(Failure("ValueError: no", error=ValueError("no")))})


class ScriptedEngine(LocalFeed):
    """Ends chunks, the newest first, as a script says.

    Args:
        script: The outcomes of the chunks that begin with a task; further ones succeed with
            the items as values.
        broken: The method that raises ZeroDivisionError.
        workers: How many chunks may be under way.
        grows: Whether there is one more before the first chunk has ended.
        together: How many chunks end at once.
    """

    ahead = 0

    def __init__(
        self,
        script: dict[int, list[ChunkOutcome]] | None = None,
        broken: str = "",
        workers: int = 2,
        grows: bool = False,
        together: int = 1,
    ) -> None:
        super().__init__()
        self._together = together
        self.log: list[Any] = []
        self.most = 0
        self.workers, self._grows = workers, grows
        self._script, self._broken = script or {}, broken
        self._running: list[Chunk] = []

    def _note(self, call: Any) -> None:
        self.log.append(call)
        if call == self._broken:
            raise ZeroDivisionError

    def start(self) -> None:
        """Note it."""
        self._note("start")

    def submit(self, chunk: Chunk) -> None:
        """Note which attempt at which items it is."""
        self._note((chunk.task, chunk.attempt, "".join(chunk.items)))
        self._running.append(chunk)
        self.most = max(self.most, len(self._running))

    def wait(self, timeout: float | None = None) -> None:
        """Do not wait."""

    def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """End chunks, or let the number of workers grow."""
        if self._grows:
            self._grows, self.workers = False, self.workers + 1
            return []
        ended = []
        for _ in range(min(self._together, len(self._running))):
            chunk = self._running.pop()
            outcomes = self._script.get(chunk.task, [])
            ended.append((chunk, outcomes.pop(0) if outcomes else ChunkOutcome([*chunk.items])))
        return ended

    def cancel(self) -> list[tuple[Chunk, ChunkOutcome]]:
        """Note it, and return what the script says of the chunks that run."""
        self._note("cancel")
        return [(chunk, outcomes[0]) for chunk in self._running if (outcomes := self._script.get(chunk.task))]

    def close(self) -> None:
        """Note it."""
        self._note("close")


Drive = Callable[..., list[tuple[int, int, Any]]]


@pytest.fixture
def shown() -> list[Snapshot]:
    """What the run has shown."""
    return []


@pytest.fixture
def driven(shown: list[Snapshot]) -> Drive:
    """Drive some items on an engine; the task, attempt and value, or reason, of what finished."""

    def run_items(engine: Any, items: str, *, stop: bool = False) -> list[tuple[int, int, Any]]:
        finished: list[tuple[int, int, Any]] = []

        def finish(ended: Ended) -> None:
            if ended.failure is not None:
                finished.append((ended.first, ended.attempts, ended.failure.reason))
            finished.extend((task, 0, value) for task, value in enumerate(ended.values, ended.first))
            if stop:
                raise InterruptedError

        display = choose_display(shown.append)
        with Run("Run", len(items), tasks=len(items), display=display, feed=engine) as run:
            drive(engine, run, items, finish, max_retries=2, totals=[1] * len(items))
        return finished

    return run_items


def test_each_item_is_run_once_and_at_most_some_at_once(driven: Drive) -> None:
    """Tasks start in the order of their items, as workers become free, between the engine's start and end."""
    engine = ScriptedEngine(workers=3)
    assert sorted(driven(engine, "abcd")) == [(0, 0, "a"), (1, 0, "b"), (2, 0, "c"), (3, 0, "d")]
    assert engine.most == 3
    assert engine.log == ["start", (0, 1, "a"), (1, 1, "b"), (2, 1, "c"), (3, 1, "d"), "close"]


def test_more_tasks_start_as_workers_are_added(driven: Drive) -> None:
    """An engine may find that more tasks can run at once: these start although none has ended."""
    engine = ScriptedEngine(grows=True)
    assert len(driven(engine, "abcd")) == 4
    assert engine.most == 3


def test_a_lost_attempt_is_run_again_before_new_tasks(
    driven: Drive, shown: list[Snapshot], caplog: pytest.LogCaptureFixture
) -> None:
    """A task whose worker was lost starts again at once, and a warning says which, and why."""
    engine = ScriptedEngine({0: [LOST, LOST]}, workers=1)
    assert driven(engine, "ab") == [(0, 0, "a"), (1, 0, "b")]
    assert [call[:2] for call in engine.log[1:-1]] == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert caplog.messages == [
        f"task 0 (item 'a') runs again, attempt {attempt} of 3: the worker was lost" for attempt in (2, 3)
    ]
    assert (shown[-1].retries, shown[-1].done, shown[-1].tasks_failed) == (2, 2, 0)


def test_an_unsuited_node_costs_no_retry(driven: Drive, caplog: pytest.LogCaptureFixture) -> None:
    """What says nothing of the task is not counted against it; the engine has named the node."""
    elsewhere = ChunkOutcome(failure=Failure("it can't read the input", unsuited_node="1f2e3d4c"))
    engine = ScriptedEngine({0: [elsewhere, LOST, elsewhere, LOST]}, workers=1)
    assert driven(engine, "ab") == [(0, 0, "a"), (1, 0, "b")]
    assert caplog.messages == [
        f"task 0 (item 'a') runs again, attempt {attempts}: the worker was lost"
        for attempts in ("3 of 4", "5 of 5")
    ]
    lost = ScriptedEngine({0: [elsewhere, *[LOST] * 3]}, workers=1)
    assert driven(lost, "a") == [(0, 4, "the worker was lost")]


@pytest.mark.parametrize(("outcomes", "attempts"), [([LOST] * 9, 3), ([FAILED], 1)])
def test_a_task_fails_for_good_after_its_retries_or_by_an_error_of_its_own(
    driven: Drive, shown: list[Snapshot], outcomes: list[ChunkOutcome], attempts: int
) -> None:
    """The failure of one task does not end the others, and the bar ends short of its total."""
    engine = ScriptedEngine({0: [*outcomes]})
    reason = "the worker was lost" if attempts > 1 else "ValueError: no"
    assert sorted(driven(engine, "ab")) == [(0, attempts, reason), (1, 0, "b")]
    assert (shown[-1].done, shown[-1].total, shown[-1].tasks_failed) == (1, 2, 1)


def test_what_succeeded_comes_before_what_failed(driven: Drive) -> None:
    """Where several end together and a failure may end the run, no result is lost by that."""
    engine = ScriptedEngine({1: [FAILED]}, together=2)
    assert driven(engine, "ab") == [(0, 0, "a"), (1, 1, "ValueError: no")]


@pytest.mark.parametrize(
    ("broken", "stop", "error"), [("start", False, ZeroDivisionError), ("", True, InterruptedError)]
)
def test_an_exception_cancels_what_runs_and_closes_the_engine(
    driven: Drive, broken: str, stop: bool, error: type[Exception]
) -> None:
    """Whether the engine can't start or an outcome ends the run, nothing goes on without it."""
    engine = ScriptedEngine(broken=broken)
    with pytest.raises(error):
        driven(engine, "abc", stop=stop)
    assert engine.log[-2:] == ["cancel", "close"]


def test_an_engine_that_fails_to_cancel_is_closed(driven: Drive) -> None:
    """A second Ctrl-C, or another error while the engine cancels, leaves nothing open."""
    engine = ScriptedEngine(broken="cancel")
    with pytest.raises(ZeroDivisionError):
        driven(engine, "abc", stop=True)
    assert engine.log[-1] == "close"


def retried(seconds: float) -> ChunkOutcome:
    """Return the outcome of a task whose exception is worth another attempt, some time later."""
    failure = Failure("OSError: no", error=OSError("no"), retry_in=seconds)
    return ChunkOutcome([None], {0: Outcome(failure, {})})


def test_a_task_waits_for_its_next_attempt_without_a_worker(
    driven: Drive, shown: list[Snapshot], caplog: pytest.LogCaptureFixture
) -> None:
    """Other tasks run meanwhile, retries count as those after lost workers do, and the first is logged."""
    engine = ScriptedEngine({0: [retried(0.01), LOST, retried(0.0)], 1: [retried(0.0)]}, workers=1)
    assert sorted(driven(engine, "abc")) == [(0, 3, "OSError: no"), (1, 0, "b"), (2, 0, "c")]
    assert engine.log[1:3] == [(0, 1, "a"), (1, 1, "b")]
    assert engine.most == 1
    assert (shown[-1].retries, shown[-1].tasks_failed) == (3, 1)
    kept, lost = caplog.messages
    assert kept.startswith(
        "task 0 (item 'a') runs again in 0.0 s, attempt 2 of 3: OSError: no; further retries"
    )
    assert lost == "task 0 (item 'a') runs again, attempt 3 of 3: the worker was lost"


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_what_an_engine_has_handed_out_is_not_lost_to_a_signal(
    shown: list[Snapshot], number: signal.Signals, error: type[BaseException]
) -> None:
    """Ctrl-C or SIGTERM as results are taken from the engine ends the run once they count and are kept."""

    class Engine(ScriptedEngine):
        """Signals come while it hands out what has ended."""

        def take_ended(self) -> list[tuple[Chunk, ChunkOutcome]]:
            ended = super().take_ended()
            signal.raise_signal(number)
            return ended

    finished: list[Ended] = []
    engine, display = Engine(), choose_display(shown.append)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # another test may have set one
    try:
        with (
            pytest.raises(error),
            ending_on_sigterm(),
            Run("Run", 3, tasks=3, display=display, feed=engine) as run,
        ):
            drive(engine, run, "abc", finished.append, max_retries=0)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [(each.first, each.values) for each in finished] == [(1, ["b"])]
    assert shown[-1].tasks_done == 1
