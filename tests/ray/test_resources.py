"""What Ray can't give is said, and a placement group that was removed fails the run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.recorder import Recorder
from support.waiting import wait_until

from speedy_utils import multi_process

pytestmark = pytest.mark.ray


def until_there(i: int, path: Path) -> int:
    """Wait for a file."""
    wait_until(path.exists, 60)
    return i


@contextmanager
def once(condition: Callable[[], object], then: Callable[[], object]) -> Iterator[None]:
    """Call a function in another thread once a condition holds, while the block runs."""

    def wait() -> None:
        wait_until(condition, 60)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def phases(recorder: Recorder) -> list[str]:
    """Return what runs were shown to wait for."""
    return [snapshot.phase for run in list(recorder.runs) for snapshot in list(run)]


def press_ctrl_c() -> None:
    """Interrupt the main thread."""
    os.kill(os.getpid(), signal.SIGINT)


def test_what_no_node_has_is_in_the_line_and_in_the_log(
    ray_session: None, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose tasks need a GPU, on a Ray without one, says so; in the log with what each task needs."""
    options = {"num_gpus": 1, "memory": 2**20}
    with once(lambda: caplog.messages, press_ctrl_c), pytest.raises(KeyboardInterrupt):
        multi_process(abs, range(2), num_workers=2, ray_options=options, progress=recorder)
    assert "no node has 1 GPU" in phases(recorder)
    (message,) = caplog.messages
    assert message.startswith("no node has 1 GPU: each task needs 1 CPU, 1 GPU, 0.0009766 GiB of memory; ")


def test_what_others_have_taken_and_too_few_workers_are_in_the_line(
    ray_session: None, recorder: Recorder, tmp_path: Path
) -> None:
    """A run says that it waits for what an actor holds, and that it has fewer workers than it asked for."""
    import ray

    @ray.remote(num_cpus=0, resources={"special": 4})
    class Holder:
        def ping(self) -> None:
            """Do nothing."""

    holder = Holder.remote()
    ray.get(holder.ping.remote())

    options = {"num_cpus": 0.1, "resources": {"special": 2}}
    taken = "all of 4 special taken"
    with once(lambda: taken in phases(recorder), lambda: (ray.kill(holder), (tmp_path / "go").touch())):
        results = multi_process(
            until_there,
            range(3),
            num_workers=3,
            ray_options=options,
            progress=recorder,
            path=tmp_path / "go",
        )
    assert results == [0, 1, 2]
    assert "Ray has room for 2 tasks" in phases(recorder)


def test_a_placement_group_that_is_removed_fails_the_run(
    ray_session: None, recorder: Recorder, tmp_path: Path
) -> None:
    """The error names the group; its workers are not taken for ones that called sys.exit()."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{"CPU": 1}] * 2, name="mine")
    ray.get(group.ready())

    def run() -> Any:
        strategy = PlacementGroupSchedulingStrategy(group)
        options = {"scheduling_strategy": strategy}
        return multi_process(
            until_there, range(4), num_workers=4, ray_options=options, progress=recorder, path=tmp_path / "go"
        )

    removed = "the placement group 'mine', in which the tasks run, was removed"
    few = "Ray has room for 2 tasks"
    with (
        once(lambda: few in phases(recorder), lambda: remove_placement_group(group)),
        pytest.raises(RuntimeError, match=removed),
    ):
        run()
    with pytest.raises(RuntimeError, match=removed):  # a further run too
        run()
