"""Whether a run begins anew, resumes an interrupted one, or is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from support.shards import FINGERPRINT

from speedy_utils._sharding.fingerprint import Part
from speedy_utils._sharding.resume import Fresh, Manifest, Refuse, Resume, checked_resume, decide
from speedy_utils._sharding.shard_worker import ShardRecord
from speedy_utils._sharding.shards import plan_shards

CODE, SIZE = FINGERPRINT.parts or {}
OTHER = {**(FINGERPRINT.parts or {}), CODE: Part("c1", "return 2")}
MANIFEST = Manifest(FINGERPRINT, 4, "0.1.0")
RECORDS = {
    spec.index: ShardRecord(spec, 3, (), {}, f"f{spec.index}", None, {}) for spec in MANIFEST.specs[:2]
}


EARLIER = Manifest.from_json({key: value for key, value in MANIFEST.to_json().items() if key != "parts"})
"""As versions wrote it that did not note what the function is made of."""


def decided(
    changes: dict[str, Any] | None = None, *, manifest: Manifest | None = MANIFEST, **options: Any
) -> Fresh | Resume | Refuse:
    """What is decided for a call whose fingerprint has changed, with the usual options or others."""
    usual = {"num_shards": None, "default_shards": 7, "resume": True, "overwrite": False}
    finished = options.pop("finished", RECORDS)
    return decide(manifest, finished, replace(FINGERPRINT, **(changes or {})), **{**usual, **options})


FRESH, RESUMED = Fresh(plan_shards(10, 7)), Resume(MANIFEST.specs, RECORDS)
# What was interrupted, and the decision for each (resume, overwrite); a text is part of a refusal.
TRUST, NO_TRUST = (
    'To go on, pass resume="trust": the 2 finished shards stay, ',
    'resume="trust" can\'t keep them. Call as before',
)
OPTIONS = list(itertools.product([True, "trust", False], [False, True]))
DECISIONS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "no run": ({"manifest": None}, [FRESH] * 6),
    "none finished": ({"finished": {}, "changes": {"parts": OTHER}}, [FRESH] * 6),
    "the same": ({}, [RESUMED] * 4 + [FRESH] * 2),
    "the same, num_shards given": ({"num_shards": 4}, [RESUMED] * 4 + [Fresh(plan_shards(10, 4))] * 2),
    "another function": ({"changes": {"parts": OTHER}}, [TRUST, FRESH, RESUMED, RESUMED, FRESH, FRESH]),
    "an earlier version": (
        {"manifest": EARLIER},
        [TRUST, FRESH, *[Resume(MANIFEST.specs, RECORDS)] * 2, FRESH, FRESH],
    ),
    "other rows": (
        {"changes": {"num_rows": 11}},
        [NO_TRUST, Fresh(plan_shards(11, 7)), NO_TRUST, *[Fresh(plan_shards(11, 7))] * 3],
    ),
    "another cut": (
        {"num_shards": 5},
        [NO_TRUST, Fresh(plan_shards(10, 5)), NO_TRUST, *[Fresh(plan_shards(10, 5))] * 3],
    ),
    "another form": (
        {"manifest": replace(MANIFEST, version=99)},
        [NO_TRUST, FRESH, NO_TRUST, FRESH, FRESH, FRESH],
    ),
}


@pytest.mark.parametrize(
    ("case", "options", "expected"),
    [
        pytest.param(
            case, dict(zip(("resume", "overwrite"), options, strict=True)), expected, id=f"{name} {options}"
        )
        for name, (case, row) in DECISIONS.items()
        for options, expected in zip(OPTIONS, row, strict=True)
    ],
)
def test_each_case_has_one_decision(case: dict[str, Any], options: dict[str, Any], expected: Any) -> None:
    """What was interrupted, ``resume`` and ``overwrite`` decide how a run begins, or that it is refused."""
    decision = decided(**case, **options)
    if isinstance(expected, str):
        assert isinstance(decision, Refuse)
        assert decision.why.startswith(
            "an interrupted run with 2 of 4 shards finished, and this call differs"
        )
        assert expected in decision.why
        assert decision.why.index(expected) < decision.why.index("start over with overwrite=True")
    else:
        assert decision == expected


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ({"changes": {"dataset": "d1"}}, "the dataset is another one: its fingerprint is d1; it was d0"),
        ({"changes": {"num_rows": 11}}, "the dataset has 11 rows; it had 10"),
        ({"changes": {"function": "module.other"}}, "process_func is module.other; it was module.func"),
        ({"changes": {"parts": OTHER}}, f"{CODE} has `return 2`; it was `return 1`"),
        ({"changes": {"parts": {CODE: OTHER[CODE]}}}, f"{SIZE} (1) is gone"),
        ({"changes": {"parts": {**OTHER, SIZE: Part("k1", "2")}}}, f"{SIZE} is 2; it was 1"),
        ({"changes": {"parts": {**OTHER, SIZE: Part("k1", "1")}}}, f"{SIZE} has changed (1; if it has not"),
        ({"changes": {"parts": {**OTHER, SIZE: Part(None, "1")}}}, f"{SIZE} can't be pickled"),
        (
            {"changes": {"parts": {**OTHER, "the argument 'more'": Part("k", "2")}}},
            "the argument 'more' (2) is new",
        ),
        ({"manifest": EARLIER}, "what process_func is made of was not noted, so it is unknown"),
        ({"num_shards": 5}, "num_shards is 5; it was 4"),
        (
            {"manifest": replace(MANIFEST, version=99)},
            "it was written by speedy_utils 0.1.0, in another f",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_says_what_differs(case: dict[str, Any], says: str) -> None:
    """Each kind of change has its sentence, a line of the refusal; another form is not guessed at."""
    decision = decided(**case)
    assert isinstance(decision, Refuse)
    assert f"\n  - {says}" in decision.why


def test_a_number_of_shards_above_that_of_rows_is_no_difference() -> None:
    """Asked for more shards than there are rows, the same call resumes its run of one shard a row."""
    assert isinstance(decided(manifest=Manifest(FINGERPRINT, 10, ""), num_shards=99), Resume)


def test_a_manifest_survives_its_json() -> None:
    """A manifest is read back from what was written."""
    assert Manifest.from_json(json.loads(json.dumps(MANIFEST.to_json()))) == MANIFEST


@pytest.mark.parametrize(
    "raw", [None, 3, [], {}, {"kind": "another tool's"}, {**MANIFEST.to_json(), "identity": 3}]
)
def test_other_json_is_no_manifest(raw: Any) -> None:
    """What is no manifest of ours is a ValueError."""
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_json(raw)


@pytest.mark.parametrize("resume", ["yes", None, 2])
def test_another_way_to_resume_is_refused(resume: Any) -> None:
    """Other values than True, False and "trust" are a ValueError."""
    assert [checked_resume(each) for each in (True, False, "trust")] == [True, False, "trust"]
    with pytest.raises(ValueError, match="resume must be True, False"):
        checked_resume(resume)
