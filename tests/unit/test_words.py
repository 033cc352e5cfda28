"""Words that the project does not use, as a reader would have to learn them or could take them otherwise."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

INSTEAD = {
    # Say it plainly.
    "dear": "expensive",
    "by rights": "normally",
    "befall(s|en)?|befell": "happen",
    "whoever": "the caller, the thread, the user",
    "(some|any|no)body('s)?": "another thread, the caller, no process",
    "struck|strikes?|blows?": "raised, interrupted, delivered",
    "told": "reported, asked, described",
    "does no harm": "idempotent",
    "seconds that only grow": "a monotonic clock, in seconds",
    "where None": "if it is None",
    "so many": "that many, several, a limited number",
    "(gives?|gave) back|lets? go of": "release, restore",
    "quiet": "silent",
    "hushed": "silenced",
    # The names of today.
    "desk": "writer",
    "gate": "output_filter",
    "Ages|Spans": "StageTimings",
    "Places|whereabouts": "TaskLocations, locate_attempts",
    "Allowance": "minimum redraw interval",
    "Folding": "StageLimit",
    "Gatherers?": "Relay",
    "adopt(s|ed|ing|ion)?": "captured",
    # One meaning a name, and the unit in those of times.
    "_(PATIENCE|BRIEF|MOMENT|GRACE|MANY)": "a name that says of what, as CANCEL_GRACE_S",
}
"""Patterns, and what to say instead. Words that begin with a capital letter stand for names: case matters."""


@cache
def texts() -> dict[str, str]:
    """Return the project's code and prose, by path."""
    files = {
        file for room in ("src", "tests", "examples", "benchmarks") for file in ROOT.glob(f"{room}/**/*.py")
    }
    files |= {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.toml"), ROOT / ".ci" / "run"}
    return {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files - {Path(__file__)}
    }


@pytest.mark.parametrize("word", INSTEAD)
def test_plainer_words_are_used(word: str) -> None:
    """No file has a word for which there is a plainer one."""
    pattern = re.compile(rf"\b(?:{word})\b", 0 if word[:1].isupper() else re.IGNORECASE)
    found = [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for path, text in texts().items()
        for match in pattern.finditer(text)
    ]
    assert not found, f"instead of {word!r} say: {INSTEAD[word]}"
