"""Arguments are plain values, or errors that say what is wrong."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import numbered

from speedy_utils import multi_process, multi_process_dataset, tracking
from speedy_utils._validation import checked_amount, checked_choice, checked_count, checked_name, shorten


@given(st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False))
def test_plain_numbers_pass_unchanged(amount: float) -> None:
    """Integers stay integers, however large, and floats stay floats."""
    checked = checked_amount(amount, "tokens")
    assert (checked, type(checked)) == (amount, type(amount))


@pytest.mark.parametrize(
    ("amount", "plain"),
    [
        *((kind(200), 200) for kind in (np.int64, np.uint8)),
        *(
            (kind(0.5), 0.5)
            for kind in (np.float64, np.float32, np.float16, np.longdouble, Fraction, Decimal)
        ),
        *((np.array(0.5), 0.5), (True, 1), (np.True_, 1.0), (np.int64(-1), -1)),
    ],
)
def test_other_real_numbers_become_plain_ones(amount: Any, plain: float) -> None:
    """NumPy's numbers, truth values and fractions are welcome, and travel as Python's own."""
    checked = checked_amount(amount, "tokens")
    assert (checked, type(checked)) == (plain, type(plain))


@pytest.mark.parametrize(
    "amount",
    [math.nan, math.inf, -math.inf, 10**400, -(10**400), np.float32("nan"), Fraction(10**400)],
)
def test_what_cannot_be_added_up_is_refused(amount: Any) -> None:
    """Endless amounts, and those beyond all floats, are errors that name the counter."""
    with pytest.raises(ValueError, match="tokens must be a finite number, not "):
        checked_amount(amount, "tokens")


@pytest.mark.parametrize("amount", [None, "3", b"3", 1j, [1], np.array([1]), Decimal("nan")])
def test_what_is_no_number_is_refused(amount: Any) -> None:
    """Whatever is no real number is an error that names the counter and the type."""
    with pytest.raises(
        TypeError, match=rf"tokens must be a finite number, not .* \({type(amount).__name__}\)"
    ):
        checked_amount(amount, "tokens")


@pytest.mark.parametrize("name", ["", "two words", "3rd", "loss/step", "a-b"])
def test_a_counters_name_is_an_identifier(name: str) -> None:
    """A name that could not be a variable's is an error that shows it."""
    with pytest.raises(ValueError, match=f"a counter needs a name like a variable's, not '{name}'"):
        checked_amount(1, name)


def test_counts_names_and_texts_are_checked() -> None:
    """A count is an int of at least what is asked, a name a string or None; a long text is cut."""
    assert checked_count(5) == 5
    with pytest.raises(ValueError, match="num_workers must be at least 1, not 0"):
        checked_count(0, "num_workers", least=1)
    with pytest.raises(TypeError, match=r"total must be an integer, not '5' \(str\)"):
        checked_count("5", "total")
    assert [checked_name(name) for name in ("Read", "", None)] == ["Read", None, None]
    with pytest.raises(ValueError, match=r"letter must be one of 'a', 'b', not \['a'\]"):
        checked_choice(["a"], "letter", "ab")
    with pytest.raises(TypeError, match=r"desc must be a string, not b'x' \(bytes\)"):
        checked_name(b"x")
    assert [shorten(text, 5) for text in ("abc", "abcd")] == ["'abc'", "'abc…"]


class Counted:
    """Counts how often it is written."""

    calls = 0

    def __repr__(self) -> str:
        Counted.calls += 1
        return "7"


@pytest.mark.parametrize("value", [[Counted()] * 1_000_000, (Counted(),) * 1_000_000], ids=["list", "tuple"])
def test_only_the_beginning_of_a_large_value_is_written(value: Any) -> None:
    """It is what is shown: of a million numbers the first few."""
    Counted.calls = 0
    assert shorten(value, 20) == repr(value[:20])[:19] + "…"
    assert Counted.calls <= 40


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("/".join(["x" * 200] * 25), r"is too long: it has to be [\d,]+ bytes shorter"),
        ("x" * 300, r"is too long: its longest name has to be \d+ bytes shorter"),
        ("a\0b", r"must name a folder to be made, not '.*a\\x00b'"),
    ],
    ids=["path", "name", "zero"],
)
def test_folders_that_can_not_be_made_are_refused(folder: str, says: str, tmp_path: Path) -> None:
    """A path or a name that the system does not take is a sentence, wherever a folder is given."""
    path = str(tmp_path / folder)
    with pytest.raises(ValueError, match=f"checkpoint .*({says})"):
        multi_process(abs, [1], backend="seq", progress=False, checkpoint=path)
    with pytest.raises(ValueError, match=f"output_path .*({says})"):
        multi_process_dataset(numbered(1), lambda rows: rows, path, backend="seq", progress=False)
    with pytest.raises(ValueError, match=f"folder .*({says})"), tracking(1, folder=path, progress=False):
        pass
    assert not list(tmp_path.iterdir())
