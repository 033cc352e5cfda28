"""How a checkpoint recognises items."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from speedy_utils._checkpoint.item_keys import item_keys, tell_difference


@dataclass
class Page:
    """An item of a class."""

    number: int


DIFFERENT = [
    *(None, True, 1, 1.0, "1", b"1", (1,), [1], {1: 1}, {"a": [1]}, {"a": (1,)}, float("nan"), -0.0, 0.0),
    *(Page(1), Page(2), {1, 2}, frozenset({1, 2}), [Page(1)], "\ud800", 2**100, int, len),
]


def test_items_are_equal_if_their_content_and_its_types_are() -> None:
    """Values that differ, or are of other types, have other keys; how they were made does not matter."""
    keys = item_keys(DIFFERENT)
    assert len(set(keys)) == len(DIFFERENT)
    text = "some text"
    shared, apart = [text, text], [" ".join(["some", "text"]) for _ in range(2)]
    assert item_keys([shared]) == item_keys([apart])
    assert item_keys([Page(1)]) == item_keys([Page(int("1"))])


def test_equal_items_are_counted() -> None:
    """The second of two equal items has a key of its own: it is another task."""
    first, second = item_keys(["a", "b", "a"])[::2]
    assert first != second
    assert [first, second] == item_keys(["a", "a"])


def test_keys_are_the_same_in_each_process() -> None:
    """The keys of sets and of mappings of texts do not change with the process's hash seed."""
    code = (
        "from speedy_utils._checkpoint.item_keys import item_keys\n"
        "print(item_keys([{'a', 'b', 'c'}, frozenset({'a', 'b', 'c'}), {'k': {'v', 'w'}}]))"
    )
    command = [sys.executable, "-c", code]
    found = {subprocess.run(command, capture_output=True, check=True, timeout=120).stdout for _ in range(2)}
    assert len(found) == 1


def test_an_item_that_has_no_content_is_refused() -> None:
    """An item that can't be pickled is named before any task starts."""
    with pytest.raises(TypeError, match=r"item 1 must be something that can be pickled.*generator"):
        item_keys([1, (n for n in ())])


def nested(depth: int) -> Any:
    """Return a list in a list in a list."""
    value: Any = threading.get_ident
    for _ in range(depth):
        value = [value]
    return value


def test_deep_items_have_keys_too() -> None:
    """What is nested deeper than most values is recognised as well."""
    assert item_keys([nested(30)]) != item_keys([nested(31)])


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("abc", "abcd", "there are 4 items; there were 3 (3 of them are the same)"),
        ("abc", "acb", "the items are in another order"),
        ("abc", "abd", "item 2 is another one, 'd' (2 of them are the same)"),
        ("abc", "xyz", "item 0 is another one, 'x' (none of them is the same)"),
    ],
)
def test_differences_are_said(was: str, now: str, said: str) -> None:
    """The text says what a user would look for: a longer list, another order, the first that differs."""
    assert tell_difference(item_keys([*was]), item_keys([*now]), [*now]) == said
