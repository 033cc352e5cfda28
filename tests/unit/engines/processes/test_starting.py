"""How workers start: forked where that is safe, by a fork server elsewhere, and as the program says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

START = """
import sys, threading
{before}
from speedy_utils._engines.processes.starting import start_method
print(start_method())
{after}
"""

THREAD = "wait = threading.Event(); threading.Thread(target=wait.wait).start()"

OF_C = """
import ctypes
thread, c = ctypes.c_ulong(), ctypes.CDLL(None)
c.pthread_create(ctypes.byref(thread), None, c.pause, None)
"""

DRIVER = """
import mmap
with open("libcuda.so.1", "w+b") as file:
    file.write(b"x")
    file.flush()
    loaded = mmap.mmap(file.fileno(), 1)
"""

CHOOSE = "import multiprocessing; multiprocessing.set_start_method({!r})"

NUMPY = "import numpy; a = numpy.ones((600, 600)); a @ a"

ARROW = "import pyarrow; pyarrow.table({'a': range(1000)}).sort_by('a').group_by('a')"


@pytest.mark.parametrize(
    ("before", "after", "method"),
    [
        ("", "", "fork"),
        (NUMPY, "", "fork"),
        (ARROW, "", "fork"),
        ("from tqdm import tqdm; [*tqdm([1], mininterval=1e-9)]", "", "fork"),
        (THREAD, "wait.set()", "forkserver"),
        ("import _thread; _thread.start_new_thread(__import__('time').sleep, (60,))", "", "forkserver"),
        (OF_C, "", "forkserver"),
        (ARROW + OF_C, "", "forkserver"),
        ("sys.modules['jax'] = sys", "", "forkserver"),
        (DRIVER, "", "forkserver"),
        (CHOOSE.format("forkserver"), "", "forkserver"),
        (CHOOSE.format("spawn"), "", "spawn"),
    ],
)
def test_only_a_program_without_harmful_threads_is_forked(
    before: str, after: str, method: str, driver: Callable[..., Any]
) -> None:
    """Threads of numpy, Arrow and tqdm do no harm, others may hold a lock, devices break; a choice holds."""
    done = driver(START.format(before=before, after=after))
    assert (done.returncode, done.stdout.split()) == (0, [method]), done.stderr


NO_GUARD = """
import os, sys, multiprocessing
{choose}
print("the program runs")
from speedy_utils import multi_process, track
SIZE = 2
SIZE = 3  # as a program changes it
class Word(str):
    pass
def work(word):
    return Word(word * SIZE), os.getpid(), len(list(track(word)))
found = multi_process(work, [Word("a"), Word("b")], backend="processes", num_workers=2, progress=False)
assert [each[0] for each in found] == ["aaa", "bbb"]
assert {{type(each[0]) for each in found}} == {{Word}}
assert os.getpid() not in [each[1] for each in found]
print({unwanted!r} in sys.modules, "ends")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_program_needs_no_guard(method: str, driver: Callable[..., Any]) -> None:
    """No child runs the program's file again, however it starts; functions and classes travel by value."""
    done = driver(NO_GUARD.format(choose=CHOOSE.format(method), unwanted="ray"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["the program runs", "False ends", ""]


WITHOUT_DATASETS = """
import sys
from speedy_utils import multi_process
def loaded(name):
    return name in sys.modules
print(multi_process(loaded, ["ray", "datasets", "pandas"], backend="processes", progress=False))
print([name in sys.modules for name in ("ray", "datasets", "pandas")])
"""


def test_neither_ray_nor_datasets_is_imported(driver: Callable[..., Any]) -> None:
    """A run over items imports Ray and ``datasets`` neither in the program nor in its workers."""
    done = driver(WITHOUT_DATASETS)
    assert done.stdout.splitlines() == ["[False, False, False]"] * 2, done.stderr


UNPICKLABLE = """
import threading
from speedy_utils import multi_process
lock = threading.Lock()
def outer():
    opened = open(__file__)
    def work(item):
        with lock:
            return item, opened.name == __file__
    return work
print(multi_process(outer(), range(2), backend="processes", progress=False))
"""


def test_what_is_forked_need_not_be_pickled(driver: Callable[..., Any]) -> None:
    """A function with a lock and an open file is inherited by the workers of a program that is forked."""
    done = driver(UNPICKLABLE)
    assert done.stdout.strip() == "[(0, True), (1, True)]", done.stderr


NESTED = """
import multiprocessing, sys, threading
from speedy_utils import multi_process
def double(item):
    return item * 2
def nested(item):
    return sum(multi_process(double, range(item), backend="processes", num_workers=2, progress=False))
def main_spec(item):
    return getattr(sys.modules["__main__"].__spec__, "name", None)
options = {"backend": "processes", "num_workers": 2, "progress": False}
print(multi_process(main_spec, [0], **options))
wait = threading.Event()
thread = threading.Thread(target=wait.wait)
thread.start()
print(multi_process(double, range(2), **options))  # starts a fork server
wait.set()
thread.join()
print(multi_process(nested, [2, 3], **options))
with multiprocessing.get_context("fork").Pool(1) as pool:  # its workers refuse to have children
    print(pool.map(nested, [2, 3]))
"""


def test_a_child_starts_processes_of_its_own(driver: Callable[..., Any]) -> None:
    """A worker has a fork server of its own, not its parent's. The main module is what it was."""
    done = driver(NESTED)
    assert done.stdout.splitlines() == ["[None]", "[0, 2]", "[2, 6]", "[2, 6]"], done.stderr


FAILS_AT_ONCE = """
import multiprocessing
from speedy_utils import TaskError, multi_process
multiprocessing.set_start_method({!r})
def fail(item):
    raise ValueError
try:
    multi_process(fail, range(6), backend="processes", num_workers=6, progress=False)
except TaskError:
    print("failed")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_that_are_cancelled_as_they_start_print_nothing(
    method: str, driver: Callable[..., Any]
) -> None:
    """There is no traceback of an interrupt that came before they were ready."""
    done = driver(FAILS_AT_ONCE.format(method))
    assert (done.stdout, done.stderr) == ("failed\n", "")


FEW_FILES = """
import resource
from speedy_utils import multi_process
def double(n):
    return 2 * n
for hard in (1_000, 50):
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
    print(multi_process(double, range(20), num_workers=20, backend="processes", progress=False)[-1])
"""


def test_workers_may_take_more_files_than_a_program_has_at_first(driver: Callable[..., Any]) -> None:
    """The limit is raised as far as the system lets it; where that is not enough an error says what to do."""
    done = driver(FEW_FILES)
    assert done.stdout.splitlines() == ["38"]
    assert "of 20 are there ([Errno 24] Too many open files): give a smaller num_workers" in done.stderr
