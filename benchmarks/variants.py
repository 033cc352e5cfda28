"""One way to run a million rows, in a process of its own.

    python -m benchmarks.variants NAME WORK WORKERS DATA OUT MARKS

Functions of a shard note when they begin and end; where a tool is given a function of a row, its first
call in each process is the beginning, and the end is what its driver sees. The last mark is set when the
output is on disk.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.work import WORK, mark

BATCH = 1_000

CHUNK = 10_000
"""Rows of a task where a pool is given indices."""

Shard = Callable[[Any, str], str]


class Job:
    """What a variant is given."""

    def __init__(self, work: str, workers: int, data: str, out: str, marks: str) -> None:
        self.work, self.workers, self.data, self.out, self.marks = work, workers, data, out, marks

    def dataset(self) -> Any:
        from datasets import load_from_disk

        return load_from_disk(self.data, keep_in_memory=bool(os.environ.get("BENCHMARK_IN_MEMORY")))

    def row(self) -> Callable[[Any], Any]:
        """A function of a row, which marks its first call in a process."""
        function, marks, began = WORK[self.work], self.marks, []

        def row(item: Any) -> dict[str, str]:
            if not began:
                began.append(True)
                mark(marks, "begin")
            return {"text": function(item["text"])}

        return row

    def batch(self) -> Callable[[Any], Any]:
        """A function of a batch, which marks its first call in a process."""
        function, marks, began = WORK[self.work], self.marks, []

        def batch(items: Any) -> dict[str, list[str]]:
            if not began:
                began.append(True)
                mark(marks, "begin")
            return {"text": [function(text) for text in items["text"]]}

        return batch

    def shard(self, track: Callable[[Any], Iterable[Any]] | None = None) -> Shard:
        """A function of a shard that goes row by row, counted by ``track``."""
        function, marks = WORK[self.work], self.marks

        def shard(rows: Any, path: str) -> str:
            from datasets import Dataset

            mark(marks, "begin")
            done = [{"text": function(item["text"])} for item in (track(rows) if track else rows)]
            mark(marks, "end")
            Dataset.from_list(done).save_to_disk(path)
            return path

        return shard

    def chunk(self) -> Callable[[Any, int, int], list[str]]:
        """A function of some rows of a dataset, which marks its first call in a process."""
        function, marks, began = WORK[self.work], self.marks, []

        def chunk(rows: Any, start: int, stop: int) -> list[str]:
            if not began:
                began.append(True)
                mark(marks, "begin")
            return [function(item["text"]) for item in rows.select(range(start, stop))]

        return chunk

    def save(self, chunks: Iterable[list[str]]) -> None:
        """Make one dataset of what the chunks have become."""
        from datasets import Dataset

        text = [line for chunk in chunks for line in chunk]
        mark(self.marks, "end")
        Dataset.from_dict({"text": text}).save_to_disk(self.out)

    def yielding_shard(self, track: Callable[[Any], Iterable[Any]]) -> Callable[[Any], Iterable[Any]]:
        """The same as a generator function; its end is that of the last row, as most are written by then."""
        function, marks = WORK[self.work], self.marks

        def shard(rows: Any) -> Iterable[Any]:
            mark(marks, "begin")
            for item in track(rows):
                yield {"text": function(item["text"])}
            mark(marks, "end")

        return shard

    def batched_shard(self, track: Callable[..., Iterable[Any]] | None = None) -> Shard:
        """The same in batches."""
        function, marks = WORK[self.work], self.marks

        def shard(rows: Any, path: str) -> str:
            from datasets import Dataset

            mark(marks, "begin")
            text: list[str] = []
            batches = rows.iter(BATCH)
            for batch in track(batches, size=lambda batch: len(batch["text"])) if track else batches:
                text += [function(line) for line in batch["text"]]
            mark(marks, "end")
            Dataset.from_dict({"text": text}).save_to_disk(path)
            return path

        return shard


def _ours(backend: str, batched: bool) -> Callable[[Job], None]:
    def run(job: Job) -> None:
        from speedy_utils import multi_process_dataset, track

        shard = job.batched_shard(track) if batched else job.shard(track)
        multi_process_dataset(job.dataset(), shard, job.out, num_workers=job.workers, backend=backend)

    return run


def _yielding(backend: str) -> Callable[[Job], None]:
    def run(job: Job) -> None:
        from speedy_utils import multi_process_dataset, track

        shard = job.yielding_shard(track)
        multi_process_dataset(job.dataset(), shard, job.out, num_workers=job.workers, backend=backend)

    return run


def _map(batched: bool) -> Callable[[Job], None]:
    def run(job: Job) -> None:
        options: dict[str, Any] = {"num_proc": job.workers, "load_from_cache_file": False}
        if batched:
            done = job.dataset().map(job.batch(), batched=True, batch_size=BATCH, **options)
        else:
            done = job.dataset().map(job.row(), **options)
        mark(job.marks, "end")
        done.save_to_disk(job.out)

    return run


def _plain(batched: bool) -> Callable[[Job], None]:
    """Ray tasks with nothing around them: no bar, no retry, and one dataset a shard instead of a whole."""

    def run(job: Job) -> None:
        import ray

        _start_ray(job.workers)
        remote = ray.remote(job.batched_shard() if batched else job.shard())
        rows = job.dataset()
        shards = [rows.shard(job.workers, index, contiguous=True) for index in range(job.workers)]
        ray.get([remote.remote(shard, f"{job.out}/{index}") for index, shard in enumerate(shards)])

    return run


def _bounds(rows: Any) -> list[tuple[int, int]]:
    return [(start, min(start + CHUNK, len(rows))) for start in range(0, len(rows), CHUNK)]


def _mpire(job: Job) -> None:
    """A pool of forks that have the dataset, and get the indices of rows."""
    from mpire import WorkerPool

    rows = job.dataset()
    with WorkerPool(job.workers, start_method="fork", shared_objects=rows) as pool:
        job.save(pool.map(job.chunk(), _bounds(rows)))


def _joblib(job: Job) -> None:
    """The same with the workers of joblib, which read the dataset from disk."""
    from joblib import Parallel, delayed

    rows, chunk = job.dataset(), job.chunk()
    job.save(Parallel(job.workers)(delayed(chunk)(rows, *bounds) for bounds in _bounds(rows)))


def _start_ray(cpus: int) -> None:
    import ray

    ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level="ERROR")


VARIANTS: dict[str, Callable[[Job], None]] = {
    "ours, ray, rows": _ours("ray", False),
    "ours, ray, yielded": _yielding("ray"),
    "ours, ray, batches": _ours("ray", True),
    "ours, processes, rows": _ours("processes", False),
    "ours, processes, yielded": _yielding("processes"),
    "ours, processes, batches": _ours("processes", True),
    "ours, threads, rows": _ours("threads", False),
    "ours, threads, batches": _ours("threads", True),
    "ours, seq, rows": _ours("seq", False),
    "ours, seq, yielded": _yielding("seq"),
    "ours, seq, batches": _ours("seq", True),
    "datasets.map, rows": _map(False),
    "datasets.map, batches": _map(True),
    "plain Ray tasks, rows": _plain(False),
    "plain Ray tasks, batches": _plain(True),
    "mpire, rows": _mpire,
    "joblib, rows": _joblib,
}


def main() -> None:
    name, work, workers, data, out, marks = sys.argv[1:]
    Path(marks).touch()
    VARIANTS[name](Job(work, int(workers), data, out, marks))
    mark(marks, "saved")


if __name__ == "__main__":
    main()
