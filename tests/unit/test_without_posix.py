"""Nothing that only POSIX has is needed: not to import the package, nor to run without Ray."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.emulator import Emulator
from support.programs import environment
from support.terminal import Terminal

HIDE = """
import os, signal, sys

for module in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[module] = None  # importing it fails from now on
for module, names in (
    (os, ("fork", "getuid", "killpg", "register_at_fork", "sched_getaffinity", "setsid", "ttyname")),
    (signal, ("SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "pthread_kill", "pthread_sigmask", "setitimer")),
):
    for name in names:
        delattr(module, name)

os.process_cpu_count = os.cpu_count  # as Python 3.13 has it where there are no affinities

def no_terminal(*_):
    raise OSError("no terminal")

os.get_terminal_size = no_terminal
"""

IMPORT = """
import importlib, pkgutil
import speedy_utils
for module in pkgutil.walk_packages(speedy_utils.__path__, "speedy_utils."):
    if not module.name.startswith("speedy_utils._ray"):
        importlib.import_module(module.name)
from speedy_utils._engines.cpus import cpus
assert cpus() == os.cpu_count()
"""

RUN = """
from speedy_utils import multi_process, track
from speedy_utils.errors import TaskError
seen = []
def work(n):
    assert n < 30, n
    return sum(track(range(n), desc="Sum"))
for backend in ("seq", "threads"):
    results = multi_process(
        work, [10, 20, 30], backend=backend, num_workers=2, total_items=lambda n: n, on_error="continue",
        progress=seen.append,
    )
    assert results[:2] == [45, 190], results
    assert isinstance(results[2], TaskError), results
    assert [(line.name, line.done, line.total) for line in seen[-1].lines][-1] == ("Sum", 30, 60), seen[-1]
    multi_process(abs, [-1, -2], backend=backend, worker_logs="none")
"""

DATASETS = "from datasets import Dataset, load_from_disk\n"  # huggingface_hub looks for termios by os.name

PROCESS = """
from speedy_utils import multi_process_dataset, track
rows = Dataset.from_dict({"n": list(range(10))})
def double(shard, path):
    return Dataset.from_list([{"n": 2 * row["n"]} for row in track(shard)])
out = multi_process_dataset(rows, double, "out", backend="threads", num_workers=2, num_shards=3)
assert load_from_disk(out)["n"][:] == list(range(0, 20, 2))
"""


DISPLAYS = """
from speedy_utils import Snapshot, StageSnapshot
from speedy_utils._display.base import choose_display
from speedy_utils._display.log import LogDisplay

bars = choose_display(True)
bars.show(Snapshot(StageSnapshot("Read", 5, 10)))
print("printed on stdout")
print("printed on stderr", file=sys.stderr)
last = Snapshot(StageSnapshot("Read", 10, 10, elapsed=2.0), final=True)
bars.show(last)
bars.close()
LogDisplay().show(last)
print(type(bars).__name__)
"""


@pytest.mark.parametrize(
    "program", [HIDE + IMPORT, HIDE + RUN, DATASETS + HIDE + PROCESS], ids=["import", "run", "dataset"]
)
def test_the_package_works_without_posix(tmp_path: Path, program: str) -> None:
    """Without forks, POSIX's modules, its signals and a terminal's size the package imports and runs."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The tasks that fail are logged, each kind with its own.
    assert done.stderr.count("Traceback (") == done.stderr.count("Traceback in the worker")


def test_bars_and_log_lines_need_no_posix(tmp_path: Path) -> None:
    """In a terminal that can't say its size bars stand below what is printed, and log lines come too."""
    script = tmp_path / "program.py"
    script.write_text(HIDE + DISPLAYS)
    with contextlib.closing(Terminal(script, (80, 12))) as program:
        assert program.wait() == 0, program.text
    emulator = Emulator(80, 12)
    emulator.feed(program.text)
    *printed, bar, log, kind = emulator.lines()
    assert (printed, kind) == (["printed on stdout", "printed on stderr"], "BarDisplay")
    assert bar.startswith("Read: 100%|██")
    assert log.endswith(" Read: 100% 10/10 in 00:02, 5.00 items/s, stopped")
