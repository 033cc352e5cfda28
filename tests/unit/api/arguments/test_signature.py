"""What is said of a function that can't be called with its item and arguments, before any worker starts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from speedy_utils import multi_process


def scaled(x: float, k: int = 1) -> float:
    """Take an item and an argument that may be left out."""
    return x * k


def asked(config: dict[str, Any], prompt: str) -> str:
    """Take the item as the second parameter."""
    return prompt


def described(x: int, desc: str) -> int:
    """Take an argument that the run takes itself."""
    return x


def maybe_described(x: int, desc: str = "none") -> str:
    """Take an argument that the run takes itself, and that may be left out."""
    return desc


def added(a: int, b: int) -> int:
    """Take two arguments."""
    return a + b


class Model:
    """A class whose instances can be called: each worker makes one."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def __call__(self, x: int) -> int:
        """Return a multiple of the item."""
        return x * self.size


def run(func: Callable[..., Any], items: Any, **options: Any) -> list[Any]:
    """Run one after another, and show nothing."""
    return multi_process(func, items, backend="seq", progress=False, **options)


@pytest.mark.parametrize(
    ("func", "items", "options", "said"),
    [
        (scaled, [1], {"workers": 8}, "parameter 'workers': did you mean num_workers=8?"),
        (scaled, [1], {"n_jobs": -1}, "parameter 'n_jobs': did you mean num_workers=-1?"),
        (scaled, [1], {"max_workers": 8}, "did you mean num_workers=8?"),
        (scaled, [1], {"processes": 8}, "did you mean num_workers=8?"),
        (scaled, [1], {"concurrency": 8}, "did you mean num_workers=8?"),
        (scaled, [1], {"num_worker": 8}, "did you mean num_workers=8?"),
        (
            scaled,
            [1],
            {"kk": 8},
            "neither the run nor scaled(x, k=1) has a parameter 'kk': did you mean k=8?",
        ),
        (scaled, [1], {"colour": 8}, "neither the run nor scaled(x, k=1) has a parameter 'colour'"),
        (asked, ["hi"], {"config": {}}, "Each item is the first argument, which is 'config'"),
        (asked, ["hi"], {}, "asked(config, prompt) can't be called with an item, 'hi': missing a required"),
        (
            described,
            [1],
            {"desc": "Bar"},
            "The run takes desc= itself: rename the parameter, or pass functools",
        ),
        (added, [(1, 2)], {}, "If each item is a tuple of arguments, pass star=True"),
        (added, [{"a": 1, "b": 2}], {}, "If each item is a mapping of keywords, pass star=True"),
        (added, [(1, 2, 3)], {"star": True}, "an item, (1, 2, 3): too many positional arguments"),
        (added, [{"a": 1, "b": 2}], {"star": True, "b": 3}, "'b' is both in the first item"),
        (
            added,
            [1],
            {"star": True},
            "item 0 must be a tuple of arguments or a mapping of keywords, not 1 (int)",
        ),
        (
            added,
            ["ab"],
            {"star": True},
            "item 0 must be a tuple of arguments or a mapping of keywords, not 'ab'",
        ),
        (Model, [3], {"sizes": 3}, "Model(size=1) has a parameter 'sizes': did you mean size=3?"),
        (lambda: 1, [1], {}, "<lambda>() can't be called with an item, 1: too many positional arguments"),
        (lambda *, x: x, [1], {}, "Each item is the first argument: give the function a positional param"),
        (scaled, [1], {"disable": True}, "did you mean progress=False?"),
    ],
)
def test_a_call_that_can_not_be_made_is_an_error(
    func: Callable[..., Any], items: Any, options: dict[str, Any], said: str
) -> None:
    """The error names the function with its parameters, what does not fit, and what was probably meant."""
    with pytest.raises(TypeError) as caught:
        run(func, items, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("func", "items", "options", "result"),
    [
        (scaled, [2], {"k": 3}, [6]),
        (asked, ["hi"], {"prompt": "given"}, ["given"]),
        (functools.partial(described, desc="mine"), [1], {"desc": "Bar"}, [1]),
        (functools.partial(added, 1), [1], {}, [2]),
        (lambda *args, **options: (args, options), [1], {"workers": 8}, [((1,), {"workers": 8})]),
        (int, ["17"], {"base": 8}, [15]),
        (max, [[1, 2]], {}, [2]),
        (Model(2), [3], {}, [6]),
        (Model, [3], {"size": 3}, [9]),
        (added, [(1, 2), {"a": 3, "b": 4}, [5, 6]], {"star": True}, [3, 7, 11]),
        (added, [{"a": 3}], {"star": True, "b": 4}, [7]),
        (added, [iter((1, 2))], {"star": True}, [3]),
    ],
)
def test_a_call_that_can_be_made_is_made(
    func: Callable[..., Any], items: Any, options: dict[str, Any], result: list[Any]
) -> None:
    """What a function takes it gets, whatever kind of callable it is."""
    assert run(func, items, **options) == result


def test_an_argument_that_goes_to_the_run_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A parameter that the run takes, and that may be left out, is warned of if the run was given one."""
    assert run(maybe_described, [1]) == ["none"]
    assert not caplog.messages
    assert run(maybe_described, [1], desc="Bar") == ["none"]
    (said,) = caplog.messages
    assert said.startswith(
        "desc='Bar' is the run's own argument, and the parameter 'desc' of maybe_described(x, "
    )
    assert said.endswith("keeps its default: to set that, pass functools.partial(func, desc=...)")


def test_total_items_of_a_call_with_many_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """With star=True a function of one of the items gets the whole item."""
    seen: list[Any] = []
    assert run(added, [(1, 2)], star=True, total_items=lambda item: seen.append(item) or 3) == [3]
    assert seen == [(1, 2)]
