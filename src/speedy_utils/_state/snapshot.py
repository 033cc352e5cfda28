"""A frozen reading of a run: what every display gets, and nothing else."""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class StageSnapshot:
    """One line: a stage, summed over all workers.

    Attributes:
        name: What the line is called.
        done: Items finished, over all tasks.
        total: Items in all; None if that is not known.
        unit: What is counted: ``"items"``, ``"tasks"``, ``"B"`` for bytes.
        elapsed: Seconds since work on its first item began; 0 before it. The clock of a stage stops once all
            its items are counted; that of the run, or of the last stage if it stands for the run, goes on.
        initial: Items that were done before this run began.
        growing: Whether tasks that have not come to this stage yet will add to its total.
        counters: What was counted beside the items, by name.
        pending: Whether all items are counted, while results of the run have yet to come in or to be saved.
        counted_in: Seconds from the beginning of the first item to the last count, once all items are
            counted; the rate is measured over them, so saving is not in it. None before.
        initial_counters: The part of :attr:`counters` that was counted before this run began.
        recent_rate: Items a second in the last seconds; the mean once all items are counted. None
            before work on the first item began.
        eta: Seconds until all is counted, by the slowest task in flight and what is still to start; if only
            the number of tasks is known, until all have ended. None if nothing tells, or if nothing moves.
        postfix: The newest postfix of the tqdm bars that count here, ``"loss=0.31"``; empty if there is none.

    Example:
        >>> from speedy_utils import StageSnapshot
        >>> line = StageSnapshot("Read", done=60, total=100, elapsed=5.0, initial=10)
        >>> line.rate, line.finished
        (10.0, False)
    """

    name: str
    done: int
    total: int | None
    unit: str = "items"
    elapsed: float = 0.0
    initial: int = 0
    growing: bool = False
    counters: Mapping[str, float] = field(default_factory=dict)
    pending: bool = False
    counted_in: float | None = None
    initial_counters: Mapping[str, float] = field(default_factory=dict)
    recent_rate: float | None = None
    eta: float | None = None
    postfix: str = ""

    @property
    def rate(self) -> float:
        """Items a second since work on the first began, until the last was counted; 0 before it."""
        seconds = self.counted_in or self.elapsed
        return (self.done - self.initial) / seconds if seconds else 0.0

    def with_plain_name(self) -> StageSnapshot:
        """Return the same with a name that takes one line, and moves and colours nothing."""
        return self if self.name.isprintable() else replace(self, name=on_one_line(self.name))

    @property
    def finished(self) -> bool:
        """Whether all there is was done, and is in and saved."""
        return self.total is not None and self.done >= self.total and not (self.growing or self.pending)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        counters = {name: dict(plain[name]) for name in ("counters", "initial_counters")}
        return plain | counters | {"rate": self.rate}


StageSnapshot.__module__ = "speedy_utils"


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A task that is running.

    Attributes:
        index: Position of its item in ``items``, or the number of the shard.
        item: Its item in short, as ``repr`` writes it.
        attempt: Which attempt it is, from 1.
        done: Items that it has finished, as far as it has counted them.
        total: Its items; None if that is not known.
        since: Seconds since it last counted anything or, if it has not, since it was handed to a worker.
        node: The machine that it runs on; empty if that is not known yet.
        pid: The process there; None if that is not known yet.
        stack: Where its code is, as lines of a traceback, if it has not moved for long; else empty.
        elapsed: Seconds since it was handed to a worker.
        unheard: Seconds since its worker was last heard of. It sends word every two seconds, unless its
            process is stopped, gone, or in a call that holds the interpreter.

    Example:
        >>> from speedy_utils import TaskSnapshot
        >>> task = TaskSnapshot(7, "'c.json'", attempt=1, done=20, total=100, since=720.0, node="gpu-3")
        >>> f"task {task.index} on {task.node} stands for {task.since / 60:.0f} min"
        'task 7 on gpu-3 stands for 12 min'
    """

    index: int
    item: str
    attempt: int
    done: int
    total: int | None
    since: float = 0.0
    node: str = ""
    pid: int | None = None
    stack: str = ""
    elapsed: float = 0.0
    unheard: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        return asdict(self)


TaskSnapshot.__module__ = "speedy_utils"


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]\s]?)")


def on_one_line(text: str) -> str:
    r"""Return a text without what would move the cursor or colour, and with single spaces.

    Example:
        >>> on_one_line("Read\n\t\x1b[31mfiles\x1b[0m")
        'Read files'
    """
    if text.isprintable():
        return text
    text = _ESCAPES.sub("", text)
    return " ".join("".join(char for char in text if char.isspace() or char.isprintable()).split())


_NEW_NAMES = {"own": "run_line", "whole": "show_run_line"}
"""The fields of a :class:`Snapshot` by the names that they had before; they will be removed."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A reading of a run at one moment.

    Attributes:
        run_line: The run as a whole, and what was counted for no named stage. If it was given no total it
            counts tasks until one of them counts items. Their total is None as long as it is not known, and
            at a clean end what was counted.
        stages: Its named stages, in the order in which they appeared.
        show_run_line: Whether :attr:`run_line` is among the :attr:`lines`. It is not if a named stage says
            the same and nothing was counted outside named stages.
        tasks_total: Tasks of the run; 0 if it has none.
        tasks_done: Tasks that succeeded.
        task_unit: What a task is called: ``"tasks"``, or ``"shards"``.
        tasks_failed: Tasks that failed for good.
        retries: Attempts beyond each task's first.
        phase: What the run is busy with besides counting, such as ``"starting Ray"`` or ``"saving 63 of 64
            shards"``; empty while it counts.
        final: Whether this is the run's last reading.
        complete: Whether the run has ended well: all tasks succeeded, all results are in and, if it makes a
            dataset, that is saved. Before, no line that stands for the run is finished, whatever its count.
        tasks_kept: Tasks among those done that an earlier call had finished: the shards of a resumed call.
        kept_from: When that was, ``"09:35"`` or ``"2026-11-28 09:35"``; empty if there are none.
        workers: How many tasks may run at once; 0 if the run has none.
        workers_at_work: How many do, if tasks have waited for the other workers for some seconds; else None.
        slowest: The running tasks that will take longest, five at most, the slowest first: the one of which
            most is left at its own rate. Tasks of less than a second are not among them.
        stalled: All running tasks that have counted nothing for ``stall_after`` seconds.
        stage_lines: What a display shows of :attr:`stages`, those at work first: stages of one kind share a
            line, and what was to vanish is not there. If it is None each stage is shown.
        waiting_for: The slowest task, while at least half of the workers have had nothing to do for a moment
            as no more tasks are to start; None before.

    ``own`` and ``whole`` are deprecated names of :attr:`run_line` and :attr:`show_run_line`.

    Example:
        >>> from speedy_utils import Snapshot, StageSnapshot
        >>> tokenize = StageSnapshot("Tokenize", done=50, total=200, elapsed=2.0)
        >>> snapshot = Snapshot(StageSnapshot("Run", done=0, total=200), (tokenize,), show_run_line=False)
        >>> [(line.name, line.rate) for line in snapshot.lines]
        [('Tokenize', 25.0)]
    """

    run_line: StageSnapshot
    stages: tuple[StageSnapshot, ...] = ()
    show_run_line: bool = True
    tasks_total: int = 0
    tasks_done: int = 0
    task_unit: str = "tasks"
    tasks_failed: int = 0
    retries: int = 0
    phase: str = ""
    final: bool = False
    complete: bool = False
    tasks_kept: int = 0
    kept_from: str = ""
    workers: int = 0
    workers_at_work: int | None = None
    slowest: tuple[TaskSnapshot, ...] = ()
    stalled: tuple[TaskSnapshot, ...] = ()
    stage_lines: tuple[StageSnapshot, ...] | None = None
    waiting_for: TaskSnapshot | None = None

    @property
    def lines(self) -> tuple[StageSnapshot, ...]:
        """What a display shows, in order."""
        stages = self.stages if self.stage_lines is None else self.stage_lines
        return (self.run_line, *stages) if self.show_run_line else stages

    @property
    def desc(self) -> str:
        """What the run is called."""
        return self.run_line.name

    @property
    def done(self) -> int:
        """Items finished, over all tasks.

        What a running task has counted in named stages alone comes in when it returns, as further stages may
        follow; the :attr:`lines` show it before.
        """
        return self.run_line.done

    @property
    def total(self) -> int | None:
        """Items in all; None if that is not known."""
        return self.run_line.total

    @property
    def unit(self) -> str:
        """What is counted."""
        return self.run_line.unit

    @property
    def elapsed(self) -> float:
        """Seconds since work on the first item began; 0 before it."""
        return self.run_line.elapsed

    @property
    def initial(self) -> int:
        """Items that were done before this run began."""
        return self.run_line.initial

    @property
    def rate(self) -> float:
        """Items a second since work on the first began, until the last was counted; 0 before it."""
        return self.run_line.rate

    @property
    def recent_rate(self) -> float | None:
        """Items a second of late; see :class:`StageSnapshot`."""
        return self.run_line.recent_rate

    @property
    def eta(self) -> float | None:
        """Seconds until all is counted; see :class:`StageSnapshot`."""
        return self.run_line.eta

    @property
    def own(self) -> StageSnapshot:
        """Deprecated name of :attr:`run_line`."""
        _warn_of_old_name("own")
        return self.run_line

    @property
    def whole(self) -> bool:
        """Deprecated name of :attr:`show_run_line`."""
        _warn_of_old_name("whole")
        return self.show_run_line

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON: the run's own numbers, and a list of ``stages``.

        The key ``whole`` is a deprecated name of ``show_run_line``: both are there for now.
        """
        left_out = ("run_line", "stage_lines")
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        run_line = self.run_line.to_dict()
        run_line["desc"] = run_line.pop("name")
        listed = {name: [each.to_dict() for each in plain[name]] for name in ("stages", "slowest", "stalled")}
        waiting_for = None if self.waiting_for is None else self.waiting_for.to_dict()
        return run_line | plain | listed | {"waiting_for": waiting_for, "whole": self.show_run_line}


def _warn_of_old_name(name: str) -> None:
    message = f"Snapshot.{name} is deprecated; use Snapshot.{_NEW_NAMES[name]}"
    # Python shows such a warning for a line of the program itself only, and that may be the one which calls
    # dataclasses.replace() or copy.replace().
    level, frame = 3, sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") in ("dataclasses", "copy"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def _accept_old_names(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def init_with_old_names(self: Snapshot, *args: Any, **kwargs: Any) -> None:
        for old in _NEW_NAMES.keys() & kwargs.keys():
            _warn_of_old_name(old)
            # dataclasses.replace(snapshot, own=...) adds run_line=snapshot.run_line: the old name wins.
            kwargs[_NEW_NAMES[old]] = kwargs.pop(old)
        init(self, *args, **kwargs)

    return init_with_old_names


Snapshot.__init__ = _accept_old_names(Snapshot.__init__)  # type: ignore[method-assign] # mypy knows no other way
Snapshot.__module__ = "speedy_utils"
