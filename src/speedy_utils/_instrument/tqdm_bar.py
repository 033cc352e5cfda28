"""A tqdm bar that counts for a task: what it has counted, for which stage, and of how much."""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .._state.stage_limit import StageLimit
from .._worker.reporter import Tally

MAX_STAGES = 20
"""As many names bars may bring into a task: a bar a file, named after it, must not make a stage a file."""


_STALE_AFTER = 0.2
"""Seconds without news after which a bar is asked to look at the time with its next item."""


_ROUNDING = 1e-6
"""What sums of floats may lack: ten times 0.1 are one item."""


_NOISE = re.compile(r"\x1b\[[0-9;]*m|\(\d+/\d+[^()]*\)\s*$|\s+")
"""Colours, a count such as ``(0/1 shards)`` at the end, and line breaks."""


lock = threading.RLock()
"""Guards what follows against the thread that reads. A bar may be collected while its own thread holds it."""


def renew_lock() -> None:
    """Make a lock that nobody holds, in a forked child."""
    global lock
    lock = threading.RLock()


def stage_name(desc: object) -> str:
    """The stage that a bar's description names; empty where it names none."""
    return _NOISE.sub(" ", str(desc or "")).strip(" :")


class CapturedBar:
    """What one bar counts.

    It counts from its first item or from the start of its loop. Its stage is the description that it was
    made with or, where it was made without, the one that it has then: later ones tell how the work goes.

    Args:
        bar: The bar. It is not kept alive.
        tally: The tally that counts where it was made.
        limit: Limits the stages that the task's bars may name.
        nested: Whether it is inside another bar: without a name of its own it then counts for nobody.
        quiet: Whether it draws nowhere, and so may be asked to look at the time more often.
        forget: Called with it once it is closed.
        clock: Seconds that only grow.
    """

    __slots__ = (
        "__weakref__",
        "_bar",
        "_carried",
        "_clock",
        "_declared",
        "_declares",
        "_done",
        "_forget",
        "_home",
        "_limit",
        "_n",
        "_name",
        "_nested",
        "_paused",
        "_place",
        "_quiet",
        "_restarted",
        "_since",
        "_started",
        "closed",
    )

    def __init__(
        self,
        bar: Any,
        tally: Tally,
        limit: StageLimit,
        *,
        nested: bool,
        quiet: bool,
        forget: Callable[[CapturedBar], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bar = weakref.ref(bar)
        self._home, self._limit, self._nested, self._quiet = tally, limit, nested, quiet
        self._forget, self._clock = forget, clock
        self._name = stage_name(bar.desc)
        self._place: Tally | None = None
        self._declares = self._started = self._restarted = self._paused = self.closed = False
        self._declared: int | None = None
        self._carried = self._done = 0
        self._n, self._since = bar.n, clock()

    def covers(self, tally: Tally) -> bool:
        """Whether a bar that is made now, where a tally counts, is inside this one."""
        bar = self._bar()
        if self.closed or bar is None or self._home is not tally:
            return False
        with suppress(Exception):  # the user's code may have put anything there
            return not (bar.total and bar.n >= bar.total)
        return True

    def enclose(self, tally: Tally) -> None:
        """Note that a bar around it was made only now: without a name it counts for nobody.

        Args:
            tally: The tally that counts where that bar was made.
        """
        with lock:
            if self._nested or not self.covers(tally):  # what has got to its end was no part of it
                return
            self._nested = True
            if self._place is not None and not self._name:
                self._place.close(self, 0)
                self._place = None

    def look(self, bar: Any = None) -> None:
        """Take in what the bar says by now.

        Args:
            bar: The bar, where it is at hand: while it is collected no reference leads to it any more.
        """
        with lock:
            bar = self._bar() if bar is None else bar
            if bar is None or self.closed or self._paused:
                return
            try:
                done, total = self._reading(bar)
                if self._quiet:
                    self._hurry(bar)
                if done > 0 and not self._started:
                    self._start(bar)
            except Exception:  # the user's code may have put anything there; it is read again the next time
                return
            self._done = max(self._done, done)  # what was seen stays counted, whatever is taken back
            # After a reset the total is only worth telling once the bar is used again.
            if self._declares and total is not None and (done > self._carried or not self._carried):
                self._declare(self._carried + total)

    def read(self) -> int:
        """Items finished so far."""
        self.look()
        return self._done

    def start(self, bar: Any) -> None:
        """Note that the bar's loop starts."""
        with lock:
            if not self.closed:
                if not self._started:
                    with suppress(Exception):  # as in look(), which tries again
                        self._start(bar)
                self.look(bar)

    @contextmanager
    def restarting(self, bar: Any) -> Iterator[None]:
        """Note that the bar begins anew in the block; what it has counted stays counted."""
        with lock:
            self.look(bar)
            self._carried, self._restarted = self._done, True
            # Until it is at zero a look would count it twice. No lock meanwhile: tqdm takes its own.
            self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def close(self, bar: Any = None) -> None:
        """End with what the bar says now."""
        with lock:
            self.look(bar)
            if self.closed:
                return
            self.closed = True
            self._forget(self)
            if self._place is not None:
                if self._declares and self._declared is None:
                    self._home.reporter.declare(self._place.stage, None, bars=True)
                self._place.close(self, self._done)
                self._home.reporter.touch(self._place.stage)

    def _reading(self, bar: Any) -> tuple[int, int | None]:
        """What the bar has counted in all, and the items that it has since it began or began anew."""
        scale = bar.unit_scale
        scale = 1 if isinstance(scale, bool) or not scale else scale
        base = 0 if self._restarted else bar.initial
        fresh = int((bar.n - base) * scale + _ROUNDING)
        total = bar.total
        # To tqdm a total of 0 or less is none, once it is passed.
        if total is None or total == float("inf") or (total <= 0 and fresh > 0):
            return self._carried + max(fresh, 0), None
        return self._carried + max(fresh, 0), max(int((total - base) * scale + _ROUNDING), 0)

    def _start(self, bar: Any) -> None:
        """Find the stage, and count for it from now on."""
        name, unit = self._name or stage_name(bar.desc), str(bar.unit).strip()
        self._started, self._name = True, name
        if name:
            stage = self._limit.stage(name)
            tally = self._home.within(stage)
            # Inside a call of the same stage the call has told the total.
            self._declares = tally is not self._home or tally.stage is None
            if unit not in ("", "it"):
                # "iB" makes "KiB" of what is scaled by 1024: the prefix is the display's, the unit is bytes.
                tally.reporter.unit(str(stage), "B" if unit == "iB" else unit)
        elif self._nested or self._home.limit in (0, 1):
            return  # a call, or a task, of one item is no further for an item of a loop in it
        else:
            tally = self._home
        self._place = tally.bars
        self._place.open(self)
        tally.reporter.begin(tally.stage)

    def _declare(self, total: int) -> None:
        stage = self._place.stage if self._place is not None else None
        if total != self._declared:
            self._home.reporter.declare(stage, total - (self._declared or 0), bars=True)
            self._declared = total

    def _hurry(self, bar: Any) -> None:
        """Keep a loop that has become slow from waiting for as many items as it had at its fastest.

        tqdm writes down how far a loop is every so many items. Where nothing was written for a while, ask it
        to look at the time with the next item.
        """
        now = self._clock()
        if bar.n != self._n:
            self._n, self._since = bar.n, now
        elif now - self._since > _STALE_AFTER and bar.dynamic_miniters:
            bar.miniters = 0
