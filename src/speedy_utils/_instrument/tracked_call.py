"""A call of a tracked function, from its start to its end: a part of a run, or a run of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

from .._interrupts import ending_on_sigterm
from .._state.ledger import RUN_ITEMS, Stage
from .._validation import checked_count, checked_name, checked_total
from .._worker.code.left_out import checked_for
from .._worker.context import counting, forget, registered, tally_here
from .._worker.reporter import Reporter
from .._worker.tally import Tally


class TrackedCall:
    """A tracked call that is running: a part of the tally that it counts for."""

    __slots__ = ("_outer", "counts_body", "tally", "total", "yielded")

    tally: Tally
    yielded: int

    def __init__(self, outer: Tally, total: int | None, *, yields: bool) -> None:
        self._outer = outer
        # Without a total a call is one item. A generator is as many as it yields, or as its body reports if
        # those are more.
        self.total = total if total is not None or yields else 1
        # What is reported in the body of one item is a part of it: the item is done when the call returns.
        self.counts_body = total is not None or yields
        self.tally = Tally(outer.reporter, outer.stage, self.total or 0, outer.counters)
        self.yielded = 0
        outer.open(self)

    def read(self) -> int:
        """Return the items finished so far."""
        if not self.counts_body:
            return 0
        done = self.raw_count()
        return done if self.total is None else min(done, self.total)

    def share(self, whole: int) -> int:
        """Return the items that are finished by the share of a loop in it."""
        return min(self.tally.estimate(), whole)

    def raw_count(self) -> int:
        """Return the items reported so far, whatever the total."""
        return max(self.tally.raw_count(), self.yielded)

    def close(self, *, returned: bool) -> None:
        """End with exactly the total if the call returned, or with what was finished."""
        self._outer.close(self, self.total if returned and self.total is not None else self.read())


@contextmanager
def counted_call(
    spec: TrackedSpec, args: tuple[Any, ...], kwargs: dict[str, Any], *, yields: bool = False
) -> Iterator[TrackedCall | None]:
    """Count a call while the block runs. The block gets None if nothing counts here."""
    outer = tally_here()
    if outer is not None:
        total = spec.items(args, kwargs, outer)
        if spec.desc is not None and spec.desc != outer.stage:
            if total is not None:
                outer.reporter.declare(spec.desc, total)
            outer = outer.reporter.stage(spec.desc)
        elif outer is outer.reporter.own and outer.reporter.declares_lengths:
            outer.reporter.declare(None, total)
        outer.reporter.mark_started(outer.stage)
        call = TrackedCall(outer, total, yields=yields)
        returned = False
        try:
            yield call
            returned = True
        finally:
            call.close(returned=returned)
            outer.reporter.mark_moved(outer.stage)
    elif spec.total is None or not _in_main_program():
        yield None
    else:
        with _run(spec, args, kwargs, yields=yields) as call:
            yield call


def _in_main_program() -> bool:
    from .._run.forwarding import in_main_program

    return in_main_program()


@contextmanager
def _run(
    spec: TrackedSpec, args: tuple[Any, ...], kwargs: dict[str, Any], *, yields: bool
) -> Iterator[TrackedCall]:
    """Make a call a run with a bar of its own. Bars of tqdm count for it as they do for a task."""
    from .._display.format import format_quantity
    from .._run.feed import LocalFeed
    from .._run.forwarding import display_here
    from .._run.run import Run
    from .tqdm.capture import capturing_tqdm, stop_capturing

    total = spec.items(args, kwargs)
    feed = LocalFeed()
    reporter = Reporter(spec.name, total=total)
    desc = spec.desc or f"Processing {format_quantity(total or 0, 'items')}"
    run = Run(desc, total, display=display_here(True), feed=feed)
    run.attempt(spec.name, 1, total=total)
    feed.add(reporter)
    with ExitStack() as stack:
        if not yields:  # a generator hands over to its consumer's code in the middle
            stack.enter_context(ending_on_sigterm())
        stack.enter_context(run)
        # A KeyboardInterrupt may be raised before the blocks below are entered, or while they are left.
        stack.callback(forget, reporter)
        stack.callback(stop_capturing, reporter)
        stack.enter_context(registered(reporter))
        call = TrackedCall(reporter.own, total, yields=yields)
        try:
            with capturing_tqdm(call.tally):
                yield call
        except GeneratorExit:  # the consumer gave it up: the bar ends short, and nothing has failed
            call.close(returned=False)
            run.commit(spec.name, reporter.capped_counts(), total=None, timings=reporter.final_timings())
            raise
        except BaseException:  # Ctrl-C too: the bar ends at what was finished
            call.close(returned=False)
            run.fail(spec.name, reporter.capped_counts(), timings=reporter.timings())
            raise
        # Read before the call is closed: then it counts for its total, whatever was reported in it.
        feed.remove(reporter)
        counts = reporter.raw_counts() | {RUN_ITEMS: call.raw_count()}
        call.close(returned=True)
        run.commit(spec.name, counts, total=total, timings=reporter.final_timings())


class CountedCall(Protocol):
    """A call that is running and counts.

    Attributes:
        yielded: How many items it has yielded, if it is that of a generator.
    """

    yielded: int

    @property
    def tally(self) -> Tally:
        """What counts in it."""
        ...


def attribute_to(call: CountedCall | None) -> AbstractContextManager[None]:
    """Let what happens in a block count for a call, if it is one."""
    return nullcontext() if call is None else counting(call.tally)


Total = int | str | Callable[..., int]
"""Items of a call: a number, the name of a parameter that has a ``len``, or a function of its arguments."""


class TrackedSpec:
    """The options of ``@tracked``, and the function that they are for.

    Args:
        function: The decorated function, unbound.
        total: See :func:`tracked`.
        desc: See :func:`tracked`.
    """

    def __init__(self, function: Callable[..., Any], total: Total | None, desc: Stage) -> None:
        self.function = function
        self.total = total
        self.desc = checked_name(desc)
        name = getattr(function, "__qualname__", repr(function))
        if isinstance(total, str):
            parameters = inspect.signature(function).parameters
            if total not in parameters:
                raise ValueError(f"total={total!r} is no parameter of {name}({', '.join(parameters)})")
        elif total is not None and not callable(total):
            self.total = checked_count(total, "total")
        self.name = name

    def count(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, yields: bool = False
    ) -> AbstractContextManager[CountedCall | None]:
        """Return a block that counts a call; see :func:`counted_call`."""
        return counted_call(self, args, kwargs, yields=yields)

    def items(self, args: tuple[Any, ...], kwargs: dict[str, Any], tally: Tally | None = None) -> int | None:
        """Return how many items a call stands for, or None if no total was given.

        Args:
            args: The positional arguments of the call.
            kwargs: Its keyword arguments.
            tally: What counts where it is called; it leaves out a total that can't be counted. None if the
                call is not in a run.

        Raises:
            TypeError: The total is no number, or the argument that it names has no length.
            ValueError: The total is negative, or no whole number.
        """
        if isinstance(self.total, str):
            bound = inspect.signature(self.function).bind(*args, **kwargs)
            bound.apply_defaults()
            value = bound.arguments[self.total]
            if not isinstance(value, Sized):
                raise TypeError(
                    f"total={self.total!r} of {self.name}: {type(value).__name__} has no length; "
                    f"give total= as a function of the call's arguments instead"
                )
            return len(value)
        if callable(self.total):
            total = self.total(*args, **kwargs)
            return checked_for(tally, checked_total, total, f"the total of {self.name}")
        return self.total
