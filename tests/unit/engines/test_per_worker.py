"""Classes that each worker makes once: which these are, and how an instance is made, used and closed."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest

from speedy_utils._engines.per_worker import (
    PerWorker,
    PreparationError,
    called_with_items,
    close_instance,
    make_instance,
    makes_callables,
    per_worker,
    prepared,
)


class Adder:
    """Adds to each item."""

    made = 0
    closed = 0

    def __init__(self, more: int = 1) -> None:
        type(self).made += 1
        self.more = more

    def __call__(self, item: int) -> int:
        """Return the sum."""
        return item + self.more

    def close(self) -> None:
        """Count."""
        type(self).closed += 1


class Child(Adder):
    """Inherits its call."""


class Meta(type):
    """A class of classes, which can be called."""

    def __call__(cls, *args: Any) -> Any:
        """Make an instance."""
        return super().__call__(*args)


class Plain(metaclass=Meta):
    """Can be made, and not be called."""


@pytest.mark.parametrize(
    ("function", "makes"),
    [
        (Adder, True),
        (Child, True),
        (Adder(), False),
        (int, False),
        (Plain, False),
        (Meta, False),
        (type, False),
        (len, False),
        (functools.partial(Adder), False),
    ],
)
def test_only_classes_with_callable_instances_are_made_once(function: Any, makes: bool) -> None:
    """Other classes are called with each item, as functions are; so are metaclasses and instances."""
    assert makes_callables(function) is makes
    assert (type(per_worker(function)) is PerWorker) is makes
    assert called_with_items(function) == (function.__call__ if makes else function)


def test_each_thread_makes_one_and_closes_it() -> None:
    """The second call in a thread has the instance of the first, with the arguments that it was made with."""
    Adder.made = Adder.closed = 0
    function = per_worker(Adder)
    found: list[Any] = []

    def work() -> None:
        for item in (1, 2):
            called, kwargs = prepared(function, {"more": 5})
            found.append((called(item, **kwargs), called))
        close_instance(function, {})
        close_instance(function, {})

    threads = [threading.Thread(target=work) for _ in range(2)]
    for each in threads:
        each.start()
        each.join()
    assert [value for value, _ in found] == [6, 7, 6, 7]
    assert found[0][1] is found[1][1] is not found[2][1]
    assert (Adder.made, Adder.closed) == (2, 2)


def test_in_the_run_of_a_dataset_it_is_an_argument() -> None:
    """Of the function that processes a shard it takes the place of ``process_func``."""
    kwargs = {"process_func": per_worker(Adder), "kwargs": {"more": 2}, "features": None}
    called, arguments = prepared(len, kwargs)
    assert called is len
    assert arguments["process_func"](1) == 3
    assert (arguments["kwargs"], arguments["features"]) == ({}, None)
    close_instance(len, kwargs)


def test_one_that_can_not_be_made_is_tried_once() -> None:
    """What ``__init__`` raises is the cause of each further call."""
    tries: list[None] = []

    class Broken(Adder):
        def __init__(self) -> None:
            tries.append(None)
            raise ValueError("no model")

    function = per_worker(Broken)
    make_instance(function, {})
    for _ in range(2):
        with pytest.raises(PreparationError) as caught:
            prepared(function, {})
        assert type(caught.value.__cause__) is ValueError
    assert len(tries) == 1
    close_instance(function, {})


def test_a_close_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The results are in, so the run goes on."""

    class Stuck(Adder):
        def close(self) -> None:
            raise OSError("busy")

    function = per_worker(Stuck)
    make_instance(function, {})
    close_instance(function, {})
    assert "Stuck has failed in its worker" in caplog.text


def test_other_functions_are_as_they_are() -> None:
    """Nothing is made, and nothing closed."""
    kwargs = {"process_func": len}
    assert prepared(abs, kwargs) == (abs, kwargs)
    close_instance(abs, kwargs)
    with pytest.raises(TypeError, match="no instance of Adder was made"):
        per_worker(Adder)(1)
