"""What travels to Ray workers, and what can't."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder

from speedy_utils import TaskError, multi_process

pytestmark = pytest.mark.ray

Driver = Callable[..., "subprocess.CompletedProcess[str]"]


class Shipped:
    """Notes in a file whenever it is pickled."""

    def __init__(self, path: Path, value: int) -> None:
        self.path, self.value = path, value

    def __reduce__(self) -> tuple[Any, ...]:
        with self.path.open("a") as file:
            file.write("x")
        return Shipped, (self.path, self.value)

    def __call__(self, i: int) -> int:
        """Add."""
        return i + self.value


@pytest.mark.parametrize("as_argument", [True, False])
def test_what_all_tasks_share_is_shipped_once(ray_session: None, tmp_path: Path, as_argument: bool) -> None:
    """The function, and named arguments, are pickled once a run, not once a task."""
    shipped = Shipped(tmp_path / "pickled", 5)
    if as_argument:
        results = multi_process(lambda i, add: add(i), range(10), num_workers=2, add=shipped)
    else:
        results = multi_process(shipped, range(10), num_workers=2)
    assert results == list(range(5, 15))
    assert shipped.path.read_text() == "x"


class Locked:
    """Can't be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        return "Locked()"


def test_a_function_that_can_not_be_sent_is_named(ray_session: None, recorder: Recorder) -> None:
    """A function that can't be pickled is an error that names it, and says why."""
    lock = threading.Lock()

    def takes_lock(i: int) -> bool:
        return lock.locked()

    with pytest.raises(TypeError, match=r"func can't be sent to a worker: .*takes_lock") as caught:
        multi_process(takes_lock, [1], progress=recorder)
    assert "lock" in str(caught.value)
    assert recorder.last.final


class Refuses:
    """Raises an exception of its own when it is pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("I stay here")

    def __repr__(self) -> str:
        return "Refuses()"


@pytest.mark.parametrize(("value", "cause"), [(Locked(), "lock"), (Refuses(), "I stay here")], ids=repr)
def test_a_value_that_can_not_be_sent_is_named(ray_session: None, value: Any, cause: str) -> None:
    """Whatever pickling raises, the error names the value, its position if it is an item, and the cause."""
    recorder, name = Recorder(), re.escape(repr(value))
    with pytest.raises(TaskError, match=rf"(?s)task 1 \(item {name}\) .* its item can't be sent .*{cause}"):
        multi_process(lambda item: 1, [1, value, 3], num_workers=1, progress=recorder)
    assert recorder.last.final
    with pytest.raises(TypeError, match=rf"(?s)keyword arguments can't be sent .*it.*{cause}"):
        multi_process(lambda item, it: 1, [0], it=value)


def test_a_result_that_can_not_be_sent_is_named(ray_session: None, recorder: Recorder) -> None:
    """A result that can't be pickled fails its task, with the reason."""
    results = multi_process(
        lambda i: Locked() if i == 1 else i, range(3), num_workers=2, on_error="continue", progress=recorder
    )
    assert (results[0], results[2]) == (0, 2)
    assert isinstance(results[1], TaskError)
    assert results[1].index == 1
    assert results[1].attempts == 1
    assert "result" in results[1].reason
    assert "lock" in results[1].reason
    assert recorder.last.tasks_failed == 1


class Unreadable:
    """Pickles, and can't be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("not a number",)


@pytest.mark.parametrize("is_item", [True, False])
def test_a_value_that_can_not_be_read_is_named(ray_session: None, is_item: bool) -> None:
    """An item or a result that can't be unpickled fails its task, with the reason."""
    items = [0, Unreadable() if is_item else 1, 0]
    results = multi_process(
        lambda item: Unreadable() if item else 5, items, num_workers=2, on_error="continue"
    )
    assert (results[0], results[2]) == (5, 5)
    assert isinstance(results[1], TaskError)
    assert "not a number" in results[1].reason


def test_tasks_run_in_other_processes(ray_session: None) -> None:
    """Tasks run in workers, not in the driver."""
    assert os.getpid() not in multi_process(lambda _: os.getpid(), range(3), num_workers=2)


TRACKED = '''
import inspect
import ray
from speedy_utils import create_progress_tracker, multi_process, set_progress_context, track, tracked

@tracked(total="words")
def upper(words: list[str], *, mark: str = "!") -> list[str]:
    """Shout."""
    return [word.upper() + mark for word in track(words)]

class Counter:
    @tracked(total="words")
    def count(self, words):
        return len(words)

    @classmethod
    @tracked(total="words")
    def many(cls, words):
        return len(words)

    @staticmethod
    @tracked(total="words")
    def few(words):
        return -len(words)

@tracked
def each(words):
    yield from words

def drain(words):
    return list(each(words))

@tracked
@tracked
def twice(word):
    return word + word

@ray.remote
@tracked(total=3)
def remote(actor, word):
    return word

@ray.remote
def bound(actor, words):
    with set_progress_context(actor):
        return upper(words)

def called(f):
    def call(*args, **kwargs):
        return f(*args, **kwargs)
    return call

@called
@tracked(total=2)
def outside(word):
    return word

@tracked(total=2)
@called
def inside(word):
    return word

if __name__ == "__main__":
    items = [["a", "b"], ["c"]]
    print(multi_process(upper, items, num_workers=2))
    print(multi_process(upper, items, num_workers=2, mark="?"))
    print(multi_process(Counter().count, items, num_workers=2))
    print(multi_process(Counter.many, items, num_workers=2))
    print(multi_process(Counter.few, items, num_workers=2))
    print(multi_process(drain, items, num_workers=2, total_items=len))
    print(multi_process(twice, ["a"], num_workers=1))
    print(multi_process(outside, ["a"], num_workers=1))
    print(multi_process(inside, ["a"], num_workers=1))
    actor = create_progress_tracker(2)
    print(ray.get(remote.remote(actor, "x")))
    print(ray.get(bound.remote(actor, ["a", "b"])))
    print(inspect.signature(upper), upper.__name__, upper.__doc__, upper.__module__)
    copy = ray.cloudpickle.loads(ray.cloudpickle.dumps(upper))
    print(inspect.signature(copy), copy.__name__, copy.__doc__, copy(["a"]))
'''


def test_tracked_functions_of_the_program_reach_the_workers(head: Any, driver: Driver) -> None:
    """Tracked functions, methods and generators that the program itself defines run in workers."""
    done = driver(TRACKED, env={"RAY_ADDRESS": head.address, **head.token})
    assert done.returncode == 0, done.stderr
    signature = "(words: list[str], *, mark: str = '!') -> list[str] upper Shout."
    assert done.stdout.splitlines() == [
        "[['A!', 'B!'], ['C!']]",
        "[['A?', 'B?'], ['C?']]",
        "[2, 1]",
        "[2, 1]",
        "[-2, -1]",
        "[['a', 'b'], ['c']]",
        "['aa']",
        "['a']",
        "['a']",
        "x",
        "['A!', 'B!']",
        f"{signature} __main__",
        f"{signature} ['A!']",
    ]
    # A run that waits for longer than two seconds for workers has a line for that.
    lines = [line for line in done.stderr.splitlines() if " 100% " in line]
    ends = [line.partition("% ")[2].split(" in ")[0] for line in lines]
    assert ends[:9] == ["3/3", "3/3", "3/3", "3/3", "3/3", "3/3", "1/1", "2/2", "2/2"]
