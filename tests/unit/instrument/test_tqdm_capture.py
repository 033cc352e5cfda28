"""Bars of tqdm that a task makes count for it, draw nothing, and work as ever."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import io
import math
import multiprocessing
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import tqdm.asyncio
import tqdm.auto
import tqdm.autonotebook
import tqdm.contrib
import tqdm.contrib.concurrent
import tqdm.notebook
from hypothesis import example, given
from hypothesis import strategies as st
from support.counts import by_stage
from tqdm import std, trange

from speedy_utils import report_progress, track, tracked
from speedy_utils._instrument import tqdm_capture as adopt
from speedy_utils._instrument.tqdm_bar import MAX_STAGES, CapturedBar
from speedy_utils._instrument.tqdm_capture import capturing_tqdm
from speedy_utils._state.ledger import Key, Metric
from speedy_utils._state.stage_limit import OVERFLOW_STAGE, StageLimit
from speedy_utils._worker.context import counting, registered
from speedy_utils._worker.reporter import Reporter
from speedy_utils.testing import FakeClock, RecordingSink


class Boom(Exception):
    """What goes wrong in these tests."""


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    """A task whose bars are adopted."""
    with RecordingSink() as sink, capturing_tqdm():
        yield sink


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert not adopt._tasks


def units(reporter: Reporter) -> dict[str | None, str]:
    """In what the stages of a task count."""
    return {key.stage: key.label for key in reporter.capped_counts() if key.metric is Metric.UNIT}


# ---- what joins


class Louder(std.tqdm):
    """A subclass that overrides what subclasses override."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.closings = 0

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()

    def update(self, n: float | None = 1) -> bool | None:
        """Add."""
        return super().update(n)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw in capitals."""
        super().display((msg or str(self)).upper(), pos)

    def close(self) -> None:
        """Note it."""
        self.closings += 1
        super().close()


def loop(kind: Callable[..., Any]) -> Callable[[], None]:
    """A loop over ten items with a bar of some kind."""

    def run() -> None:
        assert list(kind(range(10), desc="Tokenize")) == list(range(10))

    return run


def by_hand(kind: Callable[..., Any]) -> Callable[[], None]:
    """A bar of some kind that is moved by hand."""

    def run() -> None:
        with kind(total=10, desc="Tokenize") as bar:
            for n in (3, 0, 7):
                bar.update(n)

    return run


def in_pandas() -> None:
    """A bar of pandas."""
    std.tqdm.pandas(desc="Tokenize")
    assert pd.Series(range(10)).progress_apply(lambda x: x + 1).sum() == 55


def in_a_stream() -> None:
    """A bar that a file's reads move."""
    with std.tqdm.wrapattr(io.BytesIO(b"0123456789"), "read", total=10, desc="Tokenize") as stream:
        while stream.read(3):
            pass


def in_threads() -> None:
    """A bar that threads move."""
    found = tqdm.contrib.concurrent.thread_map(abs, range(10), max_workers=2, desc="Tokenize")
    assert found == list(range(10))


async def _finished(n: int) -> int:
    await asyncio.sleep(0)
    return n


def gathered() -> None:
    """A bar over coroutines."""
    found = asyncio.run(tqdm.asyncio.tqdm.gather(*map(_finished, range(10)), desc="Tokenize"))
    assert found == list(range(10))


def in_an_async_loop() -> None:
    """A bar over an asynchronous generator."""

    async def numbers() -> Any:
        for n in range(10):
            yield n

    async def run() -> list[int]:
        return [n async for n in tqdm.asyncio.tqdm(numbers(), total=10, desc="Tokenize")]

    assert asyncio.run(run()) == list(range(10))


FORMS: dict[str, Callable[[], None]] = {
    "tqdm": loop(std.tqdm),
    "tqdm by hand": by_hand(std.tqdm),
    "auto": loop(tqdm.auto.tqdm),
    "auto by hand": by_hand(tqdm.auto.tqdm),
    "autonotebook": loop(tqdm.autonotebook.tqdm),
    "notebook": loop(tqdm.notebook.tqdm),
    "notebook by hand": by_hand(tqdm.notebook.tqdm),
    "asyncio": loop(tqdm.asyncio.tqdm),
    "asyncio by hand": by_hand(tqdm.asyncio.tqdm),
    "async for": in_an_async_loop,
    "gather": gathered,
    "trange": lambda: [None for _ in trange(10, desc="Tokenize")] and None,
    "tnrange": lambda: [None for _ in tqdm.notebook.tnrange(10, desc="Tokenize")] and None,
    "subclass": loop(Louder),
    "subclass by hand": by_hand(Louder),
    "tenumerate": lambda: dict(tqdm.contrib.tenumerate("abcdefghij", desc="Tokenize")) and None,
    "tzip": lambda: dict(tqdm.contrib.tzip("abcdefghij", range(10), desc="Tokenize")) and None,
    "tmap": lambda: [*tqdm.contrib.tmap(abs, range(10), desc="Tokenize")] and None,
    "thread_map": in_threads,
    "pandas": in_pandas,
    "wrapattr": in_a_stream,
    "datasets": loop(datasets.utils.tqdm),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_bar_counts_for_its_stage_and_draws_nothing(
    form: Callable[[], None], sink: RecordingSink, capfd: pytest.CaptureFixture[str]
) -> None:
    """However a bar of tqdm is made, its items and its total go to the stage that its description names."""
    form()
    assert (sink.stages, sink.totals) == ({"Tokenize": 10}, {"Tokenize": 10})
    assert capfd.readouterr() == ("", "")


# By themselves those of tqdm.notebook want ipywidgets.
@pytest.mark.parametrize("form", [name for name in FORMS if "notebook" not in name and name != "tnrange"])
def test_without_adoption_a_bar_is_left_alone(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A task whose bars are not adopted counts nothing of them, and they draw as ever."""
    with RecordingSink() as sink:
        FORMS[form]()
        assert "Tokenize" in "".join(capfd.readouterr()).replace("TOKENIZE", "Tokenize")
    assert sink.stages == {}


def test_datasets_count_what_they_map_and_filter(
    sink: RecordingSink, tmp_path: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bars of Hugging Face datasets count too, in rows, but for those of reading and writing files."""
    datasets.enable_progress_bars()
    rows = datasets.Dataset.from_dict({"n": list(range(25))})
    mapped = rows.map(lambda row: {"m": row["n"] + 1}, cache_file_name=str(tmp_path / "map.arrow"))
    mapped.filter(lambda row: row["n"] % 2, keep_in_memory=True).save_to_disk(str(tmp_path / "saved"))
    assert sink.stages == {"Map": 25, "Filter": 25}  # saving is no work on the items
    assert sink.totals == sink.stages
    assert units(sink._reporter) == dict.fromkeys(sink.stages, "examples")
    assert capfd.readouterr() == ("", "")


# ---- names


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
    """A description that tells how the work goes makes no stage of each of its values."""
    for x in (bar := std.tqdm(range(3), desc="Train")):
        bar.set_description(f"Train, loss {1 / (x + 1):.2f}")
    with std.tqdm(total=3, desc="Fetch") as bar:
        for x in range(3):
            bar.set_description_str(f"Fetch {x}")
            bar.update()
    assert sink.stages == {"Train": 3, "Fetch": 3}


def test_a_bar_that_is_named_later_counts_for_the_name_at_its_first_item(sink: RecordingSink) -> None:
    """A bar made without a description has that of the start of its loop, or of its first item."""
    bar = std.tqdm(range(3))
    bar.set_description("Loop")
    for x in bar:
        bar.set_description(f"Loop at {x}")
    bar = std.tqdm(total=3)
    bar.set_description("Hand")
    bar.update()
    bar.set_description("Hand, 1 done")
    bar.update(2)
    bar.close()
    assert sink.stages == {"Loop": 3, "Hand": 3}


def test_a_loop_over_an_unnamed_bar_is_not_named_by_its_items(sink: RecordingSink) -> None:
    """Descriptions that the loop itself sets come too late to make a stage."""
    for x in (bar := std.tqdm(range(3))):
        bar.set_description(f"file {x}")
    assert (sink.done, sink.stages) == (3, {})


def test_many_names_share_a_stage(sink: RecordingSink) -> None:
    """A bar a file, named after the file, makes some twenty stages, however many files there are."""
    for n in range(500):
        list(std.tqdm(range(2), desc=f"part-{n}"))
    assert len(sink.stages) == 21
    assert sum(sink.stages.values()) == sum(sink.totals.values()) == 1000
    assert sink.stages["part-0"] == 2
    assert sink.stages[OVERFLOW_STAGE] == 960


# ---- bars without a name


def test_an_unnamed_bar_counts_where_nothing_else_does(sink: RecordingSink) -> None:
    """Bars without a description count for the task's own line, one after the other."""
    list(std.tqdm(range(4)))
    with std.tqdm() as bar:
        bar.update(3)
    assert (sink.done, sink.stages, sink.totals) == (7, {}, {})


def counted_by_track() -> None:
    """Bars in a loop that counts."""
    for _ in track(range(3)):
        list(std.tqdm(range(5)))


def counted_by_a_report() -> None:
    """A bar and a report."""
    list(std.tqdm(range(5)))
    report_progress(3)


def counted_by_a_call() -> None:
    """A bar and a call."""

    @tracked(total=3)
    def work() -> None: ...

    list(std.tqdm(range(5)))
    work()


@pytest.mark.parametrize("work", [counted_by_track, counted_by_a_report, counted_by_a_call])
def test_an_unnamed_bar_is_ignored_where_the_task_counts_by_itself(
    work: Callable[[], None], sink: RecordingSink
) -> None:
    """What the code reports about itself comes before what its unnamed bars show."""
    work()
    assert sink.done == 3


def nested_loops() -> None:
    """Loops in loops."""
    for _ in std.tqdm(range(3)):
        for _ in std.tqdm(range(5)):
            list(std.tqdm(range(7)))


def nested_by_hand() -> None:
    """A bar moved inside another."""
    with std.tqdm(total=3) as outer:
        for _ in range(3):
            inner = std.tqdm(total=5)
            inner.update(5)
            outer.update()


def side_by_side() -> None:
    """Two bars in step."""
    list(zip(std.tqdm(range(3)), std.tqdm(range(3)), strict=True))


def with_a_bar_left_open() -> None:
    """A bar after one that is through."""
    bar = std.tqdm(total=2)
    bar.update(2)
    list(std.tqdm(range(1)))
    bar.set_postfix(done=True)


@pytest.mark.parametrize("work", [nested_loops, nested_by_hand, side_by_side, with_a_bar_left_open])
def test_of_nested_unnamed_bars_the_outermost_counts(work: Callable[[], None], sink: RecordingSink) -> None:
    """Items of a bar inside another are no items of the run; a bar that is through has none inside."""
    work()
    assert sink.done == 3


def test_an_unnamed_bar_inside_a_named_one_counts_for_nobody(sink: RecordingSink) -> None:
    """The run's items are not known to be those of the inner loop."""
    for _ in std.tqdm(range(3), desc="Files"):
        list(std.tqdm(range(5)))
    assert (sink.done, sink.stages) == (0, {"Files": 3})


def test_named_bars_count_wherever_they_are(sink: RecordingSink) -> None:
    """Each named bar counts to its own stage, also inside others."""
    for _ in std.tqdm(range(3)):
        for _ in std.tqdm(range(2), desc="Files"):
            list(std.tqdm(range(5), desc="Lines"))
    assert (sink.done, sink.stages, sink.totals) == (3, {"Files": 6, "Lines": 30}, {"Files": 6, "Lines": 30})


def test_bars_in_coroutines_are_not_inside_each_other(sink: RecordingSink) -> None:
    """Of loops that take turns in one thread none is inside another; what they start in turn is."""

    async def work() -> None:
        for _ in std.tqdm(range(3)):
            await asyncio.sleep(0)
            list(std.tqdm(range(2)))

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(4)))

    asyncio.run(run())
    assert sink.done == 12


def test_bars_in_a_tracked_call_move_that_call(sink: RecordingSink) -> None:
    """A call with a total is as far as the unnamed bar in it, and never past its total."""

    @tracked(total=len, desc="Parse")
    def parse(rows: range) -> None:
        for row in std.tqdm(rows, mininterval=0, miniters=1):
            assert sink.stages["Parse"] == row
        list(std.tqdm(rows))
        assert sink.stages["Parse"] == len(rows)

    parse(range(5))
    assert (sink.done, sink.stages, sink.totals) == (0, {"Parse": 5}, {"Parse": 5})


def test_a_call_of_one_item_is_not_moved_by_bars(sink: RecordingSink) -> None:
    """A call that counts as a whole is finished when it returns, not with the first step of a loop."""

    @tracked
    def convert() -> None:
        list(std.tqdm(range(5)))
        assert sink.done == 0
        raise Boom

    with pytest.raises(Boom):
        convert()
    assert sink.done == 0


# ---- together with track and report_progress


COMBINED: dict[str, Callable[[], None]] = {
    "track over tqdm": lambda: [*track(std.tqdm(range(10), desc="A"), desc="A")] and None,
    "tqdm over track": lambda: [*std.tqdm(track(range(10), desc="A"), desc="A")] and None,
    "tqdm over an unsized track": lambda: [*std.tqdm(track(iter(range(10)), total=10, desc="A"), desc="A")]
    and None,
    "report in tqdm": lambda: [report_progress(desc="A") for _ in std.tqdm(range(10), desc="A")] and None,
    "tqdm in track": lambda: [
        [*std.tqdm("abc", desc="A")] for _ in track(range(10), desc="A")
    ] and None,
    "tracked in tqdm": lambda: [tracked(desc="A")(abs)(x) for x in std.tqdm(range(10), desc="A")] and None,
}  # fmt: skip


@pytest.mark.parametrize("work", COMBINED.values(), ids=COMBINED.keys())
def test_items_that_are_counted_twice_count_once(work: Callable[[], None], sink: RecordingSink) -> None:
    """Where a stage is counted by track or report_progress, bars of the same name add nothing to it."""
    work()
    assert sink.stages == {"A": 10}
    assert sink.totals == {"A": 10}


# ---- disabled bars


def test_a_bar_that_code_disables_counts_nothing(sink: RecordingSink) -> None:
    """``disable=True`` switches a bar off, and there is nothing to read in it."""
    assert list(std.tqdm(range(3), desc="A", disable=True)) == [0, 1, 2]
    args = (range(3), "A", None, True, None, None, 0.1, 10.0, None, None, True)
    assert list(std.tqdm(*args)) == [0, 1, 2]
    assert sink.stages == {}


def test_a_bar_that_only_wants_a_terminal_counts(sink: RecordingSink) -> None:
    """``disable=None`` is about the display: the bar counts off a terminal, too."""
    log = io.StringIO()
    list(std.tqdm(range(3), desc="A", disable=None))
    list(std.tqdm(range(3), desc="A", disable=None, file=log))
    assert (sink.stages, log.getvalue()) == ({"A": 6}, "")


def test_the_environment_disables_the_display_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TQDM_DISABLE=1, which makes ``disable=True`` the default of all bars, they count all the same."""
    function = getattr(vars(std.tqdm)["__init__"], "func", std.tqdm.__init__)
    log = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(std.tqdm, "__init__", functools.partialmethod(function, disable=True))
        with RecordingSink() as sink, capturing_tqdm():
            list(std.tqdm(range(3), desc="A"))
            list(std.tqdm(range(3), desc="A", file=log))
            list(std.tqdm(range(3), desc="B", disable=True))
        with RecordingSink() as alone:
            list(std.tqdm(range(3), desc="A"))
    assert (sink.stages, alone.stages, log.getvalue()) == ({"A": 6}, {}, "")


# ---- totals


def test_what_was_done_before_does_not_count(sink: RecordingSink) -> None:
    """``initial`` is neither done by this run nor to be done by it."""
    with std.tqdm(total=10, initial=4, desc="A") as bar:
        bar.update(5)
    assert (sink.stages, sink.totals) == ({"A": 5}, {"A": 6})


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


def test_a_bar_that_is_read_while_it_is_reset_counts_once(sink: RecordingSink) -> None:
    """A look at a bar between the start of a reset and its zero adds nothing to what it had counted."""

    class Read(std.tqdm):  # type: ignore[type-arg]
        """A bar that is looked at each time before its count is set."""

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


def test_a_reset_at_the_start_gives_the_total(sink: RecordingSink) -> None:
    """A bar that is told its total by a reset before it is used has that total."""
    bar = std.tqdm(total=5, desc="A")
    bar.reset(total=8)
    for _ in range(8):
        bar.update()
    assert (sink.stages, sink.totals) == ({"A": 8}, {"A": 8})


@pytest.mark.parametrize("total", [None, math.inf, 0, -1])
def test_a_total_that_is_not_known_may_come_later(total: Any, sink: RecordingSink) -> None:
    """Where a bar has no total it declares none; a total that is set later is taken up, and corrected."""
    bar = std.tqdm(total=total, desc="A")
    bar.update(3)
    assert (sink.stages, sink.totals) == ({"A": 3}, {})
    bar.total = 9
    bar.refresh()
    assert (sink.stages, sink.totals) == ({"A": 3}, {"A": 9})
    bar.total = 6.0
    assert sink.totals == {"A": 6}


def test_a_stage_of_bars_without_totals_has_none(sink: RecordingSink) -> None:
    """A bar that could not tell its total says so at its end."""
    list(std.tqdm(range(3), desc="A"))
    list(std.tqdm(iter(range(3)), desc="A"))
    assert (sink.stages, sink.totals) == ({"A": 6}, {})


def test_a_loop_over_nothing_has_a_stage(sink: RecordingSink) -> None:
    """An empty loop declares that it has no items, and a bar that is never used declares nothing."""
    list(std.tqdm([], desc="A"))
    std.tqdm(total=5, desc="B").close()
    assert (sink.stages, sink.totals) == ({"A": 0}, {"A": 0})


def test_the_total_shows_when_the_loop_starts(sink: RecordingSink) -> None:
    """A stage is there with its total before its first, slow item is finished."""
    for _ in std.tqdm(range(3), desc="A"):
        assert (sink.stages, sink.totals) == ({"A": 0}, {"A": 3})
        break


# ---- units


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
    assert units(sink._reporter) == {"Fetch": "B", "Send": "B", "Parse": "rows"}


def test_a_scale_counts_what_the_bar_would_show(sink: RecordingSink) -> None:
    """With ``unit_scale=32`` an item of the bar stands for 32."""
    list(std.tqdm(range(9), total=10, initial=1, desc="A", unit="rows", unit_scale=32))
    assert (sink.stages, sink.totals) == ({"A": 288}, {"A": 288})


# ---- counts


def test_fractions_are_rounded_down(sink: RecordingSink) -> None:
    """Whole items count, and the rounding of floats takes none away."""
    bar = std.tqdm(total=2.5, desc="A")
    bar.update(0.9)
    assert sink.stages == {}
    for _ in range(11):
        bar.update(0.1)
    assert (sink.stages, sink.totals) == ({"A": 2}, {"A": 2})


def test_what_was_seen_is_not_taken_back(sink: RecordingSink) -> None:
    """A negative update takes nothing from a count that was read, and makes none negative."""
    bar = std.tqdm(total=10, desc="A")
    bar.update(-3)
    assert sink.stages == {}
    bar.update(8)
    assert sink.stages == {"A": 5}
    bar.update(-2)
    assert sink.stages == {"A": 5}
    bar.n = 9
    bar.refresh()
    assert sink.stages == {"A": 9}


@pytest.mark.parametrize("nonsense", [None, "many", math.nan, math.inf])
def test_nonsense_in_a_bar_harms_nobody(nonsense: Any, sink: RecordingSink) -> None:
    """Whatever code puts where tqdm counts, reading it neither fails nor changes the count."""
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


class Mute:
    """Can't be turned into a text."""

    def __str__(self) -> str:
        raise Boom


@pytest.mark.parametrize("name", ["desc", "unit"])
def test_nonsense_in_the_words_of_a_bar_harms_nobody(name: str, sink: RecordingSink) -> None:
    """A bar whose words can't be read neither fails, nor keeps others from being read, and counts later."""
    bar = std.tqdm(range(2), "" if name == "desc" else "A", unit="rows")
    setattr(bar, name, Mute())
    loop = iter(bar)
    next(loop)
    bar.n = 1
    report_progress(3, desc="B")
    assert sink.stages == {"B": 3}
    bar.desc, bar.unit = "A", "rows"
    assert list(loop) == [1]
    assert (sink.stages, units(sink._reporter)) == ({"B": 3, "A": 2}, {"A": "rows"})


def test_a_break_counts_what_was_finished(sink: RecordingSink) -> None:
    """As with track, the item in hand does not count; an exception is a break too."""
    for x in std.tqdm(range(10), desc="A"):
        if x == 4:
            break

    def failing() -> None:
        for x in std.tqdm(iter(range(10)), desc="B"):
            if x == 6:
                raise Boom

    with pytest.raises(Boom):
        failing()
    assert sink.stages == {"A": 4, "B": 6}


def test_what_a_loop_raises_passes(sink: RecordingSink) -> None:
    """An iterator's exception reaches the caller, and what it gave before counts."""

    def failing() -> Iterator[int]:
        yield from range(3)
        raise Boom

    with pytest.raises(Boom):
        list(std.tqdm(failing(), desc="A"))
    assert sink.stages == {"A": 3}


def test_a_bar_that_is_never_closed_counts(sink: RecordingSink) -> None:
    """What a collected bar had counted stays, and nothing of the bar does."""

    def work() -> None:
        bar = std.tqdm(total=10, desc="A")
        bar.update(4)
        bar.itself = bar  # only the collector finds it

    work()
    gc.collect()
    [task] = adopt._tasks.values()
    assert (sink.stages, task.open) == ({"A": 4}, {})


def test_bars_that_are_open_when_the_task_ends_count() -> None:
    """A task's last count is that of its bars, and nobody counts for it after its end."""
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
    [task] = adopt._tasks.values()
    for _ in range(300):
        for _ in std.tqdm("abc", desc="Letters"):
            assert len(task.open) == len(task.enclosing) == len(adopt._enclosing.get()) == 1
        list(std.tqdm(range(2)))
    assert (sink.stages, sink.totals, sink.done) == ({"Letters": 900}, {"Letters": 900}, 600)
    assert task.open == sink._reporter.stage("Letters").bars._parts == {}


def test_a_bar_moved_by_threads_counts(sink: RecordingSink) -> None:
    """All updates of a bar count, whichever thread makes them."""
    with std.tqdm(total=4_000, desc="A") as bar, ThreadPoolExecutor(4) as pool:
        for _ in range(4_000):
            pool.submit(bar.update)
    assert sink.stages == {"A": 4_000}


def test_tasks_that_count_tasks_have_stages_too() -> None:
    """In a run without items named bars count, and unnamed ones have nothing to count for."""
    reporter = Reporter(0, counts_items=False)
    with registered(reporter), counting(reporter.own), capturing_tqdm():
        std.tqdm(total=5).update(3)
        bar = std.tqdm(total=5, desc="A")
        bar.update(2)
        counts = reporter.capped_counts()
        assert by_stage(counts, Metric.ITEMS) == {"A": 2}


# ---- freshness


class At:
    """A bar as far as its adoption looks at it."""

    desc, unit, unit_scale, initial, total = "A", "it", False, 0, None

    def __init__(self, *, dynamic: bool) -> None:
        self.n, self.miniters, self.dynamic_miniters = 5, 10_000, dynamic


@pytest.mark.parametrize(("quiet", "dynamic", "asked"), [(1, 1, True), (1, 0, False), (0, 1, False)])
def test_a_loop_that_has_slowed_down_is_asked_where_it_is(quiet: int, dynamic: int, asked: bool) -> None:
    """A bar that has said nothing for a while is to look at the time again; it waits for items otherwise."""
    bar, clock = At(dynamic=bool(dynamic)), FakeClock()
    part = CapturedBar(
        bar,
        Reporter(0).own,
        StageLimit(MAX_STAGES),
        nested=False,
        silent=bool(quiet),
        on_close=lambda _: None,
        clock=clock,
    )
    for n in (6, 7):
        clock.advance(0.3)
        bar.n = n
        part.sample()
        assert bar.miniters == 10_000
    clock.advance(0.3)
    part.sample()
    assert (bar.miniters == 0) == asked


def test_a_bar_that_would_rarely_draw_is_read_as_often_as_others(sink: RecordingSink) -> None:
    """Long intervals are for the screen: an adopted bar has the default, or the shorter one it was given."""
    slow = std.tqdm(range(3), mininterval=60, miniters=1_000, delay=30)
    assert (slow.mininterval, slow.dynamic_miniters, slow.delay) == (0.1, True, 0)
    each = std.tqdm(range(3), mininterval=0, miniters=1)
    assert [each.n for _ in each] == [0, 1, 2]


# ---- a bar works as ever


def test_everything_on_a_bar_works(sink: RecordingSink, capfd: pytest.CaptureFixture[str]) -> None:
    """What code does with a bar, it may do with one that draws nothing."""
    with std.tqdm(["a", "b"], desc="A", leave=False, colour="green", postfix={"x": 1}) as bar:
        assert (len(bar), bool(bar), "b" in bar.iterable, bar.desc, bar.disable) == (
            2,
            True,
            True,
            "A",
            False,
        )
        assert bar.update() in (None, True, False)
        bar.set_postfix(loss=0.5)
        bar.set_postfix_str("done")
        bar.set_description("B")
        assert bar.refresh() is True
        bar.display("text")
        bar.clear()
        bar.unpause()
        bar.moveto(1)
        bar.fp.write("text")
        bar.fp.flush()
        assert (bar.format_dict["n"], bar.format_dict["total"]) == (1, 2)
        assert str(bar).startswith("B:  50%")
        assert "done" in str(bar)
        assert bar.ncols is None
    assert bar.disable
    assert list(bar) == ["a", "b"]  # a closed bar only iterates
    assert sink.stages == {"A": 1}
    assert capfd.readouterr() == ("", "")


def test_messages_appear_where_they_should(sink: RecordingSink, capfd: pytest.CaptureFixture[str]) -> None:
    """tqdm.write and external_write_mode pass a message on, and nothing of the bars around it."""
    with std.tqdm(total=3, desc="A") as bar:
        bar.write("written")
        with std.tqdm.external_write_mode(file=sys.stderr):
            print("printed", file=sys.stderr)
    assert capfd.readouterr() == ("written\n", "printed\n")


def test_a_bar_with_a_file_of_its_own_writes_there(sink: RecordingSink) -> None:
    """Only the screen is kept free: a bar that writes a log goes on writing it, and counts."""
    log = io.StringIO()
    list(std.tqdm(range(3), desc="A", file=log))
    assert sink.stages == {"A": 3}
    assert "A: 100%" in log.getvalue()


# Older versions of tqdm trip over such a bar once more when it is collected, adopted or not.
@pytest.mark.filterwarnings("ignore:.*tqdm.__del__:pytest.PytestUnraisableExceptionWarning")
def test_wrong_arguments_are_told_as_ever(sink: RecordingSink) -> None:
    """What tqdm refuses it refuses with its own words, adopted or not."""
    with pytest.raises(std.TqdmKeyError, match="colours"):
        std.tqdm(range(3), colours="green")
    with pytest.raises(TypeError, match="multiple values"):
        std.tqdm(range(3), "A", desc="B")
    with pytest.raises(TypeError, match="positional"):
        std.tqdm(*range(40))
    assert sink.stages == {}


def test_a_subclass_keeps_its_own_ways(sink: RecordingSink) -> None:
    """What a subclass overrides is called as ever."""
    bar = Louder(range(3), desc="A")
    list(bar)
    assert bar.closings == 1
    assert sink.stages == {"A": 3}


def test_a_bar_in_a_notebook_has_all_its_parts(
    sink: RecordingSink, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bar of tqdm.notebook makes no widgets, needs none, and does without them whatever it can do."""
    bar = tqdm.notebook.tqdm(total=3, desc="A", colour="red")
    bar.update(2)
    bar.reset(total=4)
    bar.colour = "blue"
    bar.clear()
    bar.display(bar_style="danger")
    bar.update(4)
    bar.container.close()
    bar.close()
    assert (sink.stages, sink.totals) == ({"A": 6}, {"A": 6})
    assert capfd.readouterr() == ("", "")


# ---- threads, and bars that are nobody's


def bars_drawn(capfd: pytest.CaptureFixture[str]) -> int:
    """How many bars were drawn to their ends on stderr."""
    return capfd.readouterr().err.count("100%")


def in_a_thread(work: Callable[[], Any]) -> None:
    """Run something in a thread, to its end."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_bar_of_another_thread_is_left_alone(
    sink: RecordingSink, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the driver a thread without a context is not the task's: its bar draws, in the first line."""
    positions = []

    def work() -> None:
        bar = std.tqdm(range(3), desc="Mine")
        positions.append(bar.pos)
        list(bar)

    with std.tqdm(total=3, desc="A"), std.tqdm(total=3, desc="B"):
        in_a_thread(work)
    assert positions == [0]
    assert sink.stages == {}
    assert bars_drawn(capfd) == 1


def test_a_context_takes_adoption_with_it(sink: RecordingSink, capfd: pytest.CaptureFixture[str]) -> None:
    """A thread of asyncio.to_thread works for the task, and its unnamed bars are inside the task's."""

    def work() -> None:
        list(std.tqdm(range(3), desc="A"))
        list(std.tqdm(range(5)))

    async def run() -> None:
        for _ in std.tqdm(range(2)):
            await asyncio.to_thread(work)

    asyncio.run(run())
    assert (sink.stages, sink.done) == ({"A": 6}, 2)
    assert bars_drawn(capfd) == 0


def test_in_a_ray_worker_the_threads_of_the_task_count(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """There a thread is the task's. Its unnamed bars are inside the bar that the task has open meanwhile."""
    monkeypatch.setattr(adopt, "_threads_belong_to_task", True)

    around = threading.Event()

    class Around(tqdm.auto.tqdm):  # type: ignore[misc,type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            around.set()

    def work(_: int = 0) -> None:
        list(std.tqdm(range(3), desc="A"))
        list(std.tqdm(range(5)))

    def work_in_a_loop(_: int) -> None:
        assert around.wait(30)  # older versions of tqdm start the threads before they make their bar
        work()

    in_a_thread(work)
    assert (sink.stages, sink.done) == ({"A": 3}, 5)
    tqdm.contrib.concurrent.thread_map(work_in_a_loop, range(4), max_workers=2, tqdm_class=Around)
    assert (sink.stages, sink.done) == ({"A": 15}, 9)
    assert bars_drawn(capfd) == 0


def test_the_bar_around_a_threads_may_come_later(
    sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread's unnamed bar is inside the task's that is made meanwhile; one that has ended is not."""
    monkeypatch.setattr(adopt, "_threads_belong_to_task", True)
    begun, around = threading.Barrier(3), threading.Event()
    ended: list[Any] = []

    def work(_: int) -> None:
        with std.tqdm(total=5) as bar, std.tqdm(total=2, desc="A") as named:
            bar.update(3)
            named.update(2)
            begun.wait(30)
            assert around.wait(30)
            bar.update(2)

    in_a_thread(lambda: list(std.tqdm(range(10))))
    in_a_thread(lambda: ended.append(std.tqdm(total=7)))
    ended[0].update(7)  # and it is never closed
    assert sink.done == 17
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(work, range(2))
        begun.wait(30)
        assert sink.done == 17 + 2 * 3
        bar = std.tqdm(results)
        around.set()
        list(bar)
    assert (sink.stages, sink.done) == ({"A": 4}, 17 + 2)


def test_a_thread_that_outlives_a_task_counts_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pool's thread did for one task has no bearing on the next one."""
    monkeypatch.setattr(adopt, "_threads_belong_to_task", True)
    bars = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            with RecordingSink() as sink, capturing_tqdm():
                bar = pool.submit(std.tqdm, total=5).result()
                bars.append(bar)
                bar.update(2)
                assert sink.done == 2


def test_several_tasks_in_threads_count_apart(capfd: pytest.CaptureFixture[str]) -> None:
    """Tasks that adopt and tasks that don't run side by side, and each bar goes where it belongs."""
    barrier = threading.Barrier(4)
    counts: dict[int, Any] = {}

    def task(number: int) -> None:
        reporter = Reporter(number)
        with registered(reporter), counting(reporter.own):
            if number:
                with capturing_tqdm():
                    barrier.wait()
                    list(std.tqdm(range(number), desc="A"))
                    barrier.wait()
            else:
                barrier.wait()
                list(std.tqdm(range(7), desc="A"))
                barrier.wait()
        counts[number] = reporter.capped_counts().get(Key("A", Metric.ITEMS))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(task, range(4)))
    assert counts == {0: None, 1: 1, 2: 2, 3: 3}
    assert bars_drawn(capfd) == 1


# ---- the patch


def test_after_a_task_tqdm_works_as_ever(capfd: pytest.CaptureFixture[str]) -> None:
    """When the last task of a process has ended, however it did, bars draw, and count for nothing."""
    with RecordingSink() as sink, capturing_tqdm():
        with capturing_tqdm():
            list(std.tqdm(range(2), desc="A"))
        list(std.tqdm(range(2), desc="A"))
    with pytest.raises(Boom), RecordingSink(), capturing_tqdm():
        raise Boom
    assert capfd.readouterr().err == ""
    list(std.tqdm(range(2), desc="A"))
    assert "A: 100%" in capfd.readouterr().err
    assert sink.stages == {"A": 4}


@pytest.mark.parametrize("name", ["close", "reset", "set_description", "__iter__"])
def test_methods_of_tqdm_stay_plain_functions(name: str) -> None:
    """What looks at tqdm finds methods with their own names and signatures, which can be pickled."""
    with RecordingSink(), capturing_tqdm():
        method = getattr(std.tqdm, name)
    assert (method.__module__, method.__qualname__) == ("tqdm.std", f"tqdm.{name}")
    assert pickle.loads(pickle.dumps(method)) is method
    assert inspect.isfunction(method)
    assert "self" in inspect.signature(method).parameters
    assert {"iterable", "desc", "total"} <= set(inspect.signature(std.tqdm.__init__).parameters)


def test_calls_that_take_turns_leave_no_bar_behind() -> None:
    """Generators that are runs end in another order than they began, and nothing of them is held."""

    @tracked(total=3, desc="Rows")
    def rows(count: int) -> Iterator[int]:
        yield from std.tqdm(range(count))

    assert list(zip(rows(3), rows(3), strict=True)) == [(i, i) for i in range(3)]
    assert list(zip(rows(3), rows(2), strict=False)) == [(i, i) for i in range(2)]
    gc.collect()
    assert not adopt._enclosing.get()


def test_outside_a_run_nothing_is_captured(capfd: pytest.CaptureFixture[str]) -> None:
    """Where nothing counts, a bar draws."""
    with capturing_tqdm():
        list(std.tqdm(range(3)))
    assert bars_drawn(capfd) == 1


@pytest.mark.parametrize("name", ["__init__", "reset", "close"])
@pytest.mark.parametrize("file", [None, io.StringIO()], ids=["screen", "file"])
def test_bars_count_once_whatever_else_patches_tqdm(
    name: str, file: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch that comes and goes before, while or after a task runs is called, and each item counts once."""
    called: set[str] = set()

    def count() -> set[str]:
        called.clear()
        with RecordingSink() as sink, capturing_tqdm(), std.tqdm(total=5, desc="A", file=file) as bar:
            bar.update(3)
            bar.reset(total=4)
            bar.update(1)
        assert (sink.stages, sink.totals) == ({"A": 4}, {"A": 7})
        return set(called)

    def put_above(patch: pytest.MonkeyPatch, label: str) -> None:
        below = getattr(std.tqdm, name)

        def theirs(bar: Any, *args: Any, **kwargs: Any) -> None:
            called.add(label)
            below(bar, *args, **kwargs)

        patch.setattr(std.tqdm, name, theirs)

    assert count() == set()
    with monkeypatch.context() as patch:
        patch.setattr(std.tqdm, name, getattr(std.tqdm, name).__wrapped__)
        put_above(patch, "before")
        assert count() == {"before"}
        with monkeypatch.context() as later:
            put_above(later, "after")
            assert count() == count() == {"before", "after"}
        assert count() == {"before"}
    assert count() == set()


def test_reading_and_saving_a_dataset_is_no_stage(
    sink: RecordingSink, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is read and saved with datasets makes no stages, and nothing is drawn."""
    rows = datasets.Dataset.from_generator(lambda: ({"n": n} for n in range(20)), cache_dir=str(tmp_path))
    rows.select([1, 3]).flatten_indices().save_to_disk(tmp_path / "saved")
    rows.to_json(tmp_path / "rows.json")
    rows.to_csv(tmp_path / "rows.csv")
    rows.to_parquet(tmp_path / "rows.parquet")
    assert len(datasets.load_from_disk(str(tmp_path / "saved"))) == 2
    assert (sink.stages, sink.done) == ({}, 0)
    assert capfd.readouterr() == ("", "")


# ---- forks


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_draws_nothing_and_counts_nothing(
    sink: RecordingSink, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bars in a child are quiet, whoever made them and whoever holds the lock; the parent counts its own."""
    fork = multiprocessing.get_context("fork")
    bar = std.tqdm(total=4, desc="A")

    def work() -> None:
        bar.update(2)
        bar.close()
        list(std.tqdm(range(3), desc="B"))
        list(std.tqdm(range(3)))

    with adopt.tqdm_bar.lock:
        child = fork.Process(target=work)
        child.start()
    child.join(30)
    assert child.exitcode == 0
    bar.update(1)
    assert (sink.stages, sink.done) == ({"A": 1}, 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_is_forked_elsewhere_draws(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a task around it a child's bars are its own business."""
    child = multiprocessing.get_context("fork").Process(target=lambda: list(std.tqdm(range(3))))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert bars_drawn(capfd) == 1


# ---- any program


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.integers(0, 2), st.sampled_from([None, 0, 3, 20])),
        st.tuples(st.just("loop"), st.integers(0, 2), st.integers(0, 12)),
        st.tuples(st.just("update"), st.integers(0, 5), st.integers(-2, 6)),
        st.tuples(st.just("next"), st.integers(0, 5), st.integers(1, 6)),
        st.tuples(st.just("reset"), st.integers(0, 5), st.none()),
        st.tuples(st.just("close"), st.integers(0, 5), st.none()),
        st.tuples(st.just("drop"), st.integers(0, 5), st.none()),
        st.tuples(st.just("rename"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("read"), st.none(), st.none()),
    ),
    max_size=30,
)


class Model:
    """What a bar should have counted."""

    def __init__(self, stage: str) -> None:
        self.stage, self.n, self.carried, self.most = stage, 0, 0, 0
        self.started = self.closed = False

    def look(self) -> None:
        """Count what was done by now."""
        if not self.closed:
            self.most = max(self.most, self.carried + max(self.n, 0))
            self.started = self.started or self.most > 0

    def close(self) -> None:
        """Count no more."""
        self.look()
        self.closed = True


@example([("new", 0, None), ("update", 0, 1), ("rename", 0, 0), ("update", 0, -1)])
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
                sums[model.stage] = sums.get(model.stage, 0) + model.most
        return sums

    def counted() -> dict[str, int]:
        """What was reported, without limits."""
        counts = sink._reporter.raw_counts()
        return {
            key.stage: int(count) for key, count in counts.items() if key.stage and key.metric is Metric.ITEMS
        }

    with RecordingSink() as sink, capturing_tqdm():
        for step, which, what in steps:
            held = live[which % len(live)] if live and which is not None else None
            if step in ("new", "loop"):
                model = Model("ABC"[which])
                models.append(model)
                # To be read at each item, so that the model knows what can be read.
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
                    held[2].carried = held[2].most
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
