"""Tasks and classes that ask for GPUs, on a Ray that believes to have two."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from speedy_utils import TaskError, multi_process

pytestmark = pytest.mark.ray

PROGRAM = """
import json, os
import ray
from speedy_utils import multi_process

ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)

def place(item):
    return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()

class Model:
    def __init__(self):
        self.place = place(None)

    def __call__(self, item):
        if item == 3 and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), 9)
        return self.place == place(item) and self.place

gpu = {"num_gpus": 1}
run = dict(backend="ray", progress=False)
print(json.dumps({
    "tasks": multi_process(place, range(3), num_workers=2, ray_options=gpu, **run),
    "kept": multi_process(Model, range(10), num_workers=4, ray_options=gpu, **run),
}))
"""


def test_gpus_are_not_shared_by_tasks_of_a_process(driver: Callable[..., Any]) -> None:
    """A task with a GPU has a process for itself; a class keeps its GPU and process.

    That holds with more workers than GPUs, and after one was killed, which is made anew.
    """
    done = driver(PROGRAM)
    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert {gpu for gpu, _ in found["tasks"]} <= {"0", "1"}
    assert len({pid for _, pid in found["tasks"]}) == 3
    assert all(found["kept"])
    places = {tuple(each) for each in found["kept"]}
    assert 1 <= len(places) <= 3
    assert len({pid for _, pid in places}) == len(places)
    assert "runs again, attempt 2 of 4: the worker was lost" in done.stderr


@pytest.mark.parametrize("options", [{}, {"num_gpus": 0}])
def test_an_error_of_cuda_in_a_task_without_a_gpu_says_so(ray_session: None, options: dict[str, Any]) -> None:
    """The reason names the option that gives a task a GPU."""

    def task(item: int) -> None:
        raise RuntimeError("No CUDA GPUs are available")

    with pytest.raises(TaskError) as caught:
        multi_process(task, [0], backend="ray", ray_options=options)
    reason = caught.value.reason
    assert reason.startswith("RuntimeError: No CUDA GPUs are available; it has asked for no GPU, as ")
    assert reason.endswith(' ray_options={"num_gpus": 1} does')
