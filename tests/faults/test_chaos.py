"""Random runs under random faults: each ends exact, or with the error that is documented.

A run and its faults follow from one seed, which a failure names. ``SPEEDY_UTILS_SEED=17 pytest
tests/faults/test_chaos.py`` runs that one alone; ``SPEEDY_UTILS_ROUNDS=20`` runs more of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.ray_workers import kill_worker
from support.recorder import Recorder
from support.rounds import ROUNDS

from speedy_utils import Snapshot, TaskError, multi_process, report_progress, track

SEED = os.environ.get("SPEEDY_UTILS_SEED", "")

LOCAL_RUNS, RAY_RUNS = 100 * ROUNDS, 4 * ROUNDS


@dataclass(frozen=True)
class Task:
    """What one task does.

    Attributes:
        items: Its items, which the run may know or not.
        reports: What it reports in all, when it gets to its end.
        named: The same, of a stage with a name.
        losses: How often its worker is lost, and at which of its reports each time.
        ways: How: "exit", or "leave" and "kill" where it has a process of its own.
        raises: Whether it raises in the end.
        pause: Seconds between two reports.
        style: How it reports.
    """

    items: int
    reports: int
    named: int
    losses: tuple[int, ...]
    ways: tuple[str, ...]
    raises: bool
    pause: float
    style: str


@dataclass(frozen=True)
class Plan:
    """A run and its faults.

    Attributes:
        seed: What it follows from.
        backend: The engine.
        tasks: Its tasks.
        workers: How many run at once.
        totals: Whether the run knows how many items a task has.
        max_retries: How often a task may be lost.
        on_error: What a failure does.
        poll_interval: Seconds between two readings.
        display: How the display behaves: "well", "slow", or "raises".
        faults: What happens from outside: the seconds before it, and what it is.
    """

    seed: int
    backend: str
    tasks: tuple[Task, ...]
    workers: int
    totals: bool
    max_retries: int
    on_error: Any
    poll_interval: float
    display: str
    faults: tuple[tuple[float, str], ...] = ()

    def lost(self, task: Task) -> bool:
        """Whether a task is lost too often."""
        return len(task.losses) > self.max_retries

    def fails(self, task: Task) -> bool:
        """Whether a task fails in the end."""
        return task.raises or self.lost(task)


def draw(seed: int, backend: str | None = None) -> Plan:
    """A plan, which follows from its seed."""
    rand = random.Random(f"{seed} {backend}")
    ray = backend == "ray"
    faulty = rand.random() < 0.6
    totals = rand.random() < 0.7
    external = ray and rand.random() < 0.5
    max_retries = 30 if external else rand.randrange(4)

    def task() -> Task:
        items = rand.randrange(60)
        exact = not totals or rand.random() < 0.5
        losses = rand.choices([0, 1, 2, 5 if not external else 2], [8, 3, 2, 1 if faulty else 0])[0]
        return Task(
            items,
            items if exact else rand.randrange(90),
            rand.choice([0, 0, 7]),
            tuple(rand.randrange(items + 1) for _ in range(losses if faulty else 0)),
            tuple(rand.choice(["exit", "leave", "kill"] if ray else ["exit"]) for _ in range(losses)),
            faulty and rand.random() < 0.15,
            rand.choice([0.0, 0.0, 0.0005 if not ray else 0.01]),
            rand.choice(["track", "report", "batches"]),
        )

    faults = ("kill a worker", "kill the actor", "restart the actor", "pause the actor", "end the actor")
    return Plan(
        seed,
        backend or rand.choice(["threads", "seq"]),
        tuple(task() for _ in range(rand.randrange(1, 12))),
        rand.randrange(1, 4 if ray else 8),
        totals,
        max_retries,
        rand.choice(["raise", "continue", "continue"]),
        rand.choice([0.002, 0.02, 0.3]),
        rand.choices(["well", "slow", "raises"], [6, 2, 1])[0],
        tuple((rand.uniform(0, 0.5), rand.choice(faults)) for _ in range(rand.randrange(1, 6)))
        if external
        else (),
    )


def made(folder: Path) -> bool:
    """Whether a folder was not there yet."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        return True
    return False


def run_attempt(i: int, plan: Plan, folder: str) -> int:
    """What a worker does for a task."""
    task = plan.tasks[i]
    # A folder is made in one step: a thread that is cancelled meanwhile leaves no file open.
    start = next(n for n in itertools.count() if made(Path(folder, f"start-{i}-{n}")))
    if plan.backend == "ray":
        Path(folder, f"pid-{os.getpid()}").touch()
    end = task.losses[start] if start < len(task.losses) else None

    def lose() -> None:
        way = task.ways[start]
        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif way == "leave":
            os._exit(1)
        sys.exit(f"task {i}")

    report_progress(task.named, desc="Named")
    if task.style == "track":
        for done in track(range(task.reports)):
            time.sleep(task.pause)
            if done == end:
                lose()
    elif task.style == "report":
        for done in range(task.reports):
            report_progress()
            time.sleep(task.pause)
            if done == end:
                lose()
    else:
        report_progress(task.reports)
    # What is planned from outside is to find the run at work, and its actor started.
    while plan.faults and not Path(folder, "over").exists():
        time.sleep(0.01)
    if end is not None:
        lose()
    if task.raises:
        raise ValueError(f"task {i}")
    return i * i


def display(how: str) -> Recorder:
    """Return a display that behaves as planned."""
    recorder = Recorder()

    def behave(snapshot: Snapshot) -> None:
        if how == "raises" and len(recorder.snapshots) == 3:
            raise OSError("the screen is broken")
        if how == "slow":
            time.sleep(0.01)

    recorder.hook = behave
    return recorder


@dataclass
class Outside:
    """Faults from outside the run: a thread that does one thing after another; the run waits for it."""

    plan: Plan
    folder: Path
    actors: list[Any] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Do it all, and let the run end."""
        rand = random.Random(f"{self.plan.seed} outside")
        try:
            for delay, fault in self.plan.faults:
                while not self.actors and not self.ended.wait(0.01):
                    pass
                if self.ended.wait(delay):
                    return
                if fault == "kill a worker":
                    pids = [int(path.name.split("-")[1]) for path in self.folder.glob("pid-*")]
                    kill_worker(pids, rand)
                else:
                    self.harm_actor(fault, rand)
        finally:
            Path(self.folder, "over").touch()

    def harm_actor(self, fault: str, rand: random.Random) -> None:
        """Kill the actor, or keep it from answering for a while."""
        import ray

        actor = self.actors[0]
        if fault in ("restart the actor", "end the actor"):
            ray.kill(actor, no_restart=fault == "end the actor")
            return
        try:
            pid = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()), timeout=30)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):  # it is dead as it is
            return
        with contextlib.suppress(ProcessLookupError):
            if fault == "kill the actor":
                os.kill(pid, signal.SIGKILL)
                return
            os.kill(pid, signal.SIGSTOP)
            try:
                self.ended.wait(rand.uniform(0.1, 1.5))
            finally:
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def under_faults(plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let happen from outside what is planned, while the block runs."""
    if not plan.faults:
        yield
        return
    from speedy_utils._ray.tasks import live_counts

    outside = Outside(plan, folder)
    create = live_counts.start_actor

    def create_and_note(*args: Any) -> Any:
        outside.actors.append(create(*args))
        return outside.actors[-1]

    thread = threading.Thread(target=outside.run)

    def no_folder(_: str) -> Any:
        raise OSError("there is no place for it")

    with monkeypatch.context() as patch:
        patch.setattr(live_counts, "start_actor", create_and_note)
        patch.setattr(live_counts, "NearbyFolder", no_folder)  # in which one node's workers count without it
        thread.start()
        try:
            yield
        finally:
            outside.ended.set()
            thread.join()


def check(plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a plan, and compare its end with what was planned."""
    recorder = display(plan.display)
    totals = (lambda i: plan.tasks[i].items) if plan.totals else None
    results: list[Any] = []
    caught: TaskError | None = None
    with under_faults(plan, folder, monkeypatch):
        try:
            results = multi_process(
                run_attempt,
                range(len(plan.tasks)),
                backend=plan.backend,
                num_workers=plan.workers,
                total_items=totals,
                max_retries=plan.max_retries,
                on_error=plan.on_error,
                poll_interval=plan.poll_interval,
                progress=recorder,
                plan=plan,
                folder=str(folder),
            )
        except TaskError as error:
            caught = error
    failing = [i for i, task in enumerate(plan.tasks) if plan.fails(task)]
    if plan.on_error == "raise" and failing:
        assert caught is not None
        assert caught.index in failing
        check_error(plan, caught)
    else:
        assert caught is None
        assert [i for i, result in enumerate(results) if isinstance(result, TaskError)] == failing
        assert all(result == i * i for i, result in enumerate(results) if i not in failing)
        for i in failing:
            check_error(plan, results[i])
    if plan.display != "raises":
        check_end(plan, recorder, stopped=caught is not None)


def check_error(plan: Plan, error: TaskError) -> None:
    """A failed task says how often it was started, and what happened."""
    task = plan.tasks[error.index]
    assert error.item == error.index
    # The attempt in a chunk that was lost with its worker uses up no retry of its tasks.
    in_lost_chunk = (0, 1) if plan.backend == "ray" else (0,)
    if plan.lost(task):
        assert error.attempts - (plan.max_retries + 1) in in_lost_chunk
        assert "sys.exit" in error.reason or "lost" in error.reason
    else:
        assert error.reason == f"ValueError: task {error.index}"
        if not plan.faults:
            assert error.attempts - (len(task.losses) + 1) in in_lost_chunk


def check_end(plan: Plan, recorder: Recorder, *, stopped: bool) -> None:
    """What the bar showed last is exact; where tasks failed, they keep what they had reported, if known."""
    last = recorder.last
    assert last.final
    failing = [task for task in plan.tasks if plan.fails(task)]

    def reported(task: Task) -> int:
        return min(task.reports, task.items) if plan.totals else task.reports

    if plan.totals:
        assert {snapshot.total for snapshot in recorder.snapshots} == {sum(task.items for task in plan.tasks)}
    elif last.unit == "tasks":  # none has counted an item
        assert last.total == len(plan.tasks)
    else:  # of what was counted, if all have succeeded; while they run it may not be known
        assert last.total == (None if stopped or failing else last.done)
    assert all(snapshot.total is None or snapshot.done <= snapshot.total for snapshot in recorder.snapshots)
    if stopped:
        return
    assert (last.tasks_done, last.tasks_failed) == (len(plan.tasks) - len(failing), len(failing))
    retries = sum(min(len(task.losses), plan.max_retries) for task in plan.tasks)
    # Each task of a lost chunk runs again.
    assert last.retries >= retries if plan.faults or plan.backend == "ray" else last.retries == retries
    if last.unit == "tasks":
        sure = most = len(plan.tasks) - len(failing)
    else:
        succeeded = [task for task in plan.tasks if not plan.fails(task)]
        sure = sum(task.items if plan.totals else task.reports for task in succeeded)
        sure += sum(reported(task) for task in failing if not plan.lost(task))
        most = sure + sum(reported(task) for task in failing if plan.lost(task))
    assert sure <= last.done <= most
    named = {stage.name: stage.done for stage in last.stages}

    def of_stage(task: Task) -> int:
        return min(task.named, task.items) if plan.totals else task.named

    sure = sum(of_stage(task) for task in plan.tasks if not plan.lost(task))
    assert sure <= named.get("Named", 0) <= sum(of_stage(task) for task in plan.tasks)


def seeds(count: int) -> list[int]:
    """The seeds to run."""
    return [int(SEED)] if SEED else list(range(count))


def run_all(plans: list[Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run plans, and name the seed of one that ends otherwise."""
    for plan in plans:
        folder = tmp_path / str(plan.seed)
        folder.mkdir()
        print(f"SPEEDY_UTILS_SEED={plan.seed}")  # pytest shows it also where the run hangs
        try:
            check(plan, folder, monkeypatch)
        except Exception as error:
            raise AssertionError(f"SPEEDY_UTILS_SEED={plan.seed} runs this one again: {plan}") from error


@pytest.mark.timeout(60 + LOCAL_RUNS)
def test_random_runs_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of random runs in threads and one after another end as planned."""
    run_all([draw(seed) for seed in seeds(LOCAL_RUNS)], tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(60 + 20 * RAY_RUNS)
def test_random_runs_on_ray(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random runs on Ray end as planned, while workers and the actor are killed and paused."""
    run_all([draw(seed, "ray") for seed in seeds(RAY_RUNS)], tmp_path, monkeypatch)
