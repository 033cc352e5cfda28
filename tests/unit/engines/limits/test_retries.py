"""Which exceptions are worth another attempt, and how long that waits: pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils._engines.limits.retries import (
    MAX_WAIT_S,
    RetryPolicy,
    checked_retries,
    longest_wait,
    retry_after,
)

seconds = st.just(0.0) | st.floats(0.001, 1e6)
attempts = st.integers(1, 2000)


def asking(after: Any) -> ConnectionError:
    """Return the error of a server that says when it wants to be asked again."""
    error = ConnectionError("429")
    error.retry_after = after  # type: ignore[attr-defined]
    return error


@given(attempts, seconds, seconds)
def test_a_wait_lies_between_what_the_server_asks_for_and_the_limit(
    attempt: int, first: float, after: float
) -> None:
    """Jitter takes any part of the longest wait, and never falls below the error's retry_after."""
    policy = RetryPolicy(on=(OSError,), wait=first)
    wait = policy.wait_after(attempt, asking(after))
    assert wait is not None
    assert after <= wait <= max(after, longest_wait(attempt, first))


@given(attempts, seconds)
def test_the_longest_wait_doubles_up_to_a_minute(attempt: int, first: float) -> None:
    """It is never shorter than the one before, nor longer than a minute or what the caller asked for."""
    longest = longest_wait(attempt, first)
    assert longest_wait(1, first) == first
    assert first <= longest <= max(first, MAX_WAIT_S)
    assert longest_wait(attempt + 1, first) == min(2 * longest, max(first, MAX_WAIT_S))


def test_waits_are_spread() -> None:
    """A thousand tasks that fail together come back at different times, from at once on."""
    policy = RetryPolicy(on=(OSError,), wait=8.0)
    waits = [policy.wait_after(1, OSError()) or 0.0 for _ in range(1000)]
    assert all(any(low <= wait <= low + 1 for wait in waits) for low in range(8))


@pytest.mark.parametrize(
    ("on", "retried"),
    [
        ((), []),
        (OSError, [OSError(), ConnectionResetError(), TimeoutError()]),
        ((KeyError, ConnectionError), [ConnectionResetError(), KeyError("key")]),
        (lambda error: "503" in str(error), [ValueError("503")]),
    ],
)
def test_types_and_functions_choose_what_is_tried_again(on: Any, retried: list[Exception]) -> None:
    """Subclasses are tried again too; a function is asked about each exception."""
    errors = [*retried, ValueError("400"), RuntimeError()]
    policy = checked_retries(on, 0)
    assert [error for error in errors if policy.wait_after(1, error) is not None] == retried


def test_a_function_says_how_long_to_wait() -> None:
    """It gets the number of the attempt that failed and its exception; the server's wish holds beside it."""
    policy = RetryPolicy(on=OSError, wait=lambda attempt, error: 10.0 * attempt + len(error.args))
    assert policy.wait_after(2, OSError(1)) == 21.0
    assert policy.wait_after(2, asking(30)) == 30.0


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (1.5, 1.5),
        ("20", 20.0),
        (timedelta(minutes=1), 60.0),
        (None, 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (-1, 0.0),
        (float("nan"), 0.0),
        (float("inf"), 0.0),
        (1_764_450_000, 0.0),
        ([3], 0.0),
    ],
)
def test_retry_after_is_seconds(after: Any, expected: float) -> None:
    """Numbers, texts of numbers and timedeltas are seconds to wait; the rest is ignored."""
    assert retry_after(asking(after)) == expected


def test_an_attribute_that_fails_is_no_wish() -> None:
    """An exception whose retry_after raises is tried again all the same."""

    class NosyError(Exception):
        @property
        def retry_after(self) -> float:
            raise KeyError("no")

    assert retry_after(NosyError()) == retry_after(ValueError()) == 0.0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("ConnectionError", 1), TypeError, "retry_on must be a tuple of exception types, or a function"),
        ((True, 1), TypeError, r"not True: \(Exception,\) for all"),
        (((OSError, "x"), 1), TypeError, "retry_on must hold types of exceptions, not 'x'"),
        (([int], 1), TypeError, "retry_on must hold types of exceptions, not <class 'int'>"),
        ((int, 1), TypeError, "retry_on must hold types of exceptions, not <class 'int'>"),
        (((), "1"), TypeError, r"retry_wait must be a number of seconds, not '1' \(str\)"),
        (((), True), TypeError, "retry_wait must be a number of seconds"),
        (((), -1), ValueError, "retry_wait must be at least 0 seconds, and finite, not -1"),
        (((), float("nan")), ValueError, "not nan"),
        (((), float("inf")), ValueError, "not inf"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    """What can't be meant is an error that names the argument and its value."""
    with pytest.raises(error, match=text):
        checked_retries(*arguments)


@pytest.mark.parametrize("returned", [None, "1", -1.0, float("nan")])
def test_what_a_function_returns_is_checked(returned: Any) -> None:
    """A retry_wait that returns no time to wait raises, and says so."""
    policy = RetryPolicy(on=OSError, wait=lambda attempt, error: returned)
    with pytest.raises((TypeError, ValueError), match="what retry_wait returns must be"):
        policy.wait_after(1, OSError())
