"""Whether a call goes on with the results in a folder, and what it says if it does not."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from speedy_utils import BusyError, ResumeError
from speedy_utils._checkpoint.folder import Checkpoint

SUFFIX = "!"


def shout(text: str, *, times: int = 1) -> str:
    """Return a text in capitals."""
    return (text.upper() + SUFFIX) * times


def whisper(text: str) -> str:
    """Return a text in small letters."""
    return text.lower()


def opened(
    folder: Path,
    items: Sequence[Any] = "abc",
    func: Any = shout,
    resume: bool | Literal["trust"] = True,
    **kwargs: Any,
) -> Checkpoint:
    """Open the checkpoint of a call."""
    return Checkpoint.open(folder, func, kwargs, items, resume)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the results of the first two of three items."""
    with opened(tmp_path / "answers") as checkpoint:
        checkpoint.keep(0, "A!", {})
        checkpoint.keep(1, "B!", {})
    return tmp_path / "answers"


def kept(checkpoint: Checkpoint) -> dict[int, Any]:
    """Return the results that a checkpoint has, and close it."""
    with checkpoint:
        return {task: each.value for task, each in checkpoint.kept.items()}


def refusal(*args: Any, **options: Any) -> str:
    """Return why a checkpoint is not opened."""
    with pytest.raises(ResumeError) as caught:
        opened(*args, **options)
    return str(caught.value)


def test_the_same_call_finds_its_results(folder: Path) -> None:
    """What was kept is there for the next call, and so is what that keeps."""
    with opened(folder) as checkpoint:
        assert {task: each.value for task, each in checkpoint.kept.items()} == {0: "A!", 1: "B!"}
        assert checkpoint.kept_from.count(":") == 1
        checkpoint.keep(2, "C!", {})
        checkpoint.flush()
        assert checkpoint.num_kept == 3
    assert kept(opened(folder)) == {0: "A!", 1: "B!", 2: "C!"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"func": whisper}, r"func is .*whisper; it was .*shout"),
        ({"times": 2}, r"the argument 'times' \(2\) is new"),
        ({"items": "abd"}, r"item 2 is another one, 'd' \(2 of them are the same\)"),
        ({"items": "abcd"}, r"there are 4 items; there were 3 \(3 of them are the same\)"),
        ({"items": "cab"}, r"the items are in another order"),
    ],
)
def test_a_call_that_differs_is_refused_with_the_reason(
    folder: Path, change: dict[str, Any], said: str
) -> None:
    """Nothing runs before the user has said what to do; the ways that keep the results come first."""
    text = refusal(folder, **change)
    assert text.startswith(f"{str(folder)!r} holds 2 results of a call that differs from this one:\n  - ")
    assert re.search(said, text), text
    assert text.index('resume="trust"') < text.index("resume=False")
    assert kept(opened(folder)) == {0: "A!", 1: "B!"}


def test_a_global_that_has_changed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names what the function reads, with both values."""
    monkeypatch.setitem(globals(), "SUFFIX", "?")
    assert "the global 'SUFFIX' of" in (text := refusal(folder))
    assert "is '?'; it was '!'" in text


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"func": whisper}, {0: "A!", 1: "B!"}),
        ({"items": "cbxa"}, {1: "B!", 3: "A!"}),
        ({"items": "aab"}, {0: "A!", 2: "B!"}),
    ],
)
def test_trust_keeps_the_results_of_the_same_items(
    folder: Path, change: dict[str, Any], found: dict[int, str]
) -> None:
    """A result goes with its item, wherever that stands now; then the changed call is the same call."""
    assert kept(opened(folder, resume="trust", **change)) == found
    assert kept(opened(folder, **change)) == found


def test_trust_does_not_give_all_results_up(folder: Path) -> None:
    """Where no result is of an item of the call, that is refused: only resume=False deletes."""
    assert "None of the results is of an item of this call" in refusal(folder, "xyz", resume="trust")
    assert kept(opened(folder, resume=False)) == {}
    assert kept(opened(folder)) == {}


class Client:
    """What can't be pickled, as many clients of a service."""

    def __init__(self) -> None:
        self.lock = (n for n in ())


def test_what_can_not_be_pickled_counts_by_its_type(tmp_path: Path) -> None:
    """A client that the function reads keeps no call from going on; one of another type is noticed."""
    for _ in range(2):
        with opened(tmp_path / "a", client=Client()) as checkpoint:
            checkpoint.keep(0, 1, {})
    assert "the argument 'client'" in refusal(tmp_path / "a", client=iter(Client().lock))


def test_one_run_at_a_time(folder: Path) -> None:
    """A second run in the folder is refused while the first is at work, with its process."""
    with opened(folder), pytest.raises(BusyError, match=rf"process {os.getpid()} on .*choose another folder"):
        opened(folder)
    assert kept(opened(folder)) == {0: "A!", 1: "B!"}


def test_what_no_checkpoint_has_made_is_left_alone(tmp_path: Path) -> None:
    """A folder with other files, or another program's manifest, is refused and stays as it was."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results-00001").write_text("mine")
    assert "is no checkpoint of multi_process. It is left as it is" in refusal(
        tmp_path / "mine", resume=False
    )
    (tmp_path / "mine" / "manifest.json").write_text(json.dumps({"kind": "another"}))
    assert "choose another folder" in refusal(tmp_path / "mine", resume=False)
    assert (tmp_path / "mine" / "results-00001").read_text() == "mine"
    (tmp_path / "file").touch()
    assert "is no checkpoint" in refusal(tmp_path / "file")
    with pytest.raises(ValueError, match="checkpoint must name a folder"):
        opened(Path("/"))
    with pytest.raises(TypeError, match="checkpoint must be a str or a path, not 7"):
        opened(7)  # type: ignore[arg-type]


def test_the_form_of_another_version_is_refused(folder: Path) -> None:
    """Results that another version has written in another form are not misread."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 2, "written_by": "9.0"}))
    assert "was written by speedy_utils 9.0, in another form" in refusal(folder)


def test_a_result_that_can_not_be_pickled_is_an_error(folder: Path) -> None:
    """The error names the result; functions without a name are no trouble."""
    with opened(folder) as checkpoint:
        with pytest.raises(TypeError, match=r"the result <unlocked .*> \(lock\) can't be pickled"):
            checkpoint.keep(2, threading.Lock(), {})
        checkpoint.keep(2, lambda: 7, {})
    assert kept(opened(folder))[2]() == 7


class Gone:
    """A result whose class the next program does not have."""


def test_a_result_that_can_not_be_read_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is missing, and nothing is run or deleted."""
    with opened(folder) as checkpoint:
        checkpoint.keep(2, Gone(), {})
    with monkeypatch.context() as patch:
        patch.delitem(globals(), "Gone")
        assert "a result of item 'c' that can't be read: AttributeError" in refusal(folder)
    assert isinstance(kept(opened(folder))[2], Gone)


def test_a_folder_that_can_not_be_written_ends_the_run(folder: Path) -> None:
    """The next result raises what kept the last one from the disk, and says how many are there."""
    with opened(folder) as checkpoint:
        folder.rename(folder.with_name("elsewhere"))
        checkpoint.keep(2, "C!", {})
        with pytest.raises(FileNotFoundError, match=r"results can't be written .*; 2 of 3 are kept there"):
            checkpoint.flush()
        with pytest.raises(FileNotFoundError, match="2 of 3 are kept there"):
            checkpoint.keep(2, "C!", {})
        folder.with_name("elsewhere").rename(folder)
    assert kept(opened(folder)) == {0: "A!", 1: "B!"}
