"""What the exceptions say: short, however much failed."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

from speedy_utils import UNFINISHED, FailedShardsError, Interrupted, TaskError


def failure(index: int, reason: str, line: int = 3) -> TaskError:
    """Return the error of a shard whose function raised on a line."""
    frames = f'  File "work.py", line {line}, in work\n    one[row]\n' * 5
    traceback = f"Traceback (most recent call last):\n{frames}{reason}\n"
    return TaskError(index, f"shard {index} (rows {index})", 1, reason, traceback)


def test_each_kind_of_error_is_shown_once_with_its_shards() -> None:
    """Two hundred shards of one error make one traceback; another line or type of error has its own."""
    errors = [failure(n, "ValueError: bad") for n in range(200) if n not in (5, 7)]
    errors += [failure(5, "KeyError: 'a'"), failure(7, "ValueError: bad", line=9)]
    text = str(pickle.loads(pickle.dumps(FailedShardsError("200 of 200 shards failed", errors))))
    assert text.startswith("200 of 200 shards failed\n\nshard 0 (rows 0) failed after 1 attempt: ValueError")
    assert "\n\nThe same in 197 more: shards 1-4, 6, 8-199\n\nshard 5 (rows 5) failed after" in text
    assert text.count("Traceback in the worker") == 3
    assert len(text) < 2_000


def test_errors_of_one_kind_may_have_different_messages() -> None:
    """The first messages that differ are listed below the shards, without their tracebacks."""
    errors = [failure(n, f"KeyError: 'name {n}'") for n in range(20)]
    text = str(FailedShardsError("20 of 20 shards failed", errors))
    assert text.count("Traceback in the worker") == 1
    assert "The same in 19 more: shards 1-19\n  - shard 1 (rows 1): KeyError: 'name 1'\n" in text
    assert text.endswith("\n  - ... and 14 more messages")


def test_lost_workers_are_one_kind_whatever_their_numbers() -> None:
    """Without a traceback, messages that differ in processes and addresses are one kind."""
    errors = [TaskError(n, f"shard {n}", 4, f"process {70 + n} on node 0af{n} died") for n in range(2)]
    text = str(FailedShardsError("2 of 2 shards failed", errors))
    assert "\n\nThe same in 1 more: shard 1\n  - shard 1: process 71 on node 0af1 died" in text


def test_many_kinds_are_shown_up_to_a_limit() -> None:
    """Ten kinds are shown in full, and the number of the others."""
    text = str(FailedShardsError("all failed", [failure(n, "E: x", line=n) for n in range(30)]))
    assert text.count("Traceback in the worker") == 10
    assert text.endswith("\n\n... and errors of 20 more kinds")


def test_a_list_of_errors_prints_as_a_line_each() -> None:
    """The repr of an error is short and has no traceback, whatever its item and its message are."""
    shown = repr([failure(7, "ValueError: one\ntwo " + "x" * 5_000)])
    assert shown.startswith("[<TaskError: task 7 (item 'shard 7 (rows 7)'): ValueError: one two xxx")
    assert len(shown) < 300
    assert "\n" not in shown


def test_a_traceback_that_python_shows_is_not_repeated() -> None:
    """An error whose cause has a traceback, as on threads, leaves it to that one."""
    error = failure(7, "ValueError: bad")
    assert "Traceback in the worker" in str(error)
    with pytest.raises(ValueError, match="bad") as caught:
        raise ValueError("bad")
    error.__cause__ = caught.value
    assert str(error) == "task 7 (item 'shard 7 (rows 7)') failed after 1 attempt: ValueError: bad"


@pytest.mark.parametrize("error", [failure(1, "ValueError: bad"), Interrupted("stopped")])
def test_an_error_travels_with_the_results_that_can(error: Any) -> None:
    """An error can be pickled with its results, whatever these are; what is left out counts as unfinished."""
    error.results = [0, UNFINISHED, threading.Lock(), "d"]
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), twin.args) == (type(error), error.args)
    assert twin.results == [0, UNFINISHED, UNFINISHED, "d"]
    assert len(error.results) == 4


def test_there_is_one_unfinished() -> None:
    """It is the same after every copy, says what it is, and is false as None is."""
    copies = [copy.copy(UNFINISHED), copy.deepcopy([UNFINISHED])[0], type(UNFINISHED)()]
    copies += [pickle.loads(pickle.dumps(UNFINISHED, protocol)) for protocol in range(6)]
    assert all(each is UNFINISHED for each in copies)
    assert (repr(UNFINISHED), bool(UNFINISHED)) == ("UNFINISHED", False)
