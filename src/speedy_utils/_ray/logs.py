"""Lines that Ray forwards from workers: which are shown, whole and in order, before their run ends.

Ray prints what all workers of a program write, and has no public way to choose among them but
``ray.init(log_to_driver=False)``: that is for all runs at once, and not for a Ray that is running. It also
takes lines that differ only in their numbers for the same one, and shows one of them in five seconds. So this
wraps the function that Ray prints with. Ray passes the name of the task with each batch of lines, by which
those of a run are known; a run that does not show all of them gives its tasks a unique name.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from importlib import import_module
from threading import get_ident
from typing import Any

import wrapt

from .._engines.worker_logs import LogFilter, WorkerLogs

logger = logging.getLogger("speedy_utils")


QUIET_S = 2.0
"""Seconds without a line, after which the end of a run waits no longer for those that are on their way."""


LATE_LINES_TIMEOUT_S = 10.0
"""Seconds for which it waits, at most."""


_PRINT_HANDLER = "ray_print_logs"
"""The name under which Ray keeps the function that it prints with."""


_MAX_RUNS = 1000
"""How many runs are remembered: lines arrive after their run is over."""


_COLOURED_PREFIX = re.compile(r"^\x1b\[\d+m(\(.*?\))\x1b\[0m ", re.MULTILINE)
"""What Ray puts before a line: ``(work pid=123) `` in cyan."""


_TASK_MARK = re.compile(r"(?<=.):task_name:.*")
"""What Ray writes where a task begins, behind text that the one before has left without an end."""


_warned = False


Batch = dict[str, Any]
"""Lines of one process, as Ray passes them: ``{"ip": ..., "pid": ..., "task_name": ..., "is_err": ...,
"lines": [...]}``."""


class RunLogs:
    """What the tasks of a run print.

    Args:
        name: The name of the tasks, as it is shown.
        task_name: The name that they have.
        choice: Whose lines are shown.
    """

    def __init__(self, name: str, task_name: str, choice: WorkerLogs) -> None:
        self.name, self.task_name = name, task_name
        self._filter = LogFilter(choice)
        self._waits = choice != "none"
        self._printed: Counter[tuple[str, bool]] = Counter()  # bytes, by process and whether it is stderr
        self._arrived: Counter[tuple[str, bool]] = Counter()
        self._last_arrival = 0.0

    def allows(self, batch: Batch) -> bool:
        """Return whether lines are shown."""
        return self._filter.allows((batch.get("ip"), batch.get("pid")))

    def arrived(self, batch: Batch) -> None:
        """Note that lines have come, and are printed if they are shown."""
        size = sum(len(line.encode(errors="replace")) + 1 for line in batch["lines"])
        self._arrived[str(batch.get("pid")), bool(batch.get("is_err"))] += size
        self._last_arrival = time.monotonic()

    def expect(self, pid: int, out: int, err: int) -> None:
        """Note how much an attempt that has ended has printed: its process, and the bytes."""
        if out or err:
            self._printed[str(pid), False] += out
            self._printed[str(pid), True] += err

    def wait(self) -> None:
        """Wait until all that was expected has come, or for a moment: it may come late, or not at all."""
        started = time.monotonic()
        while self._waits and any(self._arrived[key] < size for key, size in list(self._printed.items())):
            now = time.monotonic()
            if now - started > LATE_LINES_TIMEOUT_S or now - max(started, self._last_arrival) > QUIET_S:
                break
            time.sleep(0.01)
        self._printed.clear()
        self._arrived.clear()


_runs: OrderedDict[str, RunLogs] = OrderedDict()
"""By the name that their tasks have."""


def choose_logs(name: str, choice: WorkerLogs) -> RunLogs | None:
    """Show all the lines that the tasks of a run will print, or only some. Ray has to be connected.

    Args:
        name: The name of the tasks.
        choice: Whose lines are shown.

    Returns:
        What the tasks print; they must have its ``task_name``, such as ``"work [1f2e3d4c]"``. None if Ray
        shows nothing, or can't be made to choose.
    """
    if not _wrap_handlers(choice):
        return None
    task_name = name if choice == "all" else f"{name} [{uuid.uuid4().hex[:8]}]"
    if task_name not in _runs:
        _runs[task_name] = RunLogs(name, task_name, choice)
    _runs.move_to_end(task_name)
    while len(_runs) > _MAX_RUNS:
        _runs.popitem(last=False)
    return _runs[task_name]


class _RunPrint:
    """Prints a batch of lines: those of a run as that has chosen, and others as Ray does.

    Args:
        print_batch: Ray's function, which leaves out what it takes for repetitions.
        print_lines: Ray's function that prints what is left.
    """

    def __init__(self, print_batch: Callable[[Batch], object], print_lines: Callable[..., object]) -> None:
        self._print_batch, self._print_lines = print_batch, print_lines

    def __call__(self, batch: Batch) -> None:
        run = _runs.get(batch.get("task_name") or batch.get("actor_name") or "")
        if run is None:
            self._print_batch(batch)
            return
        if run.allows(batch):
            self._print(batch | {"task_name": run.name, "actor_name": ""})
        run.arrived(batch)

    def _print(self, batch: Batch) -> None:
        stream = sys.stderr if batch.get("is_err") else sys.stdout
        if stream is None or os.environ.get("RAY_DEDUP_LOGS", "").lower() in ("1", "true"):
            self._print_batch(batch)
            return
        no_prefix = getattr(self._print_batch, "keywords", {}).get("ignore_prefix", False)
        in_colour = getattr(stream, "isatty", bool)()
        lines = [_TASK_MARK.sub("", line) for line in batch["lines"]]
        if in_colour:  # a return would take Ray's prefix away
            lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        self._print_lines(batch | {"lines": lines}, LineStream(stream, plain=not in_colour), no_prefix)


def _wrap_handlers(choice: WorkerLogs) -> bool:
    """Wrap the function that Ray prints with. Idempotent.

    Returns:
        Whether there is one: False if the user has turned forwarding off, or Ray has other internals.
    """
    global _warned
    try:
        dispatcher = import_module("ray._private.ray_logging").global_worker_stdstream_dispatcher
        print_lines = import_module("ray._private.worker").print_worker_logs
        handlers = [
            (name, _RunPrint(function, print_lines) if _is_to_wrap(name, function) else function)
            for name, function in dispatcher.handlers
        ]
        # All at once: between the removal of one handler and the addition of another a batch could be lost.
        dispatcher.handlers = handlers
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        if not _warned and choice != "all":
            _warned = True
            logger.warning(
                "worker_logs: this Ray can't be made to leave lines out, so all are shown (%s: %s)",
                type(error).__name__,
                error,
            )
        return False
    return any(name == _PRINT_HANDLER for name, _ in handlers)


def _is_to_wrap(name: str, function: object) -> bool:
    return name == _PRINT_HANDLER and not isinstance(function, _RunPrint)


class LineStream(wrapt.ObjectProxy):  # type: ignore[type-arg]  # it is generic in the stubs only
    """Passes on each line in one write; ``print`` writes a line and its end one after the other.

    Args:
        wrapped: The stream that it stands for.
        plain: Whether the prefix that Ray puts before a line loses its colour.
    """

    def __init__(self, wrapped: Any, *, plain: bool = False) -> None:
        super().__init__(wrapped)
        self._self_plain = plain
        self._self_begun: dict[int, list[str]] = {}  # lines that have no end yet, by thread

    def write(self, text: Any) -> int:
        """Pass on the lines that are complete with a text."""
        if not isinstance(text, str):
            return int(self.__wrapped__.write(text))  # which raises the right error
        lines, end, rest = text.rpartition("\n")
        begun = self._self_begun.setdefault(get_ident(), [])
        if end:
            whole = "".join([*begun, lines, end])
            begun.clear()
            self.__wrapped__.write(_COLOURED_PREFIX.sub(r"\1 ", whole) if self._self_plain else whole)
        if rest:
            begun.append(rest)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Pass on several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass on what this thread has begun."""
        self._pass_on(get_ident())
        self.__wrapped__.flush()

    def flush_all(self) -> None:
        """Pass on what all threads have begun, as lines: Ray's own text comes next."""
        for thread in list(self._self_begun):
            self._pass_on(thread, "\n")

    def _pass_on(self, thread: int, end: str = "") -> None:
        if begun := "".join(self._self_begun.pop(thread, [])):
            self.__wrapped__.write(begun + end)


_line_streams: dict[str, LineStream] = {}
"""In a worker: the last one of each stream. Up to Python 3.12.9 and 3.13.2 ``print`` holds no reference to
its stream (https://github.com/python/cpython/issues/130163): were it freed meanwhile, that would crash."""


class whole_lines:  # noqa: N801 - used like a function; as a generator it takes twice as long for each task
    """Let each line that the block prints reach the log file of this worker in one write.

    Ray reads the file at any moment, and shows as a line what it finds.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        for name in ("stdout", "stderr"):
            stream, kept = getattr(sys, name), _line_streams.get(name)
            if kept is None or kept.__wrapped__ is not stream:
                kept = _line_streams[name] = LineStream(stream)
            setattr(sys, name, kept)

    def __exit__(self, *exception: object) -> None:
        for name, kept in _line_streams.items():
            if getattr(sys, name) is kept:
                setattr(sys, name, kept.__wrapped__)
            if kept._self_begun:
                kept.flush_all()


def log_sizes() -> tuple[int, int]:
    """Return how much the streams of this worker have written into files; 0 where they lead to none."""
    try:  # a call of fstat takes five times as long
        return os.lseek(1, 0, os.SEEK_CUR), os.lseek(2, 0, os.SEEK_CUR)
    except OSError:  # closed by code of the user's
        return 0, 0
