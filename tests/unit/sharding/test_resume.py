"""Beginning a run, taking up an interrupted one, and refusing what would lose data."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from speedy_utils._sharding.fingerprint import Fingerprint, differences, fingerprint_run
from speedy_utils._sharding.merge import merge_shards
from speedy_utils._sharding.resume import open_workspace
from speedy_utils._sharding.shard_worker import begin_shard, finish_shard
from speedy_utils._sharding.workspace import Workspace
from speedy_utils.errors import BusyError, ResumeError

DATASET = Dataset.from_dict({"id": list(range(10))})
IDENTITY = Fingerprint("d0", 10, "module.func", "c0", {"size": "k0"})


def start(output: Path, identity: Fingerprint = IDENTITY, **options: Any) -> Workspace:
    """Begin a run, or take one up."""
    return open_workspace(output, identity, **{"num_shards": None, "default_shards": 4, **options})


def work(partial: Workspace, *indices: int) -> None:
    """Finish some of the missing shards, or all of them: each row times two."""
    for spec in [spec for spec in partial.missing if not indices or spec.index in indices]:
        output = begin_shard(partial.shard_dir(spec))
        rows = Dataset.from_dict({"id": [2 * row for row in range(spec.start, spec.stop)]})
        partial.add(finish_shard(rows, output, spec))


def interrupted(output: Path, *indices: int) -> Path:
    """Leave behind a run that finished some shards; the folder it worked in."""
    with start(output) as partial:
        work(partial, *indices)
    return partial.folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the output is to appear."""
    return tmp_path / "out"


def test_a_run_begins_with_nothing_finished_and_ends_with_the_output_alone(output: Path) -> None:
    """A new run has all shards to do; when it is merged only the output is left."""
    with start(output) as partial:
        assert [spec.num_rows for spec in partial.missing] == [3, 3, 2, 2]
        work(partial)
        assert partial.missing == []
        merge_shards(partial)
    assert load_from_disk(str(output))["id"][:] == list(range(0, 20, 2))
    assert os.listdir(output.parent) == ["out"]


def test_the_same_call_again_has_only_the_missing_shards_to_do(output: Path) -> None:
    """Finished shards of an interrupted run are taken over with their records."""
    interrupted(output, 0, 2)
    with start(output) as partial:
        assert sorted(partial.finished) == [0, 2]
        assert [spec.index for spec in partial.missing] == [1, 3]
        work(partial)
        assert load_from_disk(str(merge_shards(partial)))["id"][:] == list(range(0, 20, 2))


@pytest.mark.parametrize("options", [{"default_shards": 7}, {"num_shards": 4}])
def test_an_interrupted_run_keeps_its_cut(options: dict[str, Any], output: Path) -> None:
    """With the number of shards left open, or the same, the cut is that of the interrupted run."""
    interrupted(output, 1)
    with start(output, **options) as partial:
        assert (len(partial.plan), list(partial.finished)) == (4, [1])


def test_a_damaged_shard_is_done_again(output: Path) -> None:
    """A finished shard whose file was cut off is deleted and counts as missing."""
    folder = interrupted(output, 0, 1)
    (file,) = (folder / "shards" / "00001").rglob("*.arrow")
    file.write_bytes(file.read_bytes()[:-8])
    with start(output) as partial:
        assert list(partial.finished) == [0]
        assert not (folder / "shards" / "00001").exists()


def test_an_attempt_without_a_record_is_cleared_away(output: Path) -> None:
    """What an unfinished attempt left behind is deleted when its run is taken up."""
    folder = interrupted(output, 0)
    (folder / "shards" / "00002" / "attempt").mkdir(parents=True)
    with start(output):
        assert os.listdir(folder / "shards") == ["00000"]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "dataset": ({"dataset": "d1"}, "the dataset is another one: its fingerprint is d1; it was d0"),
    "function": ({"code": "c1"}, r"process_func module\.func has changed"),
    "name": ({"function": "module.other"}, r"process_func is module\.other; it was module\.func"),
    "unknown": ({"code": None}, r"process_func module\.func can't be pickled"),
    "argument": ({"kwargs": {"size": "k1"}}, "the argument 'size' has changed"),
    "new argument": ({"kwargs": {"size": "k0", "more": "k"}}, "the argument 'more' is new"),
    "lost argument": ({"kwargs": {}}, "the argument 'size' is gone"),
    "unknown argument": ({"kwargs": {"size": None}}, "the argument 'size' can't be pickled"),
}


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES.keys())
def test_a_run_that_differs_says_how_and_leaves_two_ways_on(
    change: dict[str, Any], says: str, output: Path
) -> None:
    """A changed run is refused with what changed; "trust" keeps the shards, overwrite=True starts over."""
    changed = replace(IDENTITY, **change)
    interrupted(output, 0, 1)
    with pytest.raises(ResumeError, match=says) as caught:
        start(output, changed)
    assert "2 of 4 shards finished" in str(caught.value)
    assert 'overwrite=True; resume="trust" keeps them' in str(caught.value)
    with start(output, changed, resume="trust") as partial:
        assert sorted(partial.finished) == [0, 1]
    with start(output, changed, resume="trust", overwrite=True) as partial:
        assert sorted(partial.finished) == [0, 1]
    if None not in (changed.code, *changed.kwargs.values()):
        with start(output, changed) as partial:  # what was trusted once is known from then on
            assert sorted(partial.finished) == [0, 1]
    with start(output, overwrite=True) as partial:
        assert partial.finished == {}
        assert os.listdir(partial.folder / "shards") == []


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({"num_rows": 11}, {}, "the dataset has 11 rows; it had 10"),
        ({}, {"num_shards": 5}, "num_shards is 5; it was 4"),
    ],
)
def test_another_cut_can_not_be_trusted(
    change: dict[str, Any], options: dict[str, Any], says: str, output: Path
) -> None:
    """Shards that stand for other rows can't be kept, and the error says that too."""
    changed = replace(IDENTITY, **change)
    interrupted(output, 0)
    for resume in (True, "trust"):
        with pytest.raises(ResumeError, match=says) as caught:
            start(output, changed, resume=resume, **options)
        assert 'resume="trust" can\'t keep them' in str(caught.value)
    with start(output, changed, overwrite=True, **options) as partial:
        assert partial.finished == {}


def test_a_manifest_in_another_form_is_not_guessed_at(output: Path) -> None:
    """An interrupted run of another version of the library is named as such, and kept."""
    manifest = interrupted(output, 0) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(ResumeError, match=r"written by speedy_utils .*in another form"):
        start(output)
    with start(output, overwrite=True) as partial:
        assert partial.finished == {}


def test_a_change_without_finished_shards_is_no_matter(output: Path) -> None:
    """After a first call that finished nothing the function may be mended and called again."""
    interrupted(output, 99)
    with start(output, replace(IDENTITY, code="c1"), num_shards=2) as partial:
        assert len(partial.missing) == 2


def test_without_resume_the_run_starts_over(output: Path) -> None:
    """resume=False gives up the finished shards, also those of the very same call."""
    folder = interrupted(output, 0)
    with start(output, resume=False) as partial:
        assert partial.finished == {}
        assert os.listdir(folder / "shards") == []


def test_an_output_that_exists_is_refused_before_any_work(output: Path) -> None:
    """A dataset at output_path is a FileExistsError, and nothing is made beside it."""
    DATASET.save_to_disk(str(output))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        start(output)
    assert os.listdir(output.parent) == ["out"]
    with start(output, overwrite=True):
        assert load_from_disk(str(output))["id"][:] == list(range(10))


@pytest.mark.parametrize("kind", ["files", "file", "link"])
def test_what_is_no_dataset_is_never_overwritten(kind: str, output: Path, tmp_path: Path) -> None:
    """overwrite=True replaces a saved dataset; anything else at output_path is refused and kept."""
    if kind == "file":
        output.touch()
    else:
        target = output if kind == "files" else tmp_path / "target"
        target.mkdir()
        (target / "thesis.tex").touch()
        if kind == "link":
            output.symlink_to(target)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileExistsError):
        start(output, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("kind", ["dict", "empty"])
def test_a_saved_dict_and_an_empty_folder_may_be_overwritten(kind: str, output: Path) -> None:
    """With overwrite=True a saved DatasetDict, or a folder with nothing in it, makes room."""
    if kind == "dict":
        DatasetDict(train=DATASET).save_to_disk(str(output))
    else:
        output.mkdir()
    with start(output, overwrite=True) as partial:
        work(partial)
        assert len(load_from_disk(str(merge_shards(partial)))) == 10


@pytest.mark.parametrize("kind", ["files", "manifest", "garbled", "file", "link"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_ours_is_not_touched(
    kind: str, overwrite: bool, output: Path, tmp_path: Path
) -> None:
    """A ``.partial`` that no run has made is refused, whatever else is asked for, and kept."""
    folder = tmp_path / "out.partial"
    if kind == "file":
        folder.touch()
    else:
        target = tmp_path / "target" if kind == "link" else folder
        target.mkdir()
        (target / "shards").mkdir()
        if kind == "link":
            folder.symlink_to(target)
        if kind in ("manifest", "garbled"):
            text = json.dumps({"kind": "another tool's"}) if kind == "manifest" else "{"
            (target / "manifest.json").write_text(text)
    before = sorted(os.walk(tmp_path))
    with pytest.raises(ResumeError, match="left as it is"):
        start(output, resume=False, overwrite=overwrite)
    assert sorted(os.walk(tmp_path)) == before


def test_a_second_run_is_refused_and_told_who_is_first(output: Path) -> None:
    """While a run is at work a second one on the same output_path is refused; afterwards it may."""
    with start(output) as first:
        with pytest.raises(BusyError, match=rf"out'.*\(process {os.getpid()} on "):
            start(output)
        work(first, 0)
    with start(output) as second:
        assert list(second.finished) == [0]


def test_a_folder_left_by_a_clean_up_that_was_cut_short_starts_afresh(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed while it deleted its folder doesn't come back as an unfinished one."""
    folder = interrupted(output, 0, 1, 2, 3)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with start(output) as partial, monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_shards(partial)
    assert len(load_from_disk(str(output))) == 10
    with start(output, overwrite=True) as partial:
        assert partial.finished == {}
    shutil.rmtree(output)
    (folder / "shards").rmdir()
    (folder / "manifest.json").unlink()
    (folder / "published").touch()
    with start(output) as partial:
        assert len(partial.missing) == 4


def test_an_early_failure_leaves_nothing_behind(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that can't write its manifest takes the folder it had made away again."""
    monkeypatch.setattr(
        "speedy_utils._sharding.resume.write_json", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        start(output)
    assert os.listdir(output.parent) == []


@pytest.mark.parametrize(
    ("path", "options"),
    [("s3://bucket/out", {}), ("", {}), ("/", {}), ("out", {"resume": "yes"}), ("out", {"num_shards": 0})],
)
def test_arguments_out_of_range_are_refused_by_name(
    path: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remote path, an empty one, an unknown way to resume and no shards at all are ValueErrors."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"output_path|resume|num_shards"):
        start(Path(path) if path == "out" else path, **options)
    assert os.listdir(tmp_path) == []


def test_missing_parents_are_made(tmp_path: Path) -> None:
    """The folders above output_path need not exist."""
    with start(tmp_path / "a" / "b" / "out") as partial:
        work(partial)
        assert merge_shards(partial) == tmp_path / "a" / "b" / "out"


SCRIPT = """
import sys
from datasets import Dataset
from speedy_utils._sharding.fingerprint import fingerprint_run

factor = 2
def helper(x):
    return x in {"a", "b", "c"} and factor
def make(n):
    return lambda shard, path: (helper(shard), n, {"k", "l"})
def direct(shard, path):
    return shard in {"a", "b", "c"}
class Worker:
    def __init__(self):
        self.names = {"x", "y", "z"}
    def __call__(self, shard, path):
        return helper(shard)
dataset = Dataset.from_dict({"id": [1, 2]}).shuffle(seed=1)
for func in (make, make(3), direct, Worker(), Worker().__call__):
    print(fingerprint_run(dataset, func, {"b": {"t", "u"}, "c": frozenset("xyz"), "a": [1.5, ()]}))
"""


def test_an_identity_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Functions of a script, closures, lambdas, callables and sets have one fingerprint in every process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    runs = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    first, second = [run.communicate(timeout=60)[0] for run in runs]
    assert first == second
    assert first.count("Fingerprint(") == 5
    assert "None" not in first


def of(func: Callable[..., Any], **kwargs: Any) -> Fingerprint:
    """The identity of a run over the dataset."""
    return fingerprint_run(DATASET, func, kwargs)


def test_an_identity_tells_code_closure_and_arguments_apart() -> None:
    """A changed constant, closure, bound or keyword argument is a difference; a new lambda is not."""

    def closure(number: int) -> Callable[[], int]:
        return lambda: number

    assert differences(of(closure(1)), of(closure(1))) == []
    assert "has changed" in differences(of(closure(1)), of(closure(2)))[0]
    assert "has changed" in differences(of(lambda: 1), of(lambda: 2))[0]
    assert differences(of(len, size=1), of(len, size=1)) == []
    assert "'size' has changed" in differences(of(len, size=1), of(len, size=2))[0]
    add = functools.partial(max, 1)
    assert "has changed" in differences(of(add), of(functools.partial(max, 2)))[0]


def test_an_imported_function_that_was_edited_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of an imported module is known by its code too, though pickle knows it by its name."""
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    for text in ("return 1", "return 1  # the same", "return 2"):
        (tmp_path / "edited_module.py").write_text(f"def func():\n    {text}\n")
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        sys.modules.pop("edited_module", None)
        seen.append(of(__import__("edited_module").func))
    del sys.modules["edited_module"]
    assert differences(seen[0], seen[1]) == []
    assert "has changed" in differences(seen[1], seen[2])[0]


def test_what_can_not_be_pickled_is_unknown_not_changed() -> None:
    """A function or an argument without a fingerprint is said to be unknown, and never counts as the same."""
    endless = (row for row in "rows")
    identity = of(lambda: endless, rows=endless)
    assert (identity.code, identity.kwargs) == (None, {"rows": None})
    assert len(differences(identity, identity)) == 2
    assert all("can't be pickled" in sentence for sentence in differences(identity, identity))


def test_a_wrapped_function_is_known_by_what_it_wraps() -> None:
    """A decorator whose wrapper can't be pickled doesn't hide the function."""

    def func(number: int) -> int:
        return number

    class Proxy:
        __wrapped__ = staticmethod(func)

        def __call__(self, *args: int) -> int:
            return func(*args)

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise NotImplementedError

    identity = of(Proxy())
    assert identity.code is not None
    assert identity.function.endswith("func")
