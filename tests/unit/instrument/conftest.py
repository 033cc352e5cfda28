"""What the tests of captured bars share: a task whose bars are captured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils.testing import RecordingSink


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    """What a task counts whose bars are captured."""
    with RecordingSink() as sink, capturing_tqdm():
        yield sink
