"""A loop without a name that begins after all items were counted is noted, with its line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.tasks import Task, run_task
from tqdm import tqdm

from speedy_utils import report_progress, track
from speedy_utils._state.ledger import Metric

HERE = Path(__file__).name


def noted(task: Task) -> str:
    """Return what the run is to warn of."""
    return next((key.label for key in task.reporter.raw_counts() if key.metric is Metric.ANOTHER_LOOP), "")


def consume(*loops: Iterable[Any]) -> None:
    """Go through loops, one after another."""
    for loop in loops:
        for _ in loop:
            pass


def halves() -> None:
    """Count the items in two loops."""
    consume(track(range(50)), track(range(50)))


def empty_at_the_end() -> None:
    """Begin a loop that has no items."""
    consume(track(range(100)), track([]), tqdm([]))


def named() -> None:
    """Name the second loop."""
    consume(track(range(100)), track(range(100), desc="Pass 2"), tqdm(range(100), desc="Pass 3"))


def reported() -> None:
    """Count no loop beside what the code reports."""
    report_progress(100)
    report_progress(100)


def first_in_parts() -> None:
    """Count all in parts."""
    for _ in range(10):
        consume(track(range(10)))


@pytest.mark.parametrize("work", [halves, empty_at_the_end, named, reported, first_in_parts])
def test_loops_that_are_counted_are_not_noted(work: Callable[[], None]) -> None:
    """Nothing is noted as long as there are items left to count, or names."""
    task = run_task(lambda task: work(), 100, rows=False)
    if work is halves:  # the first of them was shown as if it were all
        assert noted(task).startswith("was shown in proportion to one loop")
    else:
        assert not noted(task)


def passes(wrap: Callable[..., Iterable[Any]]) -> Iterator[None]:
    """Go through all items again and again."""
    for _ in range(3):
        for _ in wrap(range(100)):
            yield


@pytest.mark.parametrize("wrap", [track, tqdm])
def test_a_second_pass_is_noted_as_it_begins(wrap: Callable[..., Iterable[Any]]) -> None:
    """The note is there at the first item of the second pass, and stays the same in the third."""
    texts: list[str] = []

    def work(task: Task) -> None:
        texts.extend(noted(task) for _ in passes(wrap))
        assert task.done == 100

    run_task(work, 100)
    assert texts[:100] == [""] * 100
    (text,) = set(texts[100:])
    assert text.startswith(
        f"has counted all its items, and begins another loop without a name ({Path(__file__)}:"
    )


def moved_by_hand() -> None:
    """Count all items by a bar that nothing iterates."""
    with tqdm(total=100) as bar:
        bar.update(100)


def looped(wrap: Callable[..., Iterable[Any]]) -> Callable[[], None]:
    """Return what counts all items in a loop."""
    return lambda: consume(wrap(range(100)))


@pytest.mark.parametrize("first", [looped(track), looped(tqdm), moved_by_hand, lambda: report_progress(100)])
@pytest.mark.parametrize("second", [looped(track), looped(tqdm), moved_by_hand])
def test_a_second_pass_is_noted_whatever_counts_it(
    first: Callable[[], None], second: Callable[[], None]
) -> None:
    """Loops and bars are noted after each other, and after what was reported, with their line."""

    def work(task: Task) -> None:
        first()
        second()

    text = noted(run_task(work, 100))
    assert text.startswith("has counted all its items, and begins another loop without a name (")
    assert HERE in text


def test_a_bar_beside_a_loop_is_no_second_pass() -> None:
    """A bar that is made before a loop and moved in it counts the same items, also if it is read last."""

    def work(task: Task) -> None:
        with tqdm(total=100) as bar, tqdm(total=10) as other:
            for number in track(range(100)):
                bar.update()
                other.update(number % 10 == 9)

    assert not noted(run_task(work, 100))


def test_an_item_of_one_is_no_pass() -> None:
    """A task of one item may go through any number of loops."""
    assert not noted(run_task(lambda task: consume(track("abc"), track("abc")), 1))
