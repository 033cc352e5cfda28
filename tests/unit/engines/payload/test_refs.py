"""Where Ray has not been imported there are no references; values that Ray lost are worth another attempt."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from speedy_utils import multi_process
from speedy_utils._engines.payload.refs import is_ref, plain_function, resolve, shared_arguments


def test_without_ray_all_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, arguments and functions are returned themselves if Ray was not imported, or only in part."""
    kwargs = {"a": 1}
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for half_imported in (False, True):
        if half_imported:
            monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())  # type: ignore[arg-type]
        assert resolve(kwargs) is kwargs
        assert shared_arguments(kwargs) is kwargs
        assert plain_function(len) == (len, None)


class Ref:
    """A reference in place of Ray's."""

    gets = 0

    def __init__(self, name: str) -> None:
        self.name = name


class LostError(Exception):
    """In place of Ray's ObjectLostError."""


class TaskFailedError(Exception):
    """In place of Ray's RayTaskError."""

    cause = KeyError("task")


class CrashedError(Exception):
    """In place of Ray's WorkerCrashedError."""


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put something in the place of Ray that loses the first value, and then finds it."""

    def get(ref: Ref) -> str:
        Ref.gets += 1
        if ref.name == "failed":
            raise TaskFailedError
        if Ref.gets == 1:
            raise LostError("its node died\nmore")
        return ref.name

    errors = SimpleNamespace(
        RayTaskError=TaskFailedError, ObjectLostError=LostError, WorkerCrashedError=CrashedError
    )
    fake: Any = SimpleNamespace(ObjectRef=Ref, get=get, exceptions=errors, is_initialized=bool)
    monkeypatch.setattr(Ref, "gets", 0)
    monkeypatch.setitem(sys.modules, "ray", fake)


@pytest.mark.parametrize("engine", ["threads", "seq"])
def test_a_lost_value_is_worth_another_attempt(
    ray: None, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A task whose value was lost runs again, and a log line says what was lost."""

    def join(item: str, other: str) -> str:
        return item + other

    results = multi_process(
        join, [Ref("a"), "b"], other=Ref("x"), backend=engine, num_workers=1, progress=False
    )
    assert results == ["ax", "bx"]
    (warning,) = [record.message for record in caplog.records if record.name == "speedy_utils"]
    assert "runs again, attempt 2 of 4" in warning
    assert warning.endswith("was lost: its node died")


def test_shared_arguments_are_fetched_once_and_travel_as_references(ray: None) -> None:
    """A value is fetched when it is first read, and a pickle holds the reference."""
    Ref.gets = 1
    shared = shared_arguments({"model": Ref("large"), "size": 2})
    assert (len(shared), Ref.gets) == (2, 1)
    assert [dict(shared), dict(shared)] == [{"model": "large", "size": 2}] * 2
    assert Ref.gets == 2
    assert is_ref(pickle.loads(pickle.dumps(shared))._given["model"])


def test_the_error_of_a_value_is_raised_each_time(ray: None) -> None:
    """A value that could not be made raises the error of its task, to each that asks."""
    shared = shared_arguments({"model": Ref("failed")})
    for _ in range(2):
        with pytest.raises(KeyError, match="task"):
            shared["model"]
