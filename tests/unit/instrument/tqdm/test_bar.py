"""A captured bar counts what it has done, in a stage of its name, of its total, in its unit."""

from __future__ import annotations

import gc
import io
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.counts import by_stage, units
from support.errors import Boom
from tqdm import std

from speedy_utils import report_progress
from speedy_utils._instrument.tqdm import capture as tqdm_capture
from speedy_utils._instrument.tqdm.bar import MAX_STAGES, CapturedBar
from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils._state.ledger import Metric
from speedy_utils._state.stage_limit import StageLimit
from speedy_utils._worker.context import counting, registered
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock, RecordingSink


@pytest.mark.parametrize(
    ("desc", "name"),
    [
        ("Tokenize: ", "Tokenize"),
        ("Tokenize:", "Tokenize"),
        ("  Format &\n filter ", "Format & filter"),
        ("\x1b[32mTokenize\x1b[0m", "Tokenize"),
        ("Saving (0/12 shards)", "Saving"),
        ("Epoch (1)", "Epoch (1)"),
        (7, "7"),
    ],
)
def test_a_description_names_a_stage_without_its_trimmings(desc: Any, name: str, sink: RecordingSink) -> None:
    """Colons at the end, colours, line breaks and a running count are no part of the stage's name."""
    list(std.tqdm(range(2), desc=desc))
    assert sink.stages == {name: 2}


def test_later_descriptions_change_no_stage(sink: RecordingSink) -> None:
    """A description that says how the work goes makes no stage of each of its values."""
    for x in (bar := std.tqdm(range(3), desc="Train")):
        bar.set_description(f"Train, loss {1 / (x + 1):.2f}")
    with std.tqdm(total=3, desc="Fetch") as bar:
        for x in range(3):
            bar.set_description_str(f"Fetch {x}")
            bar.update()
    for x in (bar := std.tqdm(range(3))):
        bar.set_description(f"file {x}")
    assert (sink.stages, sink.done) == ({"Train": 3, "Fetch": 3}, 3)


def test_a_bar_that_is_named_later_counts_for_the_name_at_its_first_item(sink: RecordingSink) -> None:
    """A bar made without a description has that of the start of its loop, or of its first item."""
    bar = std.tqdm(range(3))
    bar.set_description("Loop")
    for x in bar:
        bar.set_description(f"Loop at {x}")
    with std.tqdm(total=3) as bar:
        bar.set_description("Hand")
        bar.update()
        bar.set_description("Hand, 1 done")
        bar.update(2)
    assert sink.stages == {"Loop": 3, "Hand": 3}


def test_many_names_share_a_stage(sink: RecordingSink) -> None:
    """A bar a file, named after the file, makes some twenty stages, however many files there are."""
    for n in range(500):
        list(std.tqdm(range(2), desc=f"part-{n}"))
    assert len(sink.stages) == 21
    assert sum(sink.stages.values()) == sum(sink.totals.values()) == 1000
    assert sink.stages["part-0"] == 2
    assert sink.stages["part-*"] == 960


UPDATES: dict[str, tuple[dict[str, Any], list[float], int, int | None]] = {
    "initial is not of this run": ({"total": 10, "initial": 4}, [5], 5, 6),
    "a scale": ({"total": 10, "initial": 1, "unit_scale": 32}, [9], 288, 288),
    "fractions": ({"total": 2.5}, [0.9] + [0.1] * 11, 2, 2),
    "taken back before it was read": ({"total": 10}, [-3, 8], 5, 10),
    "no total": ({"total": None}, [3], 3, None),
    "an infinite total": ({"total": math.inf}, [3], 3, None),
    "a total of zero that is passed": ({"total": 0}, [3], 3, None),
    "a negative total": ({"total": -1}, [3], 3, None),
}


@pytest.mark.parametrize(("options", "updates", "done", "total"), UPDATES.values(), ids=UPDATES)
def test_a_bar_counts_whole_items_of_this_run(
    options: dict[str, Any], updates: list[float], done: int, total: int | None, sink: RecordingSink
) -> None:
    """What a bar shows counts, rounded down; a total that is set later is taken up, and corrected."""
    bar = std.tqdm(desc="A", **options)
    for n in updates:
        bar.update(n)
    assert (sink.stages, sink.totals) == ({"A": done}, {} if total is None else {"A": total})
    bar.update(-1)  # as a download does that begins again
    assert sink.stages == {"A": done - options.get("unit_scale", 1)}
    if total is None:
        bar.total = 9
        assert sink.totals == {"A": 9}
        bar.total = 6.0
        assert sink.totals == {"A": 6}


def test_a_bar_that_goes_back_takes_back_what_it_has_counted(sink: RecordingSink) -> None:
    """Also one whose ``n`` is set, to zero at the least, and not what it had counted before a reset."""
    bar = std.tqdm(total=10, desc="A")
    bar.update(6)
    assert sink.stages == {"A": 6}
    bar.n = 2
    assert sink.stages == {"A": 2}
    bar.update(1)
    bar.reset()
    bar.update(4)
    assert sink.stages == {"A": 7}
    bar.update(-9)
    assert sink.stages == {"A": 3}
    assert sink._reporter.take_backs == 2


@pytest.mark.parametrize("n", [math.nan, math.inf, "5", None], ids=repr)
def test_a_bar_that_can_not_be_read_counts_what_it_had_counted(n: Any, sink: RecordingSink) -> None:
    """The bar is named in what travels with the counts, once a task, and its work goes on."""
    bar = std.tqdm(total=10, desc="Load it")
    bar.update(6)
    assert sink.stages == {"Load it": 6}
    for bar.n in (n, n):
        assert sink.stages == {"Load it": 6}
    (left_out,) = [key.label for key in sink._reporter.report().counts if key.metric is Metric.LEFT_OUT]
    assert left_out.startswith("a tqdm bar with n=")
    assert left_out.endswith("(bar 'Load it')")
    bar.n = 7
    assert sink.stages == {"Load it": 7}


def test_a_reset_keeps_what_was_counted(sink: RecordingSink) -> None:
    """Each pass of a bar that is reset adds to the stage and, once it is used, its total."""
    bar = std.tqdm(total=10, initial=4, desc="A")
    bar.update(6)
    bar.reset(total=20)
    assert (sink.stages, sink.totals) == ({"A": 6}, {"A": 6})
    bar.update(15)
    assert (sink.stages, sink.totals) == ({"A": 21}, {"A": 26})
    bar.reset()
    bar.close()
    assert (sink.stages, sink.totals) == ({"A": 21}, {"A": 26})
    bar = std.tqdm(total=5, desc="B")
    bar.reset(total=8)  # before it is used
    bar.update(8)
    assert sink.totals["B"] == 8


def test_a_bar_that_is_read_while_it_is_reset_counts_once(sink: RecordingSink) -> None:
    """A sample between the start of a reset and its zero adds nothing to what was counted."""

    class Read(std.tqdm):  # type: ignore[type-arg]
        """A bar that is sampled each time before its count is set."""

        @property
        def n(self) -> int:
            return self.counted

        @n.setter
        def n(self, value: int) -> None:
            _ = sink.stages
            self.counted = value

    bar = Read(total=10, desc="A")
    bar.update(6)
    bar.reset()
    assert sink.stages == {"A": 6}
    bar.update(4)
    bar.close()
    assert (sink.stages, sink.totals) == ({"A": 10}, {"A": 16})


def test_loops_declare_their_totals_when_they_start(sink: RecordingSink) -> None:
    """So does a loop over nothing; one without a length removes the total, and an unused bar has none."""
    for _ in std.tqdm(range(3), desc="A"):
        assert (sink.stages, sink.totals) == ({"A": 0}, {"A": 3})
        break
    list(std.tqdm([], desc="B"))
    std.tqdm(total=5, desc="C").close()
    assert (sink.stages, sink.totals) == ({"A": 0, "B": 0}, {"A": 3, "B": 0})
    list(std.tqdm(iter(range(3)), desc="A"))
    assert (sink.stages, sink.totals) == ({"A": 3, "B": 0}, {"B": 0})


def test_a_stage_counts_in_the_unit_of_its_bar(sink: RecordingSink) -> None:
    """Bytes are bytes, also where they are scaled for display; a bar's default unit says nothing."""
    with std.tqdm(total=5_000, desc="Fetch", unit="B", unit_scale=True, unit_divisor=1024) as bar:
        bar.update(2_000)
    with std.tqdm(total=5_000, desc="Send", unit="iB", unit_scale=True, unit_divisor=1024) as bar:
        bar.update(1_000)
    list(std.tqdm(range(3), desc="Parse", unit=" rows"))
    list(std.tqdm(range(3), desc="Pack"))
    list(std.tqdm(range(3), unit="files"))
    assert sink.stages == {"Fetch": 2_000, "Send": 1_000, "Parse": 3, "Pack": 3}
    assert units(sink._reporter.capped_counts()) == {"Fetch": "B", "Send": "B", "Parse": "rows"}


@pytest.mark.parametrize("nonsense", [None, "many", math.nan, math.inf])
def test_nonsense_in_a_bar_changes_no_count(nonsense: Any, sink: RecordingSink) -> None:
    """Reading whatever code puts where tqdm counts neither fails nor changes the count."""
    bar = std.tqdm(total=10, desc="A")
    bar.update(2)
    assert sink.stages == {"A": 2}
    bar.n = nonsense
    assert sink.stages == {"A": 2}
    bar.n, bar.total = 4, nonsense
    assert sink.stages["A"] in (2, 4)
    inner = std.tqdm(total=3)
    inner.update()
    bar.n = 4


@pytest.mark.parametrize("name", ["desc", "unit"])
def test_nonsense_in_the_words_of_a_bar_keeps_no_other_from_counting(name: str, sink: RecordingSink) -> None:
    """A bar whose words can't be read neither fails, nor keeps others from being read, and counts later."""
    bar = std.tqdm(range(2), "" if name == "desc" else "A", unit="rows")
    setattr(bar, name, type("Mute", (), {"__str__": lambda self: 1 / 0})())
    loop = iter(bar)
    next(loop)
    bar.n = 1
    report_progress(3, desc="B")
    assert sink.stages == {"B": 3}
    bar.desc, bar.unit = "A", "rows"
    assert list(loop) == [1]
    assert sink.stages == {"B": 3, "A": 2}
    assert units(sink._reporter.capped_counts()) == {"A": "rows"}


def test_a_loop_that_ends_early_counts_what_was_finished(sink: RecordingSink) -> None:
    """As with track, the item in hand does not count; if the iterator fails, all items that it gave do."""

    def failing() -> Iterator[int]:
        yield from range(3)
        raise Boom

    for x in std.tqdm(range(10), desc="Break"):
        if x == 4:
            break
    with suppress(Boom):
        for x in std.tqdm(iter(range(10)), desc="Raise"):
            if x == 6:
                raise Boom
    with pytest.raises(Boom):
        list(std.tqdm(failing(), desc="Fail"))
    assert sink.stages == {"Break": 4, "Raise": 6, "Fail": 3}


def test_a_bar_that_is_never_closed_counts(sink: RecordingSink) -> None:
    """What a collected bar had counted stays, and nothing of the bar does."""
    bar = std.tqdm(total=10, desc="A")
    bar.update(4)
    bar.itself = bar  # only the collector finds it
    del bar
    gc.collect()
    [[task]] = tqdm_capture._tasks.values()
    assert (sink.stages, task.open) == ({"A": 4}, {})


def test_bars_that_are_open_when_the_task_ends_count() -> None:
    """A task's last count includes its open bars, which count no more after its end."""
    with RecordingSink() as sink, capturing_tqdm():
        named, unnamed = std.tqdm(total=10, desc="A"), std.tqdm(total=10)
        named.update(4)
        unnamed.update(5)
    named.update(3)
    unnamed.reset()
    named.close()
    assert (sink.stages, sink.done) == ({"A": 4}, 0)  # the unnamed bar is inside the other
    assert sink._reporter.own._parts == sink._reporter.stage("A").bars._parts == {}


def test_a_bar_a_row_sums_up_and_leaves_nothing(sink: RecordingSink) -> None:
    """The same bar again and again adds to one stage, and takes no memory once it is through."""
    for _ in range(300):
        for _ in std.tqdm("abc", desc="Letters"):
            [[task]] = tqdm_capture._tasks.values()
            assert len(task.open) == len(task.enclosing) == len(tqdm_capture._enclosing.get()) == 1
        list(std.tqdm(range(2)))
    assert (sink.stages, sink.totals, sink.done) == ({"Letters": 900}, {"Letters": 900}, 600)
    assert task.open == sink._reporter.stage("Letters").bars._parts == {}


@pytest.mark.parametrize(
    ("actions", "timings"),
    [
        ("make, 2, update, 1, update, close, 4", {None: (7, 4), "A": (7, 4)}),
        ("make, 2, update, read, 1, update, close, 4", {None: (7, 4), "A": (7, 4)}),
        ("5, make, 3, update, read, 1, close, 4", {None: (8, 5), "A": (8, 5)}),  # it was finished before
        ("make, 9, reset, 2, update, close", {None: (2, 0), "A": (2, 0)}),
        ("make, 9, loop, 1", {None: (1, 1), "A": (1, 1)}),
    ],
)
def test_work_on_the_items_of_a_bar_began_when_it_was_made(actions: str, timings: Any) -> None:
    """A bar moved by hand lasts from when it was made, or reset, to its last item; a loop from its start."""
    clock = FakeClock()
    reporter = Reporter(0, clock=clock)
    bar = std.tqdm(disable=True)
    with registered(reporter), counting(reporter.own), capturing_tqdm():
        for action in actions.split(", "):
            match action:
                case "make":
                    bar = std.tqdm(range(9), desc="A")
                case "update":
                    bar.update(2)
                case "loop":
                    list(bar)
                case "read":
                    reporter.report()
                case "reset" | "close":
                    getattr(bar, action)()
                case _:
                    clock.advance(int(action))
        reporter.report()
    assert reporter.timings() == timings


@pytest.mark.parametrize(
    ("silent", "dynamic", "lowered"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_loop_that_has_slowed_down_is_sampled_at_its_next_item(
    silent: bool, dynamic: bool, lowered: bool
) -> None:
    """Tqdm is made to look at the time of a bar whose count is stale; it waits for many items otherwise."""
    clock, tally, limit = FakeClock(), Reporter(0).own, StageLimit(MAX_STAGES)
    bar = std.tqdm(range(100), file=io.StringIO())
    bar.n, bar.miniters, bar.dynamic_miniters = 5, 10_000, dynamic
    captured = CapturedBar(
        bar, tally, limit, nested=False, silent=silent, on_close=lambda _: None, clock=clock
    )
    for n in (6, 7):
        clock.advance(0.3)
        bar.n = n
        for _ in range(2):
            captured.sample()
            assert bar.miniters == 10_000
    clock.advance(0.3)
    captured.sample()
    assert (bar.miniters == 0) == lowered


def test_a_bar_that_would_rarely_draw_is_read_as_often_as_others(sink: RecordingSink) -> None:
    """Long intervals are for the screen: a captured bar has the default, or the shorter one it was given."""
    slow = std.tqdm(range(3), mininterval=60, miniters=1_000, delay=30)
    assert (slow.mininterval, slow.dynamic_miniters, slow.delay) == (0.1, True, 0)
    each = std.tqdm(range(3), mininterval=0, miniters=1)
    assert [each.n for _ in each] == [0, 1, 2]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(0, 2), st.sampled_from([None, 0, 3, 20])),
        st.tuples(st.just("loop"), st.integers(0, 2), st.integers(0, 12)),
        st.tuples(st.just("update"), st.integers(0, 5), st.integers(-2, 6)),
        st.tuples(st.just("next"), st.integers(0, 5), st.integers(1, 6)),
        *(st.tuples(st.just(step), st.integers(0, 5), st.none()) for step in ("reset", "close", "drop")),
        st.tuples(st.just("rename"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("read"), st.none(), st.none()),
    ),
    max_size=30,
)


class Model:
    """What a bar should have counted."""

    def __init__(self, stage: str) -> None:
        self.stage, self.n, self.carried, self.done = stage, 0, 0, 0
        self.started = self.closed = False

    def look(self) -> None:
        """Count what was done by now."""
        if not self.closed:
            self.done = self.carried + max(self.n, 0)
            self.started = self.started or self.done > 0

    def close(self) -> None:
        """Count no more."""
        self.look()
        self.closed = True


@example([("new", 0, None), ("update", 0, 1), ("rename", 0, 0), ("update", 0, -1)])
@example([("new", 0, 20), ("update", 0, 3), ("close", 0, None), ("reset", 0, None), ("update", 0, 2)])
@given(STEPS)
def test_any_program_of_bars_counts_what_its_bars_counted(steps: list[tuple[str, Any, Any]]) -> None:
    """Bars that are made, moved, iterated, left, reset, renamed, closed and dropped in any order add up."""
    models: list[Model] = []
    live: list[list[Any]] = []  # of each bar that is held: itself, its loop, its model, its start

    def expected() -> dict[str, int]:
        sums: dict[str, int] = {}
        for model in models:
            model.look()
            if model.started:
                sums[model.stage] = sums.get(model.stage, 0) + model.done
        return sums

    def counted() -> dict[str, int]:
        """What was reported, without limits."""
        counts = by_stage(sink._reporter.raw_counts(), Metric.ITEMS)
        return {stage: int(count) for stage, count in counts.items() if stage}

    with RecordingSink() as sink, capturing_tqdm():
        for step, which, what in steps:
            held = live[which % len(live)] if live and which is not None else None
            if step in ("new", "loop"):
                model = Model("ABC"[which])
                models.append(model)
                # Written at each item, so that the model knows what can be read.
                options = {"desc": model.stage, "mininterval": 0, "miniters": 1}
                bar = std.tqdm(range(what), **options) if step == "loop" else std.tqdm(total=what, **options)
                live.append([bar, None, model])
                del bar
            elif step == "read":
                assert counted() == expected()
            elif held is None:
                continue
            elif step == "update" and held[1] is None:
                held[2].n += 0 if held[0].disable else what
                held[0].update(what)
            elif step == "next" and held[0].iterable is not None:
                model = held[2]
                was_closed = held[0].disable
                if held[1] is None:
                    held[1] = iter(held[0])
                    model.started = model.started or not was_closed
                    held.append(model.n)  # where the loop begins
                for _ in range(what):
                    with suppress(StopIteration):
                        next(held[1])
                if held[0].disable and not was_closed:
                    model.n = held[3] + len(held[0].iterable)
                    model.close()
                elif not was_closed:
                    model.n = held[0].n  # the item in hand does not count; what went before does
            elif step == "reset" and held[1] is None:
                if not held[2].closed:
                    held[2].look()
                    held[2].carried = held[2].done
                held[2].n = 0
                held[0].reset()
            elif step == "close" and held[1] is None:
                held[2].close()
                held[0].close()
            elif step == "drop" and held[1] is None:
                held[2].close()
                live.remove(held)
                held.clear()
            elif step == "rename":
                held[2].look()  # what it has counted by now, it has counted under the old name
                held[0].set_description("ABC"[what] + " later")
        assert counted() == expected()
        for model in models:
            model.close()
    assert counted() == expected()
    for held in live:
        held[0].close()
