"""The type that holds the values of two others."""

from __future__ import annotations

from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets import ClassLabel, Features, Image, LargeList, Value
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils._sharding.columns.cast import arrow_type, cast_table
from speedy_utils._sharding.columns.unify import MisfitError, holds, is_json, make_list, may_change, unify

JSON = datasets.Json() if hasattr(datasets, "Json") else None

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
LEAVES = ["null", "bool", *INTEGERS, "float32", "float64", "string", "large_string", "binary"]
DECIMALS = ["decimal128(3, 2)", "decimal128(38, 30)", "decimal256(76, 1)"]
TIMES = ["timestamp[s]", "timestamp[us]", "timestamp[ns, tz=UTC]", "duration[ms]"]


def lists(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists, large lists and structs of features."""
    structs = st.dictionaries(st.sampled_from("abc"), items, max_size=3)
    plain = st.tuples(items, st.sampled_from([-1, 2])).map(lambda each: make_list(*each, large=False))
    return st.one_of(structs, plain, items.map(lambda item: make_list(item, -1, large=True)))


leaves = st.sampled_from([*LEAVES, *TIMES, *DECIMALS]).map(Value)
types = st.recursive(leaves, lists, max_leaves=5)


def join(ours: Any, theirs: Any) -> Any:
    """What holds both, or None."""
    try:
        return unify(ours, theirs)
    except MisfitError:
        return None


@given(types, types)
def test_the_join_is_commutative(ours: Any, theirs: Any) -> None:
    """Which side comes first makes no difference but to the order of struct keys."""
    assert join(ours, theirs) == join(theirs, ours)


@given(types)
def test_the_join_is_idempotent(ours: Any) -> None:
    """A type joined with itself, and with null, is itself."""
    assert unify(ours, ours) == unify(ours, Value("null")) == ours


@given(types, types, types)
def test_the_join_is_associative(a: Any, b: Any, c: Any) -> None:
    """Any order of joining three types gives the same type, as long as all of them fit."""
    left, right = join(a, b), join(b, c)
    one = None if left is None else join(left, c)
    other = None if right is None else join(a, right)
    assert one == other


NUMBERS = [each for each in LEAVES if "int" in each or "float" in each]


@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.data())
def test_every_number_keeps_or_is_refused(ours: str, theirs: str, data: st.DataObject) -> None:
    """A number cast to the join is what it was; or the cast is an error, which the types tell may come."""
    wanted = Features({"n": unify(Value(ours), Value(theirs))})
    kind = arrow_type(Value(ours))
    if "float" in ours:
        value = data.draw(st.floats(width=int(ours[5:]), allow_nan=False))
    else:
        bits = int(ours.rpartition("int")[2])
        low, high = (0, 2**bits - 1) if ours.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        value = data.draw(st.integers(low, high))
    table = pa.table({"n": pa.array([value, None], kind)})
    try:
        assert cast_table(table, wanted)["n"].to_pylist() == [value, None]
    except ValueError:
        assert may_change(Value(ours), wanted["n"])
        assert abs(value) >= 2**53 or (value < 0 and wanted["n"].dtype == "uint64")


JOINS: dict[str, tuple[Any, Any, Any]] = {
    "integers": (Value("int8"), Value("int32"), Value("int32")),
    "signs": (Value("uint8"), Value("int8"), Value("int16")),
    "hashes": (Value("uint64"), Value("int64"), Value("uint64")),
    "decimals": (Value("decimal128(3, 0)"), Value("decimal128(3, 2)"), Value("decimal128(5, 2)")),
    "long decimals": (Value("decimal128(38, 0)"), Value("decimal128(3, 2)"), Value("decimal256(40, 2)")),
    "an integer and a float": (Value("int32"), Value("float32"), Value("float64")),
    "texts": (Value("string"), Value("large_string"), Value("large_string")),
    "lists": (make_list(Value("null"), -1, large=False), LargeList(Value("int8")), LargeList(Value("int8"))),
    "fewer keys": ({"a": Value("int8")}, {"b": Value("bool")}, {"a": Value("int8"), "b": Value("bool")}),
    "no keys": ({}, {"a": Value("int8")}, {"a": Value("int8")}),
    "times": (Value("timestamp[s]"), Value("timestamp[us]"), Value("timestamp[us]")),
    "null and an image": (Value("null"), Image(), Image()),
    "an image and its bytes": (Image(), {"bytes": Value("binary"), "path": Value("null")}, Image()),
}


@pytest.mark.parametrize(("ours", "theirs", "both"), JOINS.values(), ids=JOINS.keys())
def test_what_holds_both(ours: Any, theirs: Any, both: Any) -> None:
    """Numbers, texts, lists, structs and times widen; inside of structs and lists they do, too."""
    assert unify(ours, theirs) == unify(theirs, ours) == both
    inner = unify({"x": make_list(ours, -1, large=False)}, {"x": make_list(theirs, -1, large=False)})
    assert inner == {"x": make_list(both, -1, large=False)}


CHANGES: dict[str, tuple[Any, Any, bool]] = {
    "a wider integer": (Value("int8"), Value("int64"), False),
    "an integer that a float holds": (Value("int32"), Value("float64"), False),
    "an integer that a float may not hold": (Value("int64"), Value("float64"), True),
    "a sign": (Value("int8"), Value("uint64"), True),
    "a longer time": (Value("timestamp[s]"), Value("timestamp[ns]"), True),
    "a label": (Value("int64"), ClassLabel(names=["a"]), True),
    "null": (Value("null"), ClassLabel(names=["a"]), False),
    "a text": (Value("string"), Value("large_string"), False),
    "a shorter type": (Value("large_string"), Value("string"), True),
    "more keys": ({"a": Value("int8")}, {"a": Value("int8"), "b": Value("bool")}, False),
    "fewer keys": ({"a": Value("int8"), "b": Value("bool")}, {"a": Value("int8")}, True),
    "a length": (make_list(Value("int8"), -1, large=False), make_list(Value("int8"), 2, large=False), True),
    "a large list": (make_list(Value("null"), -1, large=False), LargeList(Value("int8")), False),
}


@pytest.mark.parametrize(("ours", "wanted", "may"), CHANGES.values(), ids=CHANGES.keys())
def test_types_tell_whether_a_cast_may_change_values(ours: Any, wanted: Any, may: bool) -> None:
    """Only what a cast may change has to be read to know that it fits; inside of structs and lists too."""
    assert may_change(ours, wanted) is may
    assert (
        may_change({"x": make_list(ours, -1, large=False)}, {"x": make_list(wanted, -1, large=False)}) is may
    )


MISFITS: dict[str, tuple[Any, Any]] = {
    "a number and a text": (Value("int64"), Value("string")),
    "a truth value and a number": (Value("bool"), Value("int64")),
    "decimals that are too long": (Value("decimal256(76, 1)"), Value("decimal128(3, 2)")),
    "a text and bytes": (Value("string"), Value("binary")),
    "a list and a value": (make_list(Value("int8"), -1, large=False), Value("int8")),
    "a struct and a value": ({"a": Value("int8")}, Value("int8")),
    "labels": (ClassLabel(names=["a"]), ClassLabel(names=["b"])),
    "time zones": (Value("timestamp[s]"), Value("timestamp[s, tz=UTC]")),
    "an image and another struct": (Image(), {"bytes": Value("string")}),
}


@pytest.mark.parametrize(("ours", "theirs"), MISFITS.values(), ids=MISFITS.keys())
def test_what_nothing_holds(ours: Any, theirs: Any) -> None:
    """The error names the place within the column, and both types."""
    with pytest.raises(MisfitError, match=r"column 'c.k\[\]' is ") as caught:
        unify(*({"k": make_list(each, -1, large=False)} for each in (ours, theirs)), "c")
    assert (caught.value.name, caught.value.ours, caught.value.theirs) == ("c", ours, theirs)


@pytest.mark.skipif(JSON is None, reason="these datasets have no Json")
@pytest.mark.parametrize(
    "other", [{"a": Value("int8")}, Value("string"), make_list({}, -1, large=False)], ids=str
)
def test_json_holds_what_json_can_say(other: Any) -> None:
    """Where ``datasets`` has ``Json()``, it holds structs, lists, texts and numbers, but no bytes."""
    assert unify(other, JSON) == unify(JSON, other) == JSON
    assert holds(unify({"x": JSON}, {"x": other, "y": Value("int8")}), is_json)
    with pytest.raises(MisfitError):
        unify(JSON, {"a": Value("binary")})
