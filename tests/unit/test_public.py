"""What users import, and the errors that they get."""

from __future__ import annotations

import doctest
import importlib
import logging
import pickle
import pkgutil
import subprocess
import sys
from importlib import resources
from typing import Any

import pytest

import speedy_utils
from speedy_utils import TaskError, testing


def test_every_public_name_is_there() -> None:
    """All public names, and no others, can be imported, also by ``*``, are listed, and are documented."""
    assert testing.__all__ == ["FailingSink", "FakeClock", "RecordingDisplay", "RecordingSink"]
    names: dict[str, Any] = {}
    exec("from speedy_utils import *", names)
    del names["__builtins__"]
    assert sorted(names) == sorted(speedy_utils.__all__) == sorted(speedy_utils._HOMES)
    assert names.keys() <= set(dir(speedy_utils))
    for name, value in names.items():
        assert value is getattr(speedy_utils, name)
        assert value.__name__ == name
        assert value.__doc__
    with pytest.raises(AttributeError, match="module 'speedy_utils' has no attribute 'multiprocess'"):
        speedy_utils.multiprocess  # noqa: B018 - asking is the test


WITHOUT_EXAMPLE = {
    *("ShardError", "MergeError", "FailedShardsError", "ResumeError", "BusyError"),  # a message, no more
    "create_progress_tracker",  # needs a Ray
}
PUBLIC = [(module, name) for module in (speedy_utils, testing) for name in module.__all__]


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda value: getattr(value, "__name__", value))
def test_public_objects_name_their_module_and_have_an_example(module: Any, name: str) -> None:
    """``__module__`` is where to import it from; the example runs as it stands and prints what it says."""
    assert getattr(module, name).__module__ == module.__name__
    # pytest collects the doctests of a module only from objects whose __module__ is that module.
    tests = doctest.DocTestFinder().find(getattr(module, name), name, module=False, globs={})
    assert any(test.examples for test in tests) is (name not in WITHOUT_EXAMPLE)
    for test in tests:
        doctest.DebugRunner().run(test)


def test_loggers_have_public_names() -> None:
    """The names of the loggers are part of the interface, and say nothing of how modules are arranged."""
    names = [name for _, name, _ in pkgutil.walk_packages(speedy_utils.__path__, "speedy_utils.")]
    values = [value for name in names for value in vars(importlib.import_module(name)).values()]
    loggers = {value.name for value in values if isinstance(value, logging.Logger)}
    assert loggers == {"speedy_utils", "speedy_utils.progress"}


SEQUENTIAL = """
from speedy_utils import multi_process
assert multi_process(abs, [-1], backend="seq", progress=False) == [1]
"""
COUNT_WORKERS = """
import os; os.environ.pop("RAY_ADDRESS", None)  # where no Ray can be running
from speedy_utils._engines.base import engine_class
from speedy_utils._engines.cpus import cpus
assert engine_class("ray").default_workers() == cpus()
"""
HEAVY = {"ray", "datasets", "pandas", "numpy", "pyarrow", "tqdm", "wrapt", "asyncio"}


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import speedy_utils", set()),
        ("from speedy_utils import report_progress, track, TaskError, Snapshot", set()),
        ("from speedy_utils import set_progress_context, ProgressActor, create_progress_tracker", set()),
        ("from speedy_utils import tracked", {"wrapt", "asyncio"}),
        ("from speedy_utils.testing import RecordingSink\nwith RecordingSink(): pass", set()),
        ("from speedy_utils import *", {"wrapt", "tqdm", "asyncio"}),
        (SEQUENTIAL, {"wrapt", "tqdm", "asyncio"}),
        (COUNT_WORKERS, HEAVY - {"ray", "datasets"}),
    ],
)
def test_imports_are_light(code: str, allowed: set[str]) -> None:
    """Neither Ray nor datasets, nor anything else that is slow, is imported before it is needed."""
    check = f"\nimport sys\nprint(*{HEAVY!r} & set(sys.modules))"
    command = [sys.executable, "-W", "error", "-c", code + check]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) <= allowed
    assert done.stderr == ""


def test_types_are_shipped() -> None:
    """The package has the marker file of typed packages."""
    assert resources.files("speedy_utils").joinpath("py.typed").is_file()


def test_task_error_says_what_failed_also_if_it_was_pickled() -> None:
    """The text names task, item, attempts and reason, and has the worker's traceback."""
    error = TaskError(3, {"a": 1}, 1, "ValueError: no", "Traceback (…):\n  …\nValueError: no\n")
    assert isinstance(error, RuntimeError)
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert vars(each) == vars(error)
        assert str(each) == (
            "task 3 (item {'a': 1}) failed after 1 attempt: ValueError: no\n\n"
            "Traceback in the worker:\nTraceback (…):\n  …\nValueError: no"
        )
    assert str(TaskError(3, [1], 4, "lost")) == "task 3 (item [1]) failed after 4 attempts: lost"


def test_task_error_survives_its_item() -> None:
    """A huge item is cut, and one whose ``repr`` fails does not hide the error."""

    class Bad:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    assert len(str(TaskError(0, "x" * 10_000, 1, "no"))) < 300
    assert "<Bad whose repr raised ZeroDivisionError>" in str(TaskError(0, Bad(), 1, "no"))
