"""What merging costs, and how much memory the driver takes.

    python benchmarks/merge.py [--megabytes 500] [--shards 64] [--rounds 5] [--only merge|memory]

Merging is timed beside ``concatenate_datasets(...).save_to_disk`` on the same shards; the two take turns.
The memory is that of a driver's process over a whole run, for a memory-mapped dataset and for one with ten
times the rows. Its peak has the pages of the data that ``load_from_disk`` has looked at, which the system
takes back when it needs them; its own memory is what is left without mapped files.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROW = "A line of text that is a little longer than most lines of source code are. " * 8
ROWS = 100_000
WORKERS = 2


def make_shards(output: Path, shards: int, megabytes: int) -> None:
    """Write the shards of a run, as its workers do, and leave the run before it merges."""
    from speedy_utils.errors import ShardError
    from speedy_utils.multi_worker import dataset_sharding
    from speedy_utils.multi_worker.run_folder import Partial

    def write(shard: Any, path: str) -> None:
        from datasets import Dataset

        rows = megabytes * 1_000_000 // shards // len(ROW)
        first = shard[0]["id"] * rows
        Dataset.from_dict({"text": [ROW] * rows, "id": list(range(first, first + rows))}).save_to_disk(path)

    class LeftError(ShardError):
        """The run was left."""

    def leave(partial: Partial) -> None:
        raise LeftError

    from datasets import Dataset

    merge, dataset_sharding.merge_shards = dataset_sharding.merge_shards, leave  # type: ignore[assignment]
    try:
        dataset_sharding.multi_process_dataset(
            Dataset.from_dict({"id": list(range(shards))}),
            write,
            output,
            backend="seq",
            num_shards=shards,
            progress=False,
        )
    except LeftError:
        pass
    finally:
        dataset_sharding.merge_shards = merge


def merge_seconds(home: Path, shards: int, megabytes: int, rounds: int) -> dict[str, list[float]]:
    """The rounds of both ways."""
    from datasets import concatenate_datasets, load_from_disk

    from speedy_utils.multi_worker.manifest import _read_manifest, open_partial
    from speedy_utils.multi_worker.merge import merge_shards

    model = home / "model"
    make_shards(model, shards, megabytes)
    took: dict[str, list[float]] = {"ours": [], "concatenate": []}
    for number in range(rounds):
        output = home / f"ours-{number}"
        # Other names for the same files: each round moves its own.
        partial_folder = Path(f"{output}.partial")
        subprocess.run(["cp", "-al", f"{model}.partial", str(partial_folder)], check=True)
        manifest = _read_manifest(partial_folder)
        assert manifest is not None
        partial = open_partial(output, manifest.identity, num_shards=shards, default_shards=shards)
        start = time.perf_counter()
        merge_shards(partial)
        took["ours"].append(time.perf_counter() - start)

        parts = sorted(Path(f"{model}.partial", "shards").glob("*/*/output"))
        loaded = [load_from_disk(str(part)) for part in parts]
        plain = home / f"plain-{number}"
        start = time.perf_counter()
        concatenate_datasets(loaded).save_to_disk(str(plain))
        took["concatenate"].append(time.perf_counter() - start)
        if len(load_from_disk(str(output))) != len(load_from_disk(str(plain))):
            raise SystemExit("the two have not the same rows")
        shutil.rmtree(output)
        shutil.rmtree(plain)
    return took


def memory() -> dict[str, int]:
    """The memory of this process in megabytes: VmHWM is the peak, RssAnon its own, without mapped files."""
    # Not ru_maxrss: that starts from what the parent had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {name: int(kb) // 1024 for name, kb in re.findall(r"(VmHWM|RssAnon):\s+(\d+) kB", status)}


def drive(data: str, out: str) -> None:
    """A whole run over a saved dataset; prints what this process took."""
    from datasets import load_from_disk

    from speedy_utils import multi_process_dataset

    def same(shard: Any, path: str) -> None:
        shard.save_to_disk(path)

    dataset = load_from_disk(data)
    loaded = memory()["VmHWM"]
    own = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal own
        while not over.wait(0.01):
            own = max(own, memory()["RssAnon"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    multi_process_dataset(dataset, same, out, num_workers=WORKERS, num_shards=8)
    over.set()
    watcher.join()
    print(loaded, memory()["VmHWM"], own)


def driver_memory(home: Path, rows: int) -> list[int]:
    """The memory of a driver in megabytes: with the dataset loaded, at its peak, and its own at its peak."""
    from datasets import Dataset

    def generate(first: list[int]) -> Any:
        for start in first:
            yield from ({"text": ROW, "id": i} for i in range(start, start + ROWS))

    data = home / f"rows-{rows}"
    Dataset.from_generator(
        generate, gen_kwargs={"first": list(range(0, rows, ROWS))}, cache_dir=str(home / "cache")
    ).save_to_disk(str(data))
    done = subprocess.run(
        [sys.executable, __file__, "--drive", str(data), str(home / f"out-{rows}")],
        check=True,
        capture_output=True,
        text=True,
    )
    return [int(value) for value in done.stdout.splitlines()[-1].split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["merge", "memory"])
    parser.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive:
        drive(*args.drive)
        return
    from datasets import disable_progress_bars

    disable_progress_bars()
    with tempfile.TemporaryDirectory() as home:
        if args.only != "memory":
            took = merge_seconds(Path(home), args.shards, args.megabytes, args.rounds)
            print(f"\nMerging {args.shards} shards of {args.megabytes} MB: seconds, median of {args.rounds}")
            ours = statistics.median(took["ours"])
            for name, rounds in took.items():
                median = statistics.median(rounds)
                each = " ".join(f"{value:.3f}" for value in rounds)
                print(f"  {name:<14} {median:7.3f}   ours is {ours / median:5.3f} of it   ({each})")
        if args.only != "merge":
            print(f"\nMemory of the driver in MB, {len(ROW)} bytes a row")
            print("       rows    loaded   peak   the run's   own peak")
            few, many = (driver_memory(Path(home), rows) for rows in (ROWS, 10 * ROWS))
            for rows, (loaded, peak, own) in ((ROWS, few), (10 * ROWS, many)):
                print(f"  {rows:>9,} {loaded:>9} {peak:>6} {peak - loaded:>11} {own:>10}")
            print(
                f"  10 times the rows: {many[1] / few[1]:.2f} of the peak, {many[2] / few[2]:.2f} of its own"
            )


if __name__ == "__main__":
    main()
