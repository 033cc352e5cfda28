"""What a worker in another process sends back: an outcome, and what the user's code has made, packed."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import NamedTuple

from ..task import Failure, Outcome
from .pickling import ProjectPickler
from .shipment import PLAIN_TYPES, Packed, pack_result


class Sent(NamedTuple):
    """What a task sends back.

    Attributes:
        outcome: Its outcome, without what the user's code has made.
        value: What the function returned; None if it failed, or that is plain and in the outcome.
        error: Its exception; None if there was none, or it can't be sent.
        differences: What the worker has otherwise than the program: names, each with a sentence.
        printed: How much it has printed: its process, and the bytes on stdout and on stderr.
    """

    outcome: Outcome
    value: Packed | None = None
    error: Packed | None = None
    differences: tuple[tuple[str, str], ...] = ()
    printed: tuple[int, int, int] = (0, 0, 0)


def pack_outcome(pickler: type[ProjectPickler], outcome: Outcome, address: str) -> Sent:
    """Pack what the user's code has made.

    Args:
        pickler: Pickles for the program.
        outcome: The outcome of an attempt.
        address: Where it ran, for the failure of one whose worker was lost.
    """
    failure = outcome.failure
    if failure is None and type(outcome.value) in PLAIN_TYPES:
        return Sent(outcome)
    if failure is None:
        try:
            packed = pack_result(pickler, outcome.value)
        except Exception as error:  # pickling is code of the user's classes
            reason = f"its result could not be sent back: {first_line(error)}"
            return Sent(Outcome(failure=Failure(reason, "".join(traceback.format_exception(error)))))
        return Sent(replace(outcome, value=None), packed)
    if failure.worker_lost:
        failure = replace(failure, reason=f"{failure.reason} [{address}]")
    sent = replace(outcome, failure=replace(failure, error=None))
    return Sent(sent, None, _pack_error(pickler, failure.error))


def unpack_outcome(sent: Sent) -> Outcome:
    """Return the outcome that a task has sent, with its value or its exception."""
    outcome, value, error, *_ = sent
    failure = outcome.failure
    try:
        if failure is None and value is not None:
            return replace(outcome, value=value.load())
        if failure is not None and error is not None:
            return replace(outcome, failure=replace(failure, error=error.load()))
    except Exception as unread:  # loading a pickle is code of the user's classes, and may raise anything
        if failure is None:
            text = "".join(traceback.format_exception(unread))
            return Outcome(
                failure=Failure(f"its result could not be read: {first_line(unread)}", text, unread)
            )
    return outcome


def unread(what: str, error: Exception) -> Sent:
    """Return what a task sends whose function or item its worker can't read."""
    text = "".join(traceback.format_exception(error))
    return Sent(Outcome(failure=Failure(f"{what} could not be read in a worker: {first_line(error)}", text)))


def first_line(error: BaseException) -> str:
    """Return the type of an exception, and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _pack_error(pickler: type[ProjectPickler], error: BaseException | None) -> Packed | None:
    """Pack an exception, alone if those that have led to it can't be; return None if it can't be itself."""
    if error is None:
        return None
    try:
        packed = pack_result(pickler, error)
        packed.load()  # with a `__reduce__` of its own it may only pickle
    except Exception:  # its pickling is the user's code, and may raise anything; the text is sent anyway
        if error.__cause__ is error.__context__ is None:
            return None
        error.__cause__ = error.__context__ = None
        return _pack_error(pickler, error)
    return packed
