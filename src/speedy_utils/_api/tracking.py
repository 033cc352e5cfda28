"""``tracking``: a block with a bar, for work that another engine runs."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import import_module
from numbers import Number
from types import TracebackType
from typing import Any, TypeVar

from .._display.base import Progress, checked_progress
from .._display.format import format_quantity
from .._instrument.bound import bind
from .._instrument.tqdm.capture import capturing_tqdm, stop_capturing
from .._instrument.tracked_call import Total
from .._interrupts import ending_on_sigterm
from .._run.forwarding import display_inside
from .._run.run import Run
from .._state.ledger import Location, Report, Task
from .._state.snapshot import Snapshot
from .._state.timings import StageClock, StageTimings
from .._validation import checked_count, checked_interval, checked_name, shorten
from .._worker.channel.calls import ProcessCounts
from .._worker.channel.folder import RunFolder
from .._worker.channel.lock import may_run
from .._worker.channel.reader import FolderReader
from .._worker.channel.writer import WRITE_INTERVAL_S, FolderSink
from .._worker.context import counting, forget
from .._worker.joining import RunAddress, close_block, open_block
from .._worker.process import ray_is_running

F = TypeVar("F")


class _BlockFeed:
    """What counts for a block: this process, others by its folder, and others by its actor on Ray.

    Attributes:
        reads_everything: Whether the next reading looks into each file of the folder.
        ending: Whether all readings do so from now on.
    """

    phase = trouble = ""
    answered = True

    def __init__(self, counts: ProcessCounts, folder: RunFolder) -> None:
        self._counts = counts
        self._reader: FolderReader | None = FolderReader(folder.path, folder.run)
        self.reads_everything = self.ending = False
        self._location = Location(socket.gethostname(), os.getpid())
        self._lock = threading.Lock()
        self._actor: Any = None

    def collect(self) -> tuple[Iterable[Report], StageTimings]:
        """Return what has changed, and how long ago work on items started and last moved, by stage."""
        reports = [self._counts.report()._replace(location=self._location)]
        clock = StageClock(lambda: 0.0)
        clock.merge(self._counts.timings())
        readings = []
        if self._reader is not None:
            everything, self.reads_everything = self.reads_everything or self.ending, False
            readings.append(self._reader.collect(everything=everything))
        if self._actor is not None:
            readings.append(self._actor.collect())
        for found, timings in readings:
            reports += found
            clock.merge(timings)
        return reports, clock.timings()

    def await_processes(self) -> None:
        """Wait for what processes that live on have counted outside bound calls, if there are any."""
        others = set() if self._reader is None else self._reader.processes() - {os.getpid()}
        if any(map(may_run, others)):
            time.sleep(2 * WRITE_INTERVAL_S)

    def forget(self, task: Task) -> None:
        """Report no more on what has ended for good."""
        if self._actor is not None:
            self._actor.forget(task)

    def actor_name(self) -> str:
        """Return the name of the actor of the run, which is started if machines besides this one need it."""
        if self._actor is None and ray_is_running():
            ray_calls: Any = import_module("speedy_utils._ray.bound_calls")
            with self._lock:
                self._actor = self._actor or ray_calls.start_run_actor()
        return "" if self._actor is None else str(self._actor.name)

    def close(self) -> None:
        """Read no more, and end the actor."""
        self._reader = None
        if self._actor is not None:
            self._actor.close()


class Tracking:
    """A run whose work is done by whatever calls its functions: the block that :func:`tracking` returns.

    It is used once. Its methods need the block to be open.
    """

    def __init__(
        self,
        total: int | None,
        *,
        desc: str | None,
        unit: str | None,
        leave: bool,
        progress: Progress,
        poll_interval: float,
        adopt_tqdm: bool,
        stall_after: float | None,
        folder: str | os.PathLike[str] | None,
    ) -> None:
        self._total, self._unit = total, unit or "items"
        size = "" if total is None else f" {format_quantity(total, self._unit)}"
        self._desc = desc or f"Processing{size}"
        self._leave, self._progress, self._poll_interval = leave, progress, poll_interval
        self._adopt_tqdm, self._stall_after, self._folder = adopt_tqdm, stall_after, folder
        self._stack = ExitStack()
        self._run: Run | None = None
        self._feed: _BlockFeed | None = None
        self._address: RunAddress | None = None
        self._binds = False

    def __enter__(self) -> Tracking:
        if self._run is not None:
            raise RuntimeError("a tracking() block can be entered only once: call tracking() again")
        stack_after = None if self._stall_after is None else self._stall_after / 2
        with ExitStack() as stack:
            stack.enter_context(ending_on_sigterm())
            settings = {"adopt_tqdm": self._adopt_tqdm, "stack_after": stack_after}
            folder = RunFolder(self._folder, settings)
            stack.callback(folder.close)
            path = str(folder.path)
            self._address = RunAddress(path, folder.run, "", self._adopt_tqdm, stack_after)
            own = self._address.reporter(of_process=True)
            own.thread = threading.get_ident()
            counts = ProcessCounts(FolderSink(path, folder.run).process_name, None)
            counts.add(own)
            self._feed = feed = _BlockFeed(counts, folder)
            stack.callback(feed.close)
            self._run = Run(
                self._desc,
                self._total,
                unit=self._unit,
                task_unit="workers",
                display=display_inside(self._progress, leave=self._leave),
                feed=feed,
                open_ended=True,
                poll_interval=self._poll_interval,
                stall_after=self._stall_after,
            )
            stack.callback(close_block, path)
            open_block(path, counts, own, feed.actor_name)
            stack.enter_context(self._run)
            stack.callback(self._end_reading, feed)
            # A KeyboardInterrupt may be raised before the blocks below are entered, or while they are left.
            stack.callback(forget, own)
            stack.callback(stop_capturing, own)
            stack.enter_context(counting(own.own))
            if self._adopt_tqdm:
                stack.enter_context(capturing_tqdm())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def address(self) -> str:
        """Where other processes find the run: the value for the environment variable ``SPEEDY_UTILS_RUN``.

        Processes that are started inside the block have it. Set by hand, it lets a program count for a run
        of another terminal, or of another machine that sees the same folder.

        Raises:
            RuntimeError: The block has not been entered.
        """
        return self._opened().folder

    def snapshot(self) -> Snapshot:
        """Return what has been counted up to now.

        Raises:
            RuntimeError: The block has not been entered.
        """
        self._opened()
        assert self._run is not None and self._feed is not None  # noqa: S101, PT018 - made with the address
        self._feed.reads_everything = True  # also if it has just been read: what has returned is there
        return self._run.snapshot()

    def bind(self, function: F, total: Total | None = None) -> F:
        """Return a function that counts for this run wherever it is called.

        It has the same name and signature, and can be pickled where ``function`` can, also by what joblib,
        Ray and Dask pickle with. A call counts for what is reported in it without a ``desc`` or, if nothing
        is reported, for one item; a loop over no rows is a report. Its counts are there once it has
        returned.

        Args:
            function: A function of any kind, a method, a callable object, what ``ray.remote`` made, or a
                class: then it is the calls of its objects, and of their methods, that count.
            total: Items of a call, as for :func:`~speedy_utils.tracked`; it counts for exactly these once it
                has returned.

        Raises:
            RuntimeError: The block has not been entered.
            TypeError: ``function`` can't be called, or it is of a kind that can't be bound.
            ValueError: ``total`` names no parameter of the function, or is negative.
        """
        bound: F = bind(function, total, self._opened())
        self._binds = True
        return bound

    def __reduce__(self) -> str:
        raise TypeError(
            "a tracking() block can't be sent to other processes: send the function that run.bind(function) "
            "returns here, or run.address"
        )

    def _end_reading(self, feed: _BlockFeed) -> None:
        if not self._binds:  # else what was counted is there
            feed.await_processes()
        feed.ending = True

    def _opened(self) -> RunAddress:
        if self._address is None:
            raise RuntimeError("the run begins with its block: with tracking(...) as run: run.bind(...)")
        return self._address


def tracking(
    total: int | None = None,
    *,
    desc: str | None = None,
    unit: str | None = "items",
    leave: bool = True,
    progress: Progress = True,
    poll_interval: float = 0.3,
    adopt_tqdm: bool = True,
    stall_after: float | None = 300.0,
    folder: str | os.PathLike[str] | None = None,
) -> Tracking:
    """Show one bar for all that counts while a block runs, whatever engine does the work.

    Code in the block counts, and so do processes that are started in it and the calls of functions that
    :meth:`Tracking.bind` returns, in pools that were there before too, and on Ray or Dask. They count by
    ``report_progress``, ``track``, ``tracked`` or bars of tqdm, as in the tasks of ``multi_process``.

    The bar ends at what was counted: it is full if that is ``total``. In a task it draws nothing, and what it
    counts is counted for the task.

    Args:
        total: Items in all; None if that is not known.
        desc: What the bar is called.
        unit: What is counted, in the plural.
        leave: Whether the bars stay when the block is over.
        progress: True for the display that fits where the program runs, False for none, or a function that is
            called with each :class:`~speedy_utils.Snapshot`.
        poll_interval: Seconds between two looks at the count.
        adopt_tqdm: Whether bars that are made with tqdm count, and draw nothing.
        stall_after: Seconds after which a process that works and has counted nothing meanwhile is named
            beside the bar, and once in the log. None for never.
        folder: The folder in which processes keep what they have counted, on storage that the machines of
            the run share. What an earlier run has left in it is removed, and nothing else. None for one on
            this machine.

    Returns:
        The run, a context manager.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not allowed.
        BusyError: Once the block is entered: a run that goes on holds ``folder``.
        OSError: As above: ``folder`` can't be written to, or holds other files called ``run`` or ``lock``.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from speedy_utils import track, tracking
        >>> def total_length(words):
        ...     return sum(len(word) for word in track(words))
        >>> with tracking(total=3, progress=False) as run, ThreadPoolExecutor() as pool:
        ...     lengths = list(pool.map(run.bind(total_length), [["one", "bar"], ["whole"]]))
        >>> lengths, run.snapshot().done
        ([6, 5], 3)
    """
    if total is not None and not isinstance(total, Number) and not hasattr(total, "__index__"):
        raise TypeError(
            f"total must be an integer, not {shorten(total)} ({type(total).__name__}): did you mean "
            "track(rows), which counts a loop? tracking(total=len(rows)) is a block with a bar"
        )
    return Tracking(
        None if total is None else checked_count(total, "total"),
        desc=checked_name(desc),
        unit=checked_name(unit, "unit"),
        leave=leave,
        progress=checked_progress(progress),
        poll_interval=checked_interval(poll_interval),
        adopt_tqdm=adopt_tqdm,
        stall_after=None if stall_after is None else checked_interval(stall_after, "stall_after"),
        folder=folder,
    )


tracking.__module__ = "speedy_utils"
