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
    """All names of ``__all__`` can be imported, are listed, and are documented."""
    assert len(set(speedy_utils.__all__)) == len(speedy_utils.__all__)
    for name in speedy_utils.__all__:
        value = getattr(speedy_utils, name)
        assert value.__name__ == name
        assert value.__doc__
        assert name in dir(speedy_utils)
    assert set(speedy_utils._HOMES) == set(speedy_utils.__all__)


WITHOUT_EXAMPLE = {
    *("ShardError", "MergeError", "FailedShardsError", "ResumeError", "BusyError"),  # a message, no more
    "create_progress_tracker",  # needs a Ray
}
PUBLIC = [(module, name) for module in (speedy_utils, testing) for name in module.__all__]


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda value: getattr(value, "__name__", value))
def test_public_objects_name_the_module_to_import_them_from(module: Any, name: str) -> None:
    """What is public says so by its ``__module__``, wherever it is defined."""
    assert getattr(module, name).__module__ == module.__name__


@pytest.mark.parametrize(("module", "name"), PUBLIC, ids=lambda value: getattr(value, "__name__", value))
def test_examples_of_public_objects_run_as_they_stand(module: Any, name: str) -> None:
    """The example in each public docstring imports what it uses, and prints what it says.

    pytest collects the doctests of a module only from objects whose ``__module__`` is that module.
    """
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


def test_star_import_gives_the_public_names() -> None:
    """``from speedy_utils import *`` gives exactly ``__all__``."""
    names: dict[str, object] = {}
    exec("from speedy_utils import *", names)
    assert set(names) - {"__builtins__"} == set(speedy_utils.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there is the usual error."""
    with pytest.raises(AttributeError, match="module 'speedy_utils' has no attribute 'multiprocess'"):
        speedy_utils.multiprocess  # noqa: B018 - asking is the test


SEQUENTIAL = """
from speedy_utils import multi_process
assert multi_process(abs, [-1], backend="seq", progress=False) == [1]
"""
HEAVY = ("ray", "datasets", "pandas", "numpy", "pyarrow", "tqdm", "wrapt", "asyncio")


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import speedy_utils", ()),
        ("from speedy_utils import report_progress, track, TaskError, Snapshot", ()),
        ("from speedy_utils import set_progress_context, ProgressActor, create_progress_tracker", ()),
        ("from speedy_utils import tracked", ("wrapt", "asyncio")),
        ("from speedy_utils.testing import RecordingSink\nwith RecordingSink(): pass", ()),
        ("from speedy_utils import *", ("wrapt", "tqdm", "asyncio")),
        (SEQUENTIAL, ("wrapt", "tqdm", "asyncio")),
    ],
)
def test_imports_are_light(code: str, allowed: tuple[str, ...]) -> None:
    """Neither Ray nor datasets, nor anything else that is slow, is imported before it is needed."""
    check = f"\nimport sys\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + check],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(done.stdout.split()) <= set(allowed)
    assert done.stderr == ""


def test_ray_is_not_imported_to_count_workers() -> None:
    """Where no Ray can be running, a run knows its workers without importing one: its bar is there first."""
    code = (
        "import os, sys; os.environ.pop('RAY_ADDRESS', None)\n"
        "from speedy_utils._engines.base import cpus, engine_class\n"
        "print(engine_class('ray').default_workers() == cpus(), 'ray' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "True False\n"


def test_types_are_shipped() -> None:
    """The package has the marker file of typed packages."""
    assert resources.files("speedy_utils").joinpath("py.typed").is_file()


def test_task_error_says_what_failed() -> None:
    """The text names task, item, attempts and reason, and has the worker's traceback."""
    error = TaskError(
        3, "item", 1, "ValueError: no", "Traceback (most recent call last):\n  …\nValueError: no\n"
    )
    assert str(error) == (
        "task 3 (item 'item') failed after 1 attempt: ValueError: no\n\n"
        "Traceback in the worker:\nTraceback (most recent call last):\n  …\nValueError: no"
    )
    assert str(TaskError(3, [1], 4, "lost")) == "task 3 (item [1]) failed after 4 attempts: lost"
    assert isinstance(error, RuntimeError)


def test_task_error_pickles() -> None:
    """A task error that was pickled has all its attributes and its text."""
    error = TaskError(3, {"a": 1}, 2, "lost", "trace")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.index, copy.item, copy.attempts, copy.reason, copy.traceback) == (
        3,
        {"a": 1},
        2,
        "lost",
        "trace",
    )
    assert str(copy) == str(error)


def test_task_error_survives_its_item() -> None:
    """A huge item is cut, and one whose ``repr`` fails does not hide the error."""

    class Bad:
        def __repr__(self) -> str:
            raise ZeroDivisionError

    assert len(str(TaskError(0, "x" * 10_000, 1, "no"))) < 300
    text = str(TaskError(0, Bad(), 1, "no"))
    assert "<Bad whose repr raised ZeroDivisionError>" in text
