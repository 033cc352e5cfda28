"""For people who drive Ray themselves, without a Ray: bindings to an actor, and a poller for a bar."""

from __future__ import annotations

import contextvars
import io
import logging
from typing import Any

import pytest
from support.emulator import Emulator
from support.threads import in_thread
from support.waiting import wait_until
from tqdm import tqdm
from tqdm.notebook import tqdm as tqdm_notebook

from speedy_utils import (
    ProgressActor,
    ProgressPoller,
    Snapshot,
    StageSnapshot,
    create_progress_tracker,
    report_progress,
    set_progress_context,
)
from speedy_utils._ray.own_tasks import UserBarDisplay
from speedy_utils._worker.context import tally_here
from speedy_utils.testing import RecordingDisplay, RecordingSink

LONG = 3_600.0


def processed(actor: ProgressActor) -> int:
    """What an actor has counted."""
    count: int = actor.get_progress()["processed"]
    return count


def reading(done: int, total: int | None = 10, **more: Any) -> Snapshot:
    """A snapshot of a run with one line."""
    return Snapshot(StageSnapshot("Run", done, total, elapsed=1.0, **more))


def test_binding_counts_for_the_actor() -> None:
    """Inside the block the thread and the threads it starts count for the actor; its end sends the rest."""
    actor = ProgressActor(total=10)
    with set_progress_context(actor) as binding:
        report_progress(4)
        in_thread(lambda: report_progress(3))
        assert not binding.closed
    assert binding.closed
    report_progress(100)
    assert processed(actor) == 7


def test_none_unbinds() -> None:
    """``set_progress_context(None)`` ends the binding, and may be called without one."""
    actor = ProgressActor()
    set_progress_context(actor)
    report_progress(4)
    set_progress_context(None)
    report_progress(100)
    set_progress_context(None)
    assert processed(actor) == 4


def test_a_context_of_no_actor_reports_nowhere() -> None:
    """A task that was given no actor writes the same ``with`` block, and what it counts is dropped."""
    with set_progress_context(None) as binding:
        report_progress(4)
        assert tally_here() is None
    assert binding.closed
    binding.close()


def test_a_poller_warns_once_of_what_can_not_be_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The actor passes on what tasks have left out, and the program says it, with the line, once."""
    actor, display = ProgressActor(total=10), RecordingDisplay()
    with ProgressPoller(actor, display, poll_interval=0.01):
        for _ in range(2):
            with set_progress_context(actor):
                report_progress(4, loss=float("nan"))
        seen = len(display.snapshots)
        wait_until(lambda: len(display.snapshots) > seen + 2)
    (message,) = (each for each in caplog.messages if "loss" in each)
    assert f"loss must be a finite number, not nan ({__file__}:" in message


def test_binding_again_ends_the_last_binding() -> None:
    """A thread counts for one actor at a time, and each keeps what it got."""
    first, second = ProgressActor(), ProgressActor()
    set_progress_context(first)
    report_progress(1)
    with set_progress_context(second):
        report_progress(2)
    assert (processed(first), processed(second)) == (1, 2)


def test_binding_twice_to_one_actor_adds_up() -> None:
    """Two bindings to one actor are two tasks: their counts add up."""
    actor = ProgressActor()
    names = set()
    for _ in range(2):
        with set_progress_context(actor) as binding:
            names.add(binding.task)
            report_progress(5)
    assert processed(actor) == 10
    assert len(names) == 2


def test_exception_leaves_what_was_counted() -> None:
    """A block that fails unbinds, keeps its count, and lets the exception pass."""
    actor = ProgressActor()
    binding = set_progress_context(actor)

    def failing() -> None:
        with binding:
            report_progress(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    report_progress(100)
    assert binding.failed
    assert processed(actor) == 3


def test_closing_twice_is_once() -> None:
    """Closing a binding again does nothing, and never ends a later one."""
    actor = ProgressActor()
    first = set_progress_context(actor)
    second = set_progress_context(actor)
    first.close()
    first.close()
    report_progress(2)
    second.close()
    assert processed(actor) == 2


def test_closing_inside_a_task_leaves_the_task() -> None:
    """A binding that ends inside a task's block does not unbind that task."""
    actor = ProgressActor()

    def bind_and_close() -> int:
        binding = set_progress_context(actor)
        with RecordingSink() as sink:
            binding.close()
            report_progress(2)
        return sink.done

    assert contextvars.copy_context().run(bind_and_close) == 2
    assert processed(actor) == 0


def test_threads_bind_apart() -> None:
    """Each thread has a binding of its own."""
    mine, theirs = ProgressActor(), ProgressActor()

    def other() -> None:
        with set_progress_context(theirs):
            report_progress(5)

    with set_progress_context(mine):
        in_thread(other)
        report_progress(2)
    assert (processed(mine), processed(theirs)) == (2, 5)


@pytest.mark.parametrize("wrong", [ProgressActor, "actor", 5, object()])
def test_wrong_actor_is_an_error_and_binds_nothing(wrong: Any) -> None:
    """Anything but an actor is a TypeError that shows it and says where actors come from."""
    with pytest.raises(TypeError, match="create_progress_tracker") as caught:
        set_progress_context(wrong)
    assert repr(wrong) in str(caught.value)
    assert tally_here() is None


@pytest.mark.parametrize(("total", "error"), [(-1, ValueError), (1.5, TypeError), ("3", TypeError)])
def test_a_bad_total_is_an_error_before_an_actor_is_made(total: Any, error: type[Exception]) -> None:
    """The total of a tracker is checked before Ray is asked for an actor."""
    with pytest.raises(error, match="total"):
        create_progress_tracker(total)


def test_users_bar_is_moved_and_left_open() -> None:
    """A user's bar follows the actor in count and total, down too, and stays the user's to close."""
    actor = ProgressActor(total=10, desc="Reading")
    screen = io.StringIO()
    bar = tqdm(total=5, desc="Mine", file=screen)
    poller = ProgressPoller(actor, bar, LONG)
    actor.update(4)
    poller.poll()
    assert (bar.n, bar.total) == (4, 10)
    actor.reset()
    poller.poll()
    assert bar.n == 0
    with poller:
        actor.update(10)
    assert (bar.n, bar.desc, bar.disable) == (10, "Mine", False)
    assert "10/10" in screen.getvalue()
    bar.close()


def test_disabled_bar_is_fine(caplog: pytest.LogCaptureFixture) -> None:
    """A bar that its user has disabled stays silent, without complaint."""
    actor = ProgressActor(total=10)
    with tqdm(total=10, disable=True) as bar, ProgressPoller(actor, bar, LONG):
        actor.update(3)
    assert caplog.records == []


def test_display_of_an_actor_gets_its_state() -> None:
    """A display gets an actor's count, total and name as a snapshot."""
    actor, display = ProgressActor(total=10, desc="Reading"), RecordingDisplay()
    actor.update(4)
    ProgressPoller(actor, display, LONG).poll()
    assert display.last.lines == (StageSnapshot("Reading", 4, 10, elapsed=display.last.elapsed),)


def test_display_of_an_actor_gets_its_stages_and_counters() -> None:
    """What tasks count in named stages, and beside the items, is shown too."""
    actor, display = ProgressActor(total=10, desc="Reading"), RecordingDisplay()
    with set_progress_context(actor):
        report_progress(2, tokens=7)
        report_progress(3, desc="Pack")
    ProgressPoller(actor, display, LONG).poll()
    assert [(line.name, line.done, line.total) for line in display.last.lines] == [
        ("Reading", 2, 10),
        ("Pack", 3, None),
    ]
    assert display.last.run_line.counters == {"tokens": 7}


def test_given_bar_moves_to_each_reading() -> None:
    """A bar that a user made has the run's count, also if that shrinks, and its total."""
    with tqdm(file=io.StringIO()) as bar:
        for done in (5, 2, 9):
            UserBarDisplay(bar).show(reading(done))
            assert (bar.n, bar.total) == (done, 10)


def test_given_bar_without_total_keeps_its_own() -> None:
    """A bar that a user made keeps its total if the run knows none."""
    with tqdm(total=50, file=io.StringIO()) as bar:
        UserBarDisplay(bar).show(reading(5, None))
        assert (bar.n, bar.total) == (5, 50)


@pytest.mark.parametrize("total", [None, 5])
def test_given_bar_of_a_notebook_shows_the_total(total: int | None) -> None:
    """The widget of a user's bar has the run's total too, and the bar keeps its clock."""
    bar = tqdm_notebook(total=total, initial=3, display=False)
    began = bar.start_t
    UserBarDisplay(bar).show(reading(4))
    _, widget, _ = bar.container.children
    assert (bar.n, bar.total, bar.start_t) == (4, 10, began)
    assert (widget.value, widget.max, widget.bar_style) == (4, 10, "")
    bar.close()


def test_given_bar_that_is_disabled_learns_its_total() -> None:
    """A bar that draws nothing, in a notebook too, has the run's total all the same."""
    for bar in (tqdm(disable=True), tqdm_notebook(disable=True)):
        UserBarDisplay(bar).show(reading(4))
        assert bar.total == 10


def test_given_bar_shows_counters_and_stays_open() -> None:
    """Counters stand behind a bar that a user made, and only its user closes it."""
    file = io.StringIO()
    with tqdm(total=10, file=file) as bar:
        display = UserBarDisplay(bar)
        display.show(reading(5, counters={"tokens": 1_200}))
        display.close()
        assert "tokens=1200" in file.getvalue()
        bar.update(5)
        assert bar.n == 10


class SilentSource:
    """An actor that does not answer."""

    def snapshot(self) -> Snapshot:
        """Raise."""
        raise TimeoutError("no answer")


def test_a_warning_is_not_printed_into_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's bar steps aside for it, and is drawn again below."""
    monkeypatch.setattr("sys.stderr", screen := io.StringIO())
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler(screen)])
    with tqdm(total=10, file=screen, desc="Mine") as bar:
        ProgressPoller(SilentSource(), bar, LONG).poll()
        emulator = Emulator(80, 6)
        emulator.feed(screen.getvalue().replace("\n", "\r\n"))
    warning, drawn = emulator.lines()
    assert warning == "the progress can't be read (TimeoutError: no answer); the work goes on"
    assert drawn.startswith("Mine:   0%|")
