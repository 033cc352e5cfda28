"""``track`` counts to the item, however a loop ends, and changes nothing else."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pytest
from support.errors import Boom

from speedy_utils import track
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink


class Hand:
    """A class iterator of ``n`` items that may fail after some, and may go on after that."""

    def __init__(self, n: int, fails_after: int | None = None) -> None:
        self.n, self.at, self.fails_after = n, 0, fails_after

    def __iter__(self) -> Hand:
        return self

    def __next__(self) -> int:
        if self.at == self.fails_after:
            raise Boom
        if self.at == self.n:
            raise StopIteration
        self.at += 1
        return self.at - 1


class Indexed:
    """Iterable by index only."""

    def __init__(self, n: int, fails_after: int | None = None) -> None:
        self.n, self.fails_after = n, fails_after

    def __getitem__(self, index: int) -> int:
        if index == self.fails_after:
            raise Boom
        if index >= self.n:
            raise IndexError
        return index


def generated(n: int, fails_after: int | None = None) -> Iterator[int]:
    """A generator of ``n`` items that may fail after some."""
    for item in range(n):
        if item == fails_after:
            raise Boom
        yield item
    if n == fails_after:
        raise Boom


def consume(items: Iterable[Any]) -> None:
    """Loop to the end."""
    for _ in items:
        pass


FAILING: dict[str, Callable[..., Iterable[int]]] = {
    "generator": generated,
    "class": Hand,
    "getitem": Indexed,
    "map": lambda n, fails_after=None: map(int, generated(n, fails_after)),
    "iterable class": lambda n, fails_after=None: type(
        "Source", (), {"__iter__": lambda self: generated(n, fails_after)}
    )(),
}
SOUND: dict[str, Callable[[int], Iterable[int]]] = {
    "list": lambda n: list(range(n)),
    "tuple": lambda n: tuple(range(n)),
    "range": range,
    "dict": lambda n: dict.fromkeys(range(n)),
    "set": lambda n: set(range(n)),
    "deque": lambda n: deque(range(n)),
    "array": lambda n: np.arange(n),
    "list subclass": lambda n: type("Rows", (list,), {})(range(n)),
    "iterator": lambda n: iter(range(n)),
}
SOURCES = {**SOUND, **FAILING}
any_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
failing_source = pytest.mark.parametrize("source", FAILING.values(), ids=FAILING.keys())


def test_items_are_the_same_objects() -> None:
    """No item is copied, and falsy ones, None included, pass and count like others."""
    items = [object(), None, 0, "", False, [], {}, ()]
    with RecordingSink() as sink:
        for source in (items, iter(items), (item for item in items)):
            assert all(got is item for got, item in zip(track(source), items, strict=True))
    assert sink.done == 3 * len(items)


@any_source
def test_nothing_is_counted_outside_a_run(source: Callable[[int], Iterable[int]]) -> None:
    """Outside a run the items pass all the same."""
    assert list(track(source(5), desc="Read", total=9)) == [0, 1, 2, 3, 4]


@failing_source
@pytest.mark.parametrize("named", [False, True], ids=["inline", "named"])
@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_exception_in_the_source_counts_all_it_gave(
    source: Callable[..., Iterable[int]], after: int, named: bool
) -> None:
    """If the input itself fails, every item that it gave is finished, also while the iterator lives on."""
    with RecordingSink() as sink:
        items = track(source(9, after))
        with pytest.raises(Boom):
            consume(items if named else track(source(9, after)))
        assert sink.done == after
    assert sink.done == after


def test_iterator_in_a_cycle_counts_what_was_finished() -> None:
    """An iterator that only the garbage collector finds counts the same, before and after."""
    with RecordingSink() as sink:
        cycle: list[Any] = [track([1, 2, 3])]
        cycle.append(cycle)
        assert [next(cycle[0]), next(cycle[0])] == [1, 2]
        del cycle
        assert sink.done == 1
        gc.collect()
        assert sink.done == 1


def test_nothing_is_read_ahead() -> None:
    """The input is asked for an item only when the loop is."""
    asked: list[int] = []

    def watched() -> Iterator[int]:
        for item in range(5):
            asked.append(item)
            yield item

    with RecordingSink():
        for source, size in ((watched(), None), (map(int, watched()), None), (watched(), abs)):
            asked.clear()
            items = track(source, size=size)
            assert asked == []
            assert [len(asked) for _ in items] == [1, 2, 3, 4, 5]


LENGTHS = [(0, 0), (1, 0), (1, 1), (9, 0), (9, 4), (9, 8), (9, 9)]


@any_source
@pytest.mark.parametrize("end", ["exhaust", "break", "body", "abandon", "resume"])
def test_a_loop_counts_what_it_finished(source: Callable[[int], Iterable[int]], end: str) -> None:
    """The item in hand at a ``break``, or in a body that fails, is not finished, unless the loop goes on."""
    for n, at in LENGTHS:
        seen: list[int] = []
        with RecordingSink() as sink:
            items = track(source(n), every=1 + at)
            with suppress(Boom):
                for item in items:
                    assert sink.done == len(seen)
                    if len(seen) == at and end == "body":
                        raise Boom
                    if len(seen) == at and end != "exhaust":
                        break
                    seen.append(item)
            assert sink.done == len(seen)
            if end == "abandon":
                del items
            elif end == "resume":
                held = list(range(n))[at : at + 1]
                assert [*seen, *held, *items] == list(range(n))
                assert list(items) == []
                seen = list(range(n))
            assert sink.done == len(seen)
        assert sink.done == len(seen)
        if end == "exhaust":
            assert seen == list(range(n))


class Stream(list[int]):
    """Has no length although its class has one, as torch's loaders over a stream."""

    def __len__(self) -> int:
        raise TypeError("a stream has no length")


def test_loops_of_a_stage_add_their_items_and_their_totals() -> None:
    """The length of a sized input is the total, if a stage is named and no other total given.

    A loop whose length can't be asked for has none, and one that never starts declares nothing.
    """
    with RecordingSink() as sink:
        for rows in ([1, 2], "abc"):
            consume(track(rows, desc="Sized"))
        consume(track(iter(range(3)), desc="Unsized"))
        consume(track(Stream([1, 2, 3]), desc="Length fails"))
        consume(track(range(3), desc="Given", total=30))
        consume(track(range(3)))
        consume(track(range(3), total=4))
        never_started = track([1, 2], desc="Idle")
        del never_started
    assert (sink.done, sink.totals) == (6, {"Sized": 5, "Given": 30, None: 4})
    assert sink.stages == {"Sized": 5, "Unsized": 3, "Length fails": 3, "Given": 3}


def test_nested_loops_count_where_they_belong() -> None:
    """A loop within a loop adds to its own stage."""
    with RecordingSink() as sink:
        for _ in track([1, 2]):
            consume(track("abc", desc="Inner"))
            consume(track("ab"))
    assert (sink.done, sink.stages) == (2 + 4, {"Inner": 6})


def test_size_counts_batches_by_their_items() -> None:
    """An element counts for as many items as ``size`` says, once it is finished, not at a ``break``."""
    seen = []
    with RecordingSink() as sink:
        for batch in track(["abc", "", "de", "f"], size=len, desc="Read"):
            seen.append((batch, sink.stages["Read"]))
            if batch == "f":
                break
    assert seen == [("abc", 0), ("", 3), ("de", 3), ("f", 5)]
    assert (sink.stages, sink.totals) == ({"Read": 5}, {})


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (1.5, ValueError), (None, TypeError)])
def test_bad_size_is_an_error_at_its_element(size: Any, error: type[Exception]) -> None:
    """In a test a size that is no count is an error that shows it, and what was finished counts."""
    sizes = {"a": 2, "b": size}
    seen = []
    with RecordingSink() as sink, pytest.raises(error, match=rf"size\(element\).*{size!r}"):
        seen.extend(track(["a", "b"], size=sizes.__getitem__))
    assert seen == ["a"]
    assert sink.done == 2


def test_finished_loops_leave_nothing_behind() -> None:
    """A loop that has ended is one number: a task with a million loops holds none of them."""
    reporter = Reporter(0)
    with counting(reporter.own):
        for size in (None, len):
            list(track(["a", "bc"], size=size))
            next(track(["a", "bc"], size=size))
    assert not reporter.own._parts
    assert reporter.own.n == 2 + 3


@pytest.mark.parametrize(
    ("iterable", "options", "error", "says"),
    [
        (5, {}, TypeError, r"iterate, not 5 \(int\)"),
        (None, {}, TypeError, "iterate, not None"),
        (list, {}, TypeError, "iterate, not <class 'list'>"),
        (
            type("Ticks", (), {"__aiter__": iter})(),
            {},
            TypeError,
            r"count an async loop with report_progress\(\)",
        ),
        ([1], {"every": 0}, ValueError, "every must be at least 1, not 0"),
        ([1], {"every": 2.5}, TypeError, "every must be an integer, not 2.5"),
        ([1], {"every": True}, TypeError, "every must be an integer, not True"),
        ([1], {"total": -1}, ValueError, "total must be at least 0, not -1"),
        ([1], {"total": "9"}, TypeError, "total must be a whole number, not '9'"),
        ([1], {"desc": 7}, TypeError, "desc must be a string, not 7"),
        ([1], {"size": 3}, TypeError, "size must be a function of one element, not 3"),
    ],
)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_bad_arguments_are_errors_at_the_call(
    iterable: Any, options: dict[str, Any], error: type[Exception], says: str, inside: bool
) -> None:
    """``track`` itself raises, and not its first item, in a run and outside alike."""
    with RecordingSink() if inside else nullcontext(), pytest.raises(error, match=says):
        track(iterable, **options)


@pytest.fixture(scope="module")
def dataset() -> datasets.Dataset:
    """A small dataset in memory, of more rows than are fetched at once."""
    return datasets.Dataset.from_dict({"id": list(range(2_500)), "text": [f"row {i}" for i in range(2_500)]})


@pytest.mark.parametrize("stop", [None, 0, 1, 2, 1000, 1001, 1002, 2499])
def test_dataset_counts_its_rows(dataset: datasets.Dataset, stop: int | None) -> None:
    """Rows fetched in batches are the same rows, and count one by one, also under ``break``."""
    with RecordingSink() as sink:
        for turn, row in enumerate(track(dataset)):
            assert sink.done == turn
            assert row == {"id": turn, "text": f"row {turn}"}
            if turn == stop:
                break
        assert sink.done == (len(dataset) if stop is None else stop)


def test_dataset_in_batches_counts_by_size(dataset: datasets.Dataset) -> None:
    """A dataset iterated by the user's own batches counts rows with ``size``."""
    with RecordingSink() as sink:
        assert len(list(track(dataset.iter(1000), size=lambda batch: len(batch["id"])))) == 3
    assert sink.done == 2_500


def test_dataset_that_fails_counts_all_it_gave(
    dataset: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If fetching rows fails, the rows before are finished."""
    batches = chain([[0, 1], [2]], (1 / 0 for _ in [None]))
    monkeypatch.setattr("speedy_utils._instrument.loops.row_batches", lambda rows: batches)
    with RecordingSink() as sink:
        rows = track(dataset)
        with pytest.raises(ZeroDivisionError):
            consume(rows)
        assert sink.done == 3


@pytest.mark.parametrize("sink", [RecordingSink, nullcontext], ids=["in a run", "outside"])
def test_one_batch_of_rows_is_held_at_a_time(
    sink: Callable[[], Any], dataset: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of rows is gone when the next is fetched: two would take twice the memory, and more cache."""
    left: list[bool] = []
    batch_type = type("Batch", (list,), {})  # a list that can be watched

    def watched(rows: Any) -> Iterator[Any]:
        for _ in range(3):
            batch = batch_type("ab")
            watch = weakref.ref(batch)
            yield batch
            del batch
            left.append(watch() is not None)

    monkeypatch.setattr("speedy_utils._instrument.loops.row_batches", watched)
    with sink():
        consume(track(dataset))
    assert left == [False] * 3
