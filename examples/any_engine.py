"""One bar for any engine: the same function in a pool of processes, in threads, and in ``datasets.map``.

Each engine gets a line with exactly its 3,000 items::

    processes: 100%|██████████| 3,000/3,000 [00:00<00:00, 9,812 items/s]
    threads: 100%|██████████| 3,000/3,000 [00:00<00:00, 11,630 items/s]
    datasets: 100%|██████████| 3,000/3,000 [00:01<00:00, 2,704 items/s]
"""

import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from datasets import Dataset, disable_progress_bars

from speedy_utils import track, tracking

PARTS = [500, 1_000, 1_500]


def work(n: int) -> int:
    for _ in track(range(n)):
        time.sleep(0.0002)
    return n


def work_on_batch(batch: dict[str, list[int]]) -> dict[str, list[int]]:
    return {"done": [work(n) for n in batch["n"]]}


def main() -> None:
    with tracking(total=sum(PARTS), desc="processes") as run, ProcessPoolExecutor(2) as processes:
        done = sum(processes.map(run.bind(work), PARTS))

    with tracking(total=sum(PARTS), desc="threads") as run, ThreadPoolExecutor(2) as threads:
        done += sum(threads.map(run.bind(work), PARTS))

    disable_progress_bars()
    with tracking(total=sum(PARTS), desc="datasets"):  # its processes are started in the block
        rows = Dataset.from_dict({"n": PARTS}).map(work_on_batch, batched=True, batch_size=1, num_proc=2)
        done += sum(rows["done"])

    print(f"{done:,} items were done")


if __name__ == "__main__":
    main()
