"""Which backend a run has if its caller names none: Ray where there is one, else processes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speedy_utils._api.arguments.options import RunOptions


@pytest.fixture(autouse=True)
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let there be no Ray; return the file in which ``ray start`` writes an address."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=bool))  # type: ignore[arg-type]
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def backend(**options: Any) -> str | None:
    """Return the backend of a run with these options."""
    return RunOptions(**options).backend


def test_processes_where_no_ray_is_wanted() -> None:
    """A Ray that is imported and does not run is none, and options for Ray that ask for nothing neither."""
    assert backend() == backend(ray_options={}) == "processes"


def test_ray_where_one_runs_in_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``ray.init()``, and in Ray's workers, it is Ray, unless a backend is given."""
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))  # type: ignore[arg-type]
    assert [backend(), backend(backend="process"), backend(backend="seq")] == ["ray", "processes", "seq"]


@pytest.mark.parametrize("address", ["auto", "10.0.0.7:6379", "local"])
def test_ray_where_the_environment_names_one(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever RAY_ADDRESS says, it says that Ray is wanted."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert backend() == "ray"


def test_ray_where_it_is_asked_for() -> None:
    """Options for Ray ask for it, and so does a function that is Ray's."""
    assert backend(ray_options={"num_gpus": 1}) == backend(asks_for_ray=True) == "ray"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Something that answers, as the head of a cluster does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_ray_where_ray_start_has_started_one(
    started: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that this machine belongs to needs no name; a dead one, or another user's, is none."""
    address = "{}:{}".format(*listener.getsockname())
    started.write_text(f"{address}\n")
    assert backend() == "ray"
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert backend() == "processes"


@pytest.mark.parametrize("text", ["127.0.0.1:1", "", "garbage"])
def test_an_address_that_does_not_answer_is_no_ray(started: Path, text: str) -> None:
    """What a Ray that was killed has left is not waited for."""
    started.write_text(text)
    assert backend() == "processes"


WITHOUT_RAY = """
import os, sys
from datasets import Dataset, load_from_disk
from speedy_utils import multi_process, multi_process_dataset
def inner(item):
    return os.getpid(), "ray" in sys.modules
def outer(item):
    ((pid, imported),) = multi_process(inner, [item], num_workers=1)
    return pid != os.getpid(), imported, "ray" in sys.modules
def rows(shard):
    yield {"imported": "ray" in sys.modules, "in a child": os.getpid() != parent}
parent = os.getpid()
print(*multi_process(outer, range(1), progress=False))
out = multi_process_dataset(Dataset.from_dict({"a": [1]}), rows, "out", progress=False)
print(load_from_disk(out)[0])
print("ray" in sys.modules)
"""


def test_ray_is_not_imported_where_there_is_none(driver: Callable[..., Any]) -> None:
    """Neither by the program nor by its workers, whose own calls start processes as well."""
    done = driver(WITHOUT_RAY, env={"RAY_ADDRESS": None})
    assert done.stdout.splitlines() == [
        "(True, False, False)",
        "{'imported': False, 'in a child': True}",
        "False",
    ], done.stderr
