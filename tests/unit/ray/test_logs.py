"""Which lines of Ray's workers are shown, without a Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from speedy_utils._ray import logs
from speedy_utils._ray.logs import choose_logs


class Dispatcher:
    """Stands in for Ray's dispatcher, which passes batches of lines to its handlers."""

    def __init__(self) -> None:
        self.printed: list[tuple[Any, ...]] = []
        self.handlers: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
            ("other", lambda batch: None),
            ("ray_print_logs", self._print),
        ]

    def _print(self, batch: dict[str, Any]) -> None:
        self.printed.append((batch["task_name"], batch["pid"], *batch["lines"]))

    def emit(self, task: str | None, pid: Any, line: str) -> None:
        """Pass a batch to all handlers."""
        for _, handle in self.handlers:
            handle({"task_name": task, "pid": pid, "ip": "here", "lines": [line]})


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """The dispatcher of a Ray that is connected."""
    module: Any = ModuleType("ray._private.ray_logging")
    module.global_worker_stdstream_dispatcher = Dispatcher()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(logs, "_warned", False)
    dispatcher: Dispatcher = module.global_worker_stdstream_dispatcher
    return dispatcher


def test_lines_that_ray_forwards_are_chosen(dispatcher: Dispatcher) -> None:
    """Each run's lines are chosen for itself and shown under the name of its tasks; others' pass."""
    names = {choice: choose_logs("work", choice) for choice in ("none", "first", "all")}
    assert len(set(names.values())) == 3
    assert names["all"] == "work"
    for pid in (1, 2, 1):
        for choice, name in names.items():
            dispatcher.emit(name, pid, f"{choice} says")
    dispatcher.emit(None, "raylet", "a worker died")
    dispatcher.emit("", 3, "no task")
    assert dispatcher.printed == [
        ("work", 1, "first says"),
        ("work", 1, "all says"),
        ("work", 2, "all says"),
        ("work", 1, "first says"),
        ("work", 1, "all says"),
        (None, "raylet", "a worker died"),
        ("", 3, "no task"),
    ]
    assert [name for name, _ in dispatcher.handlers] == ["other", "ray_print_logs"]


def test_a_ray_that_starts_again_is_filtered_again(dispatcher: Dispatcher) -> None:
    """After Ray has removed its function and added it again, the next run wraps it again."""
    former = choose_logs("work", "none")
    choose_logs("work", "none")
    fresh = Dispatcher()
    dispatcher.handlers, dispatcher.printed = fresh.handlers, fresh.printed
    name = choose_logs("work", "none")
    dispatcher.emit(former, 1, "late")
    dispatcher.emit(name, 1, "no")
    dispatcher.emit("work", 1, "yes")
    assert dispatcher.printed == [("work", 1, "yes")]


def test_a_thousand_runs_are_remembered(dispatcher: Dispatcher) -> None:
    """The memory for runs that are over is bounded, and late lines of the last ones are still left out."""
    names = [choose_logs("work", "none") for _ in range(1500)]
    assert len(logs._runs) == 1000
    dispatcher.emit(names[-1000], 1, "no")
    assert dispatcher.printed == []


def test_nothing_is_done_if_forwarding_is_off(dispatcher: Dispatcher) -> None:
    """If the user has turned forwarding off, nothing is changed and nothing logged."""
    dispatcher.handlers = dispatcher.handlers[:1]
    assert choose_logs("work", "none") == "work"
    assert len(dispatcher.handlers) == 1


@pytest.mark.parametrize("broken", ["no module", "no dispatcher", "no handlers", "other handlers"])
def test_a_ray_with_other_internals_shows_all(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """If Ray has other internals all lines are shown, and one warning says so."""
    module = sys.modules["ray._private.ray_logging"]
    if broken == "no module":
        monkeypatch.setitem(sys.modules, module.__name__, None)
    elif broken == "no dispatcher":
        monkeypatch.delattr(module, "global_worker_stdstream_dispatcher")
    elif broken == "no handlers":
        del dispatcher.handlers
    else:
        dispatcher.handlers = {"ray_print_logs": print}
    assert choose_logs("work", "none") == "work"
    assert choose_logs("work", "first") == "work"
    (record,) = caplog.records
    assert "all are shown" in record.getMessage()
