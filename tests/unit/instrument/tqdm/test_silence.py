"""A captured bar draws nothing, and works as ever otherwise."""

from __future__ import annotations

import functools
import io
import sys
from typing import Any

import pytest
import tqdm.notebook
from tqdm import std

from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils.testing import RecordingSink


@pytest.mark.parametrize(
    ("args", "options", "counts", "writes"),
    [
        ((), {"disable": True}, False, False),
        ((None, True, None, None, 0.1, 10.0, None, None, True), {}, False, False),  # the same, by position
        ((), {"disable": None}, True, False),  # off a terminal
        ((), {"disable": None, "file": io.StringIO()}, True, False),
        ((), {"file": io.StringIO()}, True, True),
    ],
)
def test_a_bar_counts_unless_it_is_disabled_and_writes_to_its_own_file_only(
    args: tuple[Any, ...], options: dict[str, Any], counts: bool, writes: bool, sink: RecordingSink
) -> None:
    """``disable=True`` switches a bar off, None is about the display; a log that a bar writes goes on."""
    assert list(std.tqdm(range(3), "A", *args, **options)) == [0, 1, 2]
    assert sink.stages == ({"A": 3} if counts else {})
    file = options.get("file")
    assert "A: 100%" in file.getvalue() if writes else file is None or file.getvalue() == ""


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


def test_everything_on_a_bar_works(sink: RecordingSink, capfd: pytest.CaptureFixture[str]) -> None:
    """What code does with a bar, it may do with one that draws nothing."""
    with std.tqdm(["a", "b"], desc="A", leave=False, colour="green", postfix={"x": 1}) as bar:
        assert (len(bar), bool(bar), bar.iterable, bar.desc, bar.disable) == (2, True, ["a", "b"], "A", False)
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


# Older versions of tqdm fail once more when such a bar is collected.
@pytest.mark.filterwarnings("ignore:.*tqdm.__del__:pytest.PytestUnraisableExceptionWarning")
def test_wrong_arguments_raise_as_ever(sink: RecordingSink) -> None:
    """What tqdm refuses, it refuses with its own words."""
    with pytest.raises(std.TqdmKeyError, match="colours"):
        std.tqdm(range(3), colours="green")
    with pytest.raises(TypeError, match="multiple values"):
        std.tqdm(range(3), "A", desc="B")
    with pytest.raises(TypeError, match="positional"):
        std.tqdm(*range(40))
    assert sink.stages == {}


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


def test_bars_compare_as_those_of_tqdm(sink: RecordingSink) -> None:
    """Each silent bar equals itself alone, and those that were made later are greater: lists find them."""
    bars = [std.tqdm(desc=name) for name in "ABC"]
    assert bars.index(bars[1]) == 1
    assert bars[0] < bars[1] < bars[2]
    removed = bars[1]
    bars.remove(removed)
    assert [bar.desc for bar in bars] == ["A", "C"]
    assert removed not in bars
