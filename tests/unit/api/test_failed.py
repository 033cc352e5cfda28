"""What is logged of tasks that fail while their run goes on."""

from __future__ import annotations

import pytest

from speedy_utils import TaskError, multi_process


def test_the_first_ten_are_logged_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The first ten have a line each with item and reason, and each kind one traceback."""

    def work(n: int) -> int:
        if n % 3 == 0:
            raise ValueError(f"no {n}")
        if n % 3 == 1:
            return 1 // 0
        return n

    results = multi_process(work, range(30), backend="seq", progress=False, on_error="continue")
    assert sum(isinstance(each, TaskError) for each in results) == 20
    *first, last = caplog.messages
    assert len(first) == 10
    assert first[0].startswith("task 0 (item 0) failed after 1 attempt: ValueError: no 0\n\nTraceback")
    assert first[1].startswith("task 1 (item 1) failed after 1 attempt: ZeroDivisionError: ")
    assert first[2:4] == [
        "task 3 (item 3) failed after 1 attempt: ValueError: no 3",
        f"task 4 (item 4) failed after 1 attempt: {results[4].reason}",
    ]
    assert sum("Traceback" in message for message in first) == 2
    assert last == "10 more tasks failed: 5 ValueError, 5 ZeroDivisionError"


def test_the_others_are_counted_also_if_the_run_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C does not leave out how many have failed."""

    def work(n: int) -> None:
        if n == 11:
            raise KeyboardInterrupt
        raise ValueError(n)

    with pytest.raises(KeyboardInterrupt):
        multi_process(work, range(20), backend="seq", progress=False, on_error="continue")
    assert caplog.messages[10] == "1 more task failed: 1 ValueError"
