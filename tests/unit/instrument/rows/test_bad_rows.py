"""Loops that skip elements which can't be fetched."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value

from speedy_utils import track
from speedy_utils._worker.context import counting
from speedy_utils._worker.reporter import Reporter


class Items:
    """Items by their position, of which some can't be fetched."""

    def __init__(self, size: int, *bad: int) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> int:
        if i >= self.size:
            raise IndexError(i)
        if i in self.bad:
            raise OSError(f"no item {i}")
        return i


class Stream:
    """An iterator that goes on after an exception."""

    def __init__(self, size: int, *bad: int) -> None:
        self.at, self.size, self.bad = -1, size, bad

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> int:
        self.at += 1
        if self.at in self.bad:
            raise OSError(f"no item {self.at}")
        if self.at >= self.size:
            raise StopIteration
        return self.at


def transformed(size: int, *bad: int) -> Any:
    """Return a dataset whose transform fails for some rows."""

    def transform(batch: dict[str, list[int]]) -> dict[str, list[int]]:
        if any(i in bad for i in batch["id"]):
            raise OSError(f"no item {batch['id'][0]}")
        return batch

    return Dataset.from_dict({"id": list(range(size))}).with_transform(transform)


KINDS = {"items": Items, "stream": Stream, "dataset": transformed}


def numbers(elements: list[Any]) -> list[int]:
    """Return what the elements are numbered by."""
    return [element["id"] if isinstance(element, dict) else element for element in elements]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [(), (0,), (7,), (3, 4), (0, 2, 4, 7), tuple(range(8))], ids=str)
def test_others_are_yielded_and_all_are_counted(
    kind: str, bad: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """The loop gets all others in order; bad ones count as finished, and are counted as such, and logged."""
    reporter = Reporter(0)
    seen = []
    with counting(reporter.own), caplog.at_level(logging.WARNING, "speedy_utils"):
        for element in track(KINDS[kind](8, *bad), on_bad_row="skip"):
            (number,) = numbers([element])
            assert reporter.own.raw_count() == number
            seen.append(number)
    assert seen == [i for i in range(8) if i not in bad]
    assert reporter.own.raw_count() == 8
    assert reporter.own.counters == ({"bad_rows": len(bad)} if bad else {})
    warnings = [record.getMessage() for record in caplog.records]
    named = ", ".join(f"row {i} (OSError: no item {i})" for i in bad)
    assert warnings == ([f"skipped {len(bad)} bad row{'s' * (len(bad) > 1)}: {named}"] if bad else [])


@pytest.mark.parametrize("kind", KINDS)
def test_outside_a_run(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without a run the same is skipped, and logged."""
    assert numbers(list(track(KINDS[kind](5, 1, 2), on_bad_row="skip"))) == [0, 3, 4]
    assert caplog.messages == ["skipped 2 bad rows: row 1 (OSError: no item 1), row 2 (OSError: no item 2)"]


def test_broken_images() -> None:
    """Images that can't be decoded are skipped; by default the first of them ends the loop."""
    from PIL import Image as Picture

    file = io.BytesIO()
    Picture.new("RGB", (2, 2)).save(file, "png")
    whole = file.getvalue()
    images = Dataset.from_list(
        [{"id": i, "image": {"bytes": whole[:40] if i == 2 else whole, "path": None}} for i in range(4)],
        features=Features({"id": Value("int64"), "image": Image()}),
    )
    assert numbers(list(track(images, on_bad_row="skip"))) == [0, 1, 3]
    with pytest.raises(OSError, match="cannot identify"):
        list(track(images))


def test_rows_that_python_can_not_hold() -> None:
    """Rows that are fetched in batches are skipped one by one."""
    import pyarrow as pa

    times = [0] * 2500
    times[1000] = times[1700] = 2**60
    table = pa.table({"id": list(range(2500)), "time": pa.array(times, pa.timestamp("s"))})
    got = numbers(list(track(Dataset(table), on_bad_row="skip")))
    assert got == [i for i in range(2500) if i not in (1000, 1700)]


def test_exceptions_of_the_body_are_raised() -> None:
    """What the body raises is no bad row."""

    def work() -> None:
        for i in track(Items(5, 1), on_bad_row="skip"):
            if i == 2:
                raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        work()


def generate() -> Iterator[int]:
    """Yield one item, and fail."""
    yield 0
    raise OSError("no item 1")


@pytest.mark.parametrize("kind", ["generator", "map", "zip"])
def test_generator_is_dead_after_it_raised(kind: str) -> None:
    """The error of a generator is raised, also of one inside another iterator: its other items are lost."""
    iterable: Any = {"generator": generate, "map": lambda: map(abs, generate())}.get(
        kind, lambda: zip(generate(), range(9), strict=False)
    )()
    seen: list[Any] = []
    with pytest.raises(OSError, match="no item 1"):
        seen.extend(track(iterable, on_bad_row="skip"))
    assert len(seen) == 1


def test_iterator_that_fails_for_good() -> None:
    """An iterator that fails again and again ends the loop."""
    with pytest.raises(OSError, match="no item"):
        list(track(Stream(10**6, *range(5000)), on_bad_row="skip"))


def test_size_with_bad_elements() -> None:
    """Batches that can't be fetched are skipped too."""
    reporter = Reporter(0)
    with counting(reporter.own):
        assert list(track(Items(4, 1), size=lambda _: 10, on_bad_row="skip")) == [0, 2, 3]
    assert reporter.own.raw_count() == 30


def test_on_bad_row_is_checked() -> None:
    """Another value is refused at once."""
    with pytest.raises(ValueError, match="on_bad_row must be"):
        track([], on_bad_row="warn")  # type: ignore[call-overload, arg-type, unused-ignore]  # the mistake
