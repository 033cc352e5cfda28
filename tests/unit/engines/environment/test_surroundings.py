"""The program's folder, environment and import path hold for a task, and then the worker's own again."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import environment

from speedy_utils._engines.environment.surroundings import SearchPath, Surroundings

LIBRARY, PACKAGES = os.__file__.rpartition(os.sep)[0], sysconfig.get_path("purelib")


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Restore this process's folder and import path, and stand in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    own = list(sys.path)
    yield
    sys.path[:] = own


def test_a_block_has_the_program_s_folder_variables_and_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold within the block, a removed variable is missing there, and afterwards all is as before."""
    folder = tmp_path / "program"
    folder.mkdir()
    monkeypatch.setenv("REMOVED", "here")
    monkeypatch.setenv("CHANGED", "here")
    path = list(sys.path)
    program = Surroundings(
        str(folder), {"REMOVED": None, "CHANGED": "there", "ADDED": "there"}, SearchPath(first=(str(folder),))
    )
    with pickle.loads(pickle.dumps(program)).applied():
        assert Path.cwd() == folder
        assert [os.environ.get(name) for name in program.variables] == [None, "there", "there"]
        assert sys.path == [str(folder), *path]
    assert Path.cwd() == tmp_path
    assert [os.environ.get(name) for name in program.variables] == ["here", "here", None]
    assert sys.path == path


def test_what_a_task_leaves_changed_is_set_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that changes its folder or a variable of the program changes them for no other task."""
    monkeypatch.setenv("CHANGED", "own")
    program = Surroundings(str(tmp_path), {"CHANGED": "program"})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for _ in range(2):
        with program.applied():
            assert (Path.cwd(), os.environ["CHANGED"]) == (tmp_path, "program")
            os.chdir(elsewhere)
            os.environ["CHANGED"] = "task"
        assert (Path.cwd(), os.environ["CHANGED"]) == (tmp_path, "own")


def test_all_is_set_anew_between_two_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the task before has done, as often as one does."""
    monkeypatch.setenv("CHANGED", "own")
    monkeypatch.delenv("REMOVED", raising=False)
    (tmp_path / "program").mkdir()
    program = Surroundings(f"{tmp_path}/program", {"CHANGED": "program", "REMOVED": None})
    open_files = len(os.listdir("/dev/fd"))
    with program.applied() as renew:
        for leave in (lambda: os.chdir(tmp_path), lambda: os.environ.pop("CHANGED"), dict) * 2:
            leave()
            os.environ["REMOVED"] = "task"
            renew()
            assert (os.getcwd(), os.environ["CHANGED"]) == (f"{tmp_path}/program", "program")
            assert "REMOVED" not in os.environ
    assert len(os.listdir("/dev/fd")) == open_files


def test_a_block_leaves_what_the_worker_had_before_that_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where something else has run between two tasks, what that has left is there after the second."""
    monkeypatch.setenv("CHANGED", "own")
    (tmp_path / "program").mkdir()
    block = Surroundings(f"{tmp_path}/program", {"CHANGED": "program"}, SearchPath(("/program",))).applied()
    own = list(sys.path)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        for change in (lambda: None, lambda: sys.path.append("/task"), lambda: os.environ.pop("CHANGED")):
            os.chdir(folder)
            monkeypatch.setenv("CHANGED", name)
            sys.path[:] = [*own, name]
            with block:
                assert (os.getcwd(), os.environ["CHANGED"]) == (f"{tmp_path}/program", "program")
                assert sys.path == ["/program", *own, name]
                change()
            assert (Path.cwd(), os.environ["CHANGED"]) == (folder, name)
            assert sys.path[: len(own) + 1] == [*own, name]


def test_what_a_task_adds_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that a task adds to the import path, and variables that it sets, stay in its worker."""
    monkeypatch.delenv("TASK", raising=False)
    own = list(sys.path)
    with Surroundings(paths=SearchPath(first=("/program",))).applied():
        sys.path.append("/task")
        monkeypatch.setenv("TASK", "1")
    assert sys.path == [*own, "/task"]
    assert os.environ["TASK"] == "1"


def test_a_task_that_fails_leaves_the_worker_s_own(tmp_path: Path) -> None:
    """An exception goes through, and the worker's folder and path are restored."""
    (tmp_path / "program").mkdir()
    own = list(sys.path)
    with (
        pytest.raises(ValueError, match="task"),
        Surroundings(f"{tmp_path}/program", {}, SearchPath(last=("/x",))).applied(),
    ):
        raise ValueError("task")
    assert (Path.cwd(), sys.path) == (tmp_path, own)


def test_a_folder_that_is_missing_leaves_a_task_where_it_is(tmp_path: Path) -> None:
    """Where the machine lacks the program's folder the worker's own holds, and the missing one is known."""
    program = Surroundings(f"{tmp_path}/missing")
    with program.applied():
        assert Path.cwd() == tmp_path
    assert program.missing_folder() == f"{tmp_path}/missing"
    assert Surroundings(str(tmp_path)).missing_folder() is None
    assert Surroundings().missing_folder() is None


def test_a_worker_whose_own_folder_is_gone_runs_tasks(tmp_path: Path) -> None:
    """A worker whose own folder was deleted works in the program's, and stays there."""
    (tmp_path / "own").mkdir()
    os.chdir(tmp_path / "own")
    (tmp_path / "own").rmdir()
    with Surroundings(str(tmp_path)).applied():
        assert Path.cwd() == tmp_path


def test_settings_of_the_worker_s_own_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker keeps the variables, the folder and the place of its own import path if it says so."""
    (tmp_path / "program").mkdir()
    monkeypatch.setenv("KEPT", "own")
    program = Surroundings(
        f"{tmp_path}/program", {"KEPT": "program", "NEW": "program"}, SearchPath(first=("/program", "/both"))
    )
    monkeypatch.setattr(sys, "path", ["/own", "/both"])
    with program.without(lambda name: name == "KEPT", folder=True, paths=True).applied():
        assert (Path.cwd(), os.environ["KEPT"], os.environ["NEW"]) == (tmp_path, "own", "program")
        assert sys.path == ["/own", "/both", "/program"]


def test_entries_stand_where_they_stood(tmp_path: Path) -> None:
    """Entries keep their place before the library, before the packages, or last, and are made absolute."""
    for name in ("script", "work", "vendored"):
        (tmp_path / name).mkdir()
    os.chdir(tmp_path / "work")
    entries = ["../script", LIBRARY, "", PACKAGES, "../vendored", "missing", "__editable__.hook", Path("x")]
    paths = SearchPath.of(entries)
    here = str(tmp_path)
    assert paths == ((f"{here}/script",), (f"{here}/work",), (f"{here}/vendored",))
    own = [f"{here}/vendored", "/rays", LIBRARY, f"{LIBRARY}/lib-dynload", PACKAGES]
    assert paths.merged(own) == [
        f"{here}/script",
        *("/rays", LIBRARY, f"{LIBRARY}/lib-dynload"),
        f"{here}/work",
        *(PACKAGES, f"{here}/vendored"),
    ]


CHANGES = """
import os
os.environ["EARLY"] = "1"
del os.environ["GONE"]
from speedy_utils._engines.environment.surroundings import Surroundings
os.environ["CHANGED"] = "2"
first = Surroundings.of_program().variables
print([first.get(name, "same") for name in ("EARLY", "GONE", "CHANGED", "SAME")])
os.environ["CHANGED"] = "0"
del os.environ["EARLY"]
second = Surroundings.of_program().variables
print([second.get(name, "same") for name in ("EARLY", "GONE", "CHANGED", "SAME")])
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the first environment is kept in /proc")
def test_variables_that_changed_since_the_program_began_travel(tmp_path: Path) -> None:
    """Those that changed before the import travel too, and so do those that are again what they were."""
    env = environment({"GONE": "0", "CHANGED": "0", "SAME": "0", "EARLY": None})
    done = subprocess.run(
        [sys.executable, "-c", CHANGES], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["['1', None, '2', 'same']", "[None, None, '0', 'same']"]


def test_values_of_variables_are_not_shown() -> None:
    """No ``repr`` shows the value of a variable: it may be a secret."""
    assert "secret" not in repr(Surroundings("/", {"TOKEN": "secret"}))


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system has one time zone a process")
def test_a_time_zone_holds_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """``TZ`` takes effect in the task, and the worker's own zone afterwards."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    with Surroundings(variables={"TZ": "XYZ-3"}).applied():
        assert time.tzname[0] == "XYZ"
    assert time.tzname[0] == "UTC"
    monkeypatch.undo()
    time.tzset()
