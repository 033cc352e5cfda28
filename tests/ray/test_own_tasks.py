"""Progress of Ray tasks that a program drives by itself."""

from __future__ import annotations

import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.recorder import Recorder
from tqdm import tqdm

from speedy_utils import (
    ProgressPoller,
    create_progress_tracker,
    multi_process,
    report_progress,
    set_progress_context,
    track,
    tracked,
)

pytestmark = pytest.mark.ray

WORKERS = 4
"""As many as the session's Ray has CPUs."""


@pytest.fixture
def actor(ray_session: None) -> Iterator[Any]:
    """A progress actor that expects 100 items."""
    import ray

    actor = create_progress_tracker(100, "Mine")
    yield actor
    ray.kill(actor)


def progress(actor: Any) -> dict[str, Any]:
    """The state of the actor."""
    import ray

    state: dict[str, Any] = ray.get(actor.get_progress.remote(), timeout=240)
    return state


def test_an_actor_counts_what_is_added(actor: Any) -> None:
    """update() adds items; set_total() changes the total; reset() starts over at zero and keeps the total."""
    import ray

    assert ray.get([actor.update.remote(30), actor.update.remote()]) == [30, 31]
    state = progress(actor)
    assert (state["processed"], state["total"], state["desc"]) == (31, 100, "Mine")
    assert state["rate"] == pytest.approx(31 / state["elapsed"])
    ray.get([actor.set_total.remote(50), actor.reset.remote()])
    state = progress(actor)
    assert (state["processed"], state["total"], state["elapsed"], state["rate"]) == (0, 50, 0.0, 0.0)
    assert ray.get(actor.update.remote(2)) == 2


def test_bound_tasks_count(actor: Any, until: Callable[..., Any]) -> None:
    """Loops, reports and tracked calls of a task that is bound by hand count for the actor."""
    import ray

    @tracked
    def shout(word: str) -> str:
        return word.upper()

    @ray.remote
    def task(actor: Any, words: list[str]) -> list[str]:
        with set_progress_context(actor):
            for _ in track(words):
                pass
            report_progress(5)
            return [shout(word) for word in words]

    results = ray.get([task.remote(actor, ["a"] * 10), task.remote(actor, ["b"] * 20)])
    assert [len(words) for words in results] == [10, 20]
    until(lambda: progress(actor)["processed"] == 70)


@pytest.mark.parametrize("unbinds", [True, False])
def test_a_task_counts_without_a_block(actor: Any, until: Callable[..., Any], unbinds: bool) -> None:
    """A task that is bound without a block counts, also if it never unbinds, as long as its worker lives."""
    import ray

    @ray.remote
    def task(actor: Any) -> None:
        set_progress_context(actor)
        report_progress(4)
        if unbinds:
            set_progress_context(None)
            report_progress(1000)

    ray.get([task.remote(actor) for _ in range(3)])
    until(lambda: progress(actor)["processed"] == 12)


def test_an_unbound_end_costs_the_next_task_nothing(
    actor: Any, recorder: Recorder, until: Callable[..., Any]
) -> None:
    """In a worker that a task has left bound, threads of the next task of a run count for that task."""

    def task(i: int, actor: Any) -> int:
        thread = threading.Thread(target=report_progress, args=(4,), kwargs={"desc": "Own"})
        thread.start()
        thread.join()
        set_progress_context(actor)
        report_progress(2)
        return os.getpid()

    tasks = 3 * WORKERS  # so one of the workers has to run several of them
    pids = multi_process(task, range(tasks), num_workers=1, actor=actor, progress=recorder)
    assert len(set(pids)) < tasks
    assert [(stage.name, stage.done) for stage in recorder.last.stages] == [("Own", 4 * tasks)]
    until(lambda: progress(actor)["processed"] == 2 * tasks)


def test_actors_of_the_program_count(actor: Any, until: Callable[..., Any]) -> None:
    """An actor of one's own may be bound, in its constructor or in each call."""
    import ray

    @ray.remote(num_cpus=0)
    class Worker:
        def __init__(self, actor: Any) -> None:
            self.actor = actor

        def work(self, words: list[str]) -> int:
            with set_progress_context(self.actor):
                return sum(1 for _ in track(words))

    workers = [Worker.remote(actor) for _ in range(2)]
    counted = ray.get([worker.work.remote(["a"] * n) for worker in workers for n in (5, 10)])
    assert counted == [5, 10, 5, 10]
    until(lambda: progress(actor)["processed"] == 30)
    for worker in workers:
        ray.kill(worker)


def test_a_poller_moves_a_bar(actor: Any, until: Callable[..., Any]) -> None:
    """A poller shows an actor on a tqdm bar, leaves the bar open, and its thread ends."""
    import ray

    with tqdm(total=1, file=io.StringIO(), mininterval=0) as bar:
        with ProgressPoller(actor, bar, poll_interval=0.02):
            ray.get(actor.update.remote(40))
            until(lambda: bar.n == 40)
            assert bar.total == 100
            ray.get(actor.update.remote(60))
        assert bar.n == 100
        assert not bar.disable
    assert not [thread for thread in threading.enumerate() if thread.name == "speedy_utils-poller"]


def test_a_retried_task_counts_once(actor: Any, tmp_path: Any, until: Callable[..., Any]) -> None:
    """If Ray itself runs a task again, the count of the dead attempt is replaced."""
    import ray

    @ray.remote(max_retries=1)
    def task(actor: Any) -> int:
        import os
        import signal

        with set_progress_context(actor):
            report_progress(6)
            if not (tmp_path / "died").exists():
                until(lambda: progress(actor)["processed"] == 6)
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            report_progress(4)
        return 1

    assert ray.get(task.remote(actor)) == 1
    until(lambda: progress(actor)["processed"] == 10)


NODES = """
import ray
from ray.cluster_utils import Cluster
from speedy_utils import create_progress_tracker

def node(actor):
    return ray.get_runtime_context().get_node_id()

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.connect()
    cluster.add_node(num_cpus=1)
    home = ray.get_runtime_context().get_node_id()
    actors = [create_progress_tracker() for _ in range(8)]
    print("HOME", sum(ray.get(actor.__ray_call__.remote(node)) == home for actor in actors))
    ray.shutdown()
    cluster.shutdown()
"""


def test_actors_run_on_the_drivers_node(
    driver: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Each progress actor is on the driver's machine, so that the loss of another one leaves it alive."""
    done = driver(NODES)
    assert done.returncode == 0, done.stderr
    assert "HOME 8" in done.stdout.splitlines()


def test_a_run_in_a_task_or_actor_of_ones_own_logs(ray_session: None) -> None:
    """There is no bar in a worker, so the run writes log lines, which Ray shows in the program."""
    import ray

    def drive(desc: str) -> tuple[list[int], str]:
        from speedy_utils._run.forwarding import display_here

        kind = type(display_here(True)).__name__
        return multi_process(abs, [-1, -2], backend="seq", desc=desc), kind

    class Owner:
        def drive(self, desc: str) -> tuple[list[int], str]:
            return drive(desc)

    owner = ray.remote(num_cpus=0)(Owner).remote()
    found = ray.get([ray.remote(drive).remote("In a task"), owner.drive.remote("In an actor")], timeout=240)
    assert found == [([1, 2], "LogDisplay")] * 2
