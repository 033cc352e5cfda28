"""Libraries in a worker start as many threads as it has cores to itself, unless the user sets the number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from speedy_utils._engines.cpus import cpus
from speedy_utils._engines.environment.surroundings import Surroundings
from speedy_utils._engines.environment.thread_limits import ThreadLimits


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ThreadLimits(1).variables():
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("workers", "cores"), [(1, cpus()), (cpus(), 1), (1_000, 1)])
def test_workers_share_the_cores(workers: int, cores: int) -> None:
    """Each variable says how many cores a worker has to itself, at least one."""
    limits = ThreadLimits.of_workers(workers)
    assert limits.cores == cores
    assert {*limits.variables().values()} == {str(cores)}
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"} <= limits.variables().keys()


@pytest.mark.parametrize(
    ("by_user", "others"),
    [("RAYON_NUM_THREADS", True), ("MKL_NUM_THREADS", True), ("OMP_NUM_THREADS", False)],
)
def test_what_the_user_has_set_stays(by_user: str, others: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the user's is not set, nor are those that stand for it where they are not set."""
    monkeypatch.setenv(by_user, "7")
    variables = ThreadLimits.of_workers(1).variables()
    assert by_user not in variables
    assert ("OPENBLAS_NUM_THREADS" in variables) == others


def test_there_are_no_limits_on_a_ray_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Surroundings without limits leave the variables as they are."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert ThreadLimits().variables() == Surroundings().threads.variables() == {}


PROGRAM = """
import multiprocessing, os
import numpy, pyarrow
from threadpoolctl import threadpool_info
from speedy_utils import multi_process
from speedy_utils._engines.cpus import cpus

multiprocessing.set_start_method(method)
if by_call:
    pyarrow.set_cpu_count(11)

def limits(_):
    blas = {each["num_threads"] for each in threadpool_info()}
    variables = os.environ.get("OMP_NUM_THREADS"), os.environ.get("RAYON_NUM_THREADS")
    return *variables, blas, pyarrow.cpu_count(), cpus()

def nested(_):
    return multi_process(limits, [0], num_workers=1000, progress=False)[0]

before, share, openmp = limits(0), max(1, cpus() // 2), os.environ.get("OMP_NUM_THREADS")
functions = [limits, nested] if method == "fork" and not by_call else [limits]
for function in functions:
    for found in multi_process(function, range(2), num_workers=2, progress=False):
        variable, rayon, blas, arrow, cores = found
        assert variable == (openmp or str(share)), found
        assert (rayon, cores) == (str(share), share), found
        assert blas == (before[2] if openmp else {share}), found
        assert arrow == (before[3] if openmp or by_call else share), found
assert limits(0) == before
"""


@pytest.mark.parametrize(
    ("method", "openmp", "by_call"),
    [
        ("fork", None, False),
        ("forkserver", None, False),
        ("spawn", None, False),
        ("fork", None, True),
        ("fork", "3", False),
    ],
)
def test_limits_hold_in_workers(
    method: str, openmp: str | None, by_call: bool, driver: Callable[..., Any]
) -> None:
    """By the environment, and by calls if they are loaded; what the user has set stays."""
    done = driver(f"method, by_call = {method!r}, {by_call}\n{PROGRAM}", env={"OMP_NUM_THREADS": openmp})
    assert done.returncode == 0, done.stderr
