"""A tqdm bar that counts for a task: for which stage, how many items, and of how many."""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

from ..._interrupts import after_fork_in_child
from ..._state.snapshot import on_one_line
from ..._state.stage_limit import StageLimit
from ..._validation import shorten
from ..._worker.tally import Tally
from ..batches import (
    Batches,
    batches_counted_in_rows,
    counted_tables,
    is_dataset,
    proportion,
    yields_arrow_tables,
)

MAX_STAGES = 20
"""How many stages the bars of a task may name: a bar a file, named after it, must not make a stage a file."""

MAX_POSTFIX = 40
"""How many characters of a bar's postfix are shown, at most."""

_STALE_AFTER_S = 0.2
"""How long a bar's ``n`` may stay the same before tqdm is made to look at the time with its next item."""

_ROUNDING = 1e-6
"""How much sums of floats may lack: ten times 0.1 are one item."""

_NOISE = re.compile(r"\x1b\[[0-9;]*m|\(\d+/\d+[^()]*\)\s*$|\s+")
"""Colours, a count such as ``(0/1 shards)`` at the end, and line breaks."""

lock = threading.RLock()
"""Guards captured bars against the thread that reads them.

Reentrant, as a bar may be collected, and so closed, while its own thread holds the lock.
"""


def _renew_lock() -> None:
    global lock
    lock = threading.RLock()


after_fork_in_child(_renew_lock)


def stage_name(desc: object) -> str:
    """Return the stage that a bar's description names, or "" if it names none."""
    return _NOISE.sub(" ", str(desc or "")).strip(" :")


def short_postfix(postfix: object) -> str:
    """Return what a bar says beside its count, in short: its first values, ``loss=0.31, ok=5``."""
    if not isinstance(postfix, str):  # with a format of its own a bar may have anything there
        return ""
    first, *others = on_one_line(postfix).split(", ")
    text = shorten(first, MAX_POSTFIX) if len(first) > MAX_POSTFIX else first
    for part in others:
        if len(text) + len(part) + 2 > MAX_POSTFIX:
            break
        text = f"{text}, {part}"
    return text


class Reading(NamedTuple):
    """What a bar says at one moment.

    Attributes:
        done: Items that it has counted in all, also before resets.
        total: Items that it will have counted at its end; None if it does not know.
    """

    done: int
    total: int | None


class CapturedBar:
    """What one bar counts.

    Its states are::

        new ── first item, or start of the loop ──> counting
        new, counting ── reset() begins ──> paused ── reset() ends ──> as before
        new, counting ── close(), collected, or end of the task ──> closed

    Its stage is settled when it starts to count. The description that the bar was made with names it or, if
    there was none, the one that the bar has then. Later descriptions usually say how the work goes.

    Args:
        bar: The bar. It is not kept alive.
        tally: The tally that counts where it was made.
        limit: Limits the stages that the task's bars may name.
        nested: Whether it is inside another bar. Without a name of its own it then counts for nothing.
        may_be_all: Whether it may be all that the task goes through.
        silent: Whether it draws nowhere, and so may be made to look at the time more often.
        leave: Whether its line stays when it has ended.
        on_close: Called with the captured bar once it is closed.
        clock: Monotonic clock, in seconds.
    """

    __slots__ = (
        "__weakref__",
        "_bar",
        "_batches",
        "_carried",
        "_clock",
        "_counts_rows",
        "_declared",
        "_declares",
        "_done",
        "_home",
        "_last_n",
        "_leave",
        "_limit",
        "_made_at",
        "_made_late",
        "_may_be_all",
        "_moved_at",
        "_name",
        "_nested",
        "_on_close",
        "_silent",
        "_state",
        "_tally",
        "_total",
        "_was_reset",
    )

    def __init__(
        self,
        bar: Any,
        tally: Tally,
        limit: StageLimit,
        *,
        nested: bool,
        may_be_all: bool = False,
        silent: bool,
        leave: bool = True,
        on_close: Callable[[CapturedBar], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bar = weakref.ref(bar)
        self._state: Literal["new", "counting", "paused", "closed"] = "new"
        self._home, self._limit, self._nested, self._silent = tally, limit, nested, silent
        self._leave, self._on_close, self._clock = leave, on_close, clock
        self._name = stage_name(bar.desc)
        self._tally: Tally | None = None  # what it counts for, once it has started, if for anything
        self._done = self._carried = 0  # items in all; those of them from before the last reset
        self._was_reset = False
        self._declares = False  # whether it is to declare its total
        self._declared: int | None = None
        self._may_be_all, self._total = may_be_all, 0  # the total of its own, 0 if that is not known
        self._counts_rows = False
        self._batches: Batches | None = None  # how many rows its elements count for, if that is known
        self._last_n, self._moved_at = bar.n, clock()
        self._made_at = tally.reporter.now()
        # Asked here: what is moved by update() may be read first when it and others have counted all.
        self._made_late = "" if self._name or nested else tally.before_loop()

    @property
    def closed(self) -> bool:
        """Whether it counts no more."""
        return self._state == "closed"

    def encloses(self, tally: Tally) -> bool:
        """Return whether a bar that is made now, where a tally counts, is inside this one."""
        bar = self._bar()
        if self.closed or bar is None or self._home is not tally:
            return False
        with suppress(Exception):  # user code may have put anything there
            return not (bar.total and bar.n >= bar.total)
        return True

    def mark_nested(self, tally: Tally) -> None:
        """Note that a bar around this one was made only now. Without a name, this one counts for nothing.

        Args:
            tally: The tally that counts where the bar around it was made.
        """
        with lock:
            if self._nested or not self.encloses(tally):  # one that has reached its end was not inside
                return
            self._nested = True
            if self._tally is not None and not self._name:
                if self._declared:
                    self._declare(0)
                self._declares = False
                self._tally.close(self, 0)
                self._home.reporter.bar_lines.close(self._tally.stage)
                self._tally = None

    def sample(self, bar: Any = None) -> None:
        """Take in what the bar says now.

        Args:
            bar: The bar, if it is at hand: while it is collected, no weak reference leads to it any more.
        """
        with lock:
            bar = self._bar() if bar is None else bar
            if bar is None or self._state in ("paused", "closed"):
                return
            try:
                reading = self._read(bar)
                if self._silent:
                    self._lower_miniters(bar)
                if self._tally is not None and (postfix := short_postfix(bar.postfix)):
                    self._home.reporter.bar_lines.set_postfix(self._tally.stage, postfix)
                if reading.done > 0 and self._state == "new":
                    self._begin(bar, self._made_at)
                    reading = self._read(bar)  # in rows, if it goes through batches
            except Exception as error:  # user code may have put anything there; it is read again next time
                shown = f"n={shorten(bar.n)} of {shorten(bar.total)}"
                self._home.reporter.leave_out(
                    ValueError(f"a tqdm bar with {shown} can't be read: {error}"), f"bar {self._name!r}"
                )
                return
            before, self._done = self._done, self._items(reading)
            if self._done < before:
                self._home.bars.went_back()
            # After a reset, the total only counts once the bar is used again.
            used = reading.done > self._carried or not self._carried
            self._total = (reading.total or 0) if used else self._total
            if self._declares and reading.total is not None and used:
                self._declare(reading.total)

    def read(self) -> int:
        """Return the items finished so far."""
        self.sample()
        return self._done

    def share(self, whole: int) -> int:
        """Return how many of ``whole`` items are finished if the bar goes through all of them."""
        few = self._may_be_all and not self._counts_rows and 0 < self._total < whole
        return proportion(self.read(), self._total, whole) if few else 0

    def start(self, bar: Any) -> None:
        """Note that the bar's loop starts."""
        with lock:
            if self._state == "new":
                with suppress(Exception):  # as in sample(), which tries again
                    self._begin(bar, self._home.reporter.now())
                    self._count_tables(bar)
            self.sample(bar)

    @contextmanager
    def on_reset(self, bar: Any) -> Iterator[None]:
        """Keep what the bar has counted while the block sets it to zero."""
        with lock:
            self.sample(bar)
            self._carried, self._was_reset = self._done, True
            before = self._state
            if before != "closed":
                self._state = "paused"  # a sample before the bar is at zero would count its items twice
        try:
            yield  # without the lock, as tqdm takes its own
        finally:
            with lock:
                if self._state == "paused":
                    self._state = before
                    self._made_at = self._home.reporter.now()  # from here on tqdm measures its rate too

    def close(self, bar: Any = None) -> None:
        """Count no more after what the bar says now. Idempotent."""
        with lock:
            before = self._done
            self.sample(bar)
            if self.closed:
                return
            self._state = "closed"
            self._on_close(self)
            if self._tally is not None:
                if self._declares and self._declared is None:
                    self._home.reporter.declare(self._tally.stage, None, bars=True)
                self._tally.close(self, self._done)
                self._home.reporter.bar_lines.close(self._tally.stage)
                if self._counts_rows or self._done < self._total:
                    self._home.reporter.note_part()
                if self._done != before:
                    self._home.reporter.mark_moved(self._tally.stage)

    def _read(self, bar: Any) -> Reading:
        scale = bar.unit_scale
        scale = 1 if isinstance(scale, bool) or not scale else scale
        start = 0 if self._was_reset else bar.initial
        done = int((bar.n - start) * scale + _ROUNDING)
        if self._batches is not None:
            total = self._batches.total
            return Reading(
                self._carried + self._batches.rows(max(done, 0)),
                None if total is None else self._carried + total,
            )
        total = bar.total
        # tqdm treats a total of 0 or less as none, once it is passed.
        if total is None or total == float("inf") or (total <= 0 and done > 0):
            return Reading(self._carried + max(done, 0), None)
        total = int((total - start) * scale + _ROUNDING)
        return Reading(self._carried + max(done, 0), self._carried + max(total, 0))

    def _items(self, reading: Reading) -> int:
        """Return the items of the task that a reading stands for."""
        whole, total = self._home.limit, reading.total
        # Of more items than the task has, each is a part of one.
        parts = self._may_be_all and not self._declares and whole and total and total > whole
        return proportion(reading.done, total, whole) if parts and total and whole else reading.done

    def _begin(self, bar: Any, started: float) -> None:
        """Settle the stage, and count for it from now on; work on its items started at a time."""
        name, unit = self._name or stage_name(bar.desc), str(bar.unit).strip()
        # "iB" makes "KiB" of what is scaled by 1024: the prefix is the display's, the unit is bytes.
        unit = "B" if unit == "iB" else unit
        self._state, self._name = "counting", name
        if name:
            stage = self._limit.stage(name)
            tally = self._home.within(stage)
            # Inside a call of the same stage, the call has declared the total.
            self._declares = tally is not self._home or tally.stage is None
        elif self._nested or self._home.limit in (0, 1):
            return  # a call, or a task, of one item is not moved by the items of a loop in it
        elif unit == "B" and self._home.reporter.total_is_rows and not (self._may_be_all and bar.total):
            return  # bytes are no rows, but a share of them all may be one of the rows
        else:
            tally, stage = self._home, None
            # Where it is known how many items the task has, these are not those of one bar.
            self._declares = tally is tally.reporter.own and tally.reporter.declares_lengths
            if bar.iterable is not None and bar.unit_scale in (None, False, True, 1):
                self._batches = batches_counted_in_rows(bar.iterable, tally)
                rows = tally.reporter.total_is_rows and is_dataset(bar.iterable)
                self._counts_rows = rows or self._batches is not None
            if bar.total != 0:
                tally.reporter.note_another_loop(self._made_late)
        if unit not in ("", "it") and (stage is not None or self._declares):
            tally.reporter.set_unit(stage, unit)
        self._tally = tally.bars
        self._tally.open(self)
        tally.reporter.bar_lines.open(tally.stage, leave=self._leave)
        tally.reporter.mark_started(tally.stage, started)

    def _count_tables(self, bar: Any) -> None:
        """Count the rows of tables, if it is about to go through some that can't be counted beforehand."""
        tally = self._tally
        if tally is None or tally.stage is not None or not tally.reporter.total_is_rows:
            return
        if self._batches is None and yields_arrow_tables(bar.iterable):
            self._batches = bar.iterable = PassingTables(bar)

    def _declare(self, total: int) -> None:
        stage = self._tally.stage if self._tally is not None else None
        if total != self._declared:
            self._home.reporter.declare(stage, total - (self._declared or 0), bars=True)
            self._declared = total

    def _lower_miniters(self, bar: Any) -> None:
        """Keep a loop that became slow from going on unseen.

        tqdm writes ``n`` every ``miniters`` items, as many as the loop once did in an interval. If it wrote
        nothing for a while, make it look at the time with its next item.
        """
        now = self._clock()
        if bar.n != self._last_n:
            self._last_n, self._moved_at = bar.n, now
        elif now - self._moved_at > _STALE_AFTER_S and bar.dynamic_miniters:
            bar.miniters = 0


class PassingTables:
    """What a bar goes through in place of a reader of tables: it counts the rows of those that have passed.

    Args:
        bar: The bar, whose ``iterable`` is the reader, and is so again once its loop has started.
    """

    total: int | None = None

    def __init__(self, bar: Any) -> None:
        self._bar, self._tables = weakref.ref(bar), bar.iterable
        self._rows = 0

    def __iter__(self) -> Iterator[Any]:
        bar = self._bar()
        if bar is not None:
            bar.iterable = self._tables
        return counted_tables(self._tables, self._add)

    def _add(self, rows: int) -> None:
        self._rows += rows

    def rows(self, _: int) -> int:
        """Return the rows of all tables that have passed."""
        return self._rows
