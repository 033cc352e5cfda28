"""``track`` counts to the item, however a loop ends, and changes nothing else."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import datasets
import numpy as np
import pytest

from speedy_utils import track
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import RecordingSink


class Boom(Exception):
    """What goes wrong in these tests."""


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

    class Node:
        pass

    with RecordingSink() as sink:
        node: Any = Node()
        node.me, node.items = node, track([1, 2, 3])
        next(node.items)
        next(node.items)
        del node
        assert sink.done == 1
        gc.collect()
        assert sink.done == 1


@any_source
def test_nothing_is_read_ahead(source: Callable[[int], Iterable[int]]) -> None:
    """The input is asked for an item only when the loop is."""
    asked = []

    def watched() -> Iterator[int]:
        for item in source(5):
            asked.append(item)
            yield item

    with RecordingSink():
        for kind in (watched(), map(int, watched())):
            asked.clear()
            items = track(kind)
            assert asked == []
            for turn, _ in enumerate(items, 1):
                assert len(asked) == turn


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


def test_position_is_visible_from_another_thread_amid_an_item() -> None:
    """A slow loop is seen where it is, whatever ``every``."""
    reached, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        for item in track(range(5), every=1_000_000):
            if item == 3:
                reached.set()
                go_on.wait(30)

    with RecordingSink() as sink:
        thread = threading.Thread(target=slow)
        thread.start()
        assert reached.wait(30)
        assert sink.done == 3
        go_on.set()
        thread.join()
        assert sink.done == 5


def test_two_loops_in_one_stage_add_up() -> None:
    """Loops of the same stage add their items, and the totals that they declare."""
    with RecordingSink() as sink:
        for rows in ([1, 2], "abc"):
            for _ in track(rows, desc="Read"):
                pass
    assert sink.stages == {"Read": 5}
    assert sink.totals == {"Read": 5}
    assert sink.done == 0


def test_nested_loops_count_where_they_belong() -> None:
    """A loop within a loop adds to its own stage."""
    with RecordingSink() as sink:
        for _ in track([1, 2]):
            for _ in track("abc", desc="Inner"):
                pass
            for _ in track("ab"):
                pass
    assert sink.done == 2 + 4
    assert sink.stages == {"Inner": 6}


def test_sized_input_declares_its_length_where_it_is_named() -> None:
    """The total of a named stage is known from sized input; unsized input declares none."""
    with RecordingSink() as sink:
        list(track(range(3), desc="Sized"))
        list(track(iter(range(3)), desc="Unsized"))
        list(track(iter(range(3)), desc="Given", total=30))
        list(track(range(3)))
        list(track(range(3), total=4))
    assert sink.totals == {"Sized": 3, "Given": 30, None: 4}
    assert sink.stages == {"Sized": 3, "Unsized": 3, "Given": 3}


def test_a_loop_that_never_starts_declares_nothing() -> None:
    """An iterator that is not asked for an item neither counts nor declares."""
    with RecordingSink() as sink:
        items = track([1, 2], desc="Read")
        assert sink.stages == sink.totals == {}
        del items


def test_size_counts_batches_by_their_items() -> None:
    """An element counts for as many items as ``size`` says, once it is finished."""
    seen = []
    with RecordingSink() as sink:
        for batch in track(["abc", "", "de"], size=len):
            seen += [(batch, sink.done)]
        assert sink.done == 5
    assert seen == [("abc", 0), ("", 3), ("de", 3)]


def test_size_counts_what_was_finished_at_a_break() -> None:
    """Batches count whole, and the one in hand at a ``break`` does not."""
    with RecordingSink() as sink:
        for batch in track(["abc", "de", "f"], size=len, desc="Read"):
            if batch == "de":
                break
    assert sink.stages == {"Read": 3}
    assert sink.totals == {}


@pytest.mark.parametrize(("size", "error"), [(-1, ValueError), (1.5, TypeError), (None, TypeError)])
def test_bad_size_is_an_error_at_its_element(size: Any, error: type[Exception]) -> None:
    """A size that is no count is an error that shows it, and what was finished counts."""
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
        ([1], {"every": 0}, ValueError, "every must be at least 1, not 0"),
        ([1], {"every": 2.5}, TypeError, "every must be an integer, not 2.5"),
        ([1], {"every": True}, TypeError, "every must be an integer, not True"),
        ([1], {"total": -1}, ValueError, "total must be at least 0, not -1"),
        ([1], {"total": "9"}, TypeError, "total must be an integer, not '9'"),
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


def test_async_input_is_refused_with_a_hint() -> None:
    """For an async loop the error names what counts there."""

    async def ticks() -> Any:
        yield 1

    with pytest.raises(TypeError, match="report_progress"):
        track(ticks())


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
        batches = list(track(dataset.iter(1000), size=lambda batch: len(batch["id"])))
    assert len(batches) == 3
    assert sink.done == 2_500


def test_dataset_that_fails_counts_all_it_gave(
    dataset: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fetching rows fails, the rows before are finished."""

    def failing(rows: Any) -> Iterator[list[Any]]:
        yield [rows[0], rows[1]]
        yield [rows[2]]
        raise Boom

    monkeypatch.setattr("speedy_utils._instrument.loops.row_batches", failing)
    with RecordingSink() as sink:
        rows = track(dataset)
        with pytest.raises(Boom):
            consume(rows)
        assert sink.done == 3


class Batch(list[Any]):
    """A list that can be watched."""


@pytest.mark.parametrize("sink", [RecordingSink, nullcontext], ids=["in a run", "outside"])
def test_one_batch_of_rows_is_held_at_a_time(
    sink: Callable[[], Any], dataset: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of rows is gone when the next is fetched: two would take twice the memory, and more cache."""
    left: list[bool] = []

    def watched(rows: Any) -> Iterator[Batch]:
        for start in range(3):
            batch = Batch([rows[start], rows[start + 1]])
            watch = weakref.ref(batch)
            yield batch
            del batch
            left.append(watch() is not None)

    monkeypatch.setattr("speedy_utils._instrument.loops.row_batches", watched)
    with sink():
        consume(track(dataset))
    assert left == [False] * 3


def test_streamed_dataset_counts_its_rows(dataset: datasets.Dataset) -> None:
    """An iterable dataset is iterated as it is."""
    with RecordingSink() as sink:
        rows = list(track(dataset.to_iterable_dataset()))
    assert rows[-1] == {"id": 2_499, "text": "row 2499"}
    assert sink.done == 2_500


class Loader(list[int]):
    """Has no length although its class has one, as torch's loaders over a stream."""

    def __len__(self) -> int:
        raise TypeError("a stream has no length")


def test_a_length_that_fails_is_none() -> None:
    """A loop needs no length: if asking for it fails, its stage has no total of its own."""
    with RecordingSink() as sink:
        consume(track(Loader([1, 2, 3]), desc="Read"))
    assert (sink.stages, sink.totals) == ({"Read": 3}, {})
