"""What Ray, and a ``runtime_env``, set in a worker stays; and a worker gets its own surroundings back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from speedy_utils import TaskError, __version__, multi_process

pytestmark = pytest.mark.ray

NAMES = ("SU_FIRST", "SU_SECOND", "OMP_NUM_THREADS", "RAY_JOB_ID", "PYTHONBREAKPOINT")


def around(_: Any = None) -> tuple[str, list[str | None], list[str]]:
    """Return what a task has around it."""
    return os.getcwd(), [os.environ.get(name) for name in NAMES], list(sys.path)


def test_a_worker_gets_its_own_back(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run, Ray tasks of the program's own have the folder, variables and import path of before."""
    import ray

    def with_process(_: Any = None) -> tuple[int, Any]:
        return os.getpid(), around()

    task = ray.remote(with_process)
    before = dict(ray.get([task.remote() for _ in range(8)]))
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.setenv(name, "program")
    monkeypatch.syspath_prepend(tmp_path)
    in_run = multi_process(with_process, [1, 2, 3], num_workers=1, progress=False)
    for process, (folder, variables, path) in in_run:
        assert (folder, variables[:2], path[0]) == (str(tmp_path), ["program"] * 2, str(tmp_path))
        assert variables[2:] == before.get(process, in_run[0][1])[1][2:]  # Ray's own
        assert "program" not in variables[2:]
    after = dict(ray.get([task.remote() for _ in range(8)]))
    assert {process: before.get(process, state) for process, state in after.items()} == after
    for folder, variables, path in after.values():
        assert folder != str(tmp_path)
        assert "program" not in variables
        assert str(tmp_path) not in path


def test_a_runtime_env_wins(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of a ``runtime_env`` are kept, and all else is the program's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SU_FIRST", "program")
    monkeypatch.setenv("SU_SECOND", "program")
    options = {"runtime_env": {"env_vars": {"SU_FIRST": "cluster"}}}
    folder, variables, _ = multi_process(around, [1], ray_options=options, progress=False)[0]
    assert (folder, variables[:2]) == (str(tmp_path), ["cluster", "program"])


class RemovesFolder:
    """Removes the current folder when it is pickled, as a machine has it that does not share it."""

    def __reduce__(self) -> tuple[Any, ...]:
        Path.cwd().rmdir()
        return eval, ("lambda item: __import__('os').getcwd()",)

    def __call__(self, item: int) -> str:
        """Return the current folder."""
        return os.getcwd()


def test_a_folder_that_a_worker_lacks_is_named_once(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the program's folder is missing, tasks run in the worker's own, and one warning names both."""
    (tmp_path / "program").mkdir()
    monkeypatch.chdir(tmp_path / "program")
    (own,) = set(multi_process(RemovesFolder(), range(6), num_workers=2, progress=False))
    assert own != str(tmp_path / "program")
    (warning,) = [record.message for record in caplog.records if record.name == "speedy_utils"]
    assert f"(node {node_of_this_machine()})" in warning
    assert f"folder '{tmp_path}/program'" in warning
    assert repr(own) in warning


def node_of_this_machine() -> str:
    """Return the beginning of the id of the only node."""
    import ray

    return str(ray.nodes()[0]["NodeID"])[:8]


@pytest.mark.parametrize(
    ("package", "found"),
    [
        ("raise ImportError('it is gone')", "it is gone"),
        ("__version__ = '0.0.1'", "0.0.1"),
    ],
)
def test_a_worker_without_this_package_says_what_to_do(
    ray_session: None, tmp_path: Path, package: str, found: str
) -> None:
    """A worker that lacks this package, or has another version, fails its tasks with one line: the cure."""
    folder = tmp_path / "speedy_utils"
    files = {
        "__init__.py": package,
        "_ray/__init__.py": "",
        "_ray/worker.py": "run_shared_chunk = None",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    options = {"runtime_env": {"env_vars": {"PYTHONPATH": str(tmp_path)}}}
    with pytest.raises(TaskError) as caught:
        multi_process(around, [1], ray_options=options, progress=False)
    assert f"lacks speedy_utils {__version__}" in caught.value.reason
    assert found in caught.value.reason
    assert 'ray.init(runtime_env={"py_modules": [speedy_utils]})' in caught.value.reason
    assert caught.value.traceback == ""
