"""Whether the columns of shards fit together, as one shard after another finishes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._validation import shorten
from .cast import CastError, arrow_type, cast_table, check_name
from .row_writer import first_value, stored_tables
from .unify import MisfitError, holds, is_json, may_change, show_type, unify

if TYPE_CHECKING:
    from datasets import Features


@dataclass(frozen=True)
class Part:
    """What one shard holds.

    Attributes:
        name: What the shard is called.
        features: Its columns.
        files: Its Arrow files, in order; read only to show a value.
    """

    name: str
    features: Features
    files: Sequence[Path] = ()

    def show(self, column: str) -> str:
        """Return the first value of a column as a remark for an error; nothing if there is none."""
        row = 0
        for file in self.files:
            for table in stored_tables(file):
                found = first_value(table.column(column)) if column in table.column_names else None
                if found is not None:
                    return f" (row {row + found[0]:,} holds {shorten(found[1], 120)})"
                row += table.num_rows
        return ""


class Agreement:
    """The columns that hold what all shards hold that were added."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}
        self._typed_by: dict[str, Part] = {}
        self._first: Part | None = None

    @property
    def features(self) -> Features:
        """The columns, in the order in which they came."""
        from datasets import Features

        return Features(self._columns)

    def add(self, part: Part) -> list[str]:
        """Add a shard, and return how it does not fit; what fits is added in any case."""
        if self._first is None:
            self._first = part
        elif not self._columns.keys() & part.features.keys():
            # Nothing in common: another function's output, or a name that was mistyped.
            return [
                f"{part.name} has no column {name!r}, which {self._typed_by[name].name} has"
                for name in sorted(self._columns)
            ]
        misfits = []
        for name, feature in part.features.items():
            if name not in self._columns:
                self._columns[name], self._typed_by[name] = feature, part
                continue
            try:
                agreed = unify(self._columns[name], feature, name)
            except MisfitError as misfit:
                other = self._typed_by[name]
                misfits.append(
                    f"{part.name}: column {misfit.column!r} is {show_type(misfit.theirs)}{part.show(name)}, "
                    f"but {show_type(misfit.ours)} in {other.name}{other.show(name)}"
                )
                continue
            if agreed != self._columns[name]:
                self._columns[name], self._typed_by[name] = agreed, part
        return misfits


def agree(parts: Sequence[Part]) -> tuple[Features, list[str]]:
    """Return the columns that hold what all shards hold, and which shards do not fit.

    The order of the columns is that of the shards.
    """
    from datasets import Features

    agreement, misfits = Agreement(), []
    # Beside Json() types fit together that do not fit by themselves, so what has it comes first.
    for part in sorted(parts, key=lambda part: not holds(part.features, is_json)):
        misfits += agreement.add(part)
    names = dict.fromkeys(name for part in parts for name in part.features)
    return Features({name: agreement.features[name] for name in names if name in agreement.features}), misfits


def cannot_cast(part: Part, features: Features, changed: Collection[str] | None = None) -> list[str]:
    """Return why a shard can't be cast to columns, in a sentence; nothing if it can.

    Args:
        part: The shard; of its rows only what a cast may change is read.
        features: The columns.
        changed: The names of those to which it was not compared before; None for all.
    """
    from datasets import Features

    row, wanted = 0, {}
    try:
        for name, feature in part.features.items():
            check_name(name, features)
            if (changed is None or name in changed) and may_change(feature, features[name]):
                wanted[name] = features[name]
        for table in (table for file in part.files if wanted for table in stored_tables(file)):
            cast_table(table.select(list(wanted)), Features(wanted), first_row=row)
            row += table.num_rows
    except CastError as error:
        return [f"{part.name}: {error}"]
    return []


def checked_features(features: object) -> Features | None:
    """Return the columns of an output as ``datasets.Features``; None stays None.

    Args:
        features: ``datasets.Features``, a mapping of names to features, or an Arrow schema.

    Raises:
        TypeError: It is none of them.
        ValueError: It has no columns, or a type that ``datasets`` does not know.
    """
    import pyarrow as pa
    from datasets import Features

    if features is None:
        return None
    if not isinstance(features, (Mapping, pa.Schema)):
        raise TypeError(f"features must be datasets.Features or a pyarrow.Schema, not {shorten(features)}")
    if not len(features):
        raise ValueError("features must have at least one column")
    if isinstance(features, pa.Schema):
        try:
            return Features.from_arrow_schema(features)
        except (NotImplementedError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"features has a type that datasets does not know: {error}") from error
    for name, feature in features.items():
        _check_feature(name, feature)
    return features if isinstance(features, Features) else Features(dict(features))


def _check_feature(name: str, feature: object) -> None:
    """Raise TypeError if it is no feature; ``Features`` itself takes anything, and fails when it is used."""
    try:
        arrow_type(feature)
    except Exception as error:  # of datasets or Arrow, which expect a feature
        raise TypeError(
            f"features[{name!r}] must be a feature, such as datasets.Value('int64'), not {shorten(feature)}"
        ) from error


def missing_columns(parts: Iterable[Part], features: Features) -> dict[str, list[str]]:
    """Return for each column the names of the shards that lack it, if there are any."""
    parts = list(parts)
    lacking = {name: [part.name for part in parts if name not in part.features] for name in features}
    return {name: shards for name, shards in lacking.items() if shards}
