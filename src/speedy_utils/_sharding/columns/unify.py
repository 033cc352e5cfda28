"""Which type holds the values of two others: pure, on the features of ``datasets``.

:func:`unify` is a join: commutative (but for the order of struct keys), associative and idempotent, so the
types of an output do not depend on the order in which batches and shards arrive. ``null`` is below
everything, and ``Json()``, where ``datasets`` has it, above everything that JSON can say::

    null < int8 < int16 < int32 < int64 < uint64 < float64          string < large_string
    list of x < large list of x                            {"a": x} < {"a": x, "b": y} < Json()

A join says which type; whether each value keeps is seen when it is cast, see :mod:`.cast`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._validation import shorten

if TYPE_CHECKING:
    from datasets import Features

_INTEGER = re.compile(r"(u?)int(8|16|32|64)")
_FLOAT = re.compile(r"float(16|32|64)")
_TIME = re.compile(r"(timestamp|duration)\[(s|ms|us|ns)(.*)\]")
_SAID_BY_JSON = re.compile(r"u?int\d+|float\d+|bool|(large_)?string")
_UNITS = ["s", "ms", "us", "ns"]
_DECIMAL = re.compile(r"decimal(128|256)\((\d+), (-?\d+)\)")


class MisfitError(Exception):
    """Two types that no type of ours can hold without loss.

    Args:
        column: Where, for example ``messages[].content``.
        ours: The feature of one side.
        theirs: The feature of the other.
    """

    def __init__(self, column: str, ours: object, theirs: object) -> None:
        super().__init__(column, ours, theirs)
        self.column = column
        self.ours = ours
        self.theirs = theirs

    def __str__(self) -> str:
        return f"column {self.column!r} is {show_type(self.theirs)} and {show_type(self.ours)}"

    @property
    def name(self) -> str:
        """The name of the column itself: ``messages``."""
        return re.split(r"[.\[]", self.column, maxsplit=1)[0]


def unify_columns(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Features:
    """Return the columns that hold the rows of both; a column that one side lacks is null there.

    Raises:
        MisfitError: No type holds the values of a column of both.
    """
    from datasets import Features

    columns = dict(ours)
    for name, feature in theirs.items():
        columns[name] = unify(columns[name], feature, name) if name in columns else feature
    return Features(columns)


def unify(ours: Any, theirs: Any, column: str = "") -> Any:
    """Return the feature that holds the values of two.

    Args:
        ours: A feature. The order of its struct keys is kept; those of the other follow.
        theirs: Another one.
        column: What the column is called, for the error.

    Raises:
        MisfitError: There is none.
    """
    from datasets import Value

    if ours == theirs or is_null(theirs):
        return ours
    if is_null(ours):
        return theirs
    for one, other in ((ours, theirs), (theirs, ours)):
        said = is_json(one) and all(map(_is_said_by_json, leaves(other)))
        if said or (_is_media(one) and _is_stored_media(other)):
            return one
    if isinstance(ours, dict) and isinstance(theirs, dict):
        null = Value("null")
        return {
            key: unify(ours.get(key, null), theirs.get(key, null), f"{column}.{key}")
            for key in {**ours, **theirs}
        }
    ours_list, theirs_list = list_parts(ours), list_parts(theirs)
    if ours_list and theirs_list:
        item = unify(ours_list.item, theirs_list.item, f"{column}[]")
        length = ours_list.length if ours_list.length == theirs_list.length else -1
        return make_list(item, length, large=ours_list.large or theirs_list.large)
    dtype = _wider(getattr(ours, "dtype", None), getattr(theirs, "dtype", None))
    if dtype is None or not (is_value(ours) and is_value(theirs)):
        raise MisfitError(column, ours, theirs)
    return type(ours)(dtype)


def _wider(ours: Any, theirs: Any) -> str | None:
    """Return the name of the type that holds two, for example ``int64`` for ``int32`` and ``uint32``."""
    if not (isinstance(ours, str) and isinstance(theirs, str)):
        return None
    if f"large_{ours}" == theirs or ours == f"large_{theirs}":
        return max(ours, theirs, key=len)
    times = _TIME.fullmatch(ours), _TIME.fullmatch(theirs)
    if times[0] and times[1] and times[0].group(1, 3) == times[1].group(1, 3):
        kind, zone = times[0].group(1, 3)
        return f"{kind}[{max(times[0][2], times[1][2], key=_UNITS.index)}{zone}]"
    decimals = _DECIMAL.fullmatch(ours), _DECIMAL.fullmatch(theirs)
    if decimals[0] and decimals[1]:
        return _wider_decimal(decimals[0], decimals[1])
    integers = _INTEGER.fullmatch(ours), _INTEGER.fullmatch(theirs)
    floats = _FLOAT.fullmatch(ours), _FLOAT.fullmatch(theirs)
    if floats[0] and floats[1]:
        return max(ours, theirs)
    if (floats[0] or integers[0]) and (floats[1] or integers[1]) and not all(integers):
        return "float64"
    if integers[0] and integers[1]:
        if integers[0][1] == integers[1][1]:
            return max(ours, theirs, key=lambda name: int(name.rpartition("int")[2]))
        if "uint64" in (ours, theirs):  # of hashes as a rule; a negative value is seen when it is cast
            return "uint64"
        unsigned, signed = sorted(integers, key=lambda match: not match[1] if match else False)
        return f"int{max(2 * int(unsigned[2]), int(signed[2]))}" if unsigned and signed else None
    return None


def _wider_decimal(ours: re.Match[str], theirs: re.Match[str]) -> str | None:
    """Return ``decimal128(5, 2)``, say, for ``decimal128(3, 0)`` and ``decimal128(3, 2)``."""
    sides = [[int(part) for part in match.groups()] for match in (ours, theirs)]
    scale = max(scale for _, _, scale in sides)
    precision = scale + max(precision - scale for _, precision, scale in sides)
    bits = max(128 if precision <= 38 else 256, *(bits for bits, _, _ in sides))
    return f"decimal{bits}({precision}, {scale})" if precision <= 76 else None


class ListParts(NamedTuple):
    """A list feature of any version of ``datasets``."""

    item: Any
    length: int
    large: bool


def list_parts(feature: Any) -> ListParts | None:
    """Return what a list feature is made of, or None if the feature is no list.

    ``Sequence({...})`` of ``datasets`` 3 is stored as a struct of lists, and so is none.
    """
    if isinstance(feature, (list, tuple)) and len(feature) == 1:  # how datasets 3 writes lists of structs
        return ListParts(feature[0], -1, large=False)
    kind = type(feature).__name__
    if kind == "LargeList":
        return ListParts(feature.feature, -1, large=True)
    if kind == "List" or (kind == "Sequence" and not isinstance(feature.feature, dict)):
        return ListParts(feature.feature, feature.length, large=False)
    return None


def make_list(item: Any, length: int, *, large: bool) -> Any:
    """Return a list feature, as the installed ``datasets`` writes it."""
    import datasets

    if large:
        return datasets.LargeList(item)
    if hasattr(datasets, "List"):
        return datasets.List(item, length)
    return [item] if length == -1 and isinstance(item, (dict, list)) else datasets.Sequence(item, length)


def is_null(feature: Any) -> bool:
    """Return whether a feature is what a column without any value gets."""
    return getattr(feature, "dtype", None) == "null"


def is_json(feature: Any) -> bool:
    """Return whether a feature is ``Json()``, which older versions of ``datasets`` do not have."""
    return type(feature).__name__ == "Json" and type(feature).__module__.startswith("datasets")


def is_label(feature: Any) -> bool:
    """Return whether a feature is a ``ClassLabel``, which is stored as an integer of a certain range."""
    return type(feature).__name__ == "ClassLabel"


def leaves(feature: Any) -> Iterator[Any]:
    """Yield the features in a struct, a list or columns that hold no others, or the feature itself."""
    if isinstance(feature, dict):
        for each in feature.values():
            yield from leaves(each)
    elif parts := list_parts(feature):
        yield from leaves(parts.item)
    else:
        yield feature


def holds(feature: Any, kind: Callable[[Any], bool]) -> bool:
    """Return whether there is a feature of a kind in another one, or in columns."""
    return any(map(kind, leaves(feature)))


def may_change(ours: Any, wanted: Any) -> bool:
    """Return whether a value of one feature might have no place in another one, or not be the same there."""
    if ours == wanted or is_null(ours):
        return False
    if isinstance(ours, dict) and isinstance(wanted, dict):
        return any(key not in wanted or may_change(each, wanted[key]) for key, each in ours.items())
    ours_list, wanted_list = list_parts(ours), list_parts(wanted)
    if ours_list and wanted_list:
        shorter = wanted_list.length not in (-1, ours_list.length) or ours_list.large > wanted_list.large
        return shorter or may_change(ours_list.item, wanted_list.item)
    if not (is_value(ours) and is_value(wanted)) or _wider(ours.dtype, wanted.dtype) != wanted.dtype:
        return True
    if _TIME.fullmatch(wanted.dtype) or wanted.dtype == "uint64":
        return not str(ours.dtype).startswith("uint")
    return wanted.dtype == "float64" and ours.dtype in ("int64", "uint64")


def is_value(feature: Any) -> bool:
    """Return whether a feature is a plain value."""
    return type(feature).__name__ == "Value"


def _is_said_by_json(feature: Any) -> bool:
    if is_json(feature) or is_null(feature):
        return True
    dtype = str(getattr(feature, "dtype", ""))
    return is_value(feature) and bool(_SAID_BY_JSON.fullmatch(dtype))


def _is_media(feature: Any) -> bool:
    """Return whether a feature is an image, a sound or the like, stored as bytes and a path."""
    stored: Any = getattr(feature, "pa_type", None)
    if type(stored).__name__ != "StructType" or not hasattr(feature, "cast_storage"):
        return False
    return {field.name for field in stored} == {"bytes", "path"}


def _is_stored_media(feature: Any) -> bool:
    types = {"bytes": ("binary", "null"), "path": ("string", "null")}
    return isinstance(feature, dict) and all(
        getattr(each, "dtype", None) in types.get(key, ()) for key, each in feature.items()
    )


def show_type(feature: Any) -> str:
    """Return the name of a type for an error message."""
    return str(feature.dtype) if is_value(feature) else shorten(feature)
