"""A million text rows, two workers, from process start to finished output, beside the usual ways.

    python benchmarks/dataset.py [--rows 1000000] [--rounds 3] [--only rows|batches]

The rows are source lines of the standard library and the installed packages; the work is to write them in
upper case. Each variant is a process of its own, and the variants take turns. The clock stands still when
the output is on disk, so shutting down is nobody's cost. Plain Ray has no bar, retries nothing, and leaves
one dataset a shard: it is what the work itself costs.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORKERS = 2
BATCH = 1_000


def source_lines() -> Iterator[dict[str, str]]:
    """The lines of all Python sources of this installation, again and again."""
    homes = {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}
    files = sorted(file for home in homes for file in Path(home).rglob("*.py"))
    for file in itertools.cycle(files):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            yield {"text": line}


def rows_ours(data: str, out: str) -> None:
    from datasets import Dataset, load_from_disk

    from speedy_utils import multi_process_dataset, track

    def shout(shard: Any, path: str) -> str:
        rows = [{"text": item["text"].upper()} for item in track(shard)]
        Dataset.from_list(rows).save_to_disk(path)
        return path

    multi_process_dataset(load_from_disk(data), shout, out, num_workers=WORKERS)


def rows_map(data: str, out: str) -> None:
    from datasets import load_from_disk

    def shout(item: dict[str, str]) -> dict[str, str]:
        return {"text": item["text"].upper()}

    load_from_disk(data).map(shout, num_proc=WORKERS, load_from_cache_file=False).save_to_disk(out)


def rows_plain(data: str, out: str) -> None:
    from datasets import Dataset

    def shout(shard: Any, path: str) -> str:
        rows = [{"text": item["text"].upper()} for item in shard]
        Dataset.from_list(rows).save_to_disk(path)
        return path

    _plain_ray(shout, data, out)


def batches_ours(data: str, out: str) -> None:
    from datasets import Dataset, load_from_disk

    from speedy_utils import multi_process_dataset, track

    def shout(shard: Any, path: str) -> str:
        text: list[str] = []
        for batch in track(shard.iter(BATCH), size=lambda batch: len(batch["text"])):
            text += [line.upper() for line in batch["text"]]
        Dataset.from_dict({"text": text}).save_to_disk(path)
        return path

    multi_process_dataset(load_from_disk(data), shout, out, num_workers=WORKERS)


def batches_plain(data: str, out: str) -> None:
    from datasets import Dataset

    def shout(shard: Any, path: str) -> str:
        text: list[str] = []
        for batch in shard.iter(BATCH):
            text += [line.upper() for line in batch["text"]]
        Dataset.from_dict({"text": text}).save_to_disk(path)
        return path

    _plain_ray(shout, data, out)


def _plain_ray(task: Callable[[Any, str], str], data: str, out: str) -> None:
    import ray
    from datasets import load_from_disk

    ray.init(num_cpus=WORKERS, include_dashboard=False, logging_level="ERROR")
    remote = ray.remote(task)
    dataset = load_from_disk(data)
    shards = [dataset.shard(WORKERS, index, contiguous=True) for index in range(WORKERS)]
    ray.get([remote.remote(shard, f"{out}/{index}") for index, shard in enumerate(shards)])


VARIANTS = {
    "rows": {"ours": rows_ours, "datasets.map": rows_map, "plain Ray": rows_plain},
    "batches": {"ours": batches_ours, "plain Ray": batches_plain},
}


def seconds(kind: str, name: str, data: Path, folder: Path) -> float:
    """Run a variant in a fresh process."""
    out = folder / "out"
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--variant", kind, name, str(data), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{kind}, {name}:\n{done.stderr}")
    shutil.rmtree(out)
    return float(done.stdout.split()[-1]) - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=VARIANTS)
    parser.add_argument("--variant", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        kind, name, data, out = args.variant
        VARIANTS[kind][name](data, out)
        print(time.monotonic())  # one clock for all processes of a machine
        return
    with tempfile.TemporaryDirectory() as home:
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        lines = list(itertools.islice(source_lines(), args.rows))
        data = Path(home) / "data"
        Dataset.from_list(lines).save_to_disk(str(data))
        for kind in [args.only] if args.only else VARIANTS:
            took: dict[str, list[float]] = {name: [] for name in VARIANTS[kind]}
            for _ in range(args.rounds):
                for name, rounds in took.items():
                    rounds.append(seconds(kind, name, data, Path(home)))
            print(f"\n{args.rows:,} {kind}, {WORKERS} workers: seconds, median of {args.rounds} rounds")
            ours = statistics.median(took["ours"])
            for name, rounds in took.items():
                median = statistics.median(rounds)
                each = " ".join(f"{value:.1f}" for value in rounds)
                print(f"  {name:<14} {median:6.2f}   ours is {ours / median:4.2f} of it   ({each})")


if __name__ == "__main__":
    main()
