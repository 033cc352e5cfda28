"""Dataset runs without an engine: what their workers do is done by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from speedy_utils._sharding.fingerprint import Fingerprint, Part
from speedy_utils._sharding.shard_worker import begin_shard, finish_shard
from speedy_utils._sharding.workspace import ShardPlan, Workspace

FINGERPRINT = Fingerprint(
    "d0",
    10,
    "module.func",
    {"the code of module.func": Part("c0", "return 1"), "the argument 'size'": Part("k0", "1")},
)


def start(
    output: Path, fingerprint: Fingerprint = FINGERPRINT, *, overwrite: bool = False, **options: Any
) -> tuple[Workspace, ShardPlan]:
    """Begin a run of ten rows in four shards, or resume one."""
    workspace = Workspace.open(output, overwrite=overwrite)
    try:
        options = {"num_shards": None, "default_shards": 4, **options}
        return workspace, workspace.resume(fingerprint, **options)
    except BaseException:
        workspace.close()
        raise


def work(workspace: Workspace, plan: ShardPlan, *indices: int) -> None:
    """Finish some of the missing shards, or all of them: each row times two."""
    for spec in [spec for spec in plan.missing if not indices or spec.index in indices]:
        output = begin_shard(workspace.shard_dir(spec))
        rows = Dataset.from_dict({"id": [2 * row for row in range(spec.start, spec.stop)]})
        plan.add(finish_shard(rows, output, spec))


def leave_interrupted(output: Path, *indices: int) -> Path:
    """Leave a run behind that has finished some shards; the folder it worked in."""
    workspace, plan = start(output)
    with workspace:
        work(workspace, plan, *indices)
    return workspace.folder
