"""Uppercase and measure the source lines of the installed Python in 8 workers, under one bar.

    python examples/dataset.py [--rows 1000000] [--backend processes] [--workers 8] [--out FOLDER]

The lines of the standard library and of the installed packages become a dataset, memory-mapped from FOLDER
(a temporary one, if not given). The bar ends at exactly its rows. Then follow the number of rows and
characters, the longest line, the time it took, and a check that each row is exact and in its place.
"""

import argparse
import sysconfig
import tempfile
import time
import tokenize
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from datasets import Dataset, load_from_disk

from speedy_utils import multi_process_dataset, track


def source_lines(rows: int) -> Iterator[dict[str, str]]:
    """The first lines of all source files, in the order of their paths."""
    folders = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    paths = sorted({path for folder in folders for path in folder.rglob("*.py")})
    yield from islice(({"text": line} for path in paths for line in read(path)), rows)


def read(path: Path) -> list[str]:
    """The lines of a file; none where it can't be read, as some of Python's own test data."""
    try:
        with tokenize.open(path) as file:
            return [line.rstrip("\n") for line in file]
    except (OSError, SyntaxError, UnicodeError):
        return []


def measured(row: dict[str, str]) -> dict[str, str | int]:
    """The work on a row."""
    return {"text": row["text"].upper(), "length": len(row["text"])}


def measure(dataset: Dataset) -> Iterator[dict[str, str | int]]:
    """Runs in a worker, once for each shard. It knows nothing of Ray, and only `track` of progress."""
    for row in track(dataset):
        yield measured(row)


def main() -> None:
    """Build the dataset, process it, print and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="at most this many")
    parser.add_argument("--backend", choices=["ray", "processes", "threads", "seq"])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--out", metavar="FOLDER", help="keeps the datasets here")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or scratch
        lines = Dataset.from_generator(
            source_lines, gen_kwargs={"rows": options.rows}, cache_dir=f"{folder}/lines"
        )
        start = time.perf_counter()
        path = multi_process_dataset(
            dataset=lines,
            process_func=measure,
            output_path=f"{folder}/measured",
            num_workers=options.workers,
            backend=options.backend,
            overwrite=True,
        )
        seconds = time.perf_counter() - start
        result = load_from_disk(path)

        lengths = result["length"][:]
        print(f"{len(result):,} rows, {sum(lengths):,} characters, in {seconds:.1f} s")
        longest = lengths.index(max(lengths))
        print(f"the longest has {lengths[longest]:,}: {lines[longest]['text'][:60].strip()}…")
        exact = sum(measured(row) == got for row, got in zip(track(lines), track(result), strict=True))
        print(f"{exact:,} of {len(lines):,} rows are exact and in their place")


if __name__ == "__main__":
    main()
