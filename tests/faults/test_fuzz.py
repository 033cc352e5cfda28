"""Any arguments at all: a right answer or a documented error, never a hang, never another exception.

``SPEEDY_UTILS_ROUNDS`` above its default of 1 looks further.
"""

# ruff: noqa: PT017 - most calls may succeed as well as fail, each in its own way

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.rounds import ROUNDS
from tqdm import tqdm

from speedy_utils import (
    FailedShardsError,
    ProgressActor,
    ProgressPoller,
    Snapshot,
    TaskError,
    create_progress_tracker,
    multi_process,
    multi_process_dataset,
    report_progress,
    set_progress_context,
    track,
    tracked,
)
from speedy_utils.testing import FakeClock, RecordingSink

EXAMPLES = 50 * ROUNDS


def fuzz(*strategies: Any, **named: Any) -> Callable[[Any], Any]:
    """Try a function with many arguments; a busy machine is no failure."""

    def decorate(function: Any) -> Any:
        options = settings(
            deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True
        )
        return options(given(*strategies, **named)(function))

    return decorate


class Odd:
    """Says nothing about itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Stubborn:
    """Has a length, and refuses everything else."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        raise OSError("refused")


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([10**30, -(10**30), 2**63]),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
    st.sampled_from(
        [np.int64(2), np.bool_(True), np.float32(1.5), np.array([1, 2]), np.array(3), 1 + 2j, object, Odd()]
    ),
)
"""Values that few arguments are meant to have."""


def option(*fine: Any) -> st.SearchStrategy[Any]:
    """An argument: one of some fine values, or anything."""
    return st.one_of(
        *[value if isinstance(value, st.SearchStrategy) else st.just(value) for value in fine], odd_values
    )


def arguments(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of several arguments by name."""
    return st.fixed_dictionaries({}, optional=options)


def double(item: Any, **_: Any) -> Any:
    """Count, and answer."""
    report_progress(2)
    return [item, item]


def fails(item: Any, **_: Any) -> Any:
    """Fail for some items."""
    if item in (1, "a"):
        raise LookupError(item)
    return [item, item]


def wanted(function: Any, items: Any) -> list[Any] | None:
    """What a call is to return, with None where an item fails; None where it can't be said."""
    with suppress(Exception):
        listed = list(items)
        return [None if function is fails and item in (1, "a") else [item, item] for item in listed]
    return None


@fuzz(
    option(double, fails),
    st.one_of(st.lists(st.integers(0, 5), max_size=5), st.text("abc", max_size=3), odd_values),
    st.sampled_from(["list", "iterator", "as it is"]),
    arguments(
        num_workers=option(st.integers(1, 3)),
        backend=st.sampled_from(["threads", "seq", "MP", "", None, 3]),
        total_items=option(len, lambda item: 2, lambda item: -1, lambda item: 1 / 0, st.integers(0, 50)),
        desc=option("Work"),
        unit=option("rows"),
        leave=option(True, False),
        adopt_tqdm=option(True, False),
        worker_logs=option("all", "first", "none"),
        poll_interval=option(0.01, 5),
        progress=option(True, False, lambda snapshot: None, lambda snapshot: 1 / 0),
        on_error=option("raise", "continue"),
        max_retries=option(st.integers(0, 3)),
        ray_options=option({"num_cpus": 1}, {"max_retries": 1}),
        more=odd_values,
    ),
)
@pytest.mark.filterwarnings("ignore:.*truth value of an empty array:DeprecationWarning")
def test_multi_process(function: Any, items: Any, how: str, options: dict[str, Any]) -> None:
    """``multi_process`` gives what the function gives, or raises what it documents."""
    options = {"backend": "seq"} | options
    with suppress(TypeError, OSError):
        items = {"list": list, "iterator": iter, "as it is": lambda items: items}[how](items)
    expected = None if how == "iterator" else wanted(function, items)
    try:
        results = multi_process(function, items, **options)
    except TaskError as error:
        assert isinstance(error.__cause__, Exception)
        assert options.get("on_error", "raise") == "raise"
    except (TypeError, ValueError) as error:
        assert str(error)
    except ZeroDivisionError:  # the caller's own total_items
        assert callable(options.get("total_items"))
    except OSError as error:
        assert str(error) == "refused"  # what the items themselves raised
    else:
        if expected is not None and function in (double, fails):
            kept = [None if isinstance(result, TaskError) else result for result in results]
            assert repr(kept) == repr(expected)


@fuzz(
    st.one_of(
        st.integers(0, 12).map(lambda rows: Dataset.from_dict({"id": list(range(rows))})),
        st.sampled_from(["/nowhere", Path("/nowhere"), [1, 2], {"id": [1]}]),
        odd_values,
    ),
    option(
        lambda shard, path, **kwargs: shard,
        lambda shard, path: None,
        lambda shard: shard,
        lambda shard, path: 1 / 0,
    ),
    st.one_of(st.sampled_from(["out", "new/out", "", ".", "s3://x/y", "file"]), odd_values),
    arguments(
        process_func_kwargs=option({"more": 1}, {1: 2}),
        num_workers=option(st.integers(1, 3)),
        num_shards=option(st.integers(1, 4)),
        seed=option(3),
        debug=option(True, False),
        debug_size=option(2),
        poll_interval=option(0.01),
        desc=option("Work"),
        unit=option("rows"),
        progress=option(True, False),
        leave=option(True, False),
        adopt_tqdm=option(True, False),
        worker_logs=option("all", "first", "none"),
        max_retries=option(0, 1),
        resume=option(True, False, "trust"),
        overwrite=option(True, False),
        ray_options=option({"num_gpus": 1}),
        backend=st.sampled_from(["threads", "seq", "MP", None]),
    ),
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_multi_process_dataset(dataset: Any, function: Any, out: Any, options: dict[str, Any]) -> None:
    """``multi_process_dataset`` makes the dataset, or raises what it documents and makes nothing."""
    here = Path.cwd()
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    try:
        Path("file").touch()
        path = multi_process_dataset(dataset, function, out, **({"backend": "seq"} | options))
        rows = len(dataset)
        if options.get("debug"):
            rows = min(rows, int(options.get("debug_size", 10_000)))
        # Where a seed shuffles, or the function gives other rows, only their number is known.
        assert len(load_from_disk(path)) == rows
    except (
        FailedShardsError,
        TypeError,
        ValueError,
        FileExistsError,
        FileNotFoundError,
        NotADirectoryError,
    ) as error:
        assert str(error)
        assert not (folder / "out").exists()
    finally:
        os.chdir(here)
        shutil.rmtree(folder)


@fuzz(
    st.one_of(
        st.lists(st.integers(), max_size=30),
        st.dictionaries(st.integers(), st.none(), max_size=5),
        st.sampled_from([range(7), "word", deque([1, 2]), OrderedDict(a=1), np.arange(4), Stubborn()]),
        odd_values,
    ),
    arguments(
        every=option(1, 100),
        total=option(7),
        desc=option("Step"),
        size=option(lambda item: 3, lambda item: -1),
    ),
    st.booleans(),
)
def test_track(iterable: Any, options: dict[str, Any], inside: bool) -> None:
    """``track`` yields the very items and counts each, or raises what it documents, in a run and outside."""
    try:
        expected = list(iterable)
    except Exception as error:
        expected, failure = None, type(error)
    sink = RecordingSink()
    try:
        if inside:
            with sink:
                items = list(track(iterable, **options))
        else:
            items = list(track(iterable, **options))
    except (TypeError, ValueError) as error:
        assert str(error)
        return
    except Exception as error:
        assert expected is None
        assert type(error) is failure
        return
    assert expected is not None
    assert repr(items) == repr(expected)
    if inside:
        each = options["size"](items[0]) if items and options.get("size") is not None else 1
        count = sum(sink.stages.values()) + sink.done
        limit = options.get("total")
        assert count == (
            each * len(items) if limit is None or not options.get("desc") else min(each * len(items), limit)
        )


@fuzz(option(st.integers(0, 100)), arguments(desc=option("Step"), tokens=option(1.5)), st.booleans())
def test_report_progress(n: Any, options: dict[str, Any], inside: bool) -> None:
    """``report_progress`` adds a whole number, or raises what it documents, in a run and outside."""
    sink = RecordingSink()
    try:
        if inside:
            with sink:
                assert report_progress(n, **options) is None
        else:
            assert report_progress(n, **options) is None
    except (TypeError, ValueError) as error:
        assert str(error)
        assert (sink.done, sum(sink.stages.values())) == (0, 0)
    else:
        assert int(n) == n
        assert sink.done + sum(sink.stages.values()) == (max(n, 0) if inside else 0)


@fuzz(
    option(lambda words: len(words), print, len, staticmethod(lambda: 1), max),
    arguments(
        total=option(3, "words", "missing", lambda words: len(words), lambda words: 1 / 0),
        every=option(10),
        desc=option("Step"),
    ),
    st.one_of(st.lists(st.integers(), max_size=5), odd_values),
    st.booleans(),
)
def test_tracked(function: Any, options: dict[str, Any], words: Any, inside: bool) -> None:
    """``@tracked`` gives what the function gives and raises what it raises, or what it documents."""
    try:
        counted = tracked(**options)(function) if options or function is None else tracked(function)
    except (TypeError, ValueError) as error:
        assert str(error)
        return
    plain = function.__func__ if isinstance(function, staticmethod) else function
    counted = counted.__func__ if isinstance(counted, staticmethod) else counted

    def outcome(call: Any) -> Any:
        try:
            return "returned", repr(call(words))
        except Exception as error:
            return "raised", type(error).__name__

    if plain is print:
        return
    expected = outcome(plain)
    if inside:
        with RecordingSink():
            got = outcome(counted)
    else:
        got = outcome(counted)
    # Its total may be wrong too: no length, no number, an error of its own.
    assert got == expected or (got[0] == "raised" and options.get("total") is not None)


@fuzz(
    st.lists(
        st.one_of(
            st.tuples(st.just("update"), option(st.integers(0, 50))),
            st.tuples(st.just("set_total"), option(st.integers(0, 50))),
            st.tuples(st.just("reset"), st.just(None)),
            st.tuples(st.just("wait"), st.just(0.0) | st.floats(1e-6, 100)),
        ),
        max_size=8,
    ),
    option(st.integers(0, 50)),
    option("Work"),
)
def test_progress_actor(steps: list[tuple[str, Any]], total: Any, desc: Any) -> None:
    """A ``ProgressActor`` counts what is added since the last reset, or raises what it documents."""
    clock = FakeClock()
    try:
        actor = ProgressActor(total, desc, clock=clock)
    except (TypeError, ValueError) as error:
        assert str(error)
        return
    expected = 0
    for name, value in steps:
        if name == "wait":
            clock.advance(value)
        elif name == "reset":
            actor.reset()
            expected = 0
        else:
            try:
                result = getattr(actor, name)(value)
            except (TypeError, ValueError) as error:
                assert str(error)
            else:
                if name == "update":
                    expected = max(0, expected + int(value))
                    assert result == expected
        state = actor.get_progress()
        assert state["processed"] == expected
        assert state["elapsed"] >= 0
        assert math.isfinite(state["rate"])


@fuzz(option(ProgressActor(total=3)), option(None), option(0.01, 0.3))
def test_progress_poller(source: Any, display: Any, poll_interval: Any) -> None:
    """A ``ProgressPoller`` refuses a wrong interval, and survives whatever it is to read and show."""
    bar = tqdm(total=3, disable=True) if display is None else display
    try:
        poller = ProgressPoller(source, bar, poll_interval)
    except (TypeError, ValueError) as error:
        assert str(error)
        return
    with poller:
        poller.poll()


@fuzz(odd_values)
def test_set_progress_context(actor: Any) -> None:
    """``set_progress_context`` reports nowhere with None, and refuses whatever is no actor."""
    try:
        assert set_progress_context(actor).closed
    except TypeError as error:
        assert "ProgressActor" in str(error)
    else:
        assert actor is None


@fuzz(odd_values.filter(lambda value: value is not None), option("Work"))
def test_create_progress_tracker(total: Any, desc: Any) -> None:
    """``create_progress_tracker`` refuses a wrong total before it needs Ray."""
    if isinstance(total, (int, np.integer, np.ndarray)) and not isinstance(total, bool):
        total = -1  # right ones start an actor: that is tried elsewhere
    with pytest.raises((TypeError, ValueError), match="total"):
        create_progress_tracker(total, desc)


@fuzz(odd_values)
def test_snapshots(value: Any) -> None:
    """A function that gets snapshots may raise anything, or return anything; the work goes on."""
    seen: list[Snapshot] = []

    def look(snapshot: Snapshot) -> Any:
        seen.append(snapshot)
        if isinstance(value, (str, bytes)):
            raise LookupError(value)  # noqa: TRY004 - not about its type
        return value

    assert multi_process(abs, [-1, -2], backend="seq", progress=look) == [1, 2]
    assert seen
