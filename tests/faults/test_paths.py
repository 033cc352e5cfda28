"""What a function returns, and what lies in a run's folder, can't lead the run to touch anything else."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from support.rows import numbered, saved

import speedy_utils
from speedy_utils import FailedShardsError, multi_process_dataset
from speedy_utils.errors import MergeError, ResumeError

ROWS = 20


def run(process: Callable[..., Any], folder: Path, **options: Any) -> str:
    """Process known rows in two shards, into ``out`` in a folder."""
    options = {"num_shards": 2, "num_workers": 1, "backend": "seq", "progress": False, **options}
    return multi_process_dataset(numbered(ROWS), process, folder / "out", **options)


def state(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All that can be seen of a folder: names, kinds, content, times and the number of names of each file."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_nlink, status.st_mtime_ns, content)
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of the run's, with a dataset of 10 rows and a file."""
    folder = tmp_path / "outside"
    saved(numbered(10), folder / "data")
    (folder / "precious.txt").write_text("precious")
    return folder


def absolute(output: Path, outside: Path) -> Any:
    """Return a path elsewhere."""
    return outside / "data"


def dotted(output: Path, outside: Path) -> Any:
    """Return a path that leads out by ``..``."""
    output.mkdir()
    return f"{output}/../../../../../outside/data"


def linked(output: Path, outside: Path) -> Any:
    """Make ``output_path`` a link to a folder elsewhere."""
    output.symlink_to(outside / "data")


def linked_files(output: Path, outside: Path) -> Any:
    """Save to ``output_path``, with the data a link to a file elsewhere."""
    shutil.copytree(outside / "data", output)
    for file in output.glob("*.arrow"):
        file.unlink()
        file.symlink_to(outside / "data" / file.name)


def dotted_files(output: Path, outside: Path) -> Any:
    """Save to ``output_path``, with a list of files that leads elsewhere."""
    shutil.copytree(outside / "data", output)
    (file,) = output.glob("*.arrow")
    saved = json.loads((output / "state.json").read_text())
    saved["_data_files"] = [{"filename": os.path.relpath(outside / "data" / file.name, output)}]
    (output / "state.json").write_text(json.dumps(saved))


def absolute_files(output: Path, outside: Path) -> Any:
    """The same with an absolute path."""
    shutil.copytree(outside / "data", output)
    (file,) = output.glob("*.arrow")
    saved = json.loads((output / "state.json").read_text())
    saved["_data_files"] = [{"filename": str(outside / "data" / file.name)}]
    (output / "state.json").write_text(json.dumps(saved))


def shard_turned_link(output: Path, outside: Path) -> Any:
    """Put a link to a folder elsewhere in place of the shard's own folder."""
    attempt = output.parent
    home = attempt.parent
    moved = outside.parent / "moved"
    shutil.rmtree(home)
    home.symlink_to(outside)
    assert not moved.exists()
    return outside / "data"


ESCAPES = [absolute, dotted, linked, linked_files, dotted_files, absolute_files]


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("backend", ["processes", "seq"])
def test_what_lies_outside_is_read_and_nothing_more(
    backend: str, escape: Callable[[Path, Path], Any], outside: Path, tmp_path: Path
) -> None:
    """A path that leads out of the run's folder is copied from; nothing there is linked, moved or deleted."""
    before = state(outside)

    def process(dataset: Any, output_path: str) -> Any:
        if dataset[0]["id"] == 0:
            return escape(Path(output_path), outside)
        dataset.save_to_disk(output_path)
        return None

    out = run(process, tmp_path, backend=backend, num_workers=2)
    assert list(load_from_disk(out)["id"]) == list(range(ROWS))
    assert state(outside) == before
    assert sorted(os.listdir(tmp_path)) == ["out", "outside"]
    # The output is its own: what happens outside later does not change it.
    assert not any(path.is_symlink() or path.lstat().st_nlink > 1 for path in Path(out).iterdir())
    shutil.rmtree(outside)
    assert list(load_from_disk(out)["id"]) == list(range(ROWS))


def test_a_second_attempt_follows_no_link_that_the_first_one_made(outside: Path, tmp_path: Path) -> None:
    """A link that a lost attempt left in place of its shard folder goes; what it leads to stays as it was."""
    before = state(outside)

    def process(dataset: Any, output_path: str) -> Any:
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            home = Path(output_path).parent.parent
            shutil.rmtree(home)
            home.symlink_to(outside)
            raise SystemExit("lost")
        return dataset

    out = run(process, tmp_path, num_shards=1)
    assert list(load_from_disk(out)["id"]) == list(range(ROWS))
    assert state(outside) == before


@pytest.mark.parametrize("again", ["resume", "start over"])
def test_a_shard_folder_that_became_a_link_is_not_followed(again: str, outside: Path, tmp_path: Path) -> None:
    """A link in place of a shard's folder goes, and what it leads to stays, when the shard runs again."""
    before = state(outside)
    broken = [True]

    def process(dataset: Any, output_path: str) -> Any:
        if dataset[0]["id"] == 0 and broken:
            return shard_turned_link(Path(output_path), outside)
        return dataset

    options: Any = {"resume": "trust" if again == "resume" else False, "overwrite": True}

    with pytest.raises(FailedShardsError):
        run(process, tmp_path, **options)
    kept = state(outside)
    assert {name: kept[name] for name in before if name != "."} == {
        n: s for n, s in before.items() if n != "."
    }
    broken.clear()
    assert list(load_from_disk(run(process, tmp_path, **options))["id"]) == list(range(ROWS))
    assert state(outside)["precious.txt"] == before["precious.txt"]
    assert list(load_from_disk(str(outside / "data"))["id"]) == list(range(10))
    assert sorted(os.listdir(tmp_path)) == ["out", "outside"]


@pytest.mark.parametrize("level", [0, 1, 2, 3], ids=["attempt", "shard", "shards", "run"])
def test_a_folder_of_the_run_that_became_a_link_is_not_followed(
    level: int, outside: Path, tmp_path: Path
) -> None:
    """Nothing is written or deleted through any folder of the run that a function has replaced by a link."""
    (outside / "00001" / "mine").mkdir(parents=True)
    (outside / "00001" / "mine" / "precious.txt").write_text("precious")
    before = state(outside)

    def process(dataset: Any, output_path: str) -> Any:
        folder = Path(output_path).parents[level]
        if dataset[0]["id"] == 0:
            shutil.rmtree(folder)
            folder.symlink_to(outside)
        return dataset

    with pytest.raises(FailedShardsError, match="has become a symbolic link"):
        run(process, tmp_path)
    assert state(outside) == before
    assert not os.path.lexists(tmp_path / "out")


def test_a_shard_that_was_replaced_after_it_was_finished_is_not_merged(outside: Path, tmp_path: Path) -> None:
    """A later shard's function can't put a file from elsewhere into the output."""
    (file,) = (outside / "data").glob("*.arrow")
    before, broken = state(outside), [True]

    def process(dataset: Any, output_path: str) -> Any:
        if dataset[0]["id"] and broken:
            (finished,) = (tmp_path / "out.partial" / "shards" / "00000").glob("*/*/*.arrow")
            finished.unlink()
            finished.symlink_to(file)
        return dataset

    with pytest.raises(MergeError, match="changed after they were finished: 0"):
        run(process, tmp_path, resume="trust")
    broken.clear()
    assert list(load_from_disk(run(process, tmp_path, resume="trust"))["id"]) == list(range(ROWS))
    assert state(outside) == before


@pytest.mark.parametrize("where", ["absolute", "dotted", "link"])
def test_a_record_that_leads_outside_is_not_believed(where: str, outside: Path, tmp_path: Path) -> None:
    """Where a finished shard's record names files elsewhere the shard runs again."""
    runs: list[int] = []

    def process(dataset: Any, output_path: str) -> Any:
        runs.append(dataset[0]["id"])
        if dataset[0]["id"] == 10 and len(runs) == 2:
            raise ValueError("not yet")
        dataset.save_to_disk(output_path)
        return output_path

    with pytest.raises(FailedShardsError):
        run(process, tmp_path, resume="trust")
    before = state(outside)
    shard = tmp_path / "out.partial" / "shards" / "00000"
    record = json.loads((shard / "record.json").read_text())
    (file,) = (outside / "data").glob("*.arrow")
    target = {"absolute": str(file), "dotted": os.path.relpath(file, shard), "link": "link.arrow"}[where]
    (shard / "link.arrow").symlink_to(file)
    record["files"] = [[target, file.stat().st_size]]
    (shard / "record.json").write_text(json.dumps(record))
    assert list(load_from_disk(run(process, tmp_path, resume="trust"))["id"]) == list(range(ROWS))
    assert runs == [0, 10, 0, 10]
    assert state(outside) == before


class Bomb:
    """Something whose unpickling leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("file", ["manifest.json", "shards/00000/record.json", "holder.json"])
def test_no_file_of_a_run_is_unpickled(file: str, tmp_path: Path) -> None:
    """A pickle in place of any of the run's own files is never loaded: they are JSON."""
    fail = [True]

    def process(dataset: Any, output_path: str) -> Any:
        if dataset[0]["id"] == 10 and fail:
            raise ValueError("not yet")
        return dataset

    with pytest.raises(FailedShardsError):
        run(process, tmp_path, resume="trust")
    (tmp_path / "out.partial" / file).write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    fail.clear()
    if file == "manifest.json":
        with pytest.raises(ResumeError, match="no manifest"):
            run(process, tmp_path, resume="trust")
    else:
        assert list(load_from_disk(run(process, tmp_path, resume="trust"))["id"]) == list(range(ROWS))
    assert not (tmp_path / "trace").exists()


def test_the_sources_unpickle_only_what_an_engine_brings() -> None:
    """What the program and its workers send each other is unpickled, and of files only a checkpoint."""
    found = []
    for file in sorted(Path(speedy_utils.__file__).parent.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        imported = {
            alias.asname or alias.name
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                assert not re.search("pickle|dill|marshal|shelve|joblib", node.module or ""), file
            named = isinstance(node, ast.Attribute) and node.attr in ("load", "loads", "Unpickler")
            # Not the methods of objects, such as Packed.load, which calls the one place.
            if named and ast.unparse(node.value) in imported:
                found.append((file.name, ast.unparse(node)))
    assert Counter(each for each in found if each[1] != "json.loads") == {
        ("folder.py", "pickle.loads"): 1,  # results in a checkpoint, a folder that the user has to trust
        ("rebuild.py", "pickle.loads"): 1,  # what Ray has brought
        ("results.py", "pickle.loads"): 1,  # what Ray has brought from a task
        ("worker.py", "pickle.loads"): 1,  # what Ray has brought to a task
        ("data.py", "pickle.loads"): 1,  # what a worker's pipe has brought, and its function
    }


def test_the_clean_up_leaves_what_is_not_the_runs_own(tmp_path: Path) -> None:
    """Files that a user has put into the run's folder survive it."""

    def process(dataset: Any, output_path: str) -> Any:
        (Path(output_path).parents[3] / "notes.txt").write_text("mine")
        return dataset

    out = run(process, tmp_path, num_shards=1)
    assert len(load_from_disk(out)) == ROWS
    assert (tmp_path / "out.partial" / "notes.txt").read_text() == "mine"
    # A later run finds its place taken, and says so instead of clearing it away.
    with pytest.raises(ResumeError, match="holds no manifest"):
        run(process, tmp_path, overwrite=True)
    assert (tmp_path / "out.partial" / "notes.txt").read_text() == "mine"
