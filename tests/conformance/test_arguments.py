"""Arguments are checked before anything starts, on each backend."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.recorder import Recorder

from speedy_utils import TaskError, multi_process
from speedy_utils._engines.base import WorkSpec
from speedy_utils._engines.in_process.sequential import SequentialEngine

# name: (arguments, the error, what it must say)
BAD: dict[str, tuple[dict[str, Any], type[Exception], list[str]]] = {
    "unknown backend": ({"backend": "RAY"}, ValueError, ["'ray', 'processes', 'threads', 'seq'", "'RAY'"]),
    "func is no function": ({"func": 3}, TypeError, ["func", "3"]),
    "items can't be iterated": ({"items": 5}, TypeError, ["items", "int", "iter", "range(5)"]),
    "items are a string": ({"items": "text"}, TypeError, ["items", "str", "[text]", "splitlines()"]),
    "no workers": ({"num_workers": 0}, ValueError, ["num_workers", "at least 1", "0"]),
    "negative workers": ({"num_workers": -2}, ValueError, ["num_workers", "-2"]),
    "half a worker": ({"num_workers": 1.5}, TypeError, ["num_workers", "1.5"]),
    "True workers": ({"num_workers": True}, TypeError, ["num_workers", "True"]),
    "negative total": ({"total_items": -1}, ValueError, ["total_items", "-1"]),
    "half a total": ({"total_items": 2.5}, TypeError, ["total_items", "2.5"]),
    "total as text": ({"total_items": "3"}, TypeError, ["total_items", "'3'"]),
    "a total of a list": ({"total_items": [3]}, TypeError, ["total_items", "[3]"]),
    "total gives a negative": ({"total_items": lambda i: -3}, ValueError, ["total_items", "-3"]),
    "total gives a float": ({"total_items": lambda i: 0.5}, ValueError, ["total_items", "0.5"]),
    "total can't tell": ({"total_items": len}, TypeError, ["total_items failed for item 0 (1)", "len"]),
    "total fails": ({"total_items": lambda i: 6 // (2 - i)}, ValueError, ["item 1 (2)", "ZeroDivisionError"]),
    "unknown on_error": ({"on_error": "ignore"}, ValueError, ["on_error", "raise", "continue", "ignore"]),
    "negative initial": ({"initial": -1}, ValueError, ["initial", "-1"]),
    "initial above the total": ({"initial": 5, "total_items": 4}, ValueError, ["total_items", "5", "4"]),
    "negative retries": ({"max_retries": -1}, ValueError, ["max_retries", "-1"]),
    "half a retry": ({"max_retries": 0.5}, TypeError, ["max_retries", "0.5"]),
    "retries as None": ({"max_retries": None}, TypeError, ["max_retries", "None"]),
    "no interval": ({"poll_interval": 0}, ValueError, ["poll_interval", "0"]),
    "negative interval": ({"poll_interval": -0.3}, ValueError, ["poll_interval", "-0.3"]),
    "interval as text": ({"poll_interval": "1"}, TypeError, ["poll_interval", "'1'"]),
    "interval is no number": ({"poll_interval": math.nan}, ValueError, ["poll_interval", "nan"]),
    "endless interval": ({"poll_interval": math.inf}, ValueError, ["poll_interval", "inf"]),
    "stalled at once": ({"stall_after": 0}, ValueError, ["stall_after", "0"]),
    "stalled before": ({"stall_after": -1.5}, ValueError, ["stall_after", "-1.5"]),
    "stalled after no number": ({"stall_after": math.nan}, ValueError, ["stall_after", "nan"]),
    "stalled after True": ({"stall_after": True}, TypeError, ["stall_after", "True"]),
    "stalled after a text": ({"stall_after": "300"}, TypeError, ["stall_after", "'300'"]),
    "desc is no text": ({"desc": 3}, TypeError, ["desc", "3"]),
    "unknown worker_logs": (
        {"worker_logs": "last"},
        ValueError,
        ["worker_logs", "all", "first", "none", "last"],
    ),
    "worker_logs as a number": ({"worker_logs": 1}, ValueError, ["worker_logs", "1"]),
    "worker_logs as a list": ({"worker_logs": ["all"]}, ValueError, ["worker_logs", "['all']"]),
    "options are no mapping": ({"ray_options": ["num_cpus"]}, TypeError, ["ray_options", "num_cpus"]),
    "retries of Ray": ({"ray_options": {"max_retries": 1}}, ValueError, ["ray_options", "max_retries"]),
    "returns of Ray": ({"ray_options": {"num_returns": 2}}, ValueError, ["ray_options", "num_returns"]),
}


@pytest.fixture(params=["ray", "threads", "seq"])
def unstarted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend, none of which may start."""

    def start(*_: Any) -> None:
        raise AssertionError("an engine was started")

    monkeypatch.setattr("speedy_utils._api.arguments.options.engine_class", start)
    return str(request.param)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_an_error_before_anything_starts(
    unstarted: str, recorder: Recorder, case: str
) -> None:
    """A bad argument is an error that names it and its value, before an engine or a bar starts."""
    bad, kind, said = BAD[case]
    good: dict[str, Any] = {"func": abs, "items": [1, 2], "backend": unstarted}
    with pytest.raises(kind) as caught:
        multi_process(**(good | bad), progress=recorder)
    for part in said:
        assert part in str(caught.value)
    assert recorder.runs == []


@pytest.mark.parametrize("items", [[], [1]], ids=["no items", "one item"])
def test_bad_arguments_are_errors_without_items_too(items: list[int]) -> None:
    """A bad argument is an error even where there is nothing to do."""
    with pytest.raises(ValueError, match="num_workers"):
        multi_process(abs, items, backend="seq", num_workers=0)
    with pytest.raises(ValueError, match="total_items"):
        multi_process(abs, items, backend="seq", total_items=-1)


def test_numpy_numbers_of_workers_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's integers will do, and an engine gets Python's own: Ray refuses others."""
    workers: list[int] = []
    init = SequentialEngine.__init__

    def note(engine: SequentialEngine, work: WorkSpec) -> None:
        workers.append(work.workers)
        init(engine, work)

    monkeypatch.setattr(SequentialEngine, "__init__", note)
    two = np.int64(2)
    assert multi_process(abs, [-1, 2, 3], backend="seq", num_workers=two, max_retries=two) == [1, 2, 3]  # type: ignore[arg-type]
    assert [type(number) for number in workers] == [int]


def test_bad_arguments_do_not_even_import_ray(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A bad argument is an error at once: Ray is neither imported nor started for it."""
    done = driver(
        """
import sys
from speedy_utils import TaskError, multi_process
for bad in [dict(backend="spark"), dict(num_workers=0), dict(total_items=-1), dict(on_error="x"),
            dict(max_retries=-1), dict(poll_interval=0), dict(ray_options={"max_retries": 1}), dict(desc=1)]:
    try:
        multi_process(abs, [1], **bad)
    except (TypeError, ValueError):
        continue
    raise SystemExit(f"{bad} passed")
print("ray" in sys.modules)
"""
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.parametrize(
    ("progress", "disable", "silent"),
    [(True, None, False), (False, None, True), (True, "1", True), (True, "0", False), (False, "0", True)],
)
def test_progress_can_be_turned_off(
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    progress: bool,
    disable: str | None,
    silent: bool,
) -> None:
    """progress=False and TQDM_DISABLE=1 show nothing, and change no result."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if disable is not None:
        monkeypatch.setenv("TQDM_DISABLE", disable)
    monkeypatch.setenv("SPEEDY_UTILS_PROGRESS", "log")
    caplog.set_level("INFO", "speedy_utils.progress")
    results = multi_process(len, ["a", "bb"], backend=backend, total_items=len, progress=progress)
    assert results == [1, 2]
    assert ("speedy_utils.progress" not in [record.name for record in caplog.records]) == silent


def joined(left: str, right: str = "?", *, by: str) -> str:
    """Take several arguments."""
    return left + by + right


def test_items_may_be_all_arguments_of_a_call(backend: str, recorder: Recorder) -> None:
    """With star=True tuples are arguments and mappings are keywords; errors show the item as it was given."""
    items = [("a", "b"), {"right": "c", "left": "d"}, ("e",)]
    options: Any = {"backend": backend, "num_workers": 2, "star": True, "progress": recorder}
    assert multi_process(joined, items, by="-", **options) == ["a-b", "d-c", "e-?"]
    assert (recorder.last.done, recorder.last.total) == (3, 3)
    with pytest.raises(TaskError) as caught:
        multi_process(joined, [("a", "b"), ("c", 4)], by="-", **{**options, "num_workers": 1})
    assert (caught.value.item, caught.value.index) == (("c", 4), 1)
    assert caught.value.results[0] == "a-b"


@pytest.mark.parametrize("backend", ["seq"], indirect=True)
def test_what_was_done_before_is_in_the_count_and_not_in_the_rate(backend: str, recorder: Recorder) -> None:
    """initial= counts tasks where the run counts these, and items where it counts those, as tqdm does."""
    for total_items, initial, last in (
        (None, 7, (10, 10)),
        (lambda i: 5, 100, (115, 115)),
        (20, 5, (20, 20)),
    ):
        multi_process(
            abs, range(3), backend=backend, total_items=total_items, initial=initial, progress=recorder
        )
        first = recorder.runs[-1][0]
        assert (first.done, first.initial) == (initial, initial)
        assert (recorder.last.done, recorder.last.total) == last
        assert (recorder.last.tasks_done, recorder.last.tasks_total) == (3, 3)
