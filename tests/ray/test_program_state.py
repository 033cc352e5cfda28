"""How a project of several modules reaches Ray's workers, run as a program of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

Driver = Callable[..., "subprocess.CompletedProcess[str]"]

FILES = {
    "__init__": "",
    "config": "n_mels = 40\n",
    "late": "HERE = 'file'\n",
    "locked": """
import threading
from . import config
lock, LIMIT, SAME = threading.Lock(), 1, 2
class Held:
    def __init__(self, x): self.x = x
def work(x):
    with lock:
        return Held(x), LIMIT, SAME, config.n_mels
""",
    "main": """
import enum, functools, logging, pickle, sys, threading, typing
from speedy_utils import multi_process
from . import config, locked

class Mode(enum.Enum):
    FAST = 1

class Job:
    mode: "Mode"
    factor = 1
    def __init__(self, n): self.n = n
    def run(self): return Job(self.n * self.factor * SCALE)

class Unused:
    pass

def start(job):
    from . import config, late
    return job.run(), Mode.FAST, config.n_mels, late.HERE, __name__, __package__

def by_item(item):
    return item

def by_its_name(job):
    import __main__
    again, hints = pickle.loads(pickle.dumps(job)), typing.get_type_hints(Job)
    return again, __main__.SCALE, eval("SCALE"), globals()["Mode"], hints == {"mode": Mode}

@functools.lru_cache
def square(x):
    return x * x * SCALE

def waits(x):
    return guard.locked()

SCALE = 1

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    SCALE, config.n_mels, locked.LIMIT, Job.factor = 10, 80, 5, 2
    call = functools.partial(multi_process, num_workers=2, progress=False)
    for job, mode, *rest in call(start, [Job(1), Job(2)]):
        print(type(job) is Job, job.n, mode is Mode.FAST, rest)
    ((job, *numbers, kind, hints),) = call(by_its_name, [Job(3)])
    print(type(job) is Job, job.n, numbers, kind is Mode, hints)
    for held, *rest in call(locked.work, [1, 2, 3]):
        print(type(held) is locked.Held, held.x, rest)
    items = [Unused, Unused(), Mode.FAST, locked.Held, lambda x: x + SCALE, by_item]
    back = call(by_item, items)
    print([one is other for one, other in zip(items, back)], type(back[1]) is Unused, back[4](1))
    local = type("Local", (), {"value": 3})
    (made,) = call(lambda x: setattr(local, "value", 4) or x, [local()])
    print(type(made) is local, local.value)
    print(call(square, [1, 2]))
    guard = threading.Lock()
    try:
        call(waits, [1])
    except TypeError as error:
        print(error)
""",
}


def test_a_package_that_runs_as_a_program(head: Any, driver: Driver, tmp_path: Path) -> None:
    """With ``python -m`` values, classes and items of ``__main__`` and its package are the program's own."""
    (tmp_path / "project").mkdir()
    for name, text in FILES.items():
        (tmp_path / "project" / f"{name}.py").write_text(text)
    done = driver(
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'project.main'], check=True)",
        env={"RAY_ADDRESS": head.address, **head.token},
    )
    assert done.returncode == 0, done.stderr
    *lines, error, cure = done.stdout.splitlines()
    assert lines == [
        "True 20 True [80, 'file', '__main__', 'project']",
        "True 40 True [80, 'file', '__main__', 'project']",
        "True 3 [10, 10] True True",
        *(f"True {x} [1, 2, 80]" for x in (1, 2, 3)),
        "[True, False, True, True, False, True] True 11",
        "True 3",
        "[10, 40]",
    ]
    assert error.startswith("func can't be sent to a worker: the global 'guard' that waits reads can't be")
    assert "lock" in error
    assert "put waits() in a module" in cure
    warnings = [line for line in done.stderr.splitlines() if "in a worker" in line]
    reason = (
        "the global 'lock' that work reads can't be pickled (TypeError: cannot pickle '_thread.lock' object)"
    )
    text = "project.locked.LIMIT is 5 in the program, and 1 in a worker: the module project.locked goes by"
    assert warnings == [f"{text} reference, as {reason}"]
