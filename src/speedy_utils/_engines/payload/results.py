"""What a worker in another process sends back: an outcome, and what the user's code has made, packed."""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from ..._validation import first_line, shorten
from ..task import Failure, Outcome, plain_text
from .pickling import ProjectPickler
from .rebuild import make_exception
from .shipment import PLAIN_TYPES, Packed, pack_result
from .unsent import find_culprit


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
            culprit = find_culprit("result", outcome.value, error, pickler)
            listed = isinstance(culprit.value, Iterator) and not isinstance(culprit.value, io.IOBase)
            advice = "a list of it" if listed else "plain values in place of it"
            return Sent(
                Outcome(failure=Failure(f"its result can't be sent back: {culprit}: return {advice}"))
            )
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
    trace = error.__traceback__
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith(_OURS):
        trace = trace.tb_next  # what is left is the user's code
    text = (
        "" if trace is None else plain_text("".join(traceback.format_exception(error.with_traceback(trace))))
    )
    return Sent(Outcome(failure=Failure(f"{what} could not be read in a worker: {first_line(error)}", text)))


_OURS = f"{__name__.partition('.')[0]}."


def _pack_error(pickler: type[ProjectPickler], error: BaseException | None) -> Packed | None:
    """Pack an exception, or as much of it as can be; return None if its type can't be.

    At first those that have led to it are left out, then attributes that can't be pickled.
    """
    if error is None or (packed := _packed(pickler, error)) is not None:
        return None if error is None else packed
    error.__cause__ = error.__context__ = None
    if (packed := _packed(pickler, error)) is not None:
        return packed
    try:
        arguments = [each if _packed(pickler, each) else shorten(each) for each in error.args]
        bare = make_exception(type(error), tuple(arguments))
        vars(bare).update((name, each) for name, each in vars(error).items() if _packed(pickler, each))
    except Exception:  # code of the user's class, which may raise anything
        return None
    return _packed(pickler, bare)


def _packed(pickler: type[ProjectPickler], value: Any) -> Packed | None:
    try:
        packed = pack_result(pickler, value)
        packed.load()  # with a `__reduce__` of its own it may only pickle
    except Exception:  # its pickling is the user's code, and may raise anything; the text is sent anyway
        return None
    return packed
