"""Many finished shards become one dataset, whose rows are not read on the way.

The shards' Arrow files get a second name (a hard link) in a new folder, the metadata is written
beside them, and one rename brings the folder to its place. Until then every shard is whole, so an
interrupted merge is simply done again. Only a shard whose columns have narrower types than the others', or
come in another order, is rewritten, batch by batch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .._interrupts import keeping_ctrl_c
from ..errors import MergeError
from .columns.agreement import Agreement, Part, agree, cannot_cast, missing_columns
from .columns.cast import CastError
from .columns.row_writer import rewrite
from .disk.extras import EXTRA, keep_extra
from .files import link_or_copy, sync
from .saved_dataset import data_file_names, write_empty_file, write_metadata
from .shard_worker import BAD_ROWS_FILE, ShardRecord, read_record
from .workspace import ShardPlan, Workspace

if TYPE_CHECKING:
    from datasets import Features

logger = logging.getLogger("speedy_utils")

# How many misfits one error lists; a thousand shards would say the same.
_MAX_MISFITS = 10


@keeping_ctrl_c()
def merge_shards(
    workspace: Workspace,
    plan: ShardPlan,
    enter: Callable[[str], object] = str,
    features: Features | None = None,
) -> Path:
    """Merge the shards of a run, bring the result to ``output_path`` and delete the run's folder.

    Loaded, the result has the rows, the order and the columns of ``concatenate_datasets`` over the
    shards. It has no format.

    Args:
        workspace: The folder of the run.
        plan: Its shards, all finished.
        enter: Called with each phase when it begins: ``"checking"``, ``"merging"``, ``"syncing"``,
            ``"publishing"``.
        features: The columns of the output; None if they follow from the shards.

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
    _refuse_shared_sources(records)
    if features is None:
        features = common_features(records, workspace)
    enter("merging")
    workspace.discard(workspace.merged)
    workspace.merged.mkdir()
    files = _gather_files(workspace, records, features)
    with_extras = _gather_extras(workspace, records)
    _gather_bad_rows(workspace, records)
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
    if with_extras:
        logger.warning(
            "process_func wrote more than its dataset in %d of %d shards, such as %r: kept in %s",
            len(with_extras),
            len(records),
            _below_attempt(with_extras[0].extras[0]),
            workspace.output_path / EXTRA,
        )
    return workspace.output_path


def common_features(records: Sequence[ShardRecord], workspace: Workspace | None = None) -> Features:
    """Find the columns that hold what all shards hold.

    Their names and order are those of the first shard with rows; columns that other shards add follow. Each
    type is the narrowest that holds the values of all shards, also inside of lists and structs. Shards
    without rows have no say, unless no shard has rows.

    Args:
        records: The finished shards, in order.
        workspace: The folder of the run, to show values that don't fit.

    Returns:
        The features of the merged dataset.

    Raises:
        MergeError: If the shards don't fit together. The message names the shards, the columns and
            both types.
    """
    from datasets import Features

    if not any(record.rows for record in records):
        # A function that collects rows in a list has lost the columns where it had no rows.
        typed = next((record for record in records if record.features), None)
        return Features.from_dict(typed.features) if typed else Features()
    parts = [_part(record, workspace) for record in records if record.rows]
    features, misfits = agree(parts)
    if misfits:
        raise columns_error(misfits, "nothing was merged; the finished shards are kept")
    for name, shards in missing_columns(parts, features).items():
        logger.warning(
            "column %r is null in %d of %d shards, which lack it, such as %s",
            name,
            len(shards),
            len(parts),
            shards[0],
        )
    return features


def columns_error(misfits: Sequence[str], consequence: str) -> MergeError:
    """Return the error for shards whose columns don't fit together.

    Args:
        misfits: Which, each in a sentence.
        consequence: What became of the run.
    """
    import datasets

    more = [f"... and {len(misfits) - _MAX_MISFITS} more"] if len(misfits) > _MAX_MISFITS else []
    mixed = (
        "; values of mixed types fit into a column of datasets.Json()" if hasattr(datasets, "Json") else ""
    )
    return MergeError(
        f"The shards' columns don't fit together, so {consequence}."
        + "".join(f"\n  - {misfit}" for misfit in [*misfits[:_MAX_MISFITS], *more])
        + f"\nFix the columns by features=datasets.Features(...){mixed}. The same call with features= casts "
        'the finished shards too, if no value changes; with resume="trust" also if process_func was changed. '
        "Where values themselves are wrong, add overwrite=True: shards that can't be cast run again."
    )


class ColumnWatch:
    """Compares the columns of shards as they finish, so that a misfit is found with the second one.

    Args:
        workspace: The folder of the run.
        features: The columns of the output; None if they follow from the shards.
    """

    def __init__(self, workspace: Workspace, features: Features | None) -> None:
        self._workspace = workspace
        self._features = features
        self._agreement = Agreement()
        self._parts: list[Part] = []

    def add(self, record: ShardRecord) -> list[str]:
        """Add a finished shard, and return how it, or an earlier one, does not fit, each in a sentence."""
        if not record.rows:
            return []
        part = _part(record, self._workspace)
        if self._features is not None:
            return cannot_cast(part, self._features)
        before = self._agreement.features
        if misfits := self._agreement.add(part):
            return misfits
        columns = self._agreement.features
        changed = [name for name in columns if before.get(name) != columns[name]]
        # An integer of an earlier shard may not keep in the float that this one needs.
        misfits = [misfit for each in self._parts for misfit in cannot_cast(each, columns, changed)]
        self._parts.append(part)
        return misfits + cannot_cast(part, columns)


def _part(record: ShardRecord, workspace: Workspace | None) -> Part:
    from datasets import Features

    features = Features.from_dict(record.features)
    folder = None if workspace is None else workspace.shard_dir(record.spec)
    return Part(
        str(record.spec), features, [] if folder is None else [folder / name for name, _ in record.files]
    )


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


def _gather_bad_rows(workspace: Workspace, records: Sequence[ShardRecord]) -> None:
    """List the rows that were skipped, if there are any, in the order of the input."""
    listing = workspace.merged / BAD_ROWS_FILE
    for record in records:
        if not record.bad_rows_file:
            continue
        lines = (workspace.shard_dir(record.spec) / record.bad_rows_file).read_text("utf-8").splitlines(True)
        with listing.open("a", encoding="utf-8") as file:
            file.writelines(sorted(lines, key=lambda line: json.loads(line)["item"]))
    if listing.exists():
        sync(listing)


def _gather_files(workspace: Workspace, records: Sequence[ShardRecord], features: Features) -> list[Path]:
    """Bring the files of all shards into the merged folder, in order, under their final names.

    Raises:
        MergeError: If a shard has to be cast, and a value would change.
    """
    from datasets import Features

    wanted = features.arrow_schema
    names = data_file_names(sum(len(record.files) for record in records))
    targets = [workspace.merged / name for name in names]
    free = iter(targets)
    for record in records:
        fits = not record.files or Features.from_dict(record.features).arrow_schema == wanted
        first_row = 0
        for name, _ in record.files:
            source, target = workspace.shard_dir(record.spec) / name, next(free)
            if fits:
                link_or_copy(source, target)
                continue
            try:
                first_row = rewrite(source, target, features, first_row)
            except CastError as error:
                workspace.discard(workspace.merged)
                misfit = f"{record.spec}, {error}"
                raise columns_error([misfit], "nothing was merged; the finished shards are kept") from error
            sync(target)
    for target in free:  # no shard has rows
        write_empty_file(target, wanted)
    return targets


def _gather_extras(workspace: Workspace, records: Sequence[ShardRecord]) -> list[ShardRecord]:
    """Bring what was written beside the datasets into the merged folder; return the shards that have any."""
    found = [record for record in records if record.extras]
    for record in found:
        for name in record.extras:
            target = workspace.merged / EXTRA / f"{record.spec.index:05d}" / _below_attempt(name)
            keep_extra(workspace.shard_dir(record.spec) / name, target)
    return found


def _below_attempt(name: str) -> str:
    """Return a path below a shard's folder as one below the attempt's: ``output/stats.json``."""
    return name.partition("/")[2]
