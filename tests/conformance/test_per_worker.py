"""Classes as ``func`` and ``process_func``, on each backend: one instance a worker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from support.backends import RAY
from support.recorder import Recorder
from support.rows import numbered

from speedy_utils import multi_process, multi_process_dataset, track, tracked


class Worker:
    """Notes where it is made, called and closed."""

    def __init__(self, folder: Path, factor: int = 1, until: Any = None, kill: bool = False) -> None:
        self.folder, self.factor, self.kill, self.calls = folder, factor, kill, 0
        self.name = f"{os.getpid()}-{threading.get_ident()}"
        self.note("made")
        if until is not None:
            until()

    def note(self, what: str) -> None:
        """Add a line to a file of this worker."""
        with (self.folder / f"{what}-{self.name}").open("a") as file:
            file.write(f"{self.calls}\n")

    def __call__(self, item: int) -> int:
        """Return a multiple of an item."""
        self.calls += 1
        if self.kill and item == 2 and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item * self.factor

    def close(self) -> None:
        """Note how often it was called."""
        self.note("closed")


def notes(folder: Path, what: str) -> list[str]:
    """Return what the workers have noted."""
    return sorted(line for path in folder.glob(f"{what}-*") for line in path.read_text().split())


def test_each_worker_makes_one_instance(backend: str, tmp_path: Path, recorder: Recorder) -> None:
    """It is made from the keyword arguments, called with the items alone, and closed when the run ends."""
    results = multi_process(
        Worker, range(8), backend=backend, num_workers=2, folder=tmp_path, factor=3, progress=recorder
    )
    assert results == [0, 3, 6, 9, 12, 15, 18, 21]
    made = notes(tmp_path, "made")
    assert 1 <= len(made) <= (1 if backend == "seq" else 2)
    assert set(made) == {"0"}
    closed = [int(calls) for calls in notes(tmp_path, "closed")]
    assert len(closed) == len(made)
    assert sum(closed) == 8
    assert (recorder.last.done, recorder.last.complete) == (8, True)


@pytest.mark.parametrize("backend", [RAY, "processes", "threads"])
def test_the_line_says_how_many_workers_are_prepared(
    backend: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    until: Callable[..., Any],
    recorder: Recorder,
) -> None:
    """As long as instances are made, and no item is done, their number is the phase of the run."""
    if backend == "ray":
        request.getfixturevalue("ray_session")

    def seen(snapshot: Any) -> None:
        if snapshot.phase == "preparing workers 0/2":
            (tmp_path / "seen").touch()

    def wait() -> None:
        until((tmp_path / "seen").exists)

    recorder.hook = seen
    multi_process(
        Worker,
        range(4),
        backend=backend,
        num_workers=2,
        folder=tmp_path,
        until=wait,
        poll_interval=0.02,
        progress=recorder,
    )
    assert recorder.last.phase == ""


@pytest.mark.parametrize("backend", [RAY, "processes"])
def test_a_lost_worker_is_made_anew(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path, recorder: Recorder
) -> None:
    """Its task runs again, in an instance of another process."""
    if backend == "ray":
        request.getfixturevalue("ray_session")
    results = multi_process(
        Worker, range(6), backend=backend, num_workers=1, folder=tmp_path, kill=True, progress=recorder
    )
    assert results == list(range(6))
    assert len(notes(tmp_path, "made")) == 2
    assert recorder.last.done == 6
    assert recorder.last.retries >= 1  # of those that had travelled with it too


class Broken:
    """Can't be made."""

    def __init__(self) -> None:
        raise ValueError("no model")

    def __call__(self, item: int) -> int:
        """Never run."""
        return item


def test_a_class_that_can_not_be_made_ends_the_run(backend: str, recorder: Recorder) -> None:
    """The error has what ``__init__`` raised as its cause, and its traceback once."""
    with pytest.raises(RuntimeError) as caught:
        multi_process(
            Broken, range(4), backend=backend, num_workers=2, on_error="continue", progress=recorder
        )
    text = str(caught.value)
    assert text.startswith("a worker can't make its Broken: ValueError: no model")
    cause = caught.value.__cause__
    assert type(cause) is ValueError
    assert text.count("in __init__") == (cause.__traceback__ is None)
    assert recorder.last.final


class Awaited:
    """Its call is a coroutine."""

    async def __call__(self, item: int) -> int:
        """Return an item."""
        return item

    async def close(self) -> None:
        """Return."""


@pytest.mark.parametrize("backend", ["processes", "threads", "seq"])
def test_a_call_may_be_a_coroutine(backend: str) -> None:
    """An instance's calls are awaited, and so is its close()."""
    assert multi_process(Awaited, range(5), backend=backend, num_workers=2) == list(range(5))


@pytest.mark.parametrize("backend", ["processes", "threads"])
class Counter:
    """Its calls say how many items they count for."""

    @tracked(total="words")
    def __call__(self, words: list[str]) -> int:
        """Return the number of words."""
        return len(words)


class Scaled:
    """Only an instance knows how many items a call counts for."""

    def __init__(self) -> None:
        self.scale = 10

    @tracked(total=lambda self, words: self.scale * len(words))
    def __call__(self, words: list[str]) -> int:
        """Return the number of words."""
        return len(words)


@pytest.mark.parametrize(
    ("function", "total"), [(Counter, 3), (Counter(), 3), (Scaled(), 30), (Scaled, None)]
)
def test_the_items_of_tracked_calls_are_the_total(
    function: Any, total: int | None, recorder: Recorder
) -> None:
    """It is known from the start, also of a class, unless it takes an instance to say it."""
    results = multi_process(function, [["a", "b"], ["c"]], backend="seq", progress=recorder)
    assert results == [2, 1]
    assert recorder.snapshots[0].total == total or (total is None and recorder.snapshots[0].total == 2)
    assert (recorder.last.done, recorder.last.complete) == (total or 30, True)


def test_other_classes_are_called_with_each_item(backend: str) -> None:
    """As any function is."""
    assert multi_process(int, ["1", "2"], backend=backend, num_workers=2, base=16) == [1, 2]


class Rows:
    """Yields the rows of a shard."""

    def __init__(self, folder: Path, more: int) -> None:
        self.more = more
        (folder / f"{os.getpid()}-{threading.get_ident()}").touch()

    def __call__(self, dataset: Any, start: int) -> Iterator[Any]:
        """Add to the numbers."""
        for row in track(dataset):
            yield {"id": row["id"] + self.more, "start": start}


def test_a_dataset_is_processed_by_instances(backend: str, tmp_path: Path) -> None:
    """A class as ``process_func`` is made from its arguments once a worker, and called with each shard."""
    made = tmp_path / "made"
    made.mkdir()
    path = multi_process_dataset(
        numbered(12),
        Rows,
        str(tmp_path / "out"),
        process_func_kwargs={"folder": made, "more": 100},
        backend=backend,
        num_workers=1,
        num_shards=4,
    )
    rows = load_from_disk(path)
    assert rows["id"][:] == list(range(100, 112))
    assert sorted(set(rows["start"][:])) == [0, 3, 6, 9]
    assert len(list(made.iterdir())) == 1
