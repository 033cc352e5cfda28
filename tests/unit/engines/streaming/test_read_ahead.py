"""Items that a thread reads ahead: how far, and how it ends."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from speedy_utils._engines.streaming.read_ahead import ReadAhead


def take_all(source: ReadAhead) -> list[int]:
    """Return all items, waiting for each that is not there yet."""
    taken: list[int] = []
    while not source.exhausted and not source.full:
        source.wait()
        taken += source
    return taken


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_no_more_items_are_taken_than_allowed(most: int) -> None:
    """An endless source gives as many as are allowed, in order, and goes on once more are."""
    source = ReadAhead(itertools.count())
    source.start()
    source.allow(most)
    assert take_all(source) == [*range(most)]
    assert list(source) == []
    source.allow(2 * most)
    assert take_all(source) == [*range(most, 2 * most)]
    source.close()


def test_what_is_not_there_yet_is_not_waited_for() -> None:
    """As an iterator it ends where the source has to be waited for, and goes on later."""
    following = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        following.wait()
        yield 1

    source = ReadAhead(items())
    source.start()
    source.allow(10)
    taken: list[int] = []
    while not taken:
        source.wait()
        taken += source
    assert (taken, list(source), source.exhausted) == ([0], [], False)
    following.set()
    assert take_all(source) == [1]
    assert source.exhausted
    source.raise_error()


def test_an_error_comes_after_the_items_before_it() -> None:
    """What reading has raised is raised once all that was read is taken."""

    def items() -> Iterator[int]:
        yield 0
        raise OSError("gone")

    source = ReadAhead(items())
    source.start()
    source.allow(10)
    assert take_all(source) == [0]
    with pytest.raises(OSError, match="gone"):
        source.raise_error()
