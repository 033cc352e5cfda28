"""The loop that submits, waits and retries, on an engine that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from speedy_utils import Snapshot
from speedy_utils._display.base import choose_display
from speedy_utils._engines.driver import drive
from speedy_utils._engines.task import Attempt, Failure, Outcome
from speedy_utils._run.run import LocalFeed, Run

LOST = Outcome(failure=Failure("the worker was lost", worker_lost=True))
FAILED = Outcome(failure=Failure("ValueError: no", error=ValueError("no")))


class ScriptedEngine(LocalFeed):
    """Ends attempts in ``wait``, the newest first, as a script says.

    Args:
        script: The outcomes of a task's attempts, by task; further ones succeed with the item as value.
        broken: The method that raises ZeroDivisionError.
        workers: How many attempts may be under way.
        grows: Whether there is one more before the first attempt has ended.
        together: How many attempts end in one call of ``wait``.
    """

    def __init__(
        self,
        script: dict[int, list[Outcome]] | None = None,
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
        self._running: list[tuple[Attempt, Any]] = []

    def _note(self, call: Any) -> None:
        self.log.append(call)
        if call == self._broken:
            raise ZeroDivisionError

    def start(self) -> None:
        """Note it."""
        self._note("start")

    def submit(self, attempt: Attempt, item: Any) -> None:
        """Note which attempt at which item it is."""
        self._note((attempt.task, attempt.attempt, item))
        self._running.append((attempt, item))
        self.most = max(self.most, len(self._running))

    def wait(self) -> Iterable[tuple[Attempt, Outcome]]:
        """End attempts, or let the number of workers grow."""
        if self._grows:
            self._grows, self.workers = False, self.workers + 1
            return []
        ended = []
        for _ in range(min(self._together, len(self._running))):
            attempt, item = self._running.pop()
            outcomes = self._script.get(attempt.task, [])
            ended.append((attempt, outcomes.pop(0) if outcomes else Outcome(item)))
        return ended

    def cancel(self) -> None:
        """Note it."""
        self._note("cancel")

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

        def finish(ended: Attempt, outcome: Outcome) -> None:
            result = outcome.failure.reason if outcome.failure else outcome.value
            finished.append((ended.task, ended.attempt, result))
            if stop:
                raise InterruptedError

        def attempt(task: int, number: int) -> Attempt:
            return Attempt(task, number, 1)

        display = choose_display(shown.append)
        with Run("Run", len(items), tasks=len(items), display=display, feed=engine) as run:
            drive(engine, run, items, attempt, finish, max_retries=2)
        return finished

    return run_items


def test_each_item_is_run_once_and_at_most_some_at_once(driven: Drive) -> None:
    """Tasks start in the order of their items, as workers become free, between the engine's start and end."""
    engine = ScriptedEngine(workers=3)
    assert sorted(driven(engine, "abcd")) == [(0, 1, "a"), (1, 1, "b"), (2, 1, "c"), (3, 1, "d")]
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
    assert driven(engine, "ab") == [(0, 3, "a"), (1, 1, "b")]
    assert [call[:2] for call in engine.log[1:-1]] == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert caplog.messages == [
        f"task 0 (item 'a') runs again, attempt {attempt} of 3: the worker was lost" for attempt in (2, 3)
    ]
    assert (shown[-1].retries, shown[-1].done, shown[-1].tasks_failed) == (2, 2, 0)


def test_an_unsuited_node_costs_no_retry(driven: Drive, caplog: pytest.LogCaptureFixture) -> None:
    """What says nothing of the task is not counted against it; the engine has named the node."""
    elsewhere = Outcome(failure=Failure("it can't read the input", unsuited_node="1f2e3d4c"))
    engine = ScriptedEngine({0: [elsewhere, LOST, elsewhere, LOST]}, workers=1)
    assert driven(engine, "ab") == [(0, 5, "a"), (1, 1, "b")]
    assert caplog.messages == [
        f"task 0 (item 'a') runs again, attempt {attempts}: the worker was lost"
        for attempts in ("3 of 4", "5 of 5")
    ]
    lost = ScriptedEngine({0: [elsewhere, *[LOST] * 3]}, workers=1)
    assert driven(lost, "a") == [(0, 4, "the worker was lost")]


@pytest.mark.parametrize(("outcomes", "attempts"), [([LOST] * 9, 3), ([FAILED], 1)])
def test_a_task_fails_for_good_after_its_retries_or_by_an_error_of_its_own(
    driven: Drive, shown: list[Snapshot], outcomes: list[Outcome], attempts: int
) -> None:
    """The failure of one task does not end the others, and the bar ends short of its total."""
    engine = ScriptedEngine({0: [*outcomes]})
    failure = outcomes[0].failure
    assert failure is not None
    assert sorted(driven(engine, "ab")) == [(0, attempts, failure.reason), (1, 1, "b")]
    assert (shown[-1].done, shown[-1].total, shown[-1].tasks_failed) == (1, 2, 1)


def test_what_succeeded_comes_before_what_failed(driven: Drive) -> None:
    """Where several end together and a failure may end the run, no result is lost by that."""
    engine = ScriptedEngine({1: [FAILED]}, together=2)
    assert driven(engine, "ab") == [(0, 1, "a"), (1, 1, "ValueError: no")]


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
