"""A task sees the program's folder, environment and import path as they are when its run begins."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk

from speedy_utils import multi_process, multi_process_dataset

VARIABLE = "SPEEDY_UTILS_TEST_MODEL"


def write(name: str) -> str:
    """Write a file with its own name to the current folder, and return what the task has around it."""
    Path(name).write_text(name)
    return f"{os.getcwd()} {os.environ.get(VARIABLE)}"


def test_each_run_has_the_folder_and_the_variables_of_its_time(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs one after the other have each the folder, and the variables, that the program has then."""
    for name, value in (("one", "small"), ("two", "large"), ("three", None)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if value is None:
            monkeypatch.delenv(VARIABLE)
        else:
            monkeypatch.setenv(VARIABLE, value)
        results = multi_process(write, ["a", "b", "c"], backend=backend, num_workers=2, progress=False)
        assert results == [f"{tmp_path / name} {value}"] * 3
        assert sorted(os.listdir()) == ["a", "b", "c"]


def disturb(task: int) -> str:
    """Return what the task has around it, and leave something else behind, as each third one does."""
    found = f"{os.getcwd()} {os.environ.get(VARIABLE)}"
    if task % 3 == 0:
        os.chdir("/")
    elif task % 3 == 1:
        os.environ[VARIABLE] = "other"
    elif task % 100 == 2:  # as a library of C does, which Python does not notice
        end = time.perf_counter() + 0.002
        ctypes.CDLL(None).chdir(b"/")
        while time.perf_counter() < end:
            pass
    return found


def test_small_tasks_do_not_see_what_others_have_left(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of many tasks that travel together begins in the program's folder and with its variables."""
    if backend in ("seq", "threads"):
        pytest.skip("tasks in the program's own process change that")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "small")
    results = multi_process(disturb, range(2_000), backend=backend, num_workers=2, progress=False)
    assert set(results) == {f"{tmp_path} small"}


def import_module(name: str) -> Any:
    """Return the value of a module that only the program's import path leads to."""
    return __import__(name).VALUE


def test_each_run_has_the_import_path_of_its_time(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that the program has put on ``sys.path``, relative or not, is there for a task's imports."""
    monkeypatch.chdir(tmp_path)
    for name, entry in (
        ("around_first", f"{tmp_path}/lib"),
        ("around_second", backend),
        ("around_third", ""),
    ):
        folder = tmp_path / entry
        folder.mkdir(exist_ok=True)
        (folder / f"{name}_{backend}.py").write_text(f"VALUE = {name!r}\n")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [*sys.path, entry])
            modules = [f"{name}_{backend}"] * 3
            assert multi_process(import_module, modules, backend=backend, progress=False) == [name] * 3


def relative_rows(dataset: Dataset, output_path: str, suffix: str) -> Dataset:
    """Read a file beside the program, whatever the folder of an earlier shard became."""
    text = Path("vocabulary").read_text()
    return Dataset.from_list([{"text": f"{row['x']}{text}{os.environ[VARIABLE]}{suffix}"} for row in dataset])


def test_shards_have_the_folder_and_the_variables_of_their_run(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards of a dataset read relative paths, and variables, as the program would."""
    data = Dataset.from_dict({"x": [0, 1, 2]})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Path("vocabulary").write_text(name)
        monkeypatch.setenv(VARIABLE, f"-{name}")
        out = multi_process_dataset(
            data, relative_rows, "out", {"suffix": "."}, num_workers=2, backend=backend, progress=False
        )
        assert out == str(tmp_path / name / "out")
        assert load_from_disk("out")["text"][:] == [f"{i}{name}-{name}." for i in range(3)]


def leave(folder: str) -> None:
    """Go to another folder, and return nothing."""
    os.chdir(folder)


def test_a_relative_output_is_where_the_program_was(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that leave the current folder change nothing about where the output appears."""
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Dataset.from_dict({"x": [0, 1, 2]}).save_to_disk("in")

    def leaves(dataset: Dataset, output_path: str) -> Dataset:
        leave(str(elsewhere))
        return dataset

    multi_process_dataset("in", leaves, "out", num_workers=2, backend=backend, progress=False)
    assert load_from_disk(str(tmp_path / "out"))["x"][:] == [0, 1, 2]
    assert os.listdir(elsewhere) == []
