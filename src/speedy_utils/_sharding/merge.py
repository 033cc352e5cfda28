"""Many finished shards become one dataset, whose rows are not read on the way.

The shards' Arrow files get a second name (a hard link) in a new folder, the metadata is written
beside them, and one rename brings the folder to its place. Until then every shard is whole, so an
interrupted merge is simply done again. Only a shard whose columns are typed ``null``, or come in
another order than the others', is rewritten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._interrupts import keeping_ctrl_c
from .._validation import shorten
from ..errors import MergeError
from .files import link_or_copy, remove_path, sync, write_json
from .shard_worker import ShardRecord, read_record
from .workspace import ShardPlan, Workspace

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

# Sentences about misfits in one error; a thousand shards would say the same.
_MOST_MISFITS = 10


@keeping_ctrl_c()
def merge_shards(workspace: Workspace, plan: ShardPlan) -> Path:
    """Merge the shards of a run, bring the result to ``output_path`` and clear the run's folder away.

    Loaded, the result has the rows, the order and the columns of ``concatenate_datasets`` over the
    shards. It has no format.

    Args:
        workspace: The folder of the run.
        plan: Its shards, all finished.

    Returns:
        The path of the dataset.

    Raises:
        MergeError: If shards are missing, were changed or don't fit together. Nothing has been merged then.
        FileExistsError: If something has appeared at ``output_path`` meanwhile.
    """
    if plan.missing:
        names = ", ".join(str(spec.index) for spec in plan.missing)
        raise MergeError(f"There is nothing to merge yet: these shards are not finished: {names}.")
    changed = [spec for spec in plan.specs if read_record(workspace.shard_dir(spec), spec) is None]
    if changed:
        names = ", ".join(str(spec.index) for spec in changed)
        raise MergeError(
            f"Nothing was merged, because shards were changed after they were finished: {names}. "
            "The same call runs them again."
        )
    records = [plan.finished[spec.index] for spec in plan.specs]
    features = common_features(records)
    remove_path(workspace.merged)
    workspace.merged.mkdir()
    files = _gather_files(workspace, records, features)
    _write_metadata(workspace.merged, records, features, files)
    workspace.publish()
    return workspace.output_path


def common_features(records: Sequence[ShardRecord]) -> Features:
    """Find the columns that all shards can have.

    The names, the order and the types are those of the first shard with rows, except that a type of
    another shard takes the place of ``null``, also inside of lists and structs. Shards without rows
    have no say, unless no shard has rows.

    Args:
        records: The finished shards, in order.

    Returns:
        The features of the merged dataset.

    Raises:
        MergeError: If the shards don't fit together. The message names the shards, the columns and
            both types.
    """
    from datasets import Features

    _refuse_shared_sources(records)
    if not any(record.rows for record in records):
        # A function that collects rows in a list has lost the columns where it had no rows.
        typed = next((record for record in records if record.features), None)
        return Features.from_dict(typed.features) if typed else Features()
    first, *others = [record for record in records if record.rows]
    columns = dict(Features.from_dict(first.features))
    typed_by = dict.fromkeys(columns, first)
    misfits = []
    for record in others:
        mine = Features.from_dict(record.features)
        misfits += [
            f"{record.spec} has no column {name!r}, which {first.spec} has"
            for name in sorted(columns.keys() - mine.keys())
        ]
        for name, feature in mine.items():
            if name not in columns:
                misfits.append(f"{record.spec} has a column {name!r}, which {first.spec} has not")
                continue
            try:
                agreed = _unify(columns[name], feature, name)
            except _MisfitError as misfit:
                misfits.append(
                    f"{record.spec}: column {misfit.column!r} is {_show(misfit.theirs)}, "
                    f"but {_show(misfit.ours)} in {typed_by[name].spec}"
                )
                continue
            if agreed != columns[name]:
                columns[name], typed_by[name] = agreed, record
    if misfits:
        more = [f"... and {len(misfits) - _MOST_MISFITS} more"] if len(misfits) > _MOST_MISFITS else []
        raise MergeError(
            "The shards' columns don't fit together, so nothing was merged; the finished shards are kept."
            + "".join(f"\n  - {misfit}" for misfit in [*misfits[:_MOST_MISFITS], *more])
            + "\nGive the output the same columns and types in every shard, for example with "
            "Dataset.from_list(rows, features=...)."
        )
    return Features(columns)


@dataclass
class _MisfitError(Exception):
    """Two features that have nothing in common."""

    column: str
    ours: object
    theirs: object


def _unify(ours: Any, theirs: Any, column: str) -> Any:
    """Combine two features, each of which may be ``null`` where the other has a type."""
    if ours == theirs or _is_null(theirs):
        return ours
    if _is_null(ours):
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return {key: _unify(ours[key], theirs[key], f"{column}.{key}") for key in ours}
    if isinstance(ours, list) and isinstance(theirs, list):  # how datasets 3 spells some lists
        return [_unify(ours[0], theirs[0], f"{column}[]")]
    if type(ours) is type(theirs) and hasattr(ours, "feature"):
        # The kinds of list that datasets has, which differ between its versions.
        item = _unify(ours.feature, theirs.feature, f"{column}[]")
        if dataclasses.replace(ours, feature=item) == dataclasses.replace(theirs, feature=item):
            return dataclasses.replace(ours, feature=item)
    raise _MisfitError(column, ours, theirs)


def _is_null(feature: Any) -> bool:
    """Whether a feature is what a column without any value gets."""
    return getattr(feature, "dtype", None) == "null"


def _show(feature: Any) -> str:
    """Name a type in an error message."""
    from datasets import Value

    return str(feature.dtype) if isinstance(feature, Value) else shorten(feature)


def _refuse_shared_sources(records: Sequence[ShardRecord]) -> None:
    """Raise if shards came from one and the same folder, where each has overwritten the other."""
    seen: dict[str, ShardRecord] = {}
    for record in records:
        if record.source is None:
            continue
        other = seen.setdefault(record.source, record)
        if other is not record:
            raise MergeError(
                f"process_func returned the same path, {record.source!r}, for {other.spec} and for "
                f"{record.spec}, so one has overwritten the other, and nothing was merged. Let it save to "
                "the output_path that it is given, which is another one for each shard, and start over "
                "with overwrite=True."
            )


def _gather_files(workspace: Workspace, records: Sequence[ShardRecord], features: Features) -> list[Path]:
    """Bring the files of all shards into the merged folder, in order, under their final names."""
    from datasets import Features

    wanted = features.arrow_schema
    total = max(1, sum(len(record.files) for record in records))
    targets = [workspace.merged / f"data-{number:05d}-of-{total:05d}.arrow" for number in range(total)]
    free = iter(targets)
    for record in records:
        fits = not record.files or Features.from_dict(record.features).arrow_schema == wanted
        for name, _ in record.files:
            source = workspace.shard_dir(record.spec) / name
            if fits:
                link_or_copy(source, next(free))
            else:
                _rewrite(source, next(free), wanted)
    for target in free:  # no shard has rows: a dataset without any file can't be loaded
        _rewrite(None, target, wanted)
    return targets


def _rewrite(source: Path | None, target: Path, schema: pa.Schema) -> None:
    """Write an Arrow file with the rows of another one, or none, cast to a schema batch by batch."""
    import pyarrow as pa
    from datasets.table import table_cast

    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema) as out:
        if source is not None:
            with pa.memory_map(str(source)) as file, pa.ipc.open_stream(file) as batches:
                for batch in batches:
                    out.write_table(table_cast(pa.Table.from_batches([batch]), schema))
    sync(target)


def _write_metadata(
    folder: Path, records: Sequence[ShardRecord], features: Features, files: Sequence[Path]
) -> None:
    """Write what ``Dataset.load_from_disk`` reads beside the Arrow files, with the counts of the whole."""
    from datasets import DatasetInfo
    from datasets.fingerprint import Hasher
    from datasets.splits import SplitDict, SplitInfo

    num_bytes = sum(file.stat().st_size for file in files)
    info = DatasetInfo.from_merge([DatasetInfo.from_dict(record.info) for record in records])
    info.features = features
    info.dataset_size = num_bytes
    splits = {record.split for record in records}
    split = splits.pop() if len(splits) == 1 else None
    if split is not None:
        num_rows = sum(record.rows for record in records)
        info.splits = SplitDict({split: SplitInfo(split, num_bytes, num_rows)})
    # A function of what the shards hold, so that a run that was interrupted gives the same one.
    fingerprint = Hasher.hash([features.to_dict(), [(record.fingerprint, record.rows) for record in records]])
    state = {
        "_data_files": [{"filename": file.name} for file in files],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    write_json(folder / "state.json", state)
    info.write_to_directory(str(folder))
    for path in (folder / "dataset_info.json", folder):
        sync(path)
