"""Engines that are not ours, each as a way to call a function on items, in two workers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

Map = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


def _threads(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, items))


def _executor(method: str) -> Map:
    def call(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            return list(pool.map(work, items))

    return call


def _pool(method: str, **options: Any) -> Map:
    def call(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        with multiprocessing.get_context("fork").Pool(2, **options) as pool:
            return list(getattr(pool, method)(work, items))

    return call


def _joblib(backend: str) -> Map:
    def call(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        joblib = pytest.importorskip("joblib")
        calls = (joblib.delayed(work)(item) for item in items)
        return list(joblib.Parallel(n_jobs=2, backend=backend)(calls))

    return call


def _mpire(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with pytest.importorskip("mpire").WorkerPool(n_jobs=2) as pool:
        return list(pool.map(work, items))


ENGINES: dict[str, Map] = {
    "threads": _threads,
    "executor-fork": _executor("fork"),
    "executor-spawn": _executor("spawn"),
    "executor-forkserver": _executor("forkserver"),
    "pool-map": _pool("map"),
    "pool-imap_unordered": _pool("imap_unordered"),
    "pool-maxtasksperchild": _pool("map", maxtasksperchild=1),
    "joblib-loky": _joblib("loky"),
    "joblib-threading": _joblib("threading"),
    "joblib-multiprocessing": _joblib("multiprocessing"),
    "mpire": _mpire,
}
"""By name."""
