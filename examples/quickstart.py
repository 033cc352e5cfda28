"""Tokenise every line of the Python standard library in 8 workers, under one bar.

    python examples/quickstart.py [--backend ray] [--workers 8]

    --backend processes   for one machine
    --backend ray         for a cluster; here it starts a local Ray
    --backend threads     for API calls, and what else waits
    --backend seq         for debugging

The bar ends at exactly the number of lines, and a table of the most frequent names follows.
"""

import argparse
import sysconfig
import tokenize
from collections import Counter
from keyword import iskeyword
from pathlib import Path

from speedy_utils import multi_process, track


def read(path: Path) -> list[str]:
    with tokenize.open(path) as file:
        return file.readlines()


def count_names(lines: list[str]) -> Counter[str]:
    """Runs in a worker. It knows nothing of Ray, and only `track` of progress."""
    left = track(lines)
    tokens = tokenize.generate_tokens(lambda: next(left, ""))
    return Counter(token.string for token in tokens if token.type == tokenize.NAME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=["ray", "processes", "threads", "seq"], default="ray")
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()

    library = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests"}  # not its own, or wrong on purpose
    paths = [path for path in sorted(library.rglob("*.py")) if not skipped & set(path.parts)]
    files = [read(path) for path in paths]
    counts = multi_process(
        count_names, files, backend=options.backend, num_workers=options.workers, total_items=len
    )
    names = sum(counts, Counter())

    print(f"{sum(map(len, files)):,} lines of {len(files):,} files, {names.total():,} names and keywords")
    print(f"\n{'keyword':<12}{'uses':>9}    {'name':<12}{'uses':>9}")
    keywords = [entry for entry in names.most_common() if iskeyword(entry[0])]
    others = [entry for entry in names.most_common() if not iskeyword(entry[0])]
    for (keyword, uses), (name, others_uses) in zip(keywords[:8], others, strict=False):
        print(f"{keyword:<12}{uses:>9,}    {name:<12}{others_uses:>9,}")


if __name__ == "__main__":
    main()
