"""The memory of a driver over a whole run.

python -m benchmarks.memory DATA OUT
"""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any

ROW = "A line of text that is a little longer than most lines of source code are. " * 8
ROWS = 100_000
WORKERS = 2


def memory() -> dict[str, int]:
    """The memory of this process in megabytes: VmHWM is the peak, RssAnon its own, without mapped files."""
    # Not ru_maxrss: that starts from what the parent had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {name: int(kb) // 1024 for name, kb in re.findall(r"(VmHWM|RssAnon):\s+(\d+) kB", status)}


def main() -> None:
    """Copy a saved dataset in a run of its own; print what this process took."""
    from datasets import load_from_disk

    from speedy_utils import multi_process_dataset

    def same(shard: Any, path: str) -> None:
        shard.save_to_disk(path)

    data, out = sys.argv[1:]
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


if __name__ == "__main__":
    main()
