"""Many finished shards become one dataset, whose rows are not read on the way.

The shards' Arrow files get a second name (a hard link) in a new folder, the metadata is written
beside them, and one rename brings the folder to its place. Until then every shard is whole, so an
interrupted merge is simply done again. Only a shard whose columns are typed ``null``, or come in
another order than the others', is rewritten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._interrupts import keeping_ctrl_c
from .._validation import shorten
from ..errors import MergeError
from .files import link_or_copy, remove_path
from .saved_dataset import data_file_names, write_arrow_file, write_metadata
from .shard_worker import ShardRecord, read_record
from .workspace import ShardPlan, Workspace

if TYPE_CHECKING:
    from datasets import Features

# How many misfits one error lists; a thousand shards would say the same.
_MAX_MISFITS = 10


@keeping_ctrl_c()
def merge_shards(workspace: Workspace, plan: ShardPlan, enter: Callable[[str], object] = str) -> Path:
    """Merge the shards of a run, bring the result to ``output_path`` and delete the run's folder.

    Loaded, the result has the rows, the order and the columns of ``concatenate_datasets`` over the
    shards. It has no format.

    Args:
        workspace: The folder of the run.
        plan: Its shards, all finished.
        enter: Called with each phase when it begins: ``"checking"``, ``"merging"``, ``"syncing"``,
            ``"publishing"``.

    Returns:
        The path of the dataset.

    Raises:
        MergeError: If shards are missing, were changed or don't fit together. Nothing has been merged then.
        FileExistsError: If something has appeared at ``output_path`` meanwhile.
    """
    from datasets.fingerprint import Hasher

    if plan.missing:
        names = ", ".join(str(spec.index) for spec in plan.missing)
        raise MergeError(f"There is nothing to merge yet: these shards are not finished: {names}.")
    enter("checking")
    changed = [spec for spec in plan.specs if read_record(workspace.shard_dir(spec), spec) is None]
    if changed:
        names = ", ".join(str(spec.index) for spec in changed)
        raise MergeError(
            f"Nothing was merged, because shards were changed after they were finished: {names}. "
            "The same call runs them again."
        )
    records = [plan.finished[spec.index] for spec in plan.specs]
    features = common_features(records)
    enter("merging")
    remove_path(workspace.merged)
    workspace.merged.mkdir()
    files = _gather_files(workspace, records, features)
    enter("syncing")
    splits = {record.split for record in records}
    write_metadata(
        workspace.merged,
        files=files,
        rows=sum(record.rows for record in records),
        features=features,
        # A function of what the shards hold, so that a run that was interrupted gets the same one.
        fingerprint=Hasher.hash([features.to_dict(), [(each.fingerprint, each.rows) for each in records]]),
        split=splits.pop() if len(splits) == 1 else None,
        infos=[record.info for record in records],
    )
    enter("publishing")
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
        more = [f"... and {len(misfits) - _MAX_MISFITS} more"] if len(misfits) > _MAX_MISFITS else []
        raise MergeError(
            "The shards' columns don't fit together, so nothing was merged; the finished shards are kept."
            + "".join(f"\n  - {misfit}" for misfit in [*misfits[:_MAX_MISFITS], *more])
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
    """Return what two features have in common, each of which may be ``null`` if the other has a type."""
    if ours == theirs or _is_null(theirs):
        return ours
    if _is_null(ours):
        return theirs
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return {key: _unify(ours[key], theirs[key], f"{column}.{key}") for key in ours}
    if isinstance(ours, list) and isinstance(theirs, list):  # the form of some lists in datasets 3
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
    """Return the name of a type for an error message."""
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
    names = data_file_names(sum(len(record.files) for record in records))
    targets = [workspace.merged / name for name in names]
    free = iter(targets)
    for record in records:
        fits = not record.files or Features.from_dict(record.features).arrow_schema == wanted
        for name, _ in record.files:
            source = workspace.shard_dir(record.spec) / name
            if fits:
                link_or_copy(source, next(free))
            else:
                write_arrow_file(next(free), wanted, source)
    for target in free:  # no shard has rows
        write_arrow_file(target, wanted)
    return targets
