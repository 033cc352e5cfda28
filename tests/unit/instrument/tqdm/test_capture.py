"""Bars of tqdm that a task makes count for it where they belong, and patching tqdm changes nothing else."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import pickle
from collections.abc import Callable, Iterable, Iterator
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
from support.counts import units
from support.errors import Boom
from support.screen import bars_drawn
from tqdm import std, trange

from speedy_utils import report_progress, track, tracked
from speedy_utils._instrument.tqdm import capture as tqdm_capture
from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils.testing import RecordingSink


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert not tqdm_capture._tasks


class Louder(std.tqdm):
    """A subclass that overrides what subclasses override, and notes what was called."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.called: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        self.called.append("iter")
        yield from super().__iter__()

    def update(self, n: float | None = 1) -> bool | None:
        """Add."""
        self.called.append("update")
        return super().update(n)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw in capitals."""
        super().display((msg or str(self)).upper(), pos)

    def close(self) -> None:
        """Note it."""
        self.called.append("close")
        super().close()


def loop(kind: Callable[..., Any]) -> Callable[[], list[Any]]:
    """A loop over ten items with a bar of some kind."""
    return lambda: list(kind(range(10), desc="Tokenize"))


def by_hand(kind: Callable[..., Any]) -> Callable[[], list[Any]]:
    """A bar of some kind that is moved by hand."""

    def run() -> list[Any]:
        with kind(total=10, desc="Tokenize") as bar:
            return [bar.update(n) for n in (3, 0, 7)]

    return run


def in_pandas() -> list[Any]:
    """A bar of pandas."""
    std.tqdm.pandas(desc="Tokenize")
    return list(pd.Series(range(10)).progress_apply(lambda x: x))


def in_a_stream() -> list[Any]:
    """A bar that a file's reads move."""
    with std.tqdm.wrapattr(io.BytesIO(b"0123456789"), "read", total=10, desc="Tokenize") as stream:
        return list(iter(lambda: stream.read(3), b""))


async def gathered() -> list[Any]:
    """A bar over coroutines."""
    return list(await tqdm.asyncio.tqdm.gather(*(asyncio.sleep(0, n) for n in range(10)), desc="Tokenize"))


async def in_an_async_loop() -> list[Any]:
    """A bar over an asynchronous generator."""

    async def numbers() -> Any:
        for n in range(10):
            yield n

    return [n async for n in tqdm.asyncio.tqdm(numbers(), total=10, desc="Tokenize")]


LOOPS: dict[str, Callable[[], list[Any]]] = {
    "tqdm": loop(std.tqdm),
    "auto": loop(tqdm.auto.tqdm),
    "autonotebook": loop(tqdm.autonotebook.tqdm),
    "notebook": loop(tqdm.notebook.tqdm),
    "asyncio": loop(tqdm.asyncio.tqdm),
    "async for": lambda: asyncio.run(in_an_async_loop()),
    "gather": lambda: asyncio.run(gathered()),
    "trange": lambda: list(trange(10, desc="Tokenize")),
    "tnrange": lambda: list(tqdm.notebook.tnrange(10, desc="Tokenize")),
    "subclass": loop(Louder),
    "tmap": lambda: list(tqdm.contrib.tmap(abs, range(10), desc="Tokenize")),
    "thread_map": lambda: list(
        tqdm.contrib.concurrent.thread_map(abs, range(10), max_workers=2, desc="Tokenize")
    ),
    "tenumerate": lambda: [n for n, _ in tqdm.contrib.tenumerate("abcdefghij", desc="Tokenize")],
    "tzip": lambda: [n for n, _ in tqdm.contrib.tzip(range(10), "abcdefghij", desc="Tokenize")],
    "pandas": in_pandas,
    "datasets": loop(datasets.utils.tqdm),
}
FORMS = LOOPS | {
    "tqdm by hand": by_hand(std.tqdm),
    "auto by hand": by_hand(tqdm.auto.tqdm),
    "notebook by hand": by_hand(tqdm.notebook.tqdm),
    "asyncio by hand": by_hand(tqdm.asyncio.tqdm),
    "subclass by hand": by_hand(Louder),
    "wrapattr": in_a_stream,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_bar_counts_for_its_stage_and_draws_nothing(
    form: str, sink: RecordingSink, capfd: pytest.CaptureFixture[str]
) -> None:
    """However a bar of tqdm is made, its items and its total go to the stage that its description names."""
    found = FORMS[form]()
    assert form not in LOOPS or found == list(range(10))
    assert (sink.stages, sink.totals) == ({"Tokenize": 10}, {"Tokenize": 10})
    assert capfd.readouterr() == ("", "")


# By themselves those of tqdm.notebook want ipywidgets.
@pytest.mark.parametrize("form", [name for name in FORMS if "notebook" not in name and name != "tnrange"])
def test_bars_that_are_not_captured_draw(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A task whose bars are not captured counts nothing of them, and they draw as ever."""
    with RecordingSink() as sink:
        FORMS[form]()
        assert "Tokenize" in "".join(capfd.readouterr()).replace("TOKENIZE", "Tokenize")
    assert sink.stages == {}


def test_work_on_the_rows_of_a_dataset_counts_and_its_files_do_not(
    sink: RecordingSink, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bars of Hugging Face datasets count in rows, but for those of reading and writing files."""
    datasets.enable_progress_bars()
    rows = datasets.Dataset.from_generator(lambda: ({"n": n} for n in range(25)), cache_dir=str(tmp_path))
    mapped = rows.map(lambda row: {"m": row["n"] + 1}, cache_file_name=str(tmp_path / "map.arrow"))
    kept = mapped.filter(lambda row: row["n"] % 2, keep_in_memory=True)
    kept.flatten_indices().save_to_disk(tmp_path / "saved")
    kept.to_json(tmp_path / "rows.json")
    kept.to_csv(tmp_path / "rows.csv")
    kept.to_parquet(tmp_path / "rows.parquet")
    assert len(datasets.load_from_disk(str(tmp_path / "saved"))) == 12
    assert sink.stages == sink.totals == {"Map": 25, "Filter": 25}
    assert units(sink._reporter.capped_counts()) == dict.fromkeys(sink.stages, "examples")
    assert (sink.done, capfd.readouterr()) == (0, ("", ""))


def test_a_subclass_keeps_its_own_ways(sink: RecordingSink) -> None:
    """What a subclass overrides is called as ever."""
    bar = Louder(range(3), desc="A")
    list(bar)
    assert (bar.called, sink.stages) == (["iter", "close"], {"A": 3})


def test_an_unnamed_bar_counts_where_nothing_else_does(sink: RecordingSink) -> None:
    """Bars without a description count for the task's own line, one after the other."""
    list(std.tqdm(range(4)))
    with std.tqdm() as bar:
        bar.update(3)
    assert (sink.done, sink.stages, sink.totals) == (7, {}, {})


def each(loop: Iterable[Any], work: Callable[[], Any]) -> None:
    """Do something for each item of a loop."""
    for _ in loop:
        work()


def in_a_bar_moved_by_hand() -> None:
    """A bar around another; both are moved by hand."""
    with std.tqdm(total=3) as outer:
        for _ in range(3):
            std.tqdm(total=5).update(5)
            outer.update()


def after_one_that_was_left_open() -> None:
    """A bar that has reached its end, and is not closed, before another one."""
    bar = std.tqdm(total=2)
    bar.update(2)
    list(std.tqdm(range(1)))
    bar.set_postfix(done=True)


def five() -> list[int]:
    """A loop over five items with an unnamed bar."""
    return list(std.tqdm(range(5)))


UNNAMED: dict[str, Callable[[], Any]] = {
    "beside a report": lambda: (five(), report_progress(3)),
    "beside a call": lambda: (five(), tracked(total=3)(lambda: None)()),
    "in a counted loop": lambda: each(track(range(3)), five),
    "in loops": lambda: each(std.tqdm(range(3)), lambda: each(std.tqdm(range(7)), five)),
    "in a bar moved by hand": in_a_bar_moved_by_hand,
    "in step": lambda: list(zip(std.tqdm(range(3)), std.tqdm(range(3)), strict=True)),
    "after one that was left open": after_one_that_was_left_open,
}


@pytest.mark.parametrize("work", UNNAMED.values(), ids=UNNAMED)
def test_of_unnamed_bars_the_outermost_counts_unless_the_code_does(
    work: Callable[[], Any], sink: RecordingSink
) -> None:
    """Items of a bar inside another are no items of the run, and what the code reports comes first."""
    work()
    assert sink.done == 3


def test_named_bars_count_inside_others_and_unnamed_ones_do_not(sink: RecordingSink) -> None:
    """Each named bar counts to its own stage; the run's items are not known to be those of an inner loop."""
    for _ in std.tqdm(range(3), desc="Files"):
        list(std.tqdm(range(5)))
    assert (sink.done, sink.stages) == (0, {"Files": 3})
    for _ in std.tqdm(range(3)):
        for _ in std.tqdm(range(2), desc="Files"):
            list(std.tqdm(range(5), desc="Lines"))
    assert (sink.done, sink.stages, sink.totals) == (3, {"Files": 9, "Lines": 30}, {"Files": 9, "Lines": 30})


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


COMBINED: dict[str, Callable[[], Any]] = {
    "track over tqdm": lambda: list(track(std.tqdm(range(10), desc="A"), desc="A")),
    "tqdm over track": lambda: list(std.tqdm(track(range(10), desc="A"), desc="A")),
    "tqdm over an unsized track": lambda: list(std.tqdm(track(iter("ab" * 5), total=10, desc="A"), desc="A")),
    "report in tqdm": lambda: each(std.tqdm(range(10), desc="A"), lambda: report_progress(desc="A")),
    "tqdm in track": lambda: each(track(range(10), desc="A"), lambda: list(std.tqdm("abc", desc="A"))),
    "tracked in tqdm": lambda: each(std.tqdm(range(10), desc="A"), tracked(desc="A")(lambda: None)),
}


@pytest.mark.parametrize("work", COMBINED.values(), ids=COMBINED.keys())
def test_items_that_are_counted_twice_count_once(work: Callable[[], Any], sink: RecordingSink) -> None:
    """Where a stage is counted by track or report_progress, bars of the same name add nothing to it."""
    work()
    assert sink.stages == {"A": 10}
    assert sink.totals == {"A": 10}


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
    assert not tqdm_capture._enclosing.get()


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


@pytest.mark.parametrize(
    ("desc", "stages"),
    [
        ("Computing checksums", {}),
        ("Counting rows for split=train", {}),
        ("Indexing TsFile data", {}),
        ("Saving the dataset (0/1 shards)", {}),
        ("Tokenize", {"Tokenize": 3}),
    ],
)
def test_bars_of_datasets_for_files_are_no_stages(desc: str, stages: dict[str, int]) -> None:
    """A bar of ``datasets`` for reading or writing files counts for no stage; one for work on rows does."""
    with RecordingSink() as sink, capturing_tqdm():
        list(datasets.utils.tqdm(range(3), desc=desc))
        list(std.tqdm(range(3), desc="Saving the dataset"))  # the user's own
    assert sink.stages == stages | {"Saving the dataset": 3}
