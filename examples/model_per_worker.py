"""Judge lines of the Python standard library by a model that each worker makes once.

    python examples/model_per_worker.py [--backend ray] [--workers 4]

    --backend processes   for one machine
    --backend ray         for a cluster and its GPUs: there, ray_options={"num_gpus": 1}
    --backend threads     one model a thread
    --backend seq         one model, for debugging

The line says `preparing workers` while models are made. The model knows how often each pair of letters
comes in the code of one package; the ten lines that it finds oddest follow, and how many models there were.
"""

import argparse
import math
import os
import sysconfig
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from speedy_utils import multi_process, track

FOLDER = Path(sysconfig.get_paths()["stdlib"])


class PairModel:
    """Made once in each worker, and then called with each file."""

    def __init__(self, text: str) -> None:
        time.sleep(1)  # as if there were gigabytes to load
        pairs = Counter(pairwise(text))
        self.bits = {pair: math.log2(pairs.total() / n) for pair, n in pairs.items()}
        self.rarest = math.log2(pairs.total())
        self.name = f"process {os.getpid()}, thread {threading.get_ident()}"

    def __call__(self, path: Path) -> tuple[str, list[tuple[float, str]]]:
        """Return the oddest lines of a file."""
        lines = path.read_text(errors="replace").splitlines()
        return self.name, sorted((self.oddity(line), line) for line in track(lines))[-10:]

    def oddity(self, line: str) -> float:
        """Return how rare the pairs of a line are, in bits a pair."""
        if sum(map(str.isalpha, line)) < 20:
            return 0.0
        pairs = pairwise(line)
        return sum(self.bits.get(pair, self.rarest) for pair in pairs) / len(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=["ray", "processes", "threads", "seq"], default="processes")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()

    text = " ".join(path.read_text(errors="replace") for path in sorted((FOLDER / "email").glob("*.py")))
    found = multi_process(
        PairModel,
        sorted(FOLDER.glob("*.py")),
        num_workers=options.workers,
        backend=options.backend,
        desc="Judging",
        text=text,
    )
    for oddity, line in sorted({pair for _, pairs in found for pair in pairs})[-10:]:
        print(f"{oddity:6.2f}  {line.strip()[:90]}")
    print(f"{len({name for name, _ in found})} models were made for {len(found)} files")


if __name__ == "__main__":
    main()
