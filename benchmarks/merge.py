"""Merging: what it takes to make one dataset of the shards."""

from __future__ import annotations

import functools
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .measure import Cost, ratio, timed
from .table import Table

ROW = "A line of text that is a little longer than most lines of source code are. " * 8


def make_shards(output: Path, shards: int, megabytes: int) -> None:
    """Write the shards of a run, as its workers do, and leave the run before it merges."""
    from speedy_utils._api import multi_process_dataset as dataset_sharding
    from speedy_utils._sharding.workspace import ShardPlan, Workspace
    from speedy_utils.errors import ShardError

    def write(shard: Any, path: str) -> None:
        from datasets import Dataset

        rows = megabytes * 1_000_000 // shards // len(ROW)
        first = shard[0]["id"] * rows
        Dataset.from_dict({"text": [ROW] * rows, "id": list(range(first, first + rows))}).save_to_disk(path)

    class LeftError(ShardError):
        """The run was left."""

    def leave(workspace: Workspace, plan: ShardPlan, *rest: object) -> None:
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


def merge_costs(home: Path, shards: int, megabytes: int, rounds: int) -> dict[str, list[Cost]]:
    """What both ways take, in turns."""
    from datasets import load_from_disk

    from speedy_utils._sharding.merge import merge_shards
    from speedy_utils._sharding.workspace import Workspace, _read_manifest

    model = home / "model"
    make_shards(model, shards, megabytes)
    took: dict[str, list[Cost]] = {"ours": [], "concatenate": []}
    for number in range(rounds):
        output = home / f"ours-{number}"
        # Other names for the same files: each round moves its own.
        partial_folder = Path(f"{output}.partial")
        subprocess.run(["cp", "-al", f"{model}.partial", str(partial_folder)], check=True)
        manifest = _read_manifest(partial_folder)
        assert manifest is not None
        workspace = Workspace.open(output)
        plan = workspace.resume(manifest.fingerprint, num_shards=shards, default_shards=shards)
        took["ours"].append(timed(functools.partial(merge_shards, workspace, plan)))

        parts = sorted(Path(f"{model}.partial", "shards").glob("*/*/output"))
        loaded = [load_from_disk(str(part)) for part in parts]
        plain = home / f"plain-{number}"
        took["concatenate"].append(timed(functools.partial(_concatenate, loaded, plain)))
        if len(load_from_disk(str(output))) != len(load_from_disk(str(plain))):
            raise SystemExit("the two have not the same rows")
        shutil.rmtree(output)
        shutil.rmtree(plain)
    return took


def _concatenate(parts: list[Any], path: Path) -> None:
    from datasets import concatenate_datasets

    concatenate_datasets(parts).save_to_disk(str(path))


def run(quick: bool) -> list[Table]:
    """Measure and tell."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    shards, megabytes, rounds = (8, 50, 2) if quick else (64, 500, 5)
    merging = Table(
        "merge",
        f"Merging {shards} shards of {megabytes} MB in all",
        ["with", "seconds", "CPU seconds", "of concatenate"],
        quick=quick,
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        took = merge_costs(home, shards, megabytes, rounds)
        wall = {name: [cost.wall for cost in costs] for name, costs in took.items()}
        for name, costs in took.items():
            seconds, cpu = statistics.median(wall[name]), statistics.median(cost.cpu for cost in costs)
            merging.rows.append([name, seconds, cpu, ratio(wall[name], wall["concatenate"])])
            merging.figures[f"{name}_s"] = seconds
        merging.notes = [f"`concatenate_datasets(...).save_to_disk` on the same shards; medians of {rounds}."]
    return [merging]
