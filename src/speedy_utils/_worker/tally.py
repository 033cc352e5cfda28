"""The sum of what counts for one stage of a task: what was reported, and the loops and bars that are open.

Nothing here takes a lock in the user's thread. Another thread reads a tally while it grows, so the order
matters: a part is removed *before* its count is added to the sum, and a reader reads the sum *before* the
parts. A reading may therefore be a moment behind, never ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .._state.ledger import Count, Stage
from .code.user_code import calling_line

if TYPE_CHECKING:
    from .reporter import Reporter


class Part(Protocol):
    """What counts for a tally until it ends: a loop, a tqdm bar, or a call of a tracked function."""

    def read(self) -> int:
        """Return the items finished so far."""
        ...

    def share(self, whole: int) -> int:
        """Return how many of ``whole`` items are finished if this part goes through all of them.

        A loop over 20 batches, in a task of 1,000 items, has finished 500 after the tenth. 0 if that is
        not known, or if what the part counts are items of the task.
        """
        ...


class Tally:
    """Items of one stage of a task, or of one tracked call in it.

    Any thread may add to ``n``: CPython (3.10 and later, with its global lock) does not switch threads within
    ``tally.n += n`` with plain integers.

    Args:
        reporter: The reporter it belongs to.
        stage: The stage; None for the task's own.
        limit: The most it may count for; None for no limit.
        counters: The counters to add to, by name; None for counters of its own.

    Attributes:
        used: Whether it has, or had, a part that counts.
    """

    __slots__ = (
        "_bars",
        "_estimate",
        "_only",
        "_parts",
        "_samplers",
        "counters",
        "limit",
        "n",
        "reporter",
        "stage",
        "used",
    )

    def __init__(
        self,
        reporter: Reporter,
        stage: Stage = None,
        limit: int | None = None,
        counters: dict[str, Count] | None = None,
    ) -> None:
        self.reporter = reporter
        self.stage = stage
        self.limit = limit
        self.n = 0
        self.counters: dict[str, Count] = {} if counters is None else counters
        self._parts: dict[Part, None] = {}
        self._samplers: tuple[Part, ...] = ()  # those that count nothing themselves
        self.used = False
        self._only: Part | None = None  # the first part, while it is open and there is no other
        self._estimate = 0
        self._bars: Tally | None = None

    @property
    def bars(self) -> Tally:
        """What captured tqdm bars count here: the count of this tally as long as nothing else counts."""
        if self._bars is None:
            self._bars = Tally(self.reporter, self.stage, self.limit)
        return self._bars

    def capped_count(self) -> int:
        """Return the items finished so far, at most ``limit``."""
        done = self.raw_count()
        return done if self.limit is None else min(done, self.limit)

    def raw_count(self) -> int:
        """Return the items reported so far, whatever the limit."""
        done = self.count_without_bars()
        return done if done or self._bars is None else self._bars.raw_count()

    def take_back(self, n: int) -> None:
        """Take back items that were counted here, to zero at the least."""
        self.reporter.own.raw_count()  # the tqdm bars of the task are read with it
        tally = self if self.count_without_bars() or self._bars is None else self._bars
        tally.n -= min(n, tally.raw_count())
        self.reporter.take_backs += 1

    def restart(self) -> None:
        """Count from zero, for another task."""
        self.n, self.used, self._only, self._estimate = 0, False, None, 0

    def went_back(self) -> None:
        """Note that a part counts less than it did."""
        self._estimate = 0
        self.reporter.take_backs += 1

    def count_without_bars(self) -> int:
        """Return the items reported so far by all but captured tqdm bars."""
        done = self.n  # before the parts, see above
        return done + sum(part.read() for part in list(self._parts))

    def estimate(self) -> int:
        """Return how many of ``limit`` items are finished by the share of a part that is the only one.

        It stays as it was once another part comes, and never gets less, as where the total of a bar grows,
        unless a part has gone back. It is below the limit: that all is finished, only the end of the task or
        call can say.
        """
        only = self._only
        if only is not None and self.limit and not self.n:
            self._estimate = max(self._estimate, min(only.share(self.limit), self.limit - 1))
        if self._bars is None:
            return self._estimate
        if self.count_without_bars():
            self._bars._only = None
        return max(self._estimate, self._bars.estimate())

    def before_loop(self) -> str:
        """Return what is to be said of a loop without a name that begins here once all items are counted.

        Empty if there are items left to count. Bars count as loops here, also where loops replace them.
        """
        if self.limit is None or self.limit <= 1:
            return ""
        if self.raw_count() >= self.limit:
            before = "has counted all its items"
        elif self.estimate() == self.limit - 1:
            before = "was shown in proportion to one loop"
        else:
            return ""
        line = calling_line()
        return f"{before}, and begins another loop without a name" + f" ({line})" * bool(line)

    def within(self, stage: Stage) -> Tally:
        """Return the tally that counts here for a stage: this one, unless it is for another stage."""
        return self if stage is None or stage == self.stage else self.reporter.stage(stage)

    def add(self, items: int, counters: dict[str, Count]) -> None:
        """Count what was counted elsewhere; a negative number of items is taken back."""
        if items >= 0:
            self.n += items
        else:
            self.take_back(-items)
        self.add_to_counters(counters)
        self.reporter.mark_moved(self.stage)

    def add_to_counters(self, counters: dict[str, Count]) -> None:
        """Add to what is counted besides items, from any thread."""
        if counters:
            self.reporter.has_more = True
        for name, amount in counters.items():
            self.counters.setdefault(name, 0)
            try:
                self.counters[name] += amount  # no thread switch in between, as with ``n``
            except OverflowError:  # a fraction on top of an integer that is beyond all floats
                continue

    def open(self, part: Part, *, counts: bool = True) -> None:
        """Count a part from now on, with what it has counted already.

        Args:
            part: The part.
            counts: Whether it counts anything; another is only read with the parts of this tally.
        """
        if counts:
            self.estimate()
            self._only = None if self.used else part
            self.used = True
        else:
            self._samplers = (*self._samplers, part)
        self._parts[part] = None

    def is_at_work(self) -> bool:
        """Return whether a loop, a bar or a tracked call that counts here has not ended."""
        if any(part not in self._samplers for part in list(self._parts)):
            return True
        return self._bars is not None and self._bars.is_at_work()

    def close(self, part: Part, done: int) -> None:
        """End a part with its final count."""
        if part is self._only:
            self.estimate()
            self._only = None
        if part in self._samplers:
            self._samplers = tuple(each for each in self._samplers if each is not part)
        del self._parts[part]
        self.n += done
