"""By what a checkpoint recognises an item: its content, and how often that has come before."""

from __future__ import annotations

import hashlib
import marshal
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

from .._engines.payload.refs import is_ref
from .._sharding.fingerprint import hash_value
from .._validation import shorten

_DIGEST_BYTES = 16
_LEAVES = frozenset({str, int, float, bool, bytes, type(None)})
_MAX_DEPTH = 20


def item_keys(items: Sequence[Any]) -> list[bytes]:
    """Return a key for each item: a digest of its content, and how many equal ones have come before it.

    Args:
        items: The items of a run.

    Raises:
        TypeError: The content of an item is unknown, as it can't be pickled.

    Example:
        >>> first, other, again = item_keys(["text", {"id": 7}, "text"])
        >>> len(first), first[:16] == again[:16], [*first[16:]], [*again[16:]]
        (20, True, [0, 0, 0, 0], [1, 0, 0, 0])
    """
    seen: Counter[bytes] = Counter()
    keys = []
    for index, item in enumerate(items):
        digest = _digest(item, index)
        keys.append(digest + seen[digest].to_bytes(4, "little"))
        seen[digest] += 1
    return keys


def _digest(item: Any, index: int) -> bytes:
    if _is_plain(item, 0):
        content = marshal.dumps(item, 2)  # a later version depends on which of its parts are the same object
    else:
        if is_ref(item):
            raise TypeError(
                f"with checkpoint=, item {index:,} must be the value itself and no reference to an object "
                f"in Ray, {shorten(item)}, which is another one in each run"
            )
        fingerprint, _ = hash_value(item)
        if fingerprint is None:
            raise TypeError(
                f"with checkpoint=, item {index:,} must be something that can be pickled, so that the next "
                f"call recognises it, not {shorten(item)} ({type(item).__name__})"
            )
        content = f"{type(item).__module__}.{type(item).__qualname__} {fingerprint}".encode()
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _is_plain(value: Any, depth: int) -> bool:
    """Return whether a value is made of numbers and texts alone, so that equal ones have equal bytes."""
    kind = type(value)
    if kind in _LEAVES:
        return True
    if depth == _MAX_DEPTH:
        return False
    if kind is list or kind is tuple:
        return all(_is_plain(each, depth + 1) for each in value)
    return kind is dict and all(
        _is_plain(key, depth + 1) and _is_plain(each, depth + 1) for key, each in value.items()
    )


def tell_difference(was: Sequence[bytes], now: Sequence[bytes], items: Sequence[Any]) -> str:
    """Say how the items of two runs differ; they do.

    Args:
        was: The keys of the earlier run's items.
        now: Those of this one's.
        items: The items of this one.
    """
    same = len(set(was) & set(now))
    known = f"{same:,} of them are the same" if same else "none of them is the same"
    if len(was) != len(now):
        return f"there are {len(now):,} items; there were {len(was):,} ({known})"
    if same == len(now):
        return "the items are in another order"
    first = next(index for index, old, new in zip(count(), was, now, strict=False) if old != new)
    return f"item {first:,} is another one, {shorten(items[first], 80)} ({known})"
