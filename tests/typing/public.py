"""What a type checker sees of the public names; checked by mypy, and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speedy_utils import (
    ProgressActor,
    ProgressPoller,
    Shard,
    Snapshot,
    StageSnapshot,
    TaskError,
    TaskSnapshot,
    create_progress_tracker,
    current_shard,
    multi_process,
    multi_process_dataset,
    multi_process_iter,
    report_progress,
    set_progress_context,
    track,
    tracked,
    tracking,
)
from speedy_utils._ray.own_tasks import ProgressContext
from speedy_utils.testing import FailingSink, FakeClock, RecordingDisplay, RecordingSink

if TYPE_CHECKING:
    from typing_extensions import assert_type


def report() -> None:
    """``report_progress`` takes an int and the name of a stage."""
    assert_type(report_progress(), None)
    report_progress(5, desc="Read")
    report_progress(5, desc="Read", tokens=51_200, loss=0.5)
    report_progress(tokens=3)
    report_progress(tokens="3")  # type: ignore[arg-type]
    report_progress("5")  # type: ignore[arg-type]
    report_progress(1.5)  # type: ignore[arg-type]
    report_progress(1, "Read")  # type: ignore[call-arg]


def place() -> None:
    """``current_shard`` may be None."""
    shard = current_shard()
    assert_type(shard, Shard | None)
    assert_type(shard.start if shard else 0, int)
    shard.start  # type: ignore[union-attr]  # noqa: B018 - the error is the test


def loops(rows: list[dict[str, int]], lines: Iterator[str]) -> None:
    """``track`` yields what it is given."""
    assert_type(track(rows), Iterator[dict[str, int]])
    assert_type(track(lines, 10, total=5, desc="Read"), Iterator[str])
    assert_type([row["a"] for row in track(rows)], list[int])
    track(rows, size=len)
    track(lines, size=lambda line: len(line.split()))
    track(5)  # type: ignore[arg-type]
    track(rows, size=lambda row: "many")  # type: ignore[arg-type, return-value]
    track(rows, every="all")  # type: ignore[arg-type]


@tracked
def plain(x: int, *, y: str = "") -> float:
    """A function."""
    return x + len(y)


@tracked(total="rows", every=10, desc="Pack")
def packed(rows: list[str]) -> list[int]:
    """A function with options."""
    return [len(row) for row in rows]


@tracked
async def coroutine(x: int) -> str:
    """A coroutine."""
    return str(x)


@tracked(total=3)
def generator(x: int) -> Iterator[str]:
    """A generator."""
    yield str(x)


@tracked
async def async_generator(x: int) -> AsyncIterator[str]:
    """An async generator."""
    yield str(x)


class Methods:
    """Methods of all kinds."""

    @tracked
    def instance(self, x: int) -> str:
        """A method."""
        return str(x)

    @classmethod
    @tracked
    def of_class(cls, x: int) -> Methods:
        """A class method."""
        return cls()

    @staticmethod
    @tracked(total=lambda x: x)
    def static(x: int) -> bytes:
        """A static method."""
        return bytes(x)


async def decorated() -> None:
    """``@tracked`` leaves the signature as it is."""
    assert_type(plain(1, y="a"), float)
    assert_type(packed(["a"]), list[int])
    assert_type(await coroutine(1), str)
    assert_type(generator(1), Iterator[str])
    assert_type(async_generator(1), AsyncIterator[str])
    assert_type(Methods().instance(1), str)
    assert_type(Methods.of_class(1), Methods)
    assert_type(Methods.static(1), bytes)
    assert_type(tracked(len)([1]), int)
    same: Callable[[list[str]], list[int]] = packed
    same(["a"])
    plain("1")  # type: ignore[arg-type]
    plain(1, "a")  # type: ignore[call-arg]
    Methods().instance()  # type: ignore[call-arg]
    tracked(5)  # type: ignore[call-overload]
    tracked(total=1.5)  # type: ignore[call-overload]


def runs() -> None:
    """``multi_process`` gives a list, and names its backends."""
    assert_type(multi_process(plain, [1, 2]), list[Any])
    multi_process(plain, range(3), num_workers=2, backend="threads", total_items=3, y="a")
    multi_process(packed, [["a"]], backend="seq", total_items=len, on_error="continue")
    multi_process(plain, [1], unit="files", leave=False, progress=lambda snapshot: print(snapshot.done))
    multi_process(plain, [1], desc="Run", poll_interval=1, progress=False, adopt_tqdm=False)
    multi_process(plain, [1], max_retries=0, ray_options={"num_gpus": 1})
    multi_process(plain, [1], retry_on=(OSError, TimeoutError), retry_wait=0.5, task_timeout=60)
    multi_process(plain, [1], retry_on=lambda error: "429" in str(error), retry_wait=lambda n, error: 2.0**n)
    multi_process(plain, [1], retry_on="OSError")  # type: ignore[arg-type]
    assert_type(multi_process_iter(plain, iter([1]), ordered=False, total_items=1), Iterator[Any])
    multi_process_iter(plain, 5)  # type: ignore[arg-type]
    multi_process(plain, [1], progress=lambda: None)  # type: ignore[arg-type, misc]
    multi_process(plain, [1], worker_logs="first")
    multi_process(plain, [1], worker_logs="last")  # type: ignore[arg-type]
    multi_process(plain, [1], backend="rya")  # type: ignore[arg-type]
    multi_process(plain, [1], on_error="ignore")  # type: ignore[arg-type]
    multi_process(plain, 5)  # type: ignore[arg-type]


def dataset_runs(folder: Path) -> None:
    """``multi_process_dataset`` gives the path of what it made."""
    assert_type(multi_process_dataset("rows", packed, folder), str)
    multi_process_dataset(folder, packed, "out", {"y": 1}, 4, backend="seq", num_shards=8, seed=0)
    multi_process_dataset("rows", packed, "out", debug=True, debug_size=10, max_retries=0, ray_options={})
    multi_process_dataset("rows", packed, "out", desc="Run", unit="rows", leave=False, poll_interval=1)
    multi_process_dataset("rows", packed, "out", progress=print, adopt_tqdm=False, worker_logs="none")
    multi_process_dataset("rows", packed, "out", resume="trust", overwrite=True)
    multi_process_dataset("rows", packed, "out", resume="always")  # type: ignore[arg-type]
    multi_process_dataset("rows", packed, "out", on_error="continue")  # type: ignore[call-arg]


def blocks(folder: Path) -> None:
    """A bound function keeps its type."""
    with tracking(100, desc="Mine", folder=folder, stall_after=None) as run:
        assert_type(run.bind(plain)(1, y="a"), float)
        assert_type(run.bind(packed, total="rows")(["a"]), list[int])
        assert_type(run.snapshot(), Snapshot)
        assert_type(run.address, str)
    tracking([1])  # type: ignore[arg-type]


def by_hand(bar: Any) -> None:
    """Those who drive Ray themselves get a binding, a state and a poller."""
    actor = ProgressActor(total=10, desc="Reading")
    assert_type(actor.update(3), int)
    assert_type(actor.get_progress(), dict[str, Any])
    with set_progress_context(actor) as binding:
        assert_type(binding, ProgressContext)
    set_progress_context(None)
    with ProgressPoller(create_progress_tracker(total=10), bar, poll_interval=0.1) as poller:
        assert_type(poller, ProgressPoller)
    actor.update("3")  # type: ignore[arg-type]


def unbound() -> None:
    """A context of no actor is one too."""
    assert_type(set_progress_context(None), ProgressContext)


def errors(error: TaskError, snapshot: Snapshot) -> None:
    """What is raised and handed out is typed."""
    assert_type(error.index, int)
    assert_type(error.traceback, str)
    assert_type(snapshot.total, int | None)
    assert_type(snapshot.rate, float)
    assert_type(snapshot.lines, tuple[StageSnapshot, ...])
    assert_type(snapshot.run_line, StageSnapshot)
    assert_type(snapshot.run_line.counters, Mapping[str, float])
    assert_type(snapshot.run_line.growing, bool)
    assert_type(snapshot.stalled, tuple[TaskSnapshot, ...])
    assert_type(
        [(task.index, task.total, task.since) for task in snapshot.slowest],
        list[tuple[int, int | None, float]],
    )
    assert_type(snapshot.to_dict(), dict[str, Any])


def kit() -> None:
    """The kit is typed."""
    with RecordingSink() as sink:
        assert_type(sink.done, int)
        assert_type(sink.totals, dict[str | None, int])
        assert_type(sink.counters, dict[str | None, dict[str, float]])
    assert_type(RecordingDisplay().last, Snapshot)
    assert_type(FakeClock()(), float)
    FailingSink(OSError())
    FailingSink("no")  # type: ignore[arg-type]
