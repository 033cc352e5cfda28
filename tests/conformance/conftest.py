"""What tests of dataset runs share: backends without Ray, and a place for the output."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["threads", "seq"])
def local(request: pytest.FixtureRequest) -> str:
    """Return each backend that needs no Ray."""
    return str(request.param)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return where the output is to appear, in a folder of its own."""
    return tmp_path / "results" / "out"
