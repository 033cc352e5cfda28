"""Many runs in one program leave nothing behind."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.recorder import ignore
from support.rounds import ROUNDS

from speedy_utils import (
    TaskError,
    create_progress_tracker,
    multi_process,
    multi_process_dataset,
    report_progress,
    set_progress_context,
    track,
    tracked,
)
from speedy_utils._instrument.bound import _ended as ended
from speedy_utils._run.run import Run
from speedy_utils._worker.reporter import Reporter

MEGABYTE = 1 << 20


def threads() -> list[str]:
    """The threads of this process."""
    return sorted(thread.name for thread in threading.enumerate())


def more_threads(before: list[str]) -> Counter[str]:
    """Those that there were not before: threads of others may end meanwhile."""
    return Counter(threads()) - Counter(before)


def descriptors() -> Counter[str]:
    """What this process has open, and how often, by its name: pipes and sockets have numbers of their own."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(path))
        except OSError:  # the one by which the folder is read
            continue
    return Counter(found)


def memory() -> int:
    """Bytes of this process that are in memory and its own."""
    fields = Path("/proc/self/smaps_rollup").read_text().split()
    return sum(int(fields[i + 1]) * 1024 for i, name in enumerate(fields) if name.startswith("Private_"))


def alive(kind: type) -> int:
    """How many objects of a class there are."""
    gc.collect()
    return uncollected(kind)


def uncollected(kind: type) -> int:
    """The same, with those that wait for the garbage collector."""
    # By its type: some objects stand for another one, and fail where that is gone.
    return sum(issubclass(type(thing), kind) for thing in gc.get_objects())


def kept(*kinds: type) -> list[str]:
    """The objects of some classes that there are, each with what refers to it."""
    gc.collect()
    # The one reporter that stands for all bound calls which have ended is of the package.
    found = [
        thing for thing in gc.get_objects() if issubclass(type(thing), kinds) and thing is not ended.reporter
    ]
    kept_by = []
    for thing in found:
        by = [repr(each)[:200] for each in gc.get_referrers(thing) if each is not found]
        kept_by.append(f"{type(thing).__name__} kept by {by}")
    return kept_by


def actors() -> list[int]:
    """The progress actors and relays among the processes that this one has started, directly or not."""
    parents, kinds = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            # After the name, which may hold anything, come the state and the parent.
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            kinds[int(path.name)] = (path / "cmdline").read_bytes()

    def started_here(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    named = (b"ray::ProgressActor", b"ray::Relay")
    return [pid for pid, kind in kinds.items() if kind.startswith(named) and started_here(pid)]


def references() -> int:
    """How many objects in Ray's store this process holds; no public call tells."""
    import ray

    gc.collect()
    return len(ray._private.worker.global_worker.core_worker.get_all_reference_counts())


def one_run(backend: str, turn: int, folder: Path) -> None:
    """A run of one of several kinds, some of which fail."""

    def work(i: int) -> int:
        for _ in track(range(20)):
            pass
        report_progress(1, desc="Stage")
        if turn % 5 == 4 and i == 2:
            raise ValueError("one of five runs fails")
        return i

    if turn % 5 == 4:
        with pytest.raises(TaskError):
            multi_process(work, range(4), backend=backend, num_workers=2, total_items=lambda i: 20)
    elif turn % 5 == 3:
        out = folder / f"out-{turn}"
        rows = Dataset.from_dict({"id": list(range(8))})
        multi_process_dataset(rows, lambda shard, path: shard, out, num_workers=2, backend=backend)
    elif turn % 5 == 2:
        multi_process(work, range(4), backend=backend, num_workers=2, on_error="continue")
    else:
        multi_process(work, range(4), backend=backend, num_workers=2, total_items=lambda i: 20)


@pytest.mark.parametrize("name", ["threads", "seq"])
def test_many_runs_leave_no_thread_no_file_and_no_memory(
    name: str, tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 100 runs with bars, some failed, there are the threads, files and memory of the start."""
    monkeypatch.setenv("SPEEDY_UTILS_PROGRESS", "bar")  # also where stderr is no terminal

    def runs(count: int) -> None:
        for turn in range(count):
            one_run(name, turn, tmp_path)
            for path in tmp_path.glob("out-*"):
                for file in path.iterdir():
                    file.unlink()
                path.rmdir()

    runs(20)  # what is loaded on first use
    # What watches a Ray that an earlier test has started goes on as long as that.
    until(
        lambda: (
            not any(name.startswith("speedy_utils") for name in set(threads()) - {"speedy_utils-ray-watch"})
        )
    )
    before, files, used = threads(), descriptors(), memory()
    streams = (sys.stdout, sys.stderr)
    runs(100 * ROUNDS)
    until(lambda: not more_threads(before))
    until(lambda: not descriptors() - files)  # a Ray that earlier tests have started closes and opens its own
    assert (sys.stdout, sys.stderr) == streams
    assert not kept(Run, Reporter)
    # What one run needs is some hundred kilobytes; a leak of a hundredth of that a run would show here.
    assert memory() - used < 16 * MEGABYTE * ROUNDS


def test_many_tracked_calls_and_contexts_leave_nothing(until: Callable[..., Any]) -> None:
    """Nor do runs that are tracked calls, nor bindings by hand."""
    from speedy_utils import ProgressActor

    @tracked(total=3)
    def call() -> None:
        for _ in track(range(3)):
            pass

    def runs(count: int) -> None:
        for _ in range(count):
            call()
            actor = ProgressActor(total=5)
            with set_progress_context(actor):
                report_progress(5)

    runs(3)
    # What watches a Ray that an earlier test has started goes on as long as that.
    until(
        lambda: (
            not any(name.startswith("speedy_utils") for name in set(threads()) - {"speedy_utils-ray-watch"})
        )
    )
    before, files = threads(), descriptors()
    runs(50)
    until(lambda: not more_threads(before))
    until(lambda: not descriptors() - files)  # a Ray that earlier tests have started closes and opens its own
    set_progress_context(None)  # a thread remembers its last binding
    assert not kept(Run, Reporter)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """As many entries as runs have started actors, which they do here also where they are over at once."""
    from speedy_utils._ray.tasks import live_counts

    begun: list[None] = []
    start = live_counts.start_actor

    def start_and_note(*args: Any) -> Any:
        begun.append(None)  # and not the actor, which this would keep
        return start(*args)

    monkeypatch.setattr(live_counts, "ACTOR_DELAY_S", 0.0)
    # As on other nodes than the driver's.
    monkeypatch.setattr(live_counts.NearbyFolder, "sink", lambda _, actor: actor)
    monkeypatch.setattr(live_counts, "start_actor", start_and_note)
    return begun


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(500 + 100 * ROUNDS)
def test_many_runs_on_ray_leave_no_actor_and_no_busy_worker(
    ray_session: None, begun: list[None], tmp_path: Path, until: Callable[..., Any]
) -> None:
    """After many runs on Ray no actor and no object is left, no worker has a thread of ours, memory stays."""
    import ray

    def runs(count: int) -> None:
        for turn in range(count):
            one_run("ray", turn, Path(tempfile.mkdtemp(dir=tmp_path)))

    def ours(_: int) -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("speedy_utils")]

    cpus = int(ray.cluster_resources()["CPU"])

    def in_workers() -> list[str]:
        here = Path(tempfile.mkdtemp(dir=tmp_path))

        @ray.remote
        def look(i: int) -> list[str]:
            gc.collect()
            (here / str(i)).touch()
            until(lambda: len(list(here.iterdir())) == cpus)  # so that each is in a worker of its own
            return ours(0)

        return [name for names in ray.get([look.remote(i) for i in range(cpus)]) for name in names]

    def idle() -> bool:
        return not in_workers() and not ray.util.list_named_actors(all_namespaces=True)

    others = set(actors())
    runs(5)
    until(idle)
    before, used, open_files = threads(), memory(), len(list(Path("/proc/self/fd").iterdir()))
    held = references()
    runs(10 * ROUNDS)
    assert len(begun) == 5 + 10 * ROUNDS
    until(idle)
    until(lambda: not more_threads(before))
    until(lambda: set(actors()) <= others)
    # A worker whose task was interrupted may hold the run's three objects until it collects its garbage.
    until(lambda: idle() and references() <= held + 3 * cpus)
    # Ray keeps connections to workers that it may use again.
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files + 8
    assert memory() - used < 32 * MEGABYTE * ROUNDS
    assert not kept(Run, Reporter)


@pytest.mark.ray
def test_a_run_on_ray_leaves_no_handle_to_the_garbage_collector(ray_session: None, begun: list[None]) -> None:
    """A run releases its actor when it ends: a forked child that did so would cut the program off."""
    from ray.actor import ActorHandle

    def fail(i: int) -> None:
        raise ValueError(i)

    multi_process(abs, [-1], num_workers=1, progress=ignore)
    others = alive(ActorHandle)
    gc.disable()
    try:
        assert multi_process(abs, range(-4, 0), num_workers=2, progress=ignore) == [4, 3, 2, 1]
        assert uncollected(ActorHandle) == others
        with pytest.raises(TaskError, match="ValueError: 0"):
            multi_process(fail, range(1), num_workers=1, progress=ignore)
        assert uncollected(ActorHandle) == others
    finally:
        gc.enable()
    assert len(begun) == 3


@pytest.mark.ray
def test_an_actor_of_the_users_ends_with_its_last_handle(
    ray_session: None, until: Callable[..., Any]
) -> None:
    """A tracker ends with the last reference to it, also where tasks were bound to it."""
    import ray

    def work(actor: Any) -> int:
        with set_progress_context(actor):
            report_progress(5)
        return os.getpid()

    actor = create_progress_tracker(total=10)
    pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    ray.get([ray.remote(work).remote(actor) for _ in range(2)])
    del actor
    until(lambda: not Path(f"/proc/{pid}").exists() or not is_actor(pid))


def is_actor(pid: int) -> bool:
    """Whether a process is a progress actor."""
    try:
        return b"ProgressActor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
