"""What fault tests share: programs in a terminal of their own, and the progress actors of a test's runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.terminal import Terminal


@pytest.fixture(autouse=True)
def _no_cluster_is_left() -> Iterator[None]:
    """Remove what ``ray start`` leaves for drivers to find: they would wait for a cluster that has ended."""
    yield
    Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster").unlink(missing_ok=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Return what starts a program in a terminal."""
    started: list[Terminal] = []

    def start(code: str, size: tuple[int, int] = (100, 24)) -> Terminal:
        script = tmp_path / "driver.py"
        script.write_text(code)
        started.append(Terminal(script, size))
        return started[-1]

    yield start
    for each in started:
        each.close()
        print(each.text[-3000:])  # pytest shows it where the test has failed


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that gets the progress actor of each run of the test; workers have no other way."""
    from speedy_utils._ray.tasks import live_counts

    made: list[Any] = []
    create = live_counts.start_actor

    def create_and_note(*args: Any) -> Any:
        made.append(create(*args))
        return made[-1]

    monkeypatch.setattr(live_counts, "start_actor", create_and_note)
    # As on other nodes than the driver's.
    monkeypatch.setattr(live_counts.NearbyFolder, "sink", lambda _, actor: actor)
    return made
