"""What a run returns, on each backend."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.backends import AT_ONCE
from support.recorder import Recorder

from speedy_utils import multi_process


def test_results_come_in_the_order_of_the_items(
    backend: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """Results are in the order of the items, also where later tasks end first."""
    at_once = backend != "seq"

    def first_ends_last(i: int) -> int:
        if i == 0 and at_once:
            until(lambda: len(list(tmp_path.iterdir())) == 5)
        (tmp_path / str(i)).touch()
        return i * i

    assert multi_process(first_ends_last, range(6), backend=backend, num_workers=3) == [0, 1, 4, 9, 16, 25]


class Scale:
    """Something with a method, and that can be called."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def apply(self, x: int) -> int:
        """Multiply."""
        return self.factor * x

    @classmethod
    def double(cls, x: int) -> int:
        """Multiply by two."""
        return cls(2).apply(x)

    @staticmethod
    def negate(x: int) -> int:
        """Change the sign."""
        return -x

    def __call__(self, x: int) -> int:
        """Multiply and add one."""
        return self.apply(x) + 1


def add(x: int, y: int, *, z: int = 0) -> int:
    """Add up."""
    return x + y + z


def closure() -> Callable[[int], str]:
    """Return a function that uses a variable of this one."""
    names = ["a", "b", "c"]
    return lambda i: names[i]


FUNCTIONS: dict[str, tuple[Callable[[int], Any], list[Any]]] = {
    "a lambda": (lambda x: x + 1, [1, 2, 3]),
    "a partial": (functools.partial(add, 10, z=100), [110, 111, 112]),
    "a method": (Scale(3).apply, [0, 3, 6]),
    "a class method": (Scale.double, [0, 2, 4]),
    "a static method": (Scale.negate, [0, -1, -2]),
    "a callable object": (Scale(3), [1, 4, 7]),
    "a class": (complex, [0j, 1 + 0j, 2 + 0j]),
    "a builtin": (abs, [0, 1, 2]),
    "a closure": (closure(), ["a", "b", "c"]),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_anything_callable_will_do(backend: str, kind: str) -> None:
    """The function may be anything that can be called, whether or not it has a name."""
    func, expected = FUNCTIONS[kind]
    assert multi_process(func, range(3), backend=backend, num_workers=2) == expected


def test_named_arguments_reach_every_task(backend: str) -> None:
    """Arguments that multi_process does not know go to the function, with every task."""
    assert multi_process(add, range(3), backend=backend, num_workers=2, y=10, z=100) == [110, 111, 112]


@pytest.mark.parametrize("items", [[], (), range(0), iter(())], ids=["list", "tuple", "range", "iterator"])
def test_no_items_give_no_results(backend: str, items: Any, recorder: Recorder) -> None:
    """Without items the result is an empty list, and no bar is drawn."""
    assert multi_process(abs, items, backend=backend, progress=recorder) == []
    assert recorder.runs == []


def test_items_may_come_from_a_generator(backend: str) -> None:
    """Items may be anything that can be iterated."""
    assert multi_process(abs, (-i for i in range(4)), backend=backend, num_workers=2) == [0, 1, 2, 3]
    assert multi_process(abs, {-1: "a", -2: "b"}, backend=backend, num_workers=2) == [1, 2]
    assert multi_process(abs, np.arange(-2, 1), backend=backend, num_workers=2) == [2, 1, 0]


class Watched(Sequence[int]):
    """Says how many tasks had ended whenever an item was looked up."""

    def __init__(self, folder: Path, length: int) -> None:
        self.folder, self.length = folder, length
        self.ended: dict[int, int] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: Any) -> Any:
        self.ended[i] = len(list(self.folder.iterdir()))
        return i


def test_items_are_looked_up_when_their_task_starts(backend: str, tmp_path: Path) -> None:
    """An item of a sequence is looked up once a worker is free for it, not ahead."""
    items = Watched(tmp_path, 12)
    multi_process(lambda i: (tmp_path / str(i)).touch(), items, chunksize=1, backend=backend, num_workers=3)
    assert set(items.ended) == set(range(12))
    assert all(ended > i - 3 for i, ended in items.ended.items())


def test_arrays_and_large_results_come_back_whole(backend: str) -> None:
    """NumPy arrays, and results of many megabytes, arrive as they were."""
    arrays = multi_process(lambda n: np.arange(n, dtype=np.int64), [3, 2_000_000], backend=backend)
    assert [array.shape for array in arrays] == [(3,), (2_000_000,)]
    assert (arrays[1] == np.arange(2_000_000)).all()
    texts = multi_process(lambda letter: letter * 20_000_000, list("ab"), backend=backend, num_workers=2)
    assert [(len(text), text[-1]) for text in texts] == [(20_000_000, "a"), (20_000_000, "b")]


def test_a_result_may_be_none_or_an_exception(backend: str) -> None:
    """An exception that a function returns is a result, and so is None."""
    found = multi_process(lambda i: ValueError("no") if i else None, [0, 1], backend=backend, num_workers=2)
    assert found[0] is None
    assert isinstance(found[1], ValueError)


def running_at_once(folder: Path, until: Callable[..., Any] | None = None) -> Callable[[int], int]:
    """A task that says how many tasks were running with it, itself included."""

    def task(i: int) -> int:
        (folder / str(i)).touch()
        try:
            if until is not None:
                until(lambda: len(list(folder.iterdir())) > 1)
            else:
                time.sleep(0.03)
            return len(list(folder.iterdir()))
        finally:
            if until is None:
                (folder / str(i)).unlink()

    return task


def test_no_more_tasks_run_than_there_are_workers(backend: str, tmp_path: Path) -> None:
    """At most num_workers tasks run at once."""
    at_once = multi_process(running_at_once(tmp_path), range(10), backend=backend, num_workers=2)
    assert max(at_once) <= (1 if backend == "seq" else 2)


@pytest.mark.parametrize("backend", AT_ONCE, indirect=True)
def test_workers_work_at_the_same_time(backend: str, tmp_path: Path, until: Callable[..., Any]) -> None:
    """With two workers two tasks run at once."""
    at_once = multi_process(running_at_once(tmp_path, until), range(2), backend=backend, num_workers=2)
    assert at_once == [2, 2]


@pytest.mark.parametrize("num_workers", [1, 50])
def test_any_number_of_workers_will_do(backend: str, num_workers: int) -> None:
    """One worker does all tasks, and more workers than items are no error."""
    assert multi_process(abs, range(-3, 0), backend=backend, num_workers=num_workers) == [3, 2, 1]


def test_threads_end_with_the_run(backend: str, until: Callable[..., Any]) -> None:
    """After a run no thread of the package is left in the driver."""
    before = {*threading.enumerate()}
    multi_process(abs, range(4), backend=backend, num_workers=2)

    def left() -> list[threading.Thread]:
        return [thread for thread in {*threading.enumerate()} - before if "speedy_utils" in thread.name]

    until(lambda: not left())
