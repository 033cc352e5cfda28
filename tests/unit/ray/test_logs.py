"""Which lines of Ray's workers are shown, how, and that a run waits for them; without a Ray."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from speedy_utils._ray import logs
from speedy_utils._ray.logs import LineStream, RunLogs, choose_logs, whole_lines


class Dispatcher:
    """Stands in for Ray's dispatcher, which passes batches of lines to its handlers."""

    def __init__(self) -> None:
        self.deduplicated: list[tuple[Any, ...]] = []
        self.handlers: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
            ("other", lambda batch: None),
            ("ray_print_logs", partial(self._print, ignore_prefix=False)),
        ]

    def _print(self, batch: dict[str, Any], ignore_prefix: bool) -> None:
        self.deduplicated.append((batch["task_name"], batch["pid"], *batch["lines"]))

    def emit(self, task: str | None, pid: Any, *lines: str, is_err: bool = False) -> None:
        """Pass a batch to all handlers."""
        for _, handle in self.handlers:
            handle({"task_name": task, "pid": pid, "ip": "here", "is_err": is_err, "lines": list(lines)})


def print_worker_logs(batch: dict[str, Any], file: Any, ignore_prefix: bool) -> None:
    """Print a batch as Ray does, in cyan."""
    for line in batch["lines"]:
        prefix = "" if ignore_prefix else f"\x1b[36m({batch['task_name']} pid={batch['pid']})\x1b[0m "
        print(f"{prefix}{line}", file=file)


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """The dispatcher of a Ray that is connected."""
    module: Any = ModuleType("ray._private.ray_logging")
    module.global_worker_stdstream_dispatcher = Dispatcher()
    worker: Any = ModuleType("ray._private.worker")
    worker.print_worker_logs = print_worker_logs
    for each in (module, worker):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    monkeypatch.setattr(logs, "_warned", False)
    monkeypatch.setattr(logs, "_runs", type(logs._runs)())
    monkeypatch.delenv("RAY_DEDUP_LOGS", raising=False)
    dispatcher: Dispatcher = module.global_worker_stdstream_dispatcher
    return dispatcher


def choose(name: str, choice: Any) -> RunLogs:
    """Choose the lines of a run, which can be chosen."""
    chosen = choose_logs(name, choice)
    assert chosen is not None
    return chosen


def test_lines_that_ray_forwards_are_chosen(
    dispatcher: Dispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each run's lines are chosen for itself and shown under the name of its tasks; others' pass to Ray."""
    choices: tuple[Any, ...] = ("none", "first", "all")
    names = {choice: choose("work", choice).task_name for choice in choices}
    assert len(set(names.values())) == 3
    assert names["all"] == "work"
    for pid in (1, 2, 1):
        for choice, name in names.items():
            dispatcher.emit(name, pid, f"{choice} says")
    dispatcher.emit(None, "raylet", "a worker died")
    dispatcher.emit("", 3, "no task")
    assert capsys.readouterr().out.splitlines() == [
        "(work pid=1) first says",
        "(work pid=1) all says",
        "(work pid=2) all says",
        "(work pid=1) first says",
        "(work pid=1) all says",
    ]
    assert dispatcher.deduplicated == [(None, "raylet", "a worker died"), ("", 3, "no task")]
    assert [name for name, _ in dispatcher.handlers] == ["other", "ray_print_logs"]


@pytest.mark.parametrize(
    ("asked", "deduplicated"), [(None, False), ("0", False), ("1", True), ("true", True)]
)
def test_lines_that_look_alike_are_all_shown(
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: str | None,
    deduplicated: bool,
) -> None:
    """A run's lines go past what takes them for repetitions, unless the environment asks for that."""
    if asked is not None:
        monkeypatch.setenv("RAY_DEDUP_LOGS", asked)
    name = choose("work", "all").task_name
    dispatcher.emit(name, 1, "shard 1 done", is_err=True)
    dispatcher.emit(name, 2, "shard 2 done", is_err=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == (
        [] if deduplicated else ["(work pid=1) shard 1 done", "(work pid=2) shard 2 done"]
    )
    assert len(dispatcher.deduplicated) == 2 * deduplicated


class Terminal(io.StringIO):
    """Keeps each write, and is a terminal if asked for."""

    def __init__(self, is_terminal: bool = True) -> None:
        super().__init__()
        self.is_terminal, self.writes = is_terminal, list[str]()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self.is_terminal

    def write(self, text: str) -> int:
        """Keep a write."""
        self.writes.append(text)
        return super().write(text)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_line_is_written_at_once_and_in_colour_only_to_a_terminal(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    """Nothing can come between a line and its end, and Ray's colour is left out in a file."""
    monkeypatch.setattr(sys, "stdout", stream := Terminal(is_terminal))
    dispatcher.emit(choose("work", "all").task_name, 1, "one", "\x1b[31mred\x1b[0m")
    prefix = "\x1b[36m(work pid=1)\x1b[0m " if is_terminal else "(work pid=1) "
    assert stream.writes == [f"{prefix}one\n", f"{prefix}\x1b[31mred\x1b[0m\n"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_line_keeps_its_prefix_and_nothing_of_rays_own(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    """A line that overwrites itself keeps who has printed it; marks of Ray's behind dots are left out."""
    monkeypatch.setattr(sys, "stdout", stream := Terminal(is_terminal))
    dispatcher.emit(choose("work", "all").task_name, 1, "50%\r100%", "dots...:task_name:work [1f2e3d4c]")
    whole = "100%" if is_terminal else "50%\r100%"
    assert [text.partition("pid=1)")[2] for text in stream.getvalue().split("\n")] == [
        f"\x1b[0m {whole}" if is_terminal else f" {whole}",
        "\x1b[0m dots..." if is_terminal else " dots...",
        "",
    ]


def test_a_program_without_streams_goes_on(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stdout, Ray's function does what it can."""
    monkeypatch.setattr(sys, "stdout", None)
    dispatcher.emit(choose("work", "all").task_name, 1, "one")
    assert dispatcher.deduplicated == [("work", 1, "one")]


def test_a_run_waits_for_what_its_tasks_have_printed(
    dispatcher: Dispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends once all bytes of each process and stream have come, and at once if all were there."""
    run = choose("work", "all")
    run.wait()
    dispatcher.emit("work", 1, "é")
    run.expect(1, 3, 0)
    run.wait()
    run.expect(1, 4, 0)
    run.expect(2, 0, 4)
    waiting = threading.Thread(target=run.wait)
    waiting.start()
    dispatcher.emit("work", 1, "two")
    dispatcher.emit("work", 2, "two")  # on the other stream
    assert waiting.is_alive()
    dispatcher.emit("work", "2", "two", is_err=True)  # as Ray passes the number
    waiting.join(60)
    assert not waiting.is_alive()
    assert capsys.readouterr().err == "(work pid=2) two\n"


def test_a_run_does_not_wait_for_ever(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines may be lost: it waits a moment for the next one. It waits for none if it shows none."""
    monkeypatch.setattr(logs, "QUIET_S", 0.0)
    run = choose("work", "all")
    run.expect(1, 100, 0)
    run.wait()
    run.wait()  # what was lost then counts for no later run of the same name
    monkeypatch.setattr(logs, "QUIET_S", 1e9)
    silent = choose("work", "none")
    silent.expect(1, 100, 0)
    silent.wait()
    assert silent is not run


def test_a_ray_that_starts_again_is_wrapped_again(
    dispatcher: Dispatcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ray has removed its function and added it again, the next run wraps it again."""
    former = choose("work", "none").task_name
    choose("work", "none")
    fresh = Dispatcher()
    dispatcher.handlers, dispatcher.deduplicated = fresh.handlers, fresh.deduplicated
    name = choose("work", "none").task_name
    dispatcher.emit(former, 1, "late")
    dispatcher.emit(name, 1, "no")
    dispatcher.emit("work", 1, "yes")
    assert dispatcher.deduplicated == [("work", 1, "yes")]
    assert capsys.readouterr().out == ""


def test_a_thousand_runs_are_remembered(dispatcher: Dispatcher) -> None:
    """The memory for runs that are over is bounded, and late lines of the last ones are still left out."""
    names = [choose("work", "none").task_name for _ in range(1500)]
    assert len(logs._runs) == 1000
    dispatcher.emit(names[-1000], 1, "no")
    assert dispatcher.deduplicated == []


def test_nothing_is_done_if_forwarding_is_off(dispatcher: Dispatcher) -> None:
    """If the user has turned forwarding off, nothing is changed and nothing logged."""
    dispatcher.handlers = dispatcher.handlers[:1]
    assert choose_logs("work", "none") is None
    assert len(dispatcher.handlers) == 1


@pytest.mark.parametrize(
    "broken", ["no module", "no dispatcher", "no print", "no handlers", "other handlers"]
)
def test_a_ray_with_other_internals_shows_all(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """If Ray has other internals it shows all lines as ever, and one warning says so where it matters."""
    module = sys.modules["ray._private.ray_logging"]
    if broken == "no module":
        monkeypatch.setitem(sys.modules, module.__name__, None)
    elif broken == "no dispatcher":
        monkeypatch.delattr(module, "global_worker_stdstream_dispatcher")
    elif broken == "no print":
        monkeypatch.delattr(sys.modules["ray._private.worker"], "print_worker_logs")
    elif broken == "no handlers":
        del dispatcher.handlers
    else:
        dispatcher.handlers = {"ray_print_logs": print}  # type: ignore[assignment]
    assert choose_logs("work", "all") is None
    assert caplog.records == []
    assert choose_logs("work", "none") is None
    assert choose_logs("work", "first") is None
    (record,) = caplog.records
    assert "all are shown" in record.getMessage()


def test_what_a_task_prints_reaches_the_log_file_in_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is one write; its beginning comes once it is flushed, or as the task ends."""
    monkeypatch.setattr(logs, "_line_streams", {})
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    monkeypatch.setattr(sys, "stderr", err := Terminal())
    with whole_lines():
        print("one", 2, "three")
        other = threading.Thread(target=print, args=("begun by a thread",), kwargs={"end": " "})
        other.start()
        other.join()
        print("two\nlines")
        sys.stdout.writelines(["a", "b\n"])
        print("dots", end="")
        print("...", end="", flush=True)
        print(" rest", end="", file=sys.stderr)
        with pytest.raises(TypeError):
            sys.stdout.write(b"")  # type: ignore[arg-type]
        kept = sys.stdout
    out.writes.remove(b"")  # type: ignore[arg-type]
    assert out.writes[:4] == ["one 2 three\n", "two\n", "lines\n", "ab\n"]
    assert "dots..." in out.writes
    assert out.writes[-1] == "begun by a thread \n"
    assert (err.writes, sys.stdout, sys.stderr) == ([" rest\n"], out, err)
    print("later", file=kept)
    assert out.writes[-1] == "later\n"


def test_a_stream_that_a_task_puts_in_place_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the task sets as ``sys.stdout`` is its own."""
    monkeypatch.setattr(logs, "_line_streams", {})
    own, before = io.StringIO(), sys.stdout
    try:
        with whole_lines():
            sys.stdout = own
        assert sys.stdout is own
    finally:
        sys.stdout = before
    assert isinstance(LineStream(own), io.StringIO)
