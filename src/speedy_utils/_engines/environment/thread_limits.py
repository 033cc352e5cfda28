"""How many threads libraries may start in a worker: as many as it has cores to itself.

OpenBLAS, MKL, Arrow, tokenizers, PyTorch and others start a thread for each core by themselves. In each of 64
workers on 64 cores that would be 64 × 64 threads. Ray, for its part, allows its tasks one thread each, so two
workers would use two of 64 cores.

A library reads a variable of the environment when it is loaded; in one that is loaded already the number is
set by a call. What the user has set, by a variable or by a call, stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..cpus import cpus, limit_cpus

_OF_OPENMP = (
    "OMP_NUM_THREADS",  # PyTorch, Arrow, scikit-learn, and those below if theirs is not set
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

_VARIABLES = (*_OF_OPENMP, "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")

_set: dict[str, str] = {}
"""The limits of this worker, by variable: these are not the user's."""

_in_force = 0
"""The number that was set in the libraries of this worker; 0 for none."""

_BUILT_FOR = (64, 128)
"""Numbers of threads that builds of OpenBLAS have at most."""


@dataclass(frozen=True, slots=True)
class ThreadLimits:
    """How many threads each worker of a run may have, and what the user has set.

    Attributes:
        cores: How many; 0 for no limit.
        of_user: The variables that the user has set.
    """

    cores: int = 0
    of_user: frozenset[str] = frozenset()

    @classmethod
    def of_workers(cls, workers: int) -> ThreadLimits:
        """Return those of workers that share the cores which this process may use."""
        of_user = {name for name in _VARIABLES if os.environ.get(name) and not is_limit(name)}
        return cls(max(1, cpus() // workers), frozenset(of_user))

    def variables(self) -> dict[str, str]:
        """Return what to set in the environment of a worker."""
        if not self.cores:
            return {}
        openmp = () if _OF_OPENMP[0] in self.of_user else _OF_OPENMP
        names = {*openmp, *_VARIABLES[len(_OF_OPENMP) :]} - self.of_user
        return dict.fromkeys(sorted(names), str(self.cores))

    def set_in_libraries(self) -> None:
        """Set the number in the libraries that are loaded in this worker, once."""
        global _in_force
        if not self.cores or self.cores == _in_force:
            return
        known = _usual_numbers()
        _in_force = self.cores
        _set.update(self.variables())
        limit_cpus(self.cores)
        with suppress(Exception):  # it is code of libraries, and of no use to the task
            for names, number, set_number in _loaded():
                if not self.of_user & {*names, _OF_OPENMP[0]} and number in known:
                    set_number(self.cores)


NO_LIMITS = ThreadLimits()


def is_limit(name: str) -> bool:
    """Return whether the value of a variable is the limit of this worker, and not the user's."""
    return name in _set and os.environ.get(name) == _set[name]


def _usual_numbers() -> set[int]:
    """Return how many threads a library may have by itself, or has had since this was done before."""
    here = {os.cpu_count() or 1, cpus()}
    if hasattr(os, "sched_getaffinity"):
        here.add(len(os.sched_getaffinity(0)))
    cores = {number // 2 for number in here}  # two threads of a processor share a core
    return {*here, *cores, *_BUILT_FOR, _in_force}


def _loaded() -> Iterator[tuple[tuple[str, ...], int, Callable[[int], Any]]]:
    """Yield the libraries with threads that are loaded: their variables, the number, and what changes it."""
    modules = sys.modules
    if any(name in modules for name in ("numpy", "scipy", "torch")):
        from threadpoolctl import ThreadpoolController

        for library in ThreadpoolController().lib_controllers:
            number = library.get_num_threads()
            if number is not None:
                yield (f"{library.internal_api.upper()}_NUM_THREADS",), number, library.set_num_threads
    arrow = modules.get("pyarrow")
    if arrow is not None and hasattr(arrow, "set_cpu_count"):  # else it is being imported
        yield (), arrow.cpu_count(), arrow.set_cpu_count
    torch = modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        yield (), torch.get_num_threads(), torch.set_num_threads
