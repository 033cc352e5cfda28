"""The options that all ways to run share are checked, and made plain, before anything starts."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest

from speedy_utils import multi_process
from speedy_utils._api.arguments.options import ALIASES, Backend, RunOptions
from speedy_utils._engines.base import ENGINES, engine_class
from speedy_utils._engines.cpus import cpus
from speedy_utils._engines.in_process.threads import ThreadEngine
from speedy_utils._engines.task import TaskSettings


def test_the_backends_are_those_that_have_an_engine() -> None:
    """The type of ``backend`` names each engine and each alias, and no others."""
    assert {*get_args(Backend)} == {*ENGINES, *ALIASES}
    assert {*ALIASES.values()} <= {*ENGINES}


def test_threads_have_a_silent_alias() -> None:
    """``"mp"`` is another name for ``"threads"``, of which nothing is left once it was given."""
    assert RunOptions(backend="mp") == RunOptions(backend="threads")
    assert isinstance(RunOptions(backend="mp").engine(abs, {}, 1, TaskSettings()), ThreadEngine)
    assert multi_process(abs, [-1, 2], backend="mp", num_workers=2, progress=False) == [1, 2]


@pytest.mark.parametrize("backend", ["spark", "MP", "", 3, ["seq"]])
def test_an_unknown_backend_is_an_error_that_lists_the_known_ones(backend: Any) -> None:
    """The error shows what was given and the names, without aliases, that are allowed."""
    known = "backend must be one of 'ray', 'processes', 'threads', 'seq', not "
    with pytest.raises(ValueError, match=known) as caught:
        RunOptions(backend=backend)
    assert str(caught.value).endswith(repr(backend))


def test_options_are_made_plain() -> None:
    """NumPy's integers become Python's, an empty name None, and options for Ray a dict of their own."""
    given = {"num_cpus": 1}
    two: Any = np.int64(2)
    options = RunOptions(num_workers=two, max_retries=two, desc="", unit="", ray_options=given)
    assert [type(options.num_workers), type(options.max_retries)] == [int, int]
    assert (options.desc, options.unit, options.ray_options) == (None, None, given)
    assert options.ray_options is not given
    assert RunOptions().ray_options == {}


def test_options_do_not_change() -> None:
    """What was checked stays as it is."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunOptions().leave = False  # type: ignore[misc] - that is the test


@pytest.mark.parametrize("backend", ["threads", "seq"])
def test_as_many_workers_as_cpus_unless_a_number_is_given(backend: str) -> None:
    """Without a number the engine says how many workers there are."""
    assert RunOptions(backend=backend).workers() == engine_class(backend).default_workers() == cpus()
    assert RunOptions(backend=backend, num_workers=3).workers() == 3
